"""Several processes on one data folder, and the death of one of them."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from atomo_gql.embedded import EmbeddedPostgres

from .helpers import Diary, ended, other_process, postmaster_pid, remember, words

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches processes as Linux shows them")


async def test_when_its_only_process_is_killed_postgres_ends_cleanly(folder: Path) -> None:
    async with other_process(folder) as other:
        await remember(await other.dsn(), "kept")
        pid = postmaster_pid(folder / "postgres")
        await other.kill()
        await ended(pid)
    assert "database system is shut down" in (folder / "postgres.log").read_text()
    assert not (folder / "postgres" / "postmaster.pid").exists()


async def test_two_processes_share_one_server_and_the_guest_leaves_it_alone(folder: Path, diary: Diary) -> None:
    async with other_process(folder) as owner:
        dsn = await owner.dsn()
        pid = postmaster_pid(folder / "postgres")
        guest = EmbeddedPostgres(folder, log=diary)
        assert await guest.start() == dsn
        assert not guest.owner
        await guest.stop()
        assert postmaster_pid(folder / "postgres") == pid
        await remember(dsn, "still there")
        await owner.stop()


async def test_when_the_owner_is_killed_the_guest_takes_over_on_the_same_port(folder: Path, diary: Diary) -> None:
    async with other_process(folder) as owner:
        dsn = await owner.dsn()
        guest = EmbeddedPostgres(folder, log=diary)
        await guest.start()
        await remember(dsn, "kept")
        first = postmaster_pid(folder / "postgres")
        await owner.kill()
        await diary.heard("PostgreSQL is ready")
        await ended(first)
        assert guest.owner
        assert guest.dsn == dsn
        assert await words(dsn) == ["kept"]
        # and it mends what it took over
        os.kill(postmaster_pid(folder / "postgres"), signal.SIGKILL)
        await diary.heard("PostgreSQL is ready", times=2)
        assert await words(dsn) == ["kept"]
        await guest.stop()


async def test_when_the_owner_and_its_server_are_killed_at_once_the_guest_takes_over(
    folder: Path, diary: Diary
) -> None:
    async with other_process(folder) as owner:
        dsn = await owner.dsn()
        guest = EmbeddedPostgres(folder, log=diary)
        await guest.start()
        await remember(dsn, "kept")
        os.kill(postmaster_pid(folder / "postgres"), signal.SIGKILL)
        await owner.kill()
        await diary.heard("PostgreSQL is ready")
        assert await words(dsn) == ["kept"]
        await guest.stop()


async def test_an_owner_that_stops_in_good_order_hands_over_too(folder: Path, diary: Diary) -> None:
    async with other_process(folder) as owner:
        dsn = await owner.dsn()
        guest = EmbeddedPostgres(folder, log=diary)
        await guest.start()
        await owner.stop()
        await diary.heard("PostgreSQL is ready")
        assert guest.dsn == dsn
        await guest.stop()


async def test_processes_that_start_at_once_on_a_fresh_folder_agree_on_one_server(fresh: Path) -> None:
    async with other_process(fresh) as one, other_process(fresh) as two, other_process(fresh) as three:
        dsns = await asyncio.gather(one.dsn(), two.dsn(), three.dsn())
        assert len(set(dsns)) == 1
        await remember(dsns[0], "one")
        for process in (one, two, three):
            await process.stop()


async def test_a_process_killed_while_it_makes_the_cluster_leaves_nothing_half_made(fresh: Path, diary: Diary) -> None:
    async with other_process(fresh) as other:
        await other.heard("making an empty database")
        await other.kill()
    assert not (fresh / "postgres").exists()
    postgres = EmbeddedPostgres(fresh, log=diary)
    await remember(await postgres.start(), "whole")
    await postgres.stop()
    assert not list(fresh.glob("postgres.new-*"))


async def test_without_a_signal_at_the_death_of_the_parent_a_live_server_is_found_and_used_again(folder: Path) -> None:
    async with other_process(folder, "--without-death-signal") as first:
        dsn = await first.dsn()
        await remember(dsn, "kept")
        pid = postmaster_pid(folder / "postgres")
        await first.kill()
    assert await words(dsn) == ["kept"]
    async with other_process(folder, "--without-death-signal") as second:
        assert await second.dsn() == dsn
        assert postmaster_pid(folder / "postgres") == pid
        os.kill(pid, signal.SIGKILL)
        await second.heard("has ended by itself")
        await second.heard("PostgreSQL is ready")
        assert await words(dsn) == ["kept"]
        await second.kill()
    async with other_process(folder, "--without-death-signal") as third:
        assert await third.dsn() == dsn
        pid = postmaster_pid(folder / "postgres")
        await third.stop()
        await ended(pid)
