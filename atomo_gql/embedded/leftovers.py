"""What an earlier server left behind: its pid file, and processes that still run on the cluster."""

import asyncio
import os
import re
import signal
import subprocess
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


def remove_damaged_pid_file(cluster: Path, log: Callable[[str], None]) -> None:
    """Remove a `postmaster.pid` that names no process, as a power cut or a full disk leaves it.

    PostgreSQL would not start over it. To be called by the owner of the lock only, after `end_leftovers`. A server
    that still ran on the cluster would be found all the same, by its shared memory.

    Raises EmbeddedPostgresError when it cannot be removed.
    """
    path = cluster / "postmaster.pid"
    if _number_in(path) is None and path.exists():
        with explained("remove", path):
            path.unlink()
        log(f"removed {path}, which was damaged (as after a power cut) and named no process")


def past_recycled_pid(cluster: Path) -> dict[str, str]:
    """The variable that has PostgreSQL start although `postmaster.pid` names a live process that is no PostgreSQL.

    In a container the same pids come again after each start. PostgreSQL refuses to start while the process of that
    pid lives, unless it is its own parent's parent, which this variable names. It looks for a server that still uses
    the shared memory all the same. To be called by the owner of the lock only, after `end_leftovers`.
    """
    pid = _number_in(cluster / "postmaster.pid")
    if pid is None or sys.platform == "win32" or _is_postgres(pid, cluster):
        return {}
    return {"PG_GRANDPARENT_PID": str(pid)}


def _number_in(path: Path) -> int | None:
    """The pid in a pid file; None when there is no file, or no pid in its first line."""
    with explained("read", path):
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
    match = re.match(rb"\s*-?([1-9]\d*)\s*(\n|$)", text)  # negative: PostgreSQL's mode for a single user wrote it
    return int(match[1]) if match else None


def _is_postgres(pid: int, cluster: Path) -> bool:
    """Whether a process may be a PostgreSQL of the cluster. Where that cannot be known, it is taken for one."""
    if sys.platform == "linux":
        return pid in processes_on(cluster.resolve())
    try:
        argv = ["ps", "-o", "comm=", "-p", str(pid)]
        answer = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return True
    return "postgres" in Path(answer.stdout.strip()).name


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
