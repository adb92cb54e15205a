"""The files in the data folder: names, and writing them so that a kill leaves the old or the new one whole."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from atomo_gql.embedded.account import give_to_owner_of_folder
from atomo_gql.embedded.errors import explained

_LOG_LIMIT = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Files:
    """The paths below one data folder; `home` is where PostgreSQL's own user can get at (see `place`)."""

    data: Path
    home: Path

    @property
    def cluster(self) -> Path:
        """PostgreSQL's data: what must not be lost."""
        return self.home / "postgres"

    @property
    def runtime(self) -> Path:
        """Copies of the programs, for a user who cannot get at the originals. May be removed when stopped."""
        return self.home / "runtime"

    @property
    def lock(self) -> Path:
        """Locked by the process that owns the server."""
        return self.data / "postgres.lock"

    @property
    def port(self) -> Path:
        """The remembered port."""
        return self.data / "postgres.port"

    @property
    def password(self) -> Path:
        """The password of the user `postgres`, mode 0600."""
        return self.data / "postgres.password"

    @property
    def log(self) -> Path:
        """What PostgreSQL prints."""
        return self.data / "postgres.log"


def write_private(path: Path, text: str) -> None:
    """Write `path` anew with mode 0600, durably and all at once. Raises EmbeddedPostgresError."""
    with explained("write", path):
        draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            give_to_owner_of_folder(draft)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable, where the system can open a folder."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def open_log(path: Path) -> BinaryIO:
    """Open the log to append, mode 0600; one over 10 MiB is first put aside as `<name>.1`. Raises
    EmbeddedPostgresError.
    """
    with explained("write", path):
        if path.exists() and path.stat().st_size > _LOG_LIMIT:
            path.replace(path.with_name(f"{path.name}.1"))
        new = not path.exists()
        log = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab", buffering=0)
        if new:
            give_to_owner_of_folder(path)
        return log


def read_since(path: Path, start: int, limit: int = 2000) -> str:
    """The end of what was written to `path` after byte `start`, at most `limit` bytes; empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start, end - limit))
            return file.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""
