"""A server and a worker as an operator runs them: processes that can be killed, and started again."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from atomo_gql.embedded import EmbeddedPostgres
from tests.conftest import SECRET, admin, bearer, until
from tests.ports import free_port

_WORKER = """
import asyncio

from atomo_gql.worker import Worker

worker = Worker(queues=["load"], concurrency=20, visibility=3, wait=5)


@worker.on("double")
async def double(ctx):
    await asyncio.sleep(0.02)
    return {"n": ctx.job.payload["n"] * 2}
"""
_PROGRESS = """
SELECT (SELECT count(*) FROM events WHERE type = 'succeeded'), (SELECT count(*) FROM leases)"""
DATABASE_IS_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


class Rig:
    """Everything runs in `folder`; the server on an embedded PostgreSQL of its own, with nothing switched off."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ports = {"server": free_port()}
        self.url = self.url_of("server")
        self._dsn = ""
        self._postgres: EmbeddedPostgres | None = None
        self._environment = {
            **{name: value for name, value in os.environ.items() if name != "DATABASE_URL"},
            "ATOMO_DATA_DIR": str(folder / "data"),
            "JWT_SECRET": SECRET,
            "ATOMO_JOB_RECLAIM_INTERVAL": "0.2",
            "ATOMO_LOG_LEVEL": "warning",
            "ATOMO_URL": self.url,
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    def use(self, dsn: str, looked_at: str | None = None, **environment: str) -> None:
        """A database of somebody else's in place of an embedded one; the test looks at it by another address."""
        self._dsn = looked_at or dsn
        self._environment |= {"DATABASE_URL": dsn, **environment}

    @property
    def dsn(self) -> str:
        """The address of the servers' database."""
        return self._dsn

    def write(self, path: str, content: Any) -> None:
        """A JSON file in the folder, which servers read when they start."""
        (self.folder / path).parent.mkdir(exist_ok=True)
        (self.folder / path).write_text(json.dumps(content))

    async def start(self) -> None:
        """A server, until it is ready."""
        await self.start_server()
        # A second user of the data folder is told the database's address; the server keeps it running.
        guest = EmbeddedPostgres(self.folder / "data")
        self._dsn = await guest.start()
        await guest.stop()

    async def start_together(self, names: Sequence[str]) -> None:
        """Servers of these names on a PostgreSQL that this process keeps running, whoever of them is killed."""
        self._postgres = EmbeddedPostgres(self.folder / "data")
        self._dsn = await self._postgres.start()
        for name in names:
            await self.start_server(name)

    async def start_doubling(self) -> None:
        """A worker with a token of its own."""
        (self.folder / "doubling.py").write_text(_WORKER)
        self._environment["ATOMO_WORKER_TOKEN"] = await self.mint("load")
        await self.start_worker()

    async def mint(self, *queues: str, server: str = "server") -> str:
        """A worker's token, from the server of that name."""
        body = {"name": "chaos", "queues": list(queues)}
        async with (
            aiohttp.ClientSession(headers=admin()) as http,
            http.post(f"{self.url_of(server)}/jobs/workers", json=body) as answer,
        ):
            token: str = (await answer.json())["token"]
            return token

    def url_of(self, name: str) -> str:
        """Where the server of that name listens, each time it is started."""
        return f"http://127.0.0.1:{self._ports.setdefault(name, free_port())}"

    async def start_server(self, name: str = "server") -> str:
        """`atomo-gql serve`, until it is ready; its address. Servers with other names share its database."""
        url = self.url_of(name)
        await self._start(name, "serve", "--port", str(self._ports[name]))
        await until(lambda: self._is_ready(url, name), within=240)
        return url

    async def start_worker(self) -> None:
        """`atomo-gql worker`."""
        await self._start("worker", "worker", "doubling:worker")

    async def kill(self, name: str) -> None:
        """SIGKILL to the server, to the worker, or to PostgreSQL's postmaster."""
        if name == "postgres":
            [file] = (self.folder / "data").glob("**/postmaster.pid")
            os.kill(int(file.read_text().splitlines()[0]), signal.SIGKILL)
        else:
            self._processes[name].kill()
            await self._processes[name].wait()

    async def stop(self) -> None:
        """End what still runs, in good order, worker first."""
        for process in reversed(self._processes.values()):
            if process.returncode is None:
                process.terminate()
                await process.wait()
        if self._postgres:
            await self._postgres.stop()

    async def command(self, *arguments: str) -> str:
        """What a command of the CLI prints; it must end with 0."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "atomo_gql", *arguments),
            cwd=self.folder,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        assert process.returncode == 0, out.decode()
        return out.decode()

    async def enqueue(self, count: int) -> list[str]:
        """The ids of so many jobs, each said again until it is accepted: its key makes that safe."""
        ids: dict[int, str] = {}
        numbers = iter(range(count))

        async def accepted(http: aiohttp.ClientSession, n: int) -> bool:
            body = {
                "queue": "load",
                "kind": "double",
                "payload": {"n": n},
                "idempotencyKey": f"n{n}",
                "maxAttempts": 20,
            }
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with http.post(f"{self.url}/jobs", json=body) as answer:
                    assert answer.status in (201, 503), await answer.text()
                    if answer.status == 201:
                        ids[n] = (await answer.json())["id"]
            return n in ids

        async def one_by_one(http: aiohttp.ClientSession) -> None:
            for n in numbers:
                await until(lambda n=n: accepted(http, n), within=240)  # type: ignore[misc]

        async with aiohttp.ClientSession(headers=bearer()) as http, asyncio.TaskGroup() as group:
            for _ in range(16):
                group.create_task(one_by_one(http))
        return [ids[n] for n in range(count)]

    async def progress(self) -> tuple[int, int]:
        """How many jobs have succeeded, and how many a worker has in hand; (0, 0) while the database is away."""
        with contextlib.suppress(*DATABASE_IS_AWAY):
            async with self.sql() as sql:
                return tuple(await sql.fetchrow(_PROGRESS))
        return 0, 0

    async def has_database(self) -> bool:
        """Whether it can be had just now."""
        with contextlib.suppress(*DATABASE_IS_AWAY):
            async with self.sql() as sql:
                return bool(await sql.fetchval("SELECT true"))
        return False

    @contextlib.asynccontextmanager
    async def sql(self) -> AsyncIterator[Any]:
        """A connection to the server's database."""
        connection = await asyncpg.connect(self._dsn, timeout=5, server_settings={"search_path": "atomo"})
        try:
            yield connection
        finally:
            connection.terminate()

    def logs(self) -> str:
        """The last words of both processes."""
        return "\n".join(f"--- {file.name}\n{file.read_text()[-4_000:]}" for file in self.folder.glob("*.log"))

    async def _start(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "atomo_gql", *arguments),
                cwd=self.folder,
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    async def _is_ready(self, url: str, name: str) -> bool:
        assert self._processes[name].returncode is None, self.logs()
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async with aiohttp.ClientSession() as http, http.get(f"{url}/readyz") as answer:
                return answer.status == 200
        return False


@contextlib.asynccontextmanager
async def a_rig() -> AsyncIterator[Rig]:
    """A server that keeps its PostgreSQL running, and a worker."""
    with a_folder() as folder:
        rig = Rig(folder)
        try:
            await rig.start()
            await rig.start_doubling()
            yield rig
        finally:
            await rig.stop()


@contextlib.contextmanager
def a_folder() -> Iterator[Path]:
    """One that the database's user, who is not root, can reach."""
    folder = Path(tempfile.mkdtemp(prefix="atomo-chaos-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
