"""The worker SDK's own cost of a job, against a server that listens in another thread."""

import statistics
from itertools import pairwise

from atomo_gql.worker import JobContext, Worker
from tests.guard.paths import Costs
from tests.guard.vm import Count

NAME = "the Python worker"
# A worker of fewer than twenty jobs asks for nothing ahead: lease, handle, and report with the next lease, in step.
_CONCURRENCY = 19
_TURNS = 25  # of that many jobs; the median is taken
JOBS = (_TURNS + 2) * _CONCURRENCY


async def measure(url: str, token: str, queue: str) -> Costs:
    """Work through a queue in which JOBS no-op jobs wait."""
    worker = Worker(url=url, token=token, queues=[queue], concurrency=_CONCURRENCY, wait=0)
    count, handled = Count(), 0
    readings: list[tuple[int, int]] = []

    @worker.on("noop")
    async def noop(ctx: JobContext) -> None:
        nonlocal handled
        handled += 1
        if handled == _CONCURRENCY:
            count.start()
        if handled % _CONCURRENCY == 0:
            readings.append((count.instructions, count.calls))
        if len(readings) == _TURNS:
            worker.stop()

    try:
        await worker.run_async()
    finally:
        count.stop()
    turns = [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(readings)]
    return {
        "instructions": statistics.median(instructions for instructions, _ in turns) / _CONCURRENCY,
        "calls": statistics.median(calls for _, calls in turns) / _CONCURRENCY,
    }
