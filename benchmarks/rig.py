"""The processes under measurement: a server on its own durable PostgreSQL, and the reference server."""

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import orjson

from atomo_gql.cli.host import database, migrated
from atomo_gql.cli.token import sign
from atomo_gql.settings import Settings
from atomo_gql.store.database import Database

_SECRET = "the benchmark's own secret, which is long enough"
_PROJECT = str(Path(__file__).parents[1])
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True, slots=True)
class Target:
    """A server that listens."""

    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """What its process has used so far; 0 where /proc does not say."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / _TICKS


@dataclass(frozen=True, slots=True)
class Rig:
    """All that the paths need."""

    store: Database  # the same database as the server's, without the server
    server: Target
    echo: Target
    jwt: str


@contextlib.asynccontextmanager
async def a_rig() -> AsyncIterator[Rig]:
    """Everything, in a temporary folder. DATABASE_URL, when it is set, takes the place of the embedded PostgreSQL."""
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="atomo-bench-", ignore_cleanup_errors=True))
        Path(folder).chmod(0o755)  # PostgreSQL may run as another user
        settings = Settings(
            jwt_secret=_SECRET, data_dir=Path(folder) / "data", database_url=os.environ.get("DATABASE_URL")
        )
        dsn = await stack.enter_async_context(database(settings))
        await migrated(dsn)
        store = Database(dsn)
        await store.open()
        stack.push_async_callback(store.close)
        environment = {"DATABASE_URL": dsn, "JWT_SECRET": _SECRET, "ATOMO_LOG_LEVEL": "error"}
        port, echo_port = _free_port(), _free_port()
        serve = ("-m", "atomo_gql", "serve", "--port", str(port))
        server = await stack.enter_async_context(process(*serve, **environment))
        echo = await stack.enter_async_context(process("-m", "benchmarks.echo", str(echo_port)))
        await listening(port, lambda: server.returncode is None)
        await listening(echo_port, lambda: echo.returncode is None)
        jwt = sign(settings, "bench", role="admin", tenant=None, lasts=86_400)
        yield Rig(store, Target(port, server.pid), Target(echo_port, echo.pid), jwt)


@contextlib.asynccontextmanager
async def process(*arguments: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python process for the length of the block."""
    made = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env={**os.environ, "PYTHONPATH": _PROJECT, **environment}
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
        *(sys.executable, "-m", "benchmarks.load", str(target.port), str(count), str(connections), str(status)),
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
