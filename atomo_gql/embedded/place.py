"""Where in the file system the cluster is kept.

In the data folder, except in one case: root, whose home is usually closed (0700), with the data folder inside it.
PostgreSQL runs as another user and could not get there; opening root's home is not ours to do. The cluster is then kept
in /var/lib/atomo-gql/<hash of the data folder> (not /var/tmp, which systemd cleans of files untouched for a month), and
the file `postgres.location` in the data folder says so. The lock, the port, the password and the log stay in the data
folder.
"""

import hashlib
import stat
from pathlib import Path

from atomo_gql.embedded.account import Account, barrier, is_root, may_enter
from atomo_gql.embedded.errors import EmbeddedPostgresError, explained
from atomo_gql.embedded.files import Files, write_private

OPEN_PLACE = Path("/var/lib/atomo-gql")
_PASSABLE = 0o711  # others may pass through, and see nothing


def make_data_folder(folder: Path) -> Path:
    """Make the data folder, 0700 (0711 under root, whose server runs as another user), and return its resolved path.

    Raises EmbeddedPostgresError.
    """
    with explained("make the data folder", folder):
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(_PASSABLE if is_root() else 0o700)
        return folder.resolve()


def locate(data: Path) -> Files:
    """The files of a data folder as an earlier start placed them; in the folder itself when there was none."""
    note = _note(data)
    with explained("read", note):
        try:
            home = note.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return Files(data, data)
    if not Path(home).is_absolute() or not home.isprintable():
        raise EmbeddedPostgresError(
            f"{note} is damaged: it should hold the path of the folder where PostgreSQL keeps the data. It is "
            f"{_elsewhere(data)} unless {data} was moved: write that path into it."
        )
    return Files(data, Path(home))


def place(data: Path, account: Account | None) -> Files:
    """The files of a data folder, with the cluster where `account` can get at it; made passable if need be.

    Only the data folder's own mode is ever opened (others may pass), never that of a folder above it.
    Raises EmbeddedPostgresError.
    """
    files = locate(data)
    if account is None or files.home != data:
        return files
    with explained("open to PostgreSQL's user", data):
        blocked = barrier(data.parent, account)
        if blocked is None and not may_enter(data, account):
            data.chmod(stat.S_IMODE(data.stat().st_mode) | 0o011)
        if blocked is None:
            return files
    return _place_elsewhere(data, account, blocked)


def note_place(files: Files) -> None:
    """Write down that the cluster is not in the data folder; once it exists, so that the note is never wrong."""
    if files.home != files.data and not _note(files.data).exists():
        write_private(_note(files.data), f"{files.home}\n")


def _place_elsewhere(data: Path, account: Account, blocked: Path) -> Files:
    why = (
        f"PostgreSQL refuses to run as root; it runs as uid {account.uid}, which may not enter {blocked} on the way "
        f"to {data}"
    )
    if (data / "postgres").exists():
        raise EmbeddedPostgresError(
            f"{why}, where its data is. Move {data} to a folder that every user may enter (/var/lib/…) and name it in "
            "ATOMO_DATA_DIR, or run this program as the user who made it."
        )
    inside = [folder for folder in (data, *data.parents) if folder.is_relative_to(blocked) and folder != blocked]
    mounted = next((folder for folder in inside if folder.is_mount()), None)
    if mounted is not None:
        # A volume is mounted to keep the data on it: to keep it elsewhere would lose it with the container.
        raise EmbeddedPostgresError(
            f"{why}. {mounted} is a mounted volume: mount it in a place that every user may enter, such as "
            f"{OPEN_PLACE}, and name that in ATOMO_DATA_DIR."
        )
    home = _elsewhere(data)
    with explained("make the folder", home):
        for folder in (OPEN_PLACE, home):
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(_PASSABLE)
        closed = barrier(home.resolve(), account)
    if closed is not None:
        raise EmbeddedPostgresError(
            f"{why}, nor {closed} on the way to {home}. Name a folder that every user may enter in ATOMO_DATA_DIR, "
            "run this program as an ordinary user, or set DATABASE_URL."
        )
    return Files(data, home)


def _elsewhere(data: Path) -> Path:
    return OPEN_PLACE / hashlib.sha256(str(data).encode()).hexdigest()[:16]


def _note(data: Path) -> Path:
    return data / "postgres.location"
