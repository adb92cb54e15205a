"""Running workers, here and in processes of their own."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from atomo_gql.worker import Worker
from tests.conftest import Server, WorkerClient, until

# Each handler says on standard output that it runs. `told` ends with the line that standard input brings.
MODULE = """
import asyncio, sys
from atomo_gql.worker import Worker

worker = Worker(queues=["q"], concurrency=4, visibility=30, wait=5, drain_timeout={drain})

@worker.on("told")
async def told(ctx):
    print("told", flush=True)
    return (await asyncio.to_thread(sys.stdin.readline)).strip()

@worker.on("forever")
async def forever(ctx):
    print("forever", flush=True)
    await asyncio.Event().wait()

@worker.on("deaf")
async def deaf(ctx):
    print("deaf", flush=True)
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
"""


@contextlib.asynccontextmanager
async def working(worker: Worker) -> AsyncIterator[None]:
    """A worker that runs for the length of the block."""
    task = asyncio.create_task(worker.run_async())
    try:
        yield
    finally:
        worker.stop(now=True)
        await task


async def reached(server: Server, job_id: str, status: str, *, within: float = 60) -> Any:
    """The job, once it has come to this state."""

    async def look() -> Any:
        job = await server.job(job_id)
        return job if job["status"] == status else None

    return await until(look, within=within)


class Process:
    """`atomo-gql worker` in a folder, as an operator starts it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def says(self) -> str:
        """The next line that a handler prints."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 60)
        assert line, "the worker ended"
        return line.decode().strip()

    def tell(self, line: str) -> None:
        """Let a job of the kind `told` end."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    async def end(self) -> tuple[int | None, str]:
        """Wait for its end: the exit status, and what it logged."""
        _, err = await asyncio.wait_for(self.process.communicate(), 60)
        return self.process.returncode, err.decode()


@contextlib.asynccontextmanager
async def process(
    minted: WorkerClient, folder: Path, *arguments: str, drain: float = 30, module: str = MODULE
) -> AsyncIterator[Process]:
    """A worker process; `arguments` of the interpreter, by default those that run `handlers:worker` there."""
    (folder / "handlers.py").write_text(module.replace("{drain}", str(drain)))
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        *(arguments or ("-m", "atomo_gql", "worker", "handlers:worker")),
        cwd=folder,
        env={**os.environ, "ATOMO_URL": minted.server.url, "ATOMO_WORKER_TOKEN": minted.token},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Process(started)
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.kill()
        await started.communicate()
