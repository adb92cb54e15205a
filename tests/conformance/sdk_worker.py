"""The Python SDK's worker, for the conformance kit."""

import asyncio
import os
from typing import Any

from atomo_gql.worker import JobContext, NonRetryableError, Worker

worker = Worker(
    queues=os.environ["ATOMO_QUEUES"].split(","),
    concurrency=int(os.environ["ATOMO_CONCURRENCY"]),
    visibility=int(os.environ["ATOMO_VISIBILITY_SECS"]),
    drain_timeout=float(os.environ["ATOMO_DRAIN_SECS"]),
)


@worker.on("conformance.echo")
async def echo(ctx: JobContext) -> Any:
    """What came."""
    return ctx.job.payload


@worker.on("conformance.sleep")
async def sleep(ctx: JobContext) -> dict[str, float]:
    """For as long as the payload says."""
    await asyncio.sleep(ctx.job.payload["seconds"])
    return {"slept": ctx.job.payload["seconds"]}


@worker.on("conformance.fail")
async def fail(ctx: JobContext) -> None:
    """Retryably."""
    raise RuntimeError(ctx.job.payload["message"])


@worker.on("conformance.fatal")
async def fatal(ctx: JobContext) -> None:
    """For good."""
    raise NonRetryableError(ctx.job.payload["message"])


if __name__ == "__main__":
    worker.run()
