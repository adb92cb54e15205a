"""The worker SDK against a server that listens."""

import asyncio
import subprocess
import sys
import threading
from typing import Any

import pytest

from atomo_gql.worker import JobContext, NonRetryableError, Worker, WorkerRejected
from tests.conftest import Server, admin, until
from tests.worker.helpers import reached, working


@pytest.fixture
async def worker(server: Server) -> Worker:
    """One with a handler of each sort."""
    minted = await server.mint("q")
    made = Worker(url=server.url, token=minted.token, queues=["q"], concurrency=4, visibility=6, wait=5)

    @made.on("double")
    async def double(ctx: JobContext) -> Any:
        await ctx.progress(percent=0.5, message="half way")
        return {"n": ctx.job.payload["n"] * 2}

    @made.on("thread")
    def thread(ctx: JobContext) -> str:
        ctx.progress(percent=0.5)
        return threading.current_thread().name

    @made.on("stumble")
    async def stumble(ctx: JobContext) -> None:
        raise ValueError("lost my footing")

    @made.on("refuse")
    async def refuse(ctx: JobContext) -> None:
        raise NonRetryableError("never")

    @made.on("nan")
    async def nan(ctx: JobContext) -> float:
        return float("nan")

    @made.on("forever")
    async def forever(ctx: JobContext) -> None:
        await asyncio.Event().wait()

    return made


async def test_a_handler_s_result_is_kept(server: Server, worker: Worker) -> None:
    async with working(worker):
        assert (await reached(server, await server.enqueue("q", "double", payload={"n": 4}), "succeeded"))[
            "result"
        ] == {"n": 8}
        name = (await reached(server, await server.enqueue("q", "thread"), "succeeded"))["result"]
        assert name != threading.main_thread().name


async def test_an_exception_is_retried_with_its_message_kept(server: Server, worker: Worker) -> None:
    async with working(worker):
        job_id = await server.enqueue("q", "stumble")

        async def failed() -> Any:
            job = await server.job(job_id)
            return job if job["error"] else None

        job = await until(failed)
    assert (job["status"], job["attempts"]) == ("queued", 1)
    assert job["error"].startswith("ValueError: lost my footing")


@pytest.mark.parametrize(("kind", "error"), [("refuse", "never"), ("unknown", "unknown"), ("nan", "result")])
async def test_what_no_retry_can_mend_is_dead_at_once(server: Server, worker: Worker, kind: str, error: str) -> None:
    async with working(worker):
        job = await reached(server, await server.enqueue("q", kind), "dead")
    assert error in job["error"]
    assert job["attempts"] == 1


async def test_a_job_in_hand_is_handed_back_unharmed_at_the_stop(server: Server, worker: Worker) -> None:
    job_id = await server.enqueue("q", "forever")
    async with working(worker):
        await reached(server, job_id, "leased")
    job = await server.job(job_id)
    assert (job["status"], job["attempts"], job["error"]) == ("queued", 0, None)


async def test_a_revoked_token_stops_the_worker_with_a_clear_message(server: Server) -> None:
    minted = await server.mint("q")
    made = Worker(url=server.url, token=minted.token, queues=["q"], wait=1)
    task = asyncio.create_task(made.run_async())

    async def waits() -> bool:
        return len(server.application.services.leases.room) == 1

    await until(waits)
    await server.call("DELETE", f"/jobs/workers/{minted.token_id}", headers=admin())
    with pytest.raises(WorkerRejected, match="unknown, revoked or expired"):
        await asyncio.wait_for(task, 60)


def test_the_sdk_works_without_the_server_s_packages() -> None:
    code = (
        "import sys\n"
        "for name in 'asyncpg strawberry starlette jwt broadcaster uvicorn structlog'.split():\n"
        "    sys.modules[name] = None\n"
        "import atomo_gql.worker, atomo_gql.cli.worker\n"
        "from atomo_gql.cli import main\n"
        "main(['serve'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'atomo-gql[server]'" in done.stderr
