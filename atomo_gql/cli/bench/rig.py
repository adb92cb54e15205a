"""What is measured: servers on durable databases of one PostgreSQL, each made for it, and the reference server."""

import asyncio
import contextlib
import itertools
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import orjson

from atomo_gql.cli.bench.target import Target
from atomo_gql.cli.start import database, migrated, reached
from atomo_gql.cli.token import sign
from atomo_gql.embedded.spawn import command
from atomo_gql.settings import VARIABLES, Settings
from atomo_gql.store.database import Database, is_database_error

_PROJECT = str(Path(__file__).parents[3])
_END_SECS = 20.0  # that a process has to end by itself


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
    base: Database  # where databases are made; nothing else is done there
    minutes: float = 0.0  # to spread the parts of `memory` over
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    @contextlib.asynccontextmanager
    async def another(self) -> AsyncIterator[Database]:
        """A migrated database of its own, for the length of the block."""
        name = f"bench_{os.getpid()}_{next(self.numbers)}"
        try:
            async with self.base.connection() as sql:
                await sql.execute(f"CREATE DATABASE {name}", timeout=60)
        except Exception as error:
            if is_database_error(error):
                raise click.ClickException(f"cannot make a database to measure in: {error}") from None
            raise
        dsn = urlsplit(self.base.dsn)._replace(path=f"/{name}").geturl()
        try:
            await migrated(dsn)
            async with _opened(dsn) as store:
                yield store
        finally:
            async with self.base.connection() as sql:
                await sql.execute(f"DROP DATABASE {name} WITH (FORCE)", timeout=60)

    @contextlib.asynccontextmanager
    async def serving(self, store: Database, **environment: str) -> AsyncIterator[Place]:
        """A server on that database, for the length of the block."""
        port = _free_port()
        told = {"DATABASE_URL": store.dsn, "JWT_SECRET": self.settings.jwt_secret or "", "ATOMO_LOG_LEVEL": "error"}
        arguments = ("serve", "--port", str(port), "--workers", str(self.settings.workers))
        # In a folder without workflows and actions.
        async with process(
            "-m", "atomo_gql", *arguments, environment={**told, **environment}, folder=self.settings.data_dir.parent
        ) as server:
            await listening(port, lambda: server.returncode is None)
            jwt = sign(self.settings, "bench", role="admin", tenant=None, lasts=86_400)
            yield Place(store, Target(port, server.pid), jwt)


@contextlib.asynccontextmanager
async def a_rig(minutes: float = 0.0, workers: int = 1) -> AsyncIterator[Rig]:
    """Everything, in a temporary folder; each server is `workers` processes.

    DATABASE_URL, when it is set, takes the place of the embedded PostgreSQL; what is in that database is not touched.
    """
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="atomo-bench-", ignore_cleanup_errors=True))
        Path(folder).chmod(0o755)  # PostgreSQL may run as another user
        settings = Settings(
            jwt_secret=secrets.token_hex(32),
            data_dir=Path(folder) / "data",
            database_url=os.environ.get("DATABASE_URL"),
            workers=workers,
        )
        dsn = await stack.enter_async_context(database(settings))
        with reached(dsn):
            base = await stack.enter_async_context(_opened(dsn))
        port = _free_port()
        echo = await stack.enter_async_context(module("echo", str(port)))
        await listening(port, lambda: echo.returncode is None)
        rig = Rig(Place(base, Target(0, 0), ""), Target(port, echo.pid), settings, base, minutes)
        store = await stack.enter_async_context(rig.another())
        yield replace(rig, place=await stack.enter_async_context(rig.serving(store)))


@contextlib.asynccontextmanager
async def _opened(dsn: str) -> AsyncIterator[Database]:
    store = Database(dsn)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def module(name: str, *arguments: str, piped: bool = False, **environment: str) -> Any:
    """One of this package's modules as a process, for the length of the block; `piped`: its input and its output."""
    return process("-m", f"{__package__}.{name}", *arguments, environment=environment, piped=piped)


@contextlib.asynccontextmanager
async def process(
    *arguments: str, environment: dict[str, str], piped: bool = False, folder: Path | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python process for the length of the block, which none of our settings reach but these.

    A signal of the terminal does not reach it either; what happens to this process ends it, where the kernel can.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    made = await asyncio.create_subprocess_exec(
        *command([sys.executable, *arguments], None, signal.SIGTERM),
        cwd=folder,
        env={**inherited, "PYTHONPATH": _PROJECT, **environment},
        stdin=asyncio.subprocess.PIPE if piped else None,
        stdout=asyncio.subprocess.PIPE if piped else None,
        start_new_session=True,
    )
    try:
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            if made.returncode is None:  # by hand: terminate() would take its end from the loop, which warns of that
                os.kill(made.pid, signal.SIGTERM)
            try:
                await asyncio.wait_for(made.wait(), _END_SECS)
            except TimeoutError:
                made.kill()
                await made.wait()


async def generate(target: Target, request: bytes, count: int, connections: int, status: int) -> dict[str, float]:
    """The rate, how busy the generator was, and the server's CPU time per request in µs."""
    used = target.cpu_seconds()
    async with module("load", *map(str, (target.port, count, connections, status)), piped=True) as made:
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
