"""`atomo-gql move`: everything arrives, nothing is half moved, and what is unfit is told in one sentence."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from atomo_gql.cli.host import running
from atomo_gql.embedded import EmbeddedPostgres, prepare
from atomo_gql.settings import Settings
from atomo_gql.store import moving
from atomo_gql.store.moving import MoveError, move
from tests.conftest import SECRET, Server, admin, bearer, with_database

ODD = "tab\t line\n return\r back\\slash \\N \\. 'quote' \"double\" ünï ☃ 𝔘 \u2028"
DEBIAN = Path("/usr/lib/postgresql/15/bin")


@contextlib.asynccontextmanager
async def _serving(dsn: str, folder: Path) -> AsyncIterator[Server]:
    settings = Settings(jwt_secret=SECRET, data_dir=folder, port=0, env="test", reclaim_interval=3_600)
    async with running(settings, dsn) as server, aiohttp.ClientSession() as http:
        yield Server(server.url, dsn, server.application, http, server.warming)


@contextlib.asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[Any]:
    connection: Any = await asyncpg.connect(dsn, server_settings={"search_path": "atomo"})
    try:
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def _new_database(cluster: str, name: str, more: str = "") -> AsyncIterator[str]:
    name = f"{name}_{os.getpid()}"
    async with _connected(cluster) as connection:
        await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await connection.execute(f"CREATE DATABASE {name} {more}")
    try:
        yield with_database(cluster, name)
    finally:
        async with _connected(cluster) as connection:
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def target(cluster: str) -> AsyncIterator[str]:
    """An empty database."""
    async with _new_database(cluster, "atomo_target") as dsn:
        yield dsn


async def _fill(dsn: str, folder: Path) -> str:
    """Work of every kind, some of it under way; returns the id of a job with a key."""
    async with _serving(dsn, folder) as server:
        worker = await server.mint("*")
        keyed = await server.enqueue(payload={"text": ODD}, idempotencyKey="order-7")
        for number in range(30):
            await server.enqueue("many", payload={"number": number, "text": ODD})
        leased = await worker.lease("many", capacity=20)
        for job in leased[:8]:
            await worker.report("complete", job, result={"text": ODD})
        for job in leased[8:12]:
            await worker.report("fail", job, error=ODD, retryable=False)
        for job in leased[12:15]:
            await worker.report("fail", job, error="once more")
        steps = [{"name": "wait", "action": {"Job": {"queue": "steps", "kind": "k", "wait": True}}}]
        await server.call("POST", "/workflows", {"name": "waits", "steps": steps}, headers=admin())
        assert (await server.call("POST", "/workflows/waits/run", {"a": ODD}, headers=bearer()))[0] in (200, 201)
        event = {"model": "Deal", "event": "created", "id": "1", "data": {"text": ODD}, "eventId": "e-1"}
        assert (await server.call("POST", "/events", event, headers=bearer()))[0] == 201
    return keyed


@pytest.fixture
async def filled(dsn: str, tmp_path: Path) -> tuple[str, str]:
    """A database with work in it that no server uses, and the id of the job with a key."""
    return dsn, await _fill(dsn, tmp_path)


async def _contents(dsn: str) -> dict[str, list[str]]:
    """All rows as texts, by table, and the state of the sequences."""
    async with _connected(dsn) as connection:
        found = await connection.fetch(moving._TABLES, "atomo", [*moving._JOURNAL, "installation"])
        held = {
            row["name"]: [
                line["t"] for line in await connection.fetch(f'SELECT t::text AS t FROM "{row["name"]}" t ORDER BY 1')
            ]
            for row in found
        }
        for row in await connection.fetch(moving._SEQUENCES, "atomo"):
            held[row[0]] = [str(tuple(await connection.fetchrow(f"SELECT last_value, is_called FROM {row[0]}")))]
        return held


async def _is_empty(dsn: str) -> bool:
    async with _connected(dsn) as connection:
        return await connection.fetchval("SELECT to_regnamespace('atomo')") is None


def _command(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DATABASE_URL")}
    return subprocess.run(
        [sys.executable, "-m", "atomo_gql", "move", *words],
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


async def test_every_row_arrives_and_work_goes_on_where_it_was(
    filled: tuple[str, str], target: str, tmp_path: Path
) -> None:
    source, keyed = filled
    before = await _contents(source)
    done = await asyncio.to_thread(_command, "--from", source, "--to", target)
    assert done.returncode == 0, done.stderr
    assert "0 differ" in done.stdout
    assert "Set DATABASE_URL" in done.stdout
    assert await _contents(target) == before == await _contents(source)
    async with _serving(target, tmp_path) as server:
        answer = await server.call(
            "POST", "/jobs", {"queue": "q", "kind": "k", "idempotencyKey": "order-7"}, headers=bearer()
        )
        assert answer[1]["id"] == keyed
        assert (await server.job(keyed))["status"] == "queued"
        worker = await server.mint("*")
        leased = await worker.lease("many", capacity=100)  # those that failed may be due again
        assert len([job for job in leased if job["attempts"] == 1]) == 10
        assert [job["queue"] for job in await worker.lease("steps", waitSecs=10)] == ["steps"]


async def test_a_dry_run_counts_and_writes_nothing(filled: tuple[str, str], target: str) -> None:
    done = await asyncio.to_thread(_command, "--to", target, "--dry-run", DATABASE_URL=filled[0])
    assert done.returncode == 0, done.stderr
    assert "would be copied" in done.stdout
    assert await _is_empty(target)


async def test_from_the_embedded_database_to_postgresql_15_and_back_it_stays_the_same(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (DEBIAN / "initdb").exists():
        pytest.skip("needs PostgreSQL 15 on the system")
    new = EmbeddedPostgres(tmp_path_factory.mktemp("new"), settings={"fsync": "off"})
    old = EmbeddedPostgres(tmp_path_factory.mktemp("old"), settings={"fsync": "off"})
    source = await new.start()
    monkeypatch.setattr(prepare, "find_binaries", lambda: DEBIAN)
    target = await old.start()
    from atomo_gql.store.migrations import migrate

    await migrate(source)
    await _fill(source, tmp_path)
    before = await _contents(source)
    moved = await move(source, target)
    assert (moved.source_version[:2], moved.target_version[:2]) == ("18", "15")
    assert await _contents(target) == before
    async with _new_database(source, "back") as back:
        await move(target, back)
        assert await _contents(back) == before
    await old.stop()
    await new.stop()


async def test_a_target_that_has_a_schema_already_is_not_touched(filled: tuple[str, str], target: str) -> None:
    await move(filled[0], target)
    before = await _contents(target)
    done = await asyncio.to_thread(_command, "--from", filled[0], "--to", target)
    assert done.returncode == 1
    assert "has a schema atomo already" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert await _contents(target) == before


async def test_it_is_refused_while_a_server_uses_the_source(dsn: str, target: str, tmp_path: Path) -> None:
    async with _serving(dsn, tmp_path):
        with pytest.raises(MoveError, match=r"in use .*'atomo-gql.*stop all servers"):
            await move(dsn, target)
    assert await _is_empty(target)


async def test_it_is_refused_while_an_application_writes_by_sql(
    filled: tuple[str, str], target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "_WAIT", "200ms")
    async with _connected(filled[0]) as connection, connection.transaction():
        await connection.execute("SELECT atomo.enqueue_job('q', 'k')")
        with pytest.raises(MoveError, match="somebody is writing to the source"):
            await move(filled[0], target)
    assert await _is_empty(target)


async def test_nobody_writes_to_the_source_while_it_is_copied(filled: tuple[str, str], target: str) -> None:
    refused = []

    def progress(done: int, total: int) -> None:
        refused.append(asyncio.ensure_future(_enqueue_by_sql(filled[0])))

    await move(filled[0], target, progress=progress)
    assert "LockNotAvailableError" in {type(error).__name__ for error in await asyncio.gather(*refused)}


async def _enqueue_by_sql(dsn: str) -> BaseException | None:
    try:
        async with _connected(dsn) as connection:
            await connection.execute("SET lock_timeout = '20ms'")
            await connection.execute("SELECT atomo.enqueue_job('q', 'k')")
    except asyncpg.PostgresError as error:
        return error
    return None


async def test_a_copy_that_breaks_off_leaves_the_target_empty_and_can_be_repeated(
    filled: tuple[str, str], target: str, cluster: str
) -> None:
    killed = False

    def progress(done: int, total: int) -> None:
        nonlocal killed
        if not killed:
            killed = True
            ending.append(asyncio.ensure_future(_end_sessions(cluster, target)))

    ending: list[asyncio.Future[None]] = []
    with pytest.raises(MoveError, match=r"the copy failed .*the target is empty again"):
        await move(filled[0], target, progress=progress)
    await asyncio.gather(*ending)
    assert await _is_empty(target)
    await move(filled[0], target)
    assert await _contents(target) == await _contents(filled[0])


async def _end_sessions(cluster: str, dsn: str) -> None:
    async with _connected(cluster) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1",
            dsn.partition("?")[0].rpartition("/")[2],
        )


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_target_with_another_encoding_is_told(dsn: str, cluster: str, encoding: str) -> None:
    more = f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER libc TEMPLATE template0"
    async with _new_database(cluster, "atomo_encoding", more) as target:
        with pytest.raises(MoveError, match=f"encoding is {encoding}"):
            await move(dsn, target)


async def test_a_target_role_with_too_few_rights_is_told_and_an_empty_schema_of_its_own_will_do(
    filled: tuple[str, str], target: str
) -> None:
    role = f"low_{os.getpid()}"
    async with _connected(target) as connection:
        await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'low'")
        low = target.replace(target[target.index("//") + 2 : target.rindex("@")], f"{role}:low")
        try:
            with pytest.raises(MoveError, match=f"role {role} may not make the schema atomo"):
                await move(filled[0], low)
            await connection.execute(f"CREATE SCHEMA atomo AUTHORIZATION {role}")
            await move(filled[0], low, dry_run=True)
        finally:
            await connection.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


async def test_what_cannot_be_reached_or_is_nothing_is_told_in_a_line(dsn: str, target: str) -> None:
    for words, told in (
        (("--from", dsn, "--to", "postgresql://nobody@127.0.0.1:9/x"), "the target cannot be reached"),
        (("--from", target, "--to", target), "the source has no schema atomo"),
        (("--from", dsn, "--to", "http://example.org"), "the target cannot be reached"),
    ):
        done = await asyncio.to_thread(_command, *words)
        assert done.returncode == 1
        assert told in done.stderr
        assert len(done.stderr.strip().splitlines()) <= 3, done.stderr
