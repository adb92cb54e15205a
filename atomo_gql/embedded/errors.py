"""The one error of the embedded PostgreSQL, and how an operating system's error becomes it."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ELSEWHERE = "set ATOMO_DATA_DIR to another folder, or DATABASE_URL to a PostgreSQL of your own"

_LITTLE_SPACE = 17 * 1024 * 1024  # one segment of the write-ahead log, and a little

_REMEDIES = {
    errno.EACCES: f"Give this user the right to write there, {ELSEWHERE}.",
    errno.EPERM: f"Give this user the right to do so, {ELSEWHERE}.",
    errno.EROFS: f"The file system is read-only: {ELSEWHERE}.",
    errno.ENOSPC: f"The disk is full: free some space, {ELSEWHERE}.",
    errno.EDQUOT: f"This user's disk quota is used up: free some space, {ELSEWHERE}.",
    errno.ENOTDIR: f"A part of the path is a file, not a folder: {ELSEWHERE}.",
    errno.EEXIST: f"A file stands where a folder should be: {ELSEWHERE}.",
}

# The first sign that is found counts. Memory comes before the disk: the system says "No space left on device" of both.
_SIGNS = (
    (
        "could not resize shared memory segment",
        "/dev/shm is too small: give it more (docker run --shm-size=64m), or set DATABASE_URL.",  # noqa: S108
    ),
    (
        "could not open shared memory segment",
        "/dev/shm cannot be used: let every user write there (mode 1777), or set DATABASE_URL.",  # noqa: S108
    ),
    (
        "could not map anonymous shared memory",
        "There is too little memory for PostgreSQL (it takes about 200 MB): give it more, or set DATABASE_URL.",
    ),
    ("could not create semaphores", "The system has no semaphores left: raise its limits, or set DATABASE_URL."),
    ("could not create shared memory", "The system refuses shared memory: raise its limits, or set DATABASE_URL."),
    (
        "is not recognized by setlocale",
        "The database was made with a locale that this system lacks: install that locale, or set DATABASE_URL.",
    ),
    ("No space left on device", "The disk is full: free some space and start again."),
    (": wrote only ", "The disk is full: free some space and start again."),
    ("Disk quota exceeded", "This user's disk quota is used up: free some space and start again."),
    ("Read-only file system", f"The file system is read-only: {ELSEWHERE}."),
    ("could not look up effective user ID", "This user id has no name: add it to /etc/passwd, or set DATABASE_URL."),
    ("error while loading shared libraries", "A library is missing on this system: install it, or set DATABASE_URL."),
    ("pg_control", "The data folder is damaged: put it back from a backup, or set DATABASE_URL."),
)


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot be had. The message is one paragraph that says what to do."""


def remedy(output: str, folder: Path | None = None) -> str:
    """What to do about a PostgreSQL program that failed, from what it printed; an empty text when nothing is known.

    With the `folder` it wrote to, a full disk is told too: the log then often holds not a word of it.
    """
    known = next((advice for sign, advice in _SIGNS if sign in output), "")
    if not known and folder is not None and folder.is_dir() and shutil.disk_usage(folder).free < _LITTLE_SPACE:
        return f"The disk that holds {folder} is full: free some space and start again."
    return known


def gist(printed: str) -> str:
    """The one or two lines that matter of what a program printed, as one line of at most 500 characters."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line for word in ("FATAL:", "PANIC:", "ERROR:", "error:"))]
    return " ".join((telling or lines)[-2:])[-500:]


@contextmanager
def explained(doing: str, path: Path) -> Iterator[None]:
    """Turn an `OSError` in the block into an `EmbeddedPostgresError`: "Cannot <doing> <path>: <reason>. <remedy>"."""
    try:
        yield
    except OSError as error:
        advice = _REMEDIES.get(error.errno or 0, f"If it stays so, {ELSEWHERE}.")
        reason = error.strerror or str(error)
        raise EmbeddedPostgresError(f"Cannot {doing} {path}: {reason}. {advice}") from error
