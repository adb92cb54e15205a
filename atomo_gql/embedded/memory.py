"""Which kind of shared memory PostgreSQL is told to use.

PostgreSQL keeps its main memory apart, but takes more of it at run time ("dynamic" shared memory), on Linux from the
file system /dev/shm. A container may have a very small one, none at all, or one that cannot be written to. PostgreSQL
can then keep this memory in files of its own data folder, which needs nothing of the system.
"""

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from atomo_gql.embedded.account import Account

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the system's own folder for it
_ENOUGH = 32 * 1024 * 1024  # free bytes; PostgreSQL takes 1 MiB at first, and some more for statistics of many tables


def memory_settings(account: Account | None, log: Callable[[str], None] | None = None) -> dict[str, str]:
    """The server settings (name to value) that let PostgreSQL, run as `account`, find shared memory on this machine.

    Empty where the default serves. `log` gets one line when it does not.
    """
    if sys.platform != "linux":
        return {}
    why = _trouble(SHARED_MEMORY, account)
    if why is None:
        return {}
    if log is not None:
        log(f"{SHARED_MEMORY} {why}: PostgreSQL keeps its dynamic shared memory in its data folder instead")
    return {"dynamic_shared_memory_type": "mmap"}


def _trouble(folder: Path, account: Account | None) -> str | None:
    """What keeps `account` from using `folder` for shared memory, or None."""
    try:
        volume, status = os.statvfs(folder), folder.stat()
    except OSError as error:
        return f"cannot be used ({error.strerror})"
    if volume.f_flag & os.ST_RDONLY:
        return "is read-only"
    if not _may_write(folder, status, account):
        return "cannot be written to"
    free = volume.f_bavail * volume.f_frsize
    if free < _ENOUGH:
        return f"is too small ({free / 1024 / 1024:.1f} MiB free)"
    return None


def _may_write(folder: Path, status: os.stat_result, account: Account | None) -> bool:
    if account is None:
        return os.access(folder, os.W_OK | os.X_OK)
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IWUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IWGRP)
    return bool(status.st_mode & stat.S_IWOTH)
