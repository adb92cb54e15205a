"""Files that a power cut or a person has damaged, and folders that were moved or copied."""

import shutil
import sys
from pathlib import Path

import pytest

from atomo_gql.embedded import EmbeddedPostgres, EmbeddedPostgresError, account
from atomo_gql.embedded import place as places

from .helpers import Diary, remember, words


async def _made(folder: Path) -> None:
    postgres = EmbeddedPostgres(folder)
    await remember(await postgres.start(), "kept")
    await postgres.stop()


@pytest.mark.parametrize("text", [b"", b"\0" * 64, b"garbage\n", b"\n", b"0\n", b"12ab"])
async def test_a_pid_file_that_names_no_process_is_removed(folder: Path, diary: Diary, text: bytes) -> None:
    await _made(folder)
    (folder / "postgres" / "postmaster.pid").write_bytes(text)
    postgres = EmbeddedPostgres(folder, log=diary)
    assert await words(await postgres.start()) == ["kept"]
    await postgres.stop()
    assert any("damaged" in line for line in diary.lines)


async def test_a_pid_file_that_was_cut_after_the_pid_is_no_hindrance(folder: Path) -> None:
    await _made(folder)
    (folder / "postgres" / "postmaster.pid").write_text("999999")
    postgres = EmbeddedPostgres(folder)
    assert await words(await postgres.start()) == ["kept"]
    await postgres.stop()


async def test_a_password_file_full_of_zeros_is_a_lost_password(folder: Path, diary: Diary) -> None:
    await _made(folder)
    (folder / "postgres.password").write_bytes(b"\0" * 32)
    postgres = EmbeddedPostgres(folder, log=diary)
    assert await words(await postgres.start()) == ["kept"]
    await postgres.stop()


@pytest.mark.parametrize("text", ["", "\0\0\0", "1x"])
async def test_a_damaged_version_file_is_told_by_its_name(folder: Path, text: str) -> None:
    (folder / "postgres" / "PG_VERSION").write_text(text)
    with pytest.raises(EmbeddedPostgresError, match=r"PG_VERSION is damaged.*backup"):
        await EmbeddedPostgres(folder).start()


async def test_a_damaged_control_file_is_damage_and_no_full_disk(folder: Path) -> None:
    (folder / "postgres" / "global" / "pg_control").write_bytes(b"")
    with pytest.raises(EmbeddedPostgresError, match=r"data folder is damaged: put it back from a backup"):
        await EmbeddedPostgres(folder).start()


@pytest.mark.skipif(sys.platform == "win32" or not account.is_root(), reason="what root meets")
@pytest.mark.parametrize("text", ["", "\0\0\0\0", "not/absolute"])
async def test_a_damaged_note_of_where_the_data_is_begins_no_empty_database(
    place: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(places, "OPEN_PLACE", place / "lib")
    (place / "home").mkdir(mode=0o700)
    data = place / "home" / "data"
    await _made(data)
    home = (data / "postgres.location").read_text().strip()
    (data / "postgres.location").write_text(text)
    with pytest.raises(EmbeddedPostgresError, match=home):
        await EmbeddedPostgres(data).start()
    assert not (data / "postgres").exists()
    (data / "postgres.location").write_text(home)
    postgres = EmbeddedPostgres(data)
    assert await words(await postgres.start()) == ["kept"]
    await postgres.stop()


async def test_a_data_folder_that_was_moved_is_the_same_database(folder: Path, place: Path) -> None:
    await _made(folder)
    moved = place / "another name, with blanks"
    folder.rename(moved)
    postgres = EmbeddedPostgres(moved)
    assert await words(await postgres.start()) == ["kept"]
    await postgres.stop()


@pytest.mark.skipif(sys.platform == "win32" or not account.is_root(), reason="what root meets")
async def test_a_copied_data_folder_whose_data_is_elsewhere_does_not_end_the_other_s_server(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "OPEN_PLACE", place / "lib")
    (place / "home").mkdir(mode=0o700)
    original = EmbeddedPostgres(place / "home" / "data")
    await remember(await original.start(), "kept")
    shutil.copytree(place / "home" / "data", place / "home" / "copy")
    with pytest.raises(EmbeddedPostgresError, match=r"in use by a process with another data folder"):
        await EmbeddedPostgres(place / "home" / "copy").start()
    assert await words(original.dsn) == ["kept"]
    await original.stop()
