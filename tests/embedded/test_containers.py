"""What a container does to PostgreSQL: pids come again, little shared memory, a small disk.

Each test makes the container's namespaces for real, which takes root.
"""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import pytest

from atomo_gql.embedded import EmbeddedPostgres, account

from .helpers import AS_NOBODY, LIMIT, NOBODY, PURELIB, Diary, ended, other_process, postmaster_pid, remember, words


def _can_unshare() -> bool:
    if sys.platform != "linux" or not account.is_root() or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], check=False).returncode == 0


pytestmark = pytest.mark.skipif(not _can_unshare(), reason="needs root, and leave to make namespaces")

CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--", *AS_NOBODY)


def _with_mount(target: str, options: str) -> Sequence[str]:
    """The command that turns into another in a world of its own where `target` is a small file system."""
    script = f'mount -t tmpfs -o {options} tmpfs {target} && exec "$@"'
    return ("unshare", "--mount", "--propagation", "private", "--", "sh", "-c", script, "sh")


@pytest.fixture
async def crashed(folder: Path, python: str) -> tuple[Path, int]:
    """A data folder of an ordinary user whose container was killed, and the pid that its `postmaster.pid` names."""
    account.give_tree(folder, NOBODY)
    async with other_process(folder, python=python, path=PURELIB, within=CONTAINER) as first:
        await remember(await first.dsn(), "kept")
        pid = postmaster_pid(folder / "postgres")
        await first.kill()
    assert pid < 1000, "a pid of the container's own"
    return folder, pid


async def test_a_pid_that_another_process_has_now_keeps_no_server_from_starting(
    crashed: tuple[Path, int], python: str
) -> None:
    folder, pid = crashed
    for _ in range(2):
        async with other_process(folder, f"--occupy={pid}", python=python, path=PURELIB, within=CONTAINER) as again:
            await again.heard("^occupied$")
            assert await words(await again.dsn()) == ["kept"]
            assert not any("trying again" in line for line in again.said)
            pid = postmaster_pid(folder / "postgres")
            await again.kill()


async def test_a_lost_password_is_replaced_though_another_process_has_the_pid_now(
    crashed: tuple[Path, int], python: str
) -> None:
    folder, pid = crashed
    (folder / "postgres.password").unlink()
    async with other_process(folder, f"--occupy={pid}", python=python, path=PURELIB, within=CONTAINER) as again:
        await again.heard("^occupied$")
        await again.heard("setting a new password")
        assert await words(await again.dsn()) == ["kept"]
        await again.kill()


async def test_a_copy_of_a_running_server_s_folder_starts_though_its_pid_is_a_live_postgres(
    folder: Path, place: Path, diary: Diary
) -> None:
    original = EmbeddedPostgres(folder, settings={"fsync": "off"}, log=diary)
    await remember(await original.start(), "kept")
    shutil.copytree(folder, place / "copy")
    assert (place / "copy" / "postgres" / "postmaster.pid").exists()
    copy = EmbeddedPostgres(place / "copy", log=diary)
    await copy.start()
    assert copy.dsn != original.dsn
    await remember(copy.dsn, "of the copy")
    assert await words(original.dsn) == ["kept"]
    await copy.stop()
    await original.stop()


async def test_a_server_that_does_run_on_the_cluster_is_not_joined_by_a_second_one(folder: Path) -> None:
    """Its pid file is damaged, so only its working folder tells of it."""
    async with other_process(folder, "--without-death-signal") as first:
        await remember(await first.dsn(), "kept")
        pid = postmaster_pid(folder / "postgres")
        await first.kill()
    (folder / "postgres" / "postmaster.pid").write_text("")
    async with other_process(folder) as second:
        assert await words(await second.dsn()) == ["kept"]
        await ended(pid)
        await second.stop()


@pytest.mark.parametrize("options", ["size=1m,mode=1777", "ro", "size=64m,mode=0755"])
async def test_with_little_or_no_shared_memory_it_starts_all_the_same_and_says_so(
    fresh: Path, python: str, options: str
) -> None:
    shutil.chown(fresh.parent, 65534, 65534)
    within = (*_with_mount("/dev/shm", options), *AS_NOBODY)
    async with other_process(fresh, python=python, path=PURELIB, within=within) as first:
        assert "data folder instead" in await first.heard(r"^/dev/shm .*")
        await remember(await first.dsn(), "kept")
        await first.stop()
    (fresh / "postgres.password").unlink()
    async with other_process(fresh, python=python, path=PURELIB, within=within) as second:
        assert await words(await second.dsn()) == ["kept"]
        await second.stop()


async def test_shared_memory_that_runs_out_is_not_taken_for_a_full_disk(folder: Path) -> None:
    within = _with_mount("/dev/shm", "size=64k,mode=1777")
    async with other_process(folder, "--dynamic_shared_memory_type=posix", within=within) as process:
        message = await process.heard("^ERROR .*")
    assert "/dev/shm is too small" in message
    assert "The disk" not in message


async def test_a_disk_too_small_for_a_first_start_is_told_and_nothing_half_made_is_left(fresh: Path) -> None:
    fresh.mkdir(mode=0o711)
    async with other_process(fresh, within=_with_mount(str(fresh), "size=20m,mode=0711")) as process:
        message = await process.heard("^ERROR .*")
    assert "The disk is full" in message or "is full: free some space" in message


async def test_a_disk_that_is_full_for_a_while_costs_only_that_while(folder: Path, place: Path) -> None:
    disk = place / "disk"
    disk.mkdir()
    within = _with_mount(str(disk), "size=120m,mode=0711")
    async with other_process(disk / "data", within=within) as process:
        dsn = await process.dsn()
        await remember(dsn, "kept")
        inside = Path(f"/proc/{process.process.pid}/root{disk}")
        cluster = inside / "data" / "postgres"
        pid = postmaster_pid(cluster)
        with pytest.raises(OSError, match="No space"), (inside / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(b"x" * 65536)
        subprocess.run(["kill", "-9", str(pid)], check=True)
        await process.heard("has ended by itself")
        (inside / "filler").unlink()
        async with asyncio.timeout(LIMIT):
            while True:
                try:
                    await remember(dsn, "later")
                    break
                except (OSError, asyncpg.PostgresError):
                    continue  # it is not back yet
        assert await words(dsn) == ["kept", "later"]
        await process.stop()
