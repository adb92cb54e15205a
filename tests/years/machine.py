"""A machine with a clock of its own: a PostgreSQL, and servers, that all read the time from it."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg

from atomo_gql.embedded.account import choose_account, give
from atomo_gql.embedded.binaries import find_binaries, program
from atomo_gql.embedded.leftovers import processes_on
from atomo_gql.embedded.runtime import usable_binaries
from atomo_gql.embedded.spawn import run
from tests.chaos.rig import Rig, a_folder
from tests.conftest import until, with_database

from .clock import Clock

# PostgreSQL's default settings but for these: nothing here outlives the run, so nothing needs to reach the disk.
_SETTINGS = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off", "full_page_writes": "off"}
_SHARED = Path("/dev/shm")  # where libfaketime leaves a file for each process that is killed


class Machine(Rig):
    """Servers by name on one PostgreSQL. The clock can be moved beside them, while they run or while they do not."""

    def __init__(self, folder: Path, clock: Clock | None, settings: Mapping[str, str]) -> None:
        """`settings`: environment variables of the servers and commands. Without a clock they live by the real one."""
        super().__init__(folder)
        self._clock = clock
        self._cluster = folder / "cluster"
        self._account = choose_account(self._cluster)
        self._running: asyncio.subprocess.Process | None = None
        self._faked = clock.environment() if clock else {}
        self._environment |= {**self._faked, **settings}

    @property
    def clock(self) -> Clock:
        """The clock that its processes live by."""
        assert self._clock, "this machine lives by the real clock"
        return self._clock

    @property
    def dsn(self) -> str:
        """The servers' database."""
        return self._dsn

    async def start_postgres(self) -> None:
        """Make a cluster and start it. It lives by the clock from its first moment."""
        give(self.folder, self._account)
        binaries, _ = usable_binaries(find_binaries(), self._account, self.folder / "runtime")
        port = _free_port()
        await asyncio.to_thread(
            run, [program(binaries, "initdb"), "-D", self._cluster, "-A", "trust", "-U", "postgres", "-E", "UTF8",
                  "--no-locale", "--no-sync"], self._account,
        )  # fmt: skip
        settings = [f"--{name}={value}" for name, value in {**_SETTINGS, "port": str(port)}.items()]
        account = self._account
        with (self.folder / "postgres.log").open("ab") as log:
            self._running = await asyncio.create_subprocess_exec(
                *(str(program(binaries, "postgres")), "-D", str(self._cluster), *settings),
                env={"LC_ALL": "C", **self._faked},
                cwd="/",
                stdout=log,
                stderr=log,
                **({} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}),  # type: ignore[arg-type]
            )
        self._dsn = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        await until(self.has_database, within=60)
        async with self.sql() as sql:
            await sql.execute("CREATE DATABASE year")
        self._dsn = with_database(self._dsn, "year")
        self._environment["DATABASE_URL"] = self._dsn

    async def sleep(self, by: timedelta) -> None:
        """The machine sleeps: nothing in it runs, and when it wakes up its clock has gone on."""
        pids = self._pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        self.clock.move(by)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    async def stop(self) -> None:
        """End all that runs."""
        pids = self._pids()
        await super().stop()
        if self._running and self._running.returncode is None:
            self._running.send_signal(signal.SIGINT)
            try:
                await asyncio.wait_for(self._running.wait(), 60)
            except TimeoutError:
                self._running.kill()
                await self._running.wait()
        for pid in pids:
            for kind in ("faketime_shm", "sem.faketime_sem"):
                (_SHARED / f"{kind}_{pid}").unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def sql_on(self, name: str) -> AsyncIterator[Any]:
        """A connection to another database of the cluster."""
        connection: Any = await asyncpg.connect(
            with_database(self._dsn, name), server_settings={"search_path": "atomo"}
        )
        try:
            yield connection
        finally:
            await connection.close()

    def _pids(self) -> list[int]:
        servers = [process.pid for process in self._processes.values() if process.returncode is None]
        return servers + (processes_on(self._cluster) if self._running else [])


@contextlib.asynccontextmanager
async def a_machine(offset: timedelta | None, **settings: str) -> AsyncIterator[Machine]:
    """A machine with a PostgreSQL that runs. Its clock differs from the real one by `offset` (None: it is that one)."""
    with a_folder() as folder:
        clock = None if offset is None else Clock(folder / "clock", offset)
        machine = Machine(folder, clock, settings)
        try:
            await machine.start_postgres()
            yield machine
        finally:
            await machine.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
