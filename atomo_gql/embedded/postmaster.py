"""One run of the server: its settings, start, readiness and end."""

import asyncio
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from atomo_gql.embedded.account import Account
from atomo_gql.embedded.binaries import program
from atomo_gql.embedded.errors import EmbeddedPostgresError, explained, gist, remedy
from atomo_gql.embedded.files import Files, open_log, read_since
from atomo_gql.embedded.leftovers import past_recycled_pid, read_pid_file
from atomo_gql.embedded.memory import memory_settings
from atomo_gql.embedded.probe import Answer, probe
from atomo_gql.embedded.spawn import Child, ending, run

READY_TIMEOUT = 600.0
"""Seconds a server may take to be ready. Recovery after a crash replays up to a gigabyte of log."""
PROGRESS_EVERY = 5.0
"""Seconds between two lines of log while waiting."""
_FAST_TIMEOUT, _IMMEDIATE_TIMEOUT = 60.0, 10.0

DEFAULTS = {
    "shared_buffers": "128MB",
    "jit": "off",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_wal_size": "512MB",
    "checkpoint_timeout": "5min",
    # Parallel queries share memory through /dev/shm, of which a container has 64 MB; a job queue has no use for them.
    "max_parallel_workers_per_gather": "0",
    # Each partition and index that a statement looks at is a lock; many days kept make many partitions.
    "max_locks_per_transaction": "256",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that a server needs in order to start."""

    files: Files
    binaries: Path
    version: str
    account: Account | None


class ServerDiedError(EmbeddedPostgresError):
    """The server ended before it was ready."""

    def __init__(self, message: str, printed: str) -> None:
        super().__init__(message)
        self.port_taken = "could not create any TCP/IP sockets" in printed or "Address already in use" in printed
        still_held = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')
        self.may_pass = self.port_taken or any(sign in printed for sign in still_held)
        """True when it may well succeed in a moment: an earlier server is still going, or another has the port."""


class Adopted:
    """A live server that another, dead process started; where the kernel does not end it together with its parent."""

    ended = False

    def __init__(self, pid: int, port: int) -> None:
        self.pid, self.port = pid, port

    async def wait(self) -> int:
        """Wait for its end, by asking its port; its exit code is not known: 0."""
        while await probe(self.port) is not Answer.CLOSED:  # noqa: ASYNC110
            await asyncio.sleep(1)  # no event tells the end of a process that is not a child
        self.ended = True
        return 0


def arguments(prepared: Prepared, port: int, settings: Mapping[str, str]) -> list[str | Path]:
    """The server's command line: the defaults, over them `settings`, over those what the lifecycle depends on.

    A command line outranks the configuration files of the cluster, which somebody may have changed.
    """
    fixed = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "logging_collector": "off",
        "log_destination": "stderr",
    }
    argv: list[str | Path] = [program(prepared.binaries, "postgres"), "-D", prepared.files.cluster]
    for name, value in {**DEFAULTS, **settings, **fixed}.items():
        argv += ["-c", f"{name}={value}"]
    return argv


async def launch(prepared: Prepared, port: int, settings: Mapping[str, str], log: Callable[[str], None]) -> Child:
    """Start a server and wait until it takes connections.

    Raises ServerDiedError when it ends before that, EmbeddedPostgresError when it is not ready in `READY_TIMEOUT`;
    then, and when cancelled, no server is left running.
    """
    path = prepared.files.log
    with explained("start PostgreSQL from", prepared.binaries), open_log(path) as output:
        begin = output.seek(0, 2)
        memory = memory_settings(prepared.account, log)
        argv = arguments(prepared, port, {**memory, **settings})
        more = past_recycled_pid(prepared.files.cluster)
        child = Child(argv, prepared.account, output, signal.SIGINT, more)
    try:
        await _ready(child, prepared.files, port, begin, log)
    except BaseException:
        await shut_down(child, prepared, log)
        raise
    return child


async def adopt(prepared: Prepared) -> Adopted | None:
    """The live server on the cluster, if there is one that takes connections."""
    found = read_pid_file(prepared.files.cluster)
    if found is not None and found.ready and await probe(found.port) is Answer.READY:
        return Adopted(found.pid, found.port)
    return None


async def shut_down(server: Child | Adopted, prepared: Prepared, log: Callable[[str], None]) -> None:
    """End a server and wait: fast (with a checkpoint), then immediately (to be recovered from), then by SIGKILL."""
    if server.ended:
        return
    if sys.platform == "win32" or isinstance(server, Adopted):
        await asyncio.to_thread(_stop_by_pg_ctl, prepared)
        return
    for number, patience in (
        (signal.SIGINT, _FAST_TIMEOUT),
        (signal.SIGQUIT, _IMMEDIATE_TIMEOUT),
        (signal.SIGKILL, _IMMEDIATE_TIMEOUT),
    ):
        server.signal(number)
        if await server.ended_within(patience):
            return
        log(f"PostgreSQL (pid {server.pid}) has not ended {patience:.0f} s after {number.name}")


def _stop_by_pg_ctl(prepared: Prepared) -> None:
    argv: list[str | Path] = [program(prepared.binaries, "pg_ctl"), "stop", "-D", prepared.files.cluster, "-w"]
    try:
        run([*argv, "-t", f"{_FAST_TIMEOUT:.0f}", "-m", "fast"], prepared.account)
    except EmbeddedPostgresError:
        run([*argv, "-t", f"{_IMMEDIATE_TIMEOUT:.0f}", "-m", "immediate"], prepared.account)


async def _ready(child: Child, files: Files, port: int, begin: int, log: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    tell = started + PROGRESS_EVERY
    pause = 0.02
    while not child.ended:
        found = read_pid_file(files.cluster)
        # By its pid, so that a foreign server on the port is not taken for ours before ours has ended over it.
        if found and found.pid == child.pid and found.ready and await probe(port) is Answer.READY:
            return
        now = loop.time()
        if now > started + READY_TIMEOUT:
            raise EmbeddedPostgresError(
                f"PostgreSQL was not ready within {READY_TIMEOUT:.0f} s. See {files.log}; a very slow disk or a "
                "recovery that is not done yet may be the reason: start again. Its last words: "
                f"{read_since(files.log, begin)}"
            )
        if now > tell:
            tell = now + PROGRESS_EVERY
            last = read_since(files.log, begin, 300).rpartition("\n")[2]
            log(f"waiting for PostgreSQL to be ready ({now - started:.0f} s so far): {last}")
        await child.ended_within(pause)
        pause = min(pause * 1.5, 0.5)
    printed = read_since(files.log, begin)
    advice = remedy(printed, files.home) or "Mend what it names, or set DATABASE_URL."
    raise ServerDiedError(
        f"PostgreSQL did not start ({ending(await child.wait())}). {advice} In {files.log}: {gist(printed)}",
        printed,
    )
