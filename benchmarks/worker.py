"""The no-op worker of the drain."""

from atomo_gql.worker import JobContext, Worker

worker = Worker(queues=["bench"], concurrency=200, wait=5)


@worker.on("noop")
async def noop(ctx: JobContext) -> None:
    """Nothing."""
