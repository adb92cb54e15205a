"""Debian's PostgreSQL and PgBouncer as processes of a test, and a wire in front of them that can fall silent."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp
import asyncpg
import pytest

from atomo_gql.cli.host import running
from atomo_gql.settings import Settings
from atomo_gql.store.migrations import migrate
from tests.conftest import SECRET, Server, until

_BINARIES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
# Another build than the system's may be tried: ATOMO_PGBOUNCER=/path/to/pgbouncer.
_PGBOUNCER = os.environ.get("ATOMO_PGBOUNCER") or shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/bin")

needs_postgres = pytest.mark.skipif(
    _BINARIES is None, reason="PostgreSQL's server binaries are missing: install Debian's postgresql"
)
needs_pgbouncer = pytest.mark.skipif(_PGBOUNCER is None, reason="PgBouncer is missing: install Debian's pgbouncer")


def free_port() -> int:
    """One that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _run(*command: str) -> None:
    """A command, as a user that these programs accept: none of them runs as root."""
    process = await asyncio.create_subprocess_exec(
        *command,
        user="nobody" if os.geteuid() == 0 else None,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, f"{command}: {out.decode()}"


def own_folder(folder: Path) -> Path:
    """A new folder of the user that these programs run as."""
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
    return folder


class Cluster:
    """A PostgreSQL of its own, durable, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.dsn = f"postgresql://atomo@127.0.0.1:{self.port}/postgres?sslmode=disable"

    async def make(self) -> None:
        """A new one."""
        own_folder(self.folder)
        await self._tool("initdb", "-D", str(self.folder), "-U", "atomo", "-A", "trust", "--encoding=UTF8", "--no-sync")

    async def follow(self, primary: "Cluster") -> None:
        """A standby of another."""
        own_folder(self.folder)
        source = f"host=127.0.0.1 port={primary.port} user=atomo"
        await self._tool(
            "pg_basebackup", "-D", str(self.folder), "-d", source, "-R", "-X", "stream", "-c", "fast", "-N"
        )

    async def start(self, **settings: str) -> None:
        """Until it takes connections."""
        named = {"unix_socket_directories": "", "max_connections": "100", **settings}
        options = " ".join([f"-p {self.port}", *(f"-c {name}={value}" for name, value in named.items())])
        log = str(self.folder / "log")
        await self._tool("pg_ctl", "-D", str(self.folder), "-l", log, "-o", options, "-w", "start")

    async def promote(self) -> None:
        """From now on it can be written."""
        await self._tool("pg_ctl", "-D", str(self.folder), "-w", "promote")

    async def stop(self) -> None:
        """Without further ado, if it runs."""
        with contextlib.suppress(AssertionError):
            await self._tool("pg_ctl", "-D", str(self.folder), "-m", "immediate", "stop")

    async def kill(self) -> None:
        """SIGKILL to its postmaster; the others end when they find out."""
        os.kill(int((self.folder / "postmaster.pid").read_text().splitlines()[0]), signal.SIGKILL)

    @contextlib.asynccontextmanager
    async def sql(self) -> AsyncIterator[Any]:
        """A connection to it."""
        connection = await asyncpg.connect(self.dsn, timeout=5, server_settings={"search_path": "atomo"})
        try:
            yield connection
        finally:
            connection.terminate()

    async def _tool(self, name: str, *arguments: str) -> None:
        assert _BINARIES
        await _run(str(_BINARIES / name), *arguments)


class PgBouncer:
    """In front of the database of that address."""

    def __init__(self, folder: Path, dsn: str, mode: str) -> None:
        """`mode`: session or transaction."""
        self._folder = folder
        self._mode = mode
        self._parts = urlsplit(dsn)
        self._process: asyncio.subprocess.Process | None = None
        self.port = free_port()
        user, password = unquote(self._parts.username or ""), unquote(self._parts.password or "")
        self._user, self._password = user, password
        self.dsn = f"postgresql://{user}@127.0.0.1:{self.port}{self._parts.path}"

    async def start(self) -> None:
        """Until it takes connections."""
        assert _PGBOUNCER
        if not self._folder.exists():
            own_folder(self._folder)
        (self._folder / "users").write_text(f'"{self._user}" "{self._password}"\n')
        server = f"host={self._parts.hostname} port={self._parts.port or 5432}"
        if self._password:
            server += f" password='{self._password}'"
        (self._folder / "pgbouncer.ini").write_text(
            f"""
            [databases]
            * = {server}
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {self.port}
            unix_socket_dir =
            auth_type = trust
            auth_file = {self._folder / "users"}
            pool_mode = {self._mode}
            default_pool_size = 20
            max_client_conn = 200
            log_connections = 0
            log_disconnections = 0
            logfile = {self._folder / "log"}
            """.replace("\n            ", "\n")
        )
        for file in ("users", "pgbouncer.ini"):
            (self._folder / file).chmod(0o644)
        self._process = await asyncio.create_subprocess_exec(
            _PGBOUNCER,
            str(self._folder / "pgbouncer.ini"),
            user="nobody" if os.geteuid() == 0 else None,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await until(self._answers, within=20)

    async def kill(self) -> None:
        """SIGKILL."""
        if self._process and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.close()
            return True
        return False


@contextlib.asynccontextmanager
async def served(dsn: str, looked_at: str, folder: Path) -> AsyncIterator[Server]:
    """A server of this process on the database of that address; the test looks at it by another."""
    settings = Settings(jwt_secret=SECRET, data_dir=folder, port=0, env="test")
    await migrate(looked_at)
    async with running(settings, dsn) as server, aiohttp.ClientSession() as http:
        yield Server(server.url, looked_at, server.application, http, server.warming)


class Wire:
    """TCP to a port of this machine, which can be changed, and can fall silent without being closed."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self._silent: set[asyncio.StreamWriter] = set()
        self._is_black_hole = False
        self._carrying: set[asyncio.Task[None]] = set()

    def fall_silent(self, *, also_new: bool = False) -> None:
        """Forward nothing more on what is open now; with `also_new`, on nothing that comes."""
        self._silent |= self._ends
        self._is_black_hole = also_new

    def mend(self) -> None:
        """New connections are forwarded again; those that fell silent stay so."""
        self._is_black_hole = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Wire"]:
        """Listens for the length of the block."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self._server.close()
            for end in list(self._ends):
                end.transport.abort()
            await asyncio.gather(*self._carrying)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)
        self._ends.add(writer)
        if self._is_black_hole:
            self._silent.add(writer)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            self._ends.discard(writer)
            writer.transport.abort()
            return
        self._ends.add(back)
        if writer in self._silent:
            self._silent.add(back)
        await asyncio.gather(self._carry(reader, back), self._carry(there, writer))
        for end in (writer, back):
            self._ends.discard(end)
            end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65_536):
                if writer not in self._silent:
                    writer.write(chunk)
                    await writer.drain()
        if writer not in self._silent:  # else its other end is not told
            writer.close()
