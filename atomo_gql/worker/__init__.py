"""The worker SDK: lease jobs over HTTP, run their handlers, report back.

    worker = Worker(url="http://127.0.0.1:3000", token="wkr_…", queues=["media-gen"], concurrency=4)

    @worker.on("video.generate")
    async def generate(ctx: JobContext) -> dict[str, str]:
        await ctx.progress(percent=0.1, message="calling provider")
        return {"assetId": "…"}

    worker.run()

It needs aiohttp and orjson and nothing of the server: it could be cut out as its own distribution.

    worker.py         the public face: arguments, handlers, run and stop       config.py     the checked arguments
    runner.py         the life of a worker: lease loop, drain, hand back       signals.py    SIGTERM and SIGINT
    attempt.py        one leased job: handler, report                          delivery.py   reports until answered
    lease.py          the right to one attempt, its heartbeat and progress     heartbeat.py  when to heartbeat
    context.py        what a handler sees                                      cancelled.py  "the attempt is over"
    client.py         the protocol's HTTP calls, each tried once               backoff.py    how long to wait
    job.py, encoding.py, failure.py, threads.py, errors.py                     what their names say
"""

from atomo_gql.worker.cancelled import Cancelled
from atomo_gql.worker.context import JobContext
from atomo_gql.worker.errors import LeaseLost, NonRetryableError, WorkerError, WorkerRejected
from atomo_gql.worker.job import Job
from atomo_gql.worker.worker import Worker

__all__ = [
    "Cancelled",
    "Job",
    "JobContext",
    "LeaseLost",
    "NonRetryableError",
    "Worker",
    "WorkerError",
    "WorkerRejected",
]
