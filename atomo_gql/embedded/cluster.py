"""Making the cluster (PostgreSQL's word for its data folder) once, and checking it at each start."""

import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from atomo_gql.embedded.account import Account, give, give_tree
from atomo_gql.embedded.binaries import major, program
from atomo_gql.embedded.errors import EmbeddedPostgresError, explained
from atomo_gql.embedded.files import Files, sync_folder, write_private
from atomo_gql.embedded.leftovers import past_recycled_pid
from atomo_gql.embedded.memory import memory_settings
from atomo_gql.embedded.spawn import run

DATABASE = "atomo"
USER = "postgres"
_DRAFT = "postgres.new-"
_LEAST_SETTINGS_OF_INITDB = 16  # the major version whose initdb takes settings


def exists(cluster: Path) -> bool:
    """True when `cluster` is a whole cluster: it gets its name only when it is. Raises EmbeddedPostgresError."""
    with explained("read", cluster):
        if (cluster / "PG_VERSION").exists():
            return True
        if cluster.exists() and (not cluster.is_dir() or any(cluster.iterdir())):
            raise EmbeddedPostgresError(
                f"{cluster} should hold PostgreSQL's data but holds something else (it has no file PG_VERSION). "
                "Move it away to begin with an empty database, or set ATOMO_DATA_DIR to another folder."
            )
        return False


def make(files: Files, folder: Path, version: str, account: Account | None) -> None:
    """Make the cluster, its password file and the database, in a folder beside it that is renamed when all is done.

    A kill in the middle leaves nothing but that folder, which the next call removes: hold the lock. Blocks for a
    second. Raises EmbeddedPostgresError.
    """
    with drafted(files, account) as draft:
        password = secrets.token_urlsafe(24)
        new = initialised(draft, folder, version, account, password)
        alone(folder, new, account, f"CREATE DATABASE {DATABASE}")
        write_private(files.password, password)
        with explained("make the database in", files.cluster):
            if files.cluster.is_dir():
                files.cluster.rmdir()  # empty, see exists()
            new.rename(files.cluster)
            sync_folder(files.home)


@contextmanager
def drafted(files: Files, account: Account | None) -> Iterator[Path]:
    """An empty folder beside the cluster, on the same disk, for the length of the block. What a kill left goes first.

    Raises EmbeddedPostgresError.
    """
    with explained("make the database in", files.home):
        for left in files.home.glob(f"{_DRAFT}*"):
            shutil.rmtree(left, ignore_errors=True)
        draft = files.home / f"{_DRAFT}{secrets.token_hex(4)}"
        draft.mkdir(mode=0o700)
    try:
        with explained("make the database in", draft):
            give(draft, account)
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def initialised(draft: Path, folder: Path, version: str, account: Account | None, password: str, *more: str) -> Path:
    """A new cluster below `draft`, without our database yet; `more` are flags for initdb.

    Raises EmbeddedPostgresError.
    """
    with explained("make the database in", draft):
        password_file = draft / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(password, encoding="ascii")
        give(password_file, account)
    new = draft / "cluster"
    flags = ["-A", "scram-sha-256", f"--pwfile={password_file}", "-E", "UTF8", "--no-locale", "-U", USER, *more]
    if major(version) >= 17:  # sorts as C does, and knows small letters from capitals beyond ASCII too
        flags += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    if major(version) >= _LEAST_SETTINGS_OF_INITDB:
        flags += [f"--set={name}={value}" for name, value in memory_settings(account).items()]
    run([program(folder, "initdb"), "-D", new, *flags], account)
    return new


def made_by(cluster: Path) -> int:
    """The major version of the PostgreSQL that made the cluster. Raises EmbeddedPostgresError."""
    path = cluster / "PG_VERSION"
    with explained("read", path):
        text = path.read_text(encoding="ascii", errors="replace").strip()
    if not re.fullmatch(r"[1-9]\d*", text):
        raise EmbeddedPostgresError(
            f"{path} is damaged: it should hold a major version, such as 18. Put {cluster} back from a backup, or, "
            "if nothing else in it is damaged, write the version of the PostgreSQL that made it into that file."
        )
    return int(text)


def check(cluster: Path, account: Account | None, log: Callable[[str], None]) -> None:
    """Check that the cluster can be served as `account`; mend its owner and mode where this user may.

    Raises EmbeddedPostgresError: it belongs to another user.
    """
    if sys.platform == "win32":
        return
    with explained("set the owner and mode of", cluster):
        status = cluster.stat()
        if account is not None and status.st_uid != account.uid:
            log(f"{cluster} belongs to uid {status.st_uid}: giving it to uid {account.uid}, as which PostgreSQL runs")
            give_tree(cluster, account)
        elif account is None and status.st_uid != os.geteuid():
            raise EmbeddedPostgresError(
                f"{cluster} belongs to uid {status.st_uid} and this program runs as uid {os.geteuid()}. Run it as "
                f"that user, or give the folder to this one (chown -R {os.geteuid()} {cluster}), or set ATOMO_DATA_DIR "
                "to another folder."
            )
        if status.st_mode & 0o027:  # PostgreSQL refuses more than u=rwx,g=rx; some volumes are mounted with more
            log(f"{cluster} has the mode {stat.S_IMODE(status.st_mode):o}, which PostgreSQL refuses: setting 700")
            cluster.chmod(0o700)


def password(files: Files, folder: Path, account: Account | None, log: Callable[[str], None]) -> None:
    """See to it that the password file holds a password, with a new one set in the cluster when it was lost.

    No server may run on the cluster. Raises EmbeddedPostgresError.
    """
    if read_password(files.password):
        return
    log(f"{files.password} is missing or empty: setting a new password")
    new = secrets.token_urlsafe(24)
    alone(folder, files.cluster, account, f"ALTER ROLE {USER} PASSWORD '{new}'")
    write_private(files.password, new)


def read_password(path: Path) -> str:
    """The password in the file; empty when there is no file, or one that a power cut filled with zeros.

    Raises EmbeddedPostgresError when it cannot be read.
    """
    with explained("read", path):
        try:
            text = path.read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return ""
        return text if text.isprintable() else ""


def alone(folder: Path, cluster: Path, account: Account | None, statement: str) -> None:
    """Run one statement without a server (a mode that by default ends well after an error, hence the setting).

    No server may run on the cluster. What a crash left is recovered first. Raises EmbeddedPostgresError.
    """
    argv: list[str | Path] = [
        program(folder, "postgres"),
        "--single",
        "-D",
        cluster,
        "-c",
        "exit_on_error=on",
        "-c",
        "log_statement=none",
    ]
    for name, value in memory_settings(account).items():
        argv += ["-c", f"{name}={value}"]
    run([*argv, "template1"], account, text=f"{statement};\n", more=past_recycled_pid(cluster))
