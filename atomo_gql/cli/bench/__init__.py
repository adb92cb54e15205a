"""`atomo-gql bench`: what this machine makes of the service, each figure beside its reference of the same run.

    figures.py    what a measurement is            rig.py       the servers and databases under measurement
    command.py    the command: rounds, progress    fill.py      jobs in bulk
    told.py       the outcome's form               drain.py     a worker process that empties a queue
    table.py      the outcome in the terminal      load.py, loops.py, worker.py, echo.py   processes of their own
    page.py       the outcome as a page
    plots.py      a scenario's plot: bars.py or curve.py, of the shapes in svg.py

The scenarios: paths.py, pickup.py, adversity.py, queries.py, workers.py, stages.py, watching.py, memory.py. Beside them
stands peer/, our side of a benchmark of many queues.
"""
