"""What is measured: servers on durable databases of one PostgreSQL, and the reference server."""

import asyncio
import contextlib
import itertools
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from atomo_gql.cli.bench.target import Target
from atomo_gql.cli.host import database, migrated
from atomo_gql.cli.token import sign
from atomo_gql.settings import Settings
from atomo_gql.store.database import Database

_SECRET = "the benchmark's own secret, which is long enough"
_PROJECT = str(Path(__file__).parents[3])


@dataclass(frozen=True, slots=True)
class Place:
    """A server, and its database without the server."""

    store: Database
    server: Target
    jwt: str

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def bearer(self) -> dict[str, str]:
        """The headers of an admin."""
        return {"authorization": f"Bearer {self.jwt}"}


@dataclass(frozen=True, slots=True)
class Rig:
    """All that the scenarios need."""

    place: Place
    echo: Target
    settings: Settings
    dsn: str
    minutes: float = 0.0  # to spread the parts of `memory` over
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    @contextlib.asynccontextmanager
    async def another(self) -> AsyncIterator[Database]:
        """A migrated database of its own, for the length of the block."""
        name = f"bench_{os.getpid()}_{next(self.numbers)}"
        async with self.place.store.connection() as sql:
            await sql.execute(f"CREATE DATABASE {name}", timeout=60)
        dsn = urlsplit(self.dsn)._replace(path=f"/{name}").geturl()
        try:
            await migrated(dsn)
            async with _opened(dsn) as store:
                yield store
        finally:
            async with self.place.store.connection() as sql:
                await sql.execute(f"DROP DATABASE {name} WITH (FORCE)", timeout=60)

    @contextlib.asynccontextmanager
    async def serving(self, store: Database, **environment: str) -> AsyncIterator[Place]:
        """A server on that database, for the length of the block."""
        port = _free_port()
        settings: dict[str, Any] = {"DATABASE_URL": store.dsn, "JWT_SECRET": _SECRET, "ATOMO_LOG_LEVEL": "error"}
        settings |= environment
        async with process("-m", "atomo_gql", "serve", "--port", str(port), **settings) as server:
            await listening(port, lambda: server.returncode is None)
            jwt = sign(self.settings, "bench", role="admin", tenant=None, lasts=86_400)
            yield Place(store, Target(port, server.pid), jwt)


@contextlib.asynccontextmanager
async def a_rig(minutes: float = 0.0) -> AsyncIterator[Rig]:
    """Everything, in a temporary folder. DATABASE_URL, when it is set, takes the place of the embedded PostgreSQL."""
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="atomo-bench-", ignore_cleanup_errors=True))
        Path(folder).chmod(0o755)  # PostgreSQL may run as another user
        settings = Settings(
            jwt_secret=_SECRET, data_dir=Path(folder) / "data", database_url=os.environ.get("DATABASE_URL")
        )
        dsn = await stack.enter_async_context(database(settings))
        await migrated(dsn)
        store = await stack.enter_async_context(_opened(dsn))
        port = _free_port()
        echo = await stack.enter_async_context(module("echo", str(port)))
        await listening(port, lambda: echo.returncode is None)
        rig = Rig(Place(store, Target(0, 0), ""), Target(port, echo.pid), settings, dsn)
        place = await stack.enter_async_context(rig.serving(store))
        yield Rig(place, rig.echo, settings, dsn, minutes)


@contextlib.asynccontextmanager
async def _opened(dsn: str) -> AsyncIterator[Database]:
    store = Database(dsn)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def module(name: str, *arguments: str, stdout: bool = False, **environment: str) -> Any:
    """One of this package's modules as a process, for the length of the block; with `stdout` its output is a pipe."""
    return process("-m", f"{__package__}.{name}", *arguments, stdout=stdout, **environment)


@contextlib.asynccontextmanager
async def process(
    *arguments: str, stdout: bool = False, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python process for the length of the block."""
    made = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env={**os.environ, "PYTHONPATH": _PROJECT, **environment},
        stdout=asyncio.subprocess.PIPE if stdout else None,
    )
    try:
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            made.terminate()
        await made.wait()


async def generate(target: Target, request: bytes, count: int, connections: int, status: int) -> dict[str, float]:
    """The rate, how busy the generator was, and the server's CPU time per request in µs."""
    used = target.cpu_seconds()
    made = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"{__package__}.load", str(target.port), str(count), str(connections), str(status)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=_PROJECT,
    )
    out, _ = await made.communicate(request)
    if made.returncode:
        raise RuntimeError("the load generator failed; the lines above say why")
    found: dict[str, float] = orjson.loads(out)
    return {**found, "cpu": (target.cpu_seconds() - used) / count * 1e6}


async def listening(port: int, is_alive: Callable[[], bool]) -> None:
    """Once the process accepts connections."""
    async with asyncio.timeout(60):
        while is_alive():
            with contextlib.suppress(OSError):
                (await asyncio.open_connection("127.0.0.1", port))[1].close()
                return
            await asyncio.sleep(0.05)
    raise RuntimeError("the server did not start; the lines above say why")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
