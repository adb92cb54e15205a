"""Start, stop, and what comes in between."""

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from atomo_gql.embedded import EmbeddedPostgres, EmbeddedPostgresError
from atomo_gql.embedded.leftovers import processes_on

from .helpers import Diary, connected, ended, postmaster_pid, remember, words

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches processes as Linux shows them")


@pytest.fixture
async def postgres(folder: Path, diary: Diary) -> AsyncIterator[EmbeddedPostgres]:
    """A started server."""
    server = EmbeddedPostgres(folder, log=diary)
    await server.start()
    yield server
    await server.stop()


async def test_a_fresh_folder_becomes_a_durable_database_on_the_loopback_alone(
    fresh: Path,
) -> None:
    postgres = EmbeddedPostgres(fresh, settings={"max_connections": "37"})
    await postgres.start()
    async with connected(postgres.dsn) as connection:

        async def setting(name: str) -> object:
            return await connection.fetchval("SELECT current_setting($1)", name)

        assert await connection.fetchval("SELECT current_database()") == "atomo"
        assert await setting("server_encoding") == "UTF8"
        assert await setting("listen_addresses") == "127.0.0.1"
        assert await setting("unix_socket_directories") == ""
        assert (await setting("fsync"), await setting("synchronous_commit"), await setting("jit")) == (
            "on",
            "on",
            "off",
        )
        assert await setting("max_connections") == "37"
    assert stat.S_IMODE((fresh / "postgres.password").stat().st_mode) == 0o600
    assert "ready to accept connections" in (fresh / "postgres.log").read_text()
    assert not list(fresh.glob("postgres.new-*"))
    await postgres.stop()


async def test_to_be_let_in_takes_the_password(postgres: EmbeddedPostgres, folder: Path) -> None:
    password = (folder / "postgres.password").read_text()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.dsn.replace(password, "guess"))


async def test_asking_whether_it_is_ready_leaves_no_error_in_the_log(postgres: EmbeddedPostgres, folder: Path) -> None:
    await remember(postgres.dsn, "time for the server to notice that the probe has hung up")
    log = (folder / "postgres.log").read_text()
    assert "FATAL" not in log, log


async def test_data_and_dsn_survive_stop_and_start(postgres: EmbeddedPostgres) -> None:
    dsn = postgres.dsn
    await remember(dsn, "kept")
    await postgres.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncpg.connect(dsn)
    assert await postgres.start() == dsn
    assert await words(dsn) == ["kept"]


async def test_to_start_or_stop_twice_is_to_do_so_once(postgres: EmbeddedPostgres, folder: Path) -> None:
    pid = postmaster_pid(folder / "postgres")
    assert await postgres.start() == postgres.dsn
    assert postmaster_pid(folder / "postgres") == pid
    await postgres.stop()
    await postgres.stop()
    with pytest.raises(EmbeddedPostgresError, match="not started"):
        _ = postgres.dsn


async def test_a_killed_postmaster_is_mended_on_the_same_port_with_all_that_was_committed(
    postgres: EmbeddedPostgres, folder: Path, diary: Diary
) -> None:
    dsn = postgres.dsn
    for turn in range(1, 4):
        await remember(dsn, f"word {turn}")
        os.kill(postmaster_pid(folder / "postgres"), signal.SIGKILL)
        await diary.heard("is ready", times=turn + 1)
        assert postgres.dsn == dsn
    assert await words(dsn) == ["word 1", "word 2", "word 3"]


async def test_a_killed_postmaster_is_mended_while_a_child_of_it_computes_on_and_holds_its_memory(
    postgres: EmbeddedPostgres, folder: Path, diary: Diary
) -> None:
    async with connected(postgres.dsn) as connection:
        backend = connection.get_server_pid()
        query = asyncio.create_task(connection.execute("SELECT count(*) FROM generate_series(1, 1000000000000)"))
        async with connected(postgres.dsn) as watch:
            while not await watch.fetchval("SELECT query_start FROM pg_stat_activity WHERE pid = $1", backend):
                pass
        os.kill(postmaster_pid(folder / "postgres"), signal.SIGKILL)
        await diary.heard("is ready", times=2)
        await ended(backend)
        assert isinstance((await asyncio.gather(query, return_exceptions=True))[0], Exception)
    async with connected(postgres.dsn) as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_a_killed_backend_breaks_connections_and_not_the_server(
    postgres: EmbeddedPostgres, folder: Path, diary: Diary
) -> None:
    pid = postmaster_pid(folder / "postgres")
    connection = await asyncpg.connect(postgres.dsn)
    backend = connection.get_server_pid()
    os.kill(backend, signal.SIGKILL)
    await ended(backend)
    connection.terminate()
    # The server starts its children anew by itself; a client waits as it would through any restart.
    async with asyncio.timeout(30):
        while True:
            try:
                async with connected(postgres.dsn) as again:
                    assert await again.fetchval("SELECT 1") == 1
                    break
            except (OSError, asyncpg.PostgresError):
                continue
    assert postmaster_pid(folder / "postgres") == pid
    assert not [line for line in diary.lines if "ended" in line]


async def test_stop_is_final_even_right_after_the_death_of_the_postmaster(
    postgres: EmbeddedPostgres, folder: Path, diary: Diary
) -> None:
    os.kill(postmaster_pid(folder / "postgres"), signal.SIGKILL)
    await diary.heard("has ended by itself")
    await postgres.stop()
    for pid in processes_on(folder / "postgres"):
        await ended(pid)  # children of the dead, on their way out
    assert processes_on(folder / "postgres") == []


@pytest.mark.parametrize("moment", ["making an empty database", "^$"])
async def test_a_start_that_is_cancelled_leaves_nothing_running_and_can_be_repeated(
    fresh: Path, diary: Diary, moment: str
) -> None:
    postgres = EmbeddedPostgres(fresh, log=diary)
    start = asyncio.create_task(postgres.start())
    if moment != "^$":
        await diary.heard(moment)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert processes_on(fresh / "postgres") == []
    await remember(await postgres.start(), "after")
    await postgres.stop()


async def test_a_server_in_a_thread_with_a_loop_of_its_own_outlives_no_stop(folder: Path) -> None:
    async def session() -> list[str]:
        postgres = EmbeddedPostgres(folder)
        await remember(await postgres.start(), "from a thread")
        try:
            return await words(postgres.dsn)
        finally:
            await postgres.stop()

    assert await asyncio.to_thread(lambda: asyncio.run(session())) == ["from a thread"]
    assert processes_on(folder / "postgres") == []
