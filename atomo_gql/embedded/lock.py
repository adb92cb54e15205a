"""The lock file that says which of several processes on one data folder owns the server."""

import os
import sys
from pathlib import Path

from atomo_gql.embedded.account import give_to_owner_of_folder
from atomo_gql.embedded.errors import explained

if sys.platform == "win32":
    import msvcrt

    def _try_lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try_lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


class FileLock:
    """An exclusive lock on a file, which the system lets go of when the process dies, however it dies.

    The file stays: removing it would let two processes lock two files of one name. The child inherits no handle.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    @property
    def held(self) -> bool:
        """True while this object holds the lock."""
        return self._handle is not None

    def acquire(self) -> bool:
        """Take the lock if it is free; returns whether it is held now. Never waits.

        Raises EmbeddedPostgresError when the file cannot be made or the file system knows no locks.
        """
        if self._handle is not None:
            return True
        with explained("lock", self._path):
            new = not self._path.exists()
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                if new:
                    give_to_owner_of_folder(self._path)
                _try_lock(handle)
            except BaseException as error:
                os.close(handle)
                # Windows tells a lock held by another as PermissionError, POSIX as BlockingIOError.
                if isinstance(error, BlockingIOError | PermissionError):
                    return False
                raise
        self._handle = handle
        return True

    def release(self) -> None:
        """Let go of the lock; nothing to do when it is not held."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
