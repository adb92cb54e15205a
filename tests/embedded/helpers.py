"""What the tests share: a log that can be waited on, another process on a folder, and the end of a process."""

import asyncio
import contextlib
import os
import re
import sys
import sysconfig
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import asyncpg

from atomo_gql.embedded import account

PROJECT = Path(__file__).parents[2]
NOBODY = account.Account(65534, 65534)
AS_NOBODY = ("setpriv", "--pdeathsig=KILL", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
PURELIB = f"{PROJECT}:{sysconfig.get_path('purelib')}"
LIMIT = 60.0
"""Seconds after which a wait has failed."""


class Diary:
    """A `log` that keeps all lines and wakes whoever waits for one."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._news = asyncio.Event()

    def __call__(self, line: str) -> None:
        """Take a line."""
        self.lines.append(line)
        self._news.set()

    async def heard(self, pattern: str, *, times: int = 1) -> str:
        """Wait until `times` lines match `pattern`; returns the last of them."""
        async with asyncio.timeout(LIMIT):
            while True:
                self._news.clear()
                found = [line for line in self.lines if re.search(pattern, line)]
                if len(found) >= times:
                    return found[times - 1]
                await self._news.wait()


class Other:
    """Another Python process with an embedded PostgreSQL on a folder (see process.py)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[str] = []

    async def heard(self, pattern: str) -> str:
        """Read its output up to a line that matches; returns what the pattern's first group, or all of it, matched."""
        assert self.process.stdout is not None
        async with asyncio.timeout(LIMIT):
            while line := (await self.process.stdout.readline()).decode().strip():
                self.said.append(line)
                if match := re.search(pattern, line):
                    return match[match.re.groups and 1]
        raise AssertionError(f"{pattern!r} was never said, but {self.said}")

    async def dsn(self) -> str:
        """Wait for its start; returns the DSN it got."""
        return await self.heard(r"^DSN (.*)")

    async def stop(self) -> None:
        """Have it stop in good order, and end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        async with asyncio.timeout(LIMIT):
            await self.process.wait()

    async def kill(self) -> None:
        """SIGKILL: it gets no chance to do anything."""
        self.process.kill()
        await self.process.wait()


@contextlib.asynccontextmanager
async def other_process(
    folder: Path,
    *flags: str,
    python: str = sys.executable,
    user: str | None = None,
    path: str | None = None,
    within: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Other]:
    """Start another process on `folder`, as `user` if given; it is killed at the end if it still runs.

    `within` is a command that turns into the one that follows it, and `environment` are variables to add.
    """
    process = await asyncio.create_subprocess_exec(
        *within,
        python,
        "-u",
        str(Path(__file__).with_name("process.py")),
        str(folder),
        *flags,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={
            "PYTHONPATH": path or os.pathsep.join((str(PROJECT), *sys.path)),
            "PATH": os.environ["PATH"],
            **(environment or {}),
        },
        user=user,
        group=None,
        cwd="/",
    )
    try:
        yield Other(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        process._transport.close()  # type: ignore[attr-defined]


async def ended(pid: int) -> None:
    """Wait for the end of a process that need not be a child of this one."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(handle, gone.set)
    try:
        async with asyncio.timeout(LIMIT):
            await gone.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


@contextlib.asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection, closed at the end."""
    connection: asyncpg.Connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close(timeout=LIMIT)


async def remember(dsn: str, word: str) -> None:
    """Commit a word."""
    async with connected(dsn) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS words (word text)")
        await connection.execute("INSERT INTO words VALUES ($1)", word)


async def words(dsn: str) -> list[str]:
    """All words committed, in order."""
    async with connected(dsn) as connection:
        return [row["word"] for row in await connection.fetch("SELECT word FROM words ORDER BY word")]


def postmaster_pid(cluster: Path) -> int:
    """The pid of the server on the cluster."""
    return int((cluster / "postmaster.pid").read_text().split()[0])
