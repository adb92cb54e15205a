"""`make bench`: rates on this machine, each beside references that were measured in the same rounds.

    __main__.py   the command: rounds of all paths, interleaved      rig.py      the processes under measurement
    paths.py      what is measured, and the references               table.py    medians and ratios, shown and written
    load.py       the load generator, a process of its own           echo.py     the reference server
    worker.py     the no-op worker
    watching.py   a second command: latency and memory with thousands of sockets open

A machine is never quiet and never like another: read the ratios, and compare runs by them.
"""
