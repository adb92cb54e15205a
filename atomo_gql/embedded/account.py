"""Which user PostgreSQL runs as. It refuses to run as root, so under root another user must be found for it."""

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from atomo_gql.embedded.errors import EmbeddedPostgresError

if sys.platform != "win32":
    import pwd


@dataclass(frozen=True, slots=True)
class Account:
    """A user and group id that PostgreSQL's processes take instead of root's."""

    uid: int
    gid: int


def is_root() -> bool:
    """True when this process runs as uid 0 (never on Windows)."""
    return sys.platform != "win32" and os.geteuid() == 0


def choose_account(cluster: Path) -> Account | None:
    """The user to run PostgreSQL as, or None for the present one, which is every case but root.

    A cluster that another user made (before a `sudo`, in an earlier image) stays with its owner; else the user
    `postgres`, else `nobody`.

    Raises EmbeddedPostgresError when root has none of them.
    """
    if sys.platform == "win32" or not is_root():
        return None
    if cluster.is_dir():
        owner = cluster.stat()
        if owner.st_uid != 0:
            return Account(owner.st_uid, owner.st_gid)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise EmbeddedPostgresError(
        "PostgreSQL refuses to run as root, and this system has neither a user `postgres` nor `nobody` to run it as. "
        "Add one (useradd --system postgres), run this program as an ordinary user, or set DATABASE_URL."
    )


def may_enter(folder: Path, account: Account) -> bool:
    """True when the mode of `folder` lets `account` through it (its own bits alone, not its parents')."""
    status = folder.stat()
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def barrier(path: Path, account: Account) -> Path | None:
    """The first folder from the root to `path` (resolved, existing) that `account` may not pass, or None."""
    return next((folder for folder in (*reversed(path.parents), path) if not may_enter(folder, account)), None)


def give(path: Path, account: Account | None) -> None:
    """Make `account` the owner of `path` alone; nothing to do without an account."""
    if sys.platform != "win32" and account is not None:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def give_tree(folder: Path, account: Account) -> None:
    """Make `account` the owner of `folder` and all in it. Symbolic links are given, not followed."""
    for path in (folder, *folder.rglob("*")):
        give(path, account)


def give_to_owner_of_folder(path: Path) -> None:
    """Under root, give a file just made to whoever owns its folder, so that this user can later do without root."""
    if is_root():
        owner = path.parent.stat()
        give(path, Account(owner.st_uid, owner.st_gid))
