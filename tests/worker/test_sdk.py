"""The worker SDK against a server that listens."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from atomo_gql.worker import JobContext, NonRetryableError, Worker, WorkerRejected
from tests.conftest import Server, admin, until


@contextlib.asynccontextmanager
async def working(worker: Worker) -> AsyncIterator[None]:
    """A worker that runs for the length of the block."""
    task = asyncio.create_task(worker.run_async())
    try:
        yield
    finally:
        worker.stop(now=True)
        await task


async def _ended(server: Server, job_id: str, status: str) -> Any:
    async def look() -> Any:
        job = await server.job(job_id)
        return job if job["status"] == status else None

    return await until(look)


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
        assert (await _ended(server, await server.enqueue("q", "double", payload={"n": 4}), "succeeded"))["result"] == {
            "n": 8
        }
        name = (await _ended(server, await server.enqueue("q", "thread"), "succeeded"))["result"]
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
        job = await _ended(server, await server.enqueue("q", kind), "dead")
    assert error in job["error"]
    assert job["attempts"] == 1


async def test_a_job_in_hand_is_handed_back_unharmed_at_the_stop(server: Server, worker: Worker) -> None:
    job_id = await server.enqueue("q", "forever")
    async with working(worker):
        await _ended(server, job_id, "leased")
    job = await server.job(job_id)
    assert (job["status"], job["attempts"], job["error"]) == ("queued", 0, None)


async def test_a_lost_lease_cancels_the_handler(server: Server, worker: Worker, sql: Any) -> None:
    cancelled = asyncio.Event()

    @worker.on("long")
    async def long(ctx: JobContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    job_id = await server.enqueue("q", "long", maxAttempts=1)
    async with working(worker):
        await _ended(server, job_id, "leased")
        await sql.execute("UPDATE leases SET expires_at = now() - interval '1 s'")
        await server.application.services.housekeeping.sweep()
        await asyncio.wait_for(cancelled.wait(), 10)
    assert (await server.job(job_id))["status"] == "dead"


async def test_a_revoked_token_stops_the_worker_with_a_clear_message(server: Server) -> None:
    minted = await server.mint("q")
    made = Worker(url=server.url, token=minted.token, queues=["q"], wait=1)
    task = asyncio.create_task(made.run_async())

    async def waits() -> bool:
        return len(server.application.services.leases.room) == 1

    await until(waits)
    await server.call("DELETE", f"/jobs/workers/{minted.token_id}", headers=admin())
    with pytest.raises(WorkerRejected, match="unknown or revoked"):
        await asyncio.wait_for(task, 20)


async def test_sigterm_finishes_what_runs(server: Server, tmp_path: Path) -> None:
    minted = await server.mint("q")
    (tmp_path / "slow.py").write_text(
        "import asyncio\nfrom atomo_gql.worker import Worker\nworker = Worker(queues=['q'])\n"
        "@worker.on('slow')\nasync def slow(ctx):\n    await asyncio.sleep(1)\n    return 'done'\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "atomo_gql",
        "worker",
        "slow:worker",
        cwd=tmp_path,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "", "ATOMO_URL": server.url, "ATOMO_WORKER_TOKEN": minted.token},
    )
    job_id = await server.enqueue("q", "slow")
    await _ended(server, job_id, "leased")
    process.send_signal(signal.SIGTERM)
    _, err = await process.communicate()
    assert process.returncode == 0, err
    assert (await server.job(job_id))["result"] == "done"
    assert minted.token not in err.decode()


def test_the_sdk_works_without_the_server_s_packages() -> None:
    code = (
        "import sys\n"
        "for name in 'asyncpg strawberry starlette jwt broadcaster msgspec uvicorn structlog'.split():\n"
        "    sys.modules[name] = None\n"
        "import atomo_gql.worker, atomo_gql.cli.worker\n"
        "from atomo_gql.cli import main\n"
        "main(['serve'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'atomo-gql[server]'" in done.stderr
