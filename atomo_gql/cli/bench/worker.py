"""The worker of the benchmark, a process of its own, with ATOMO_URL and ATOMO_WORKER_TOKEN:

    worker drain COUNT QUEUE…   no-op jobs at the best setting, until so many are done; the CPU seconds it took
    worker pickup QUEUE         a line for each job: the ms from payload.t to the handler's start

What it has to say goes to standard output.
"""

import logging
import sys
import time
from typing import Any

from atomo_gql.worker import JobContext, Worker

CONCURRENCY = 800


def _drain(count: int, queues: list[str]) -> None:
    worker = Worker(queues=queues, concurrency=CONCURRENCY, wait=5)
    left = count

    @worker.on("noop")
    async def noop(ctx: JobContext) -> None:
        nonlocal left
        left -= 1
        if not left:
            worker.stop()

    used = time.process_time()
    worker.run()
    sys.stdout.write(f"{time.process_time() - used}\n")


def _pickup(queue: str) -> None:
    worker = Worker(queues=[queue], concurrency=10, wait=20)

    @worker.on("noop")
    async def noop(ctx: JobContext) -> None:
        payload: Any = ctx.job.payload
        sys.stdout.write(f"{(time.time() - payload['t']) * 1000}\n")
        sys.stdout.flush()

    worker.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)  # a line per job would be measured too
    if sys.argv[1] == "drain":
        _drain(int(sys.argv[2]), sys.argv[3:])
    else:
        _pickup(sys.argv[2])
