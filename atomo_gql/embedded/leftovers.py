"""What an earlier server left behind: its pid file, and processes that still run on the cluster."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from atomo_gql.embedded.errors import explained


@dataclass(frozen=True, slots=True)
class PidFile:
    """What `postmaster.pid` says. It stays behind after a crash, so nothing of it need be true any more."""

    pid: int
    port: int
    ready: bool


def read_pid_file(cluster: Path) -> PidFile | None:
    """The cluster's `postmaster.pid`; None when there is none or it is not written out yet.

    Raises EmbeddedPostgresError when this user may not read it.
    """
    path = cluster / "postmaster.pid"
    with explained("read", path):
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return None
    try:
        return PidFile(int(lines[0]), int(lines[3]), len(lines) > 7 and lines[7].strip() == "ready")
    except (ValueError, IndexError):
        return None


def processes_on(cluster: Path) -> list[int]:
    """The pids of the PostgreSQL processes whose working folder is the cluster; Linux only, empty elsewhere.

    PostgreSQL changes into its cluster at start and all its children inherit that, so this mistakes nobody else's
    process (or a reused pid) for ours.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == cluster and (process / "comm").read_text().startswith("postgres"):
                found.append(int(process.name))
        except OSError:
            continue  # it has just ended, or is another user's
    return found


async def end_leftovers(cluster: Path, log: Callable[[str], None]) -> None:
    """End what still runs on the cluster, so that a new server can start; to be called by the owner of the lock only.

    A server whose parent was killed is already shutting down and is given its time; the children of a killed server
    hold its shared memory until they notice, and one in a long computation may not notice for long. Linux only, else
    nothing.
    """
    if sys.platform != "linux":
        return
    cluster = cluster.resolve()  # noqa: ASYNC240 - one system call
    for number, patience in ((signal.SIGINT, 30.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
        left = processes_on(cluster)
        if not left:
            return
        if number == signal.SIGINT:
            pid_file = read_pid_file(cluster)
            left = [pid for pid in left if pid_file and pid == pid_file.pid]
            # To the children of a killed server SIGINT only means to cancel a query: they get a moment to notice.
            patience = patience if left else 3.0
        if left:
            log(f"ending what an earlier PostgreSQL left running: {number.name} to {left}")
        for pid in left:
            _send(pid, number)
        if await _gone(cluster, patience):
            return


async def _gone(cluster: Path, patience: float) -> bool:
    """Wait at most `patience` seconds until nothing runs on the cluster; returns whether that is so."""
    deadline = asyncio.get_running_loop().time() + patience
    while processes_on(cluster):
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        return  # it has just ended
