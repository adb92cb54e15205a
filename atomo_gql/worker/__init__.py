"""The worker SDK: lease jobs over HTTP, run their handlers, report back.

    worker = Worker(url="http://127.0.0.1:3000", token="wkr_…", queues=["media-gen"], concurrency=4)

    @worker.on("video.generate")
    async def generate(ctx: JobContext) -> dict[str, str]:
        await ctx.progress(percent=0.1, message="calling provider")
        return {"assetId": "…"}

    worker.run()

It needs aiohttp, msgspec and orjson, and nothing of the server: it could be cut out as its own distribution.

    worker.py         the public face: arguments, handlers, run and stop       config.py     the checked arguments
    runner.py         the life of a worker: leases, drains, hands back         signals.py    SIGTERM and SIGINT
    leasing.py        the lease loop: one request at a time                    backoff.py    how long to wait
    outbox.py         reports: gathered, sent until they are answered          report.py     one report
    attempt.py        one job in hand: its handler, its report                 payloads.py   payloads as types
    lease.py          the right to one attempt: heartbeat, progress, loss      heartbeat.py  when a heartbeat is due
    context.py        what a handler is given                                  cancelled.py  "the attempt is over"
    handlers.py       which function handles which kind                        threads.py    where plain `def` runs
    tracing.py        the enqueuer's trace goes on                             processes.py  for what keeps a CPU busy
    tally.py          what was done, for the last line                         testing.py    a handler, without a server
    client.py         the protocol's HTTP calls, each tried once               encoding.py   JSON bodies, checked
    job.py            the leased job                                           failure.py    the error text of a failure
    errors.py         every exception, as a tree
"""

from atomo_gql.worker.cancelled import Cancelled
from atomo_gql.worker.context import JobContext, JobLogger
from atomo_gql.worker.errors import LeaseLost, NonRetryableError, RetryAfter, WorkerError, WorkerRejected
from atomo_gql.worker.job import Job
from atomo_gql.worker.tracing import current_traceparent
from atomo_gql.worker.worker import Worker

__all__ = [
    "Cancelled",
    "Job",
    "JobContext",
    "JobLogger",
    "LeaseLost",
    "NonRetryableError",
    "RetryAfter",
    "Worker",
    "WorkerError",
    "WorkerRejected",
    "current_traceparent",
]
