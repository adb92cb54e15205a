"""kill -9 in the middle of 2,000 jobs: all end, none is lost, none is completed twice, and the log is whole."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from atomo_gql.embedded import EmbeddedPostgres
from tests.conftest import SECRET, admin, bearer, until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

JOBS = 2_000
PORT = 3217
WORKER = """
from atomo_gql.worker import Worker
worker = Worker(queues=["load"], concurrency=20, visibility=3, wait=5)

@worker.on("double")
async def double(ctx):
    return {"n": ctx.job.payload["n"] * 2}
"""


class Rig:
    """A server and a worker as an operator runs them: processes that can be killed, and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{PORT}"
        self.environment = {
            **os.environ,
            "ATOMO_DATA_DIR": str(folder / "data"),
            "PORT": str(PORT),
            "JWT_SECRET": SECRET,
            "ATOMO_JOB_RECLAIM_INTERVAL": "0.2",
            "ATOMO_LOG_LEVEL": "error",
            "ATOMO_URL": self.url,
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        self.environment.pop("DATABASE_URL", None)
        self.processes: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "atomo_gql", *arguments, cwd=self.folder, env=self.environment, stderr=log
            )

    async def start_server(self) -> None:
        await self.start("server", "serve")
        await until(self.is_ready, within=60)

    async def is_ready(self) -> bool:
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async with aiohttp.ClientSession() as http, http.get(f"{self.url}/readyz") as answer:
                return answer.status == 200
        return False

    async def start_worker(self) -> None:
        await self.start("worker", "worker", "chaos_worker:worker")

    async def kill(self, name: str) -> None:
        self.processes[name].kill()
        await self.processes[name].wait()

    async def run(self, *arguments: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "atomo_gql",
            *arguments,
            cwd=self.folder,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        return process.returncode, out.decode()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """A server on its own durable PostgreSQL, in a folder that the database's user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="atomo-chaos-"))
    folder.chmod(0o755)
    made = Rig(folder)
    (folder / "chaos_worker.py").write_text(WORKER)
    yield made
    for process in made.processes.values():
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
    shutil.rmtree(folder, ignore_errors=True)


async def _enqueue(rig: Rig) -> None:
    """All of them, each until it is accepted: a key makes it safe to say it again."""
    numbers = iter(range(JOBS))

    async def enqueue(http: aiohttp.ClientSession) -> None:
        for n in numbers:
            body = {
                "queue": "load",
                "kind": "double",
                "payload": {"n": n},
                "idempotencyKey": f"n{n}",
                "maxAttempts": 20,
            }

            async def accepted(body: Any = body) -> bool:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    async with http.post(f"{rig.url}/jobs", json=body, headers=bearer()) as answer:
                        assert answer.status in (201, 429, 503), await answer.text()
                        return answer.status == 201
                return False

            await until(accepted, within=60)

    async with aiohttp.ClientSession() as http:
        await asyncio.gather(*(enqueue(http) for _ in range(16)))


@pytest.mark.parametrize("victim", ["worker", "server", "postgres"])
async def test_kill_9_loses_nothing(rig: Rig, victim: str) -> None:
    await rig.start_server()
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{rig.url}/jobs/workers", json={"name": "w", "queues": ["load"]}, headers=admin()) as answer,
    ):
        rig.environment["ATOMO_WORKER_TOKEN"] = (await answer.json())["token"]
    # A second user of the data folder learns the address; the server owns the database.
    guest = EmbeddedPostgres(rig.folder / "data")
    dsn = await guest.start()
    await guest.stop()
    await rig.start_worker()
    enqueueing = asyncio.create_task(_enqueue(rig))

    async def count(status: str) -> int:
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            connection: Any = await asyncpg.connect(dsn, timeout=5, server_settings={"search_path": "atomo"})
            try:
                found: int = await connection.fetchval("SELECT count(*) FROM jobs WHERE status = $1", status)
                return found
            finally:
                connection.terminate()
        return -1

    async def succeeded(least: int) -> bool:
        return await count("succeeded") >= least

    await until(lambda: succeeded(300), within=60)
    if victim == "postgres":
        pid = int(next((rig.folder / "data").glob("**/postmaster.pid")).read_text().splitlines()[0])
        os.kill(pid, signal.SIGKILL)
    else:
        await rig.kill(victim)
        await (rig.start_server() if victim == "server" else rig.start_worker())
    await enqueueing
    await until(lambda: succeeded(JOBS), within=90)

    connection: Any = await asyncpg.connect(dsn, server_settings={"search_path": "atomo"})
    try:
        assert await connection.fetchval("SELECT count(*) FROM jobs") == JOBS
        assert (
            await connection.fetchval(
                "SELECT count(*) FROM (SELECT stream_id FROM events WHERE type = 'succeeded' "
                "GROUP BY 1 HAVING count(*) = 1) t"
            )
            == JOBS
        )
        assert (
            await connection.fetchval(
                "SELECT count(*) FROM (SELECT stream_id FROM events GROUP BY 1 "
                "HAVING max(version) <> count(*) OR min(version) <> 1) t"
            )
            == 0
        )
        assert (
            await connection.fetchval(
                "SELECT count(*) FROM events f JOIN events e USING (stream_id) "
                "WHERE f.version = 1 AND e.type = 'succeeded' "
                "AND (e.data #>> '{result,n}')::int = 2 * (f.data #>> '{payload,n}')::int"
            )
            == JOBS
        )
    finally:
        await connection.close()
    status, out = await rig.run("rebuild", "--verify")
    assert (status, f"{JOBS:,} jobs compared" in out) == (0, True), out
