"""The no-op worker of the drain: `python -m benchmarks.worker QUEUE`, with ATOMO_URL and ATOMO_WORKER_TOKEN."""

import logging
import sys

from atomo_gql.worker import JobContext, Worker

CONCURRENCY = 100


async def noop(ctx: JobContext) -> None:
    """Nothing."""


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)  # a line per job would be measured too
    worker = Worker(queues=[sys.argv[1]], concurrency=CONCURRENCY, wait=5)
    worker.on("noop")(noop)
    worker.run()
