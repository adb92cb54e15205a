"""A dump that is restored into another cluster, whose transaction ids are lower or higher, goes on where it was."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from atomo_gql.cli.host import running
from atomo_gql.domain.actions import NewEvent
from atomo_gql.domain.errors import Unavailable
from atomo_gql.domain.events import Place, Stream
from atomo_gql.embedded import EmbeddedPostgres
from atomo_gql.settings import Settings
from atomo_gql.store import housekeeping
from atomo_gql.store.database import Database
from atomo_gql.store.migrations import migrate
from tests.conftest import SECRET, database_name, until
from tests.parts import ROOT, replica_on

from .aging import age_partitions, differences, old_jobs
from .restoring import DEAL, RESTORED, WORKFLOW, Copier, read_log, record_deals, use_transaction_ids


@pytest.fixture(scope="module")
async def other_cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address of a PostgreSQL that has just been made: its transaction ids are low."""
    postgres = EmbeddedPostgres(tmp_path_factory.mktemp("other"), settings={"fsync": "off"})
    yield await postgres.start()
    await postgres.stop()


@pytest.fixture
def copier(dsn: str, other_cluster: str, tmp_path: Any) -> Copier:
    """From the test's database into the other cluster."""
    return Copier(dsn, other_cluster, tmp_path)


async def _kinds(sql: Any) -> list[tuple[str, int]]:
    rows = await sql.fetch("SELECT kind, count(*) FROM job_records GROUP BY kind ORDER BY kind")
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("is_younger", [True, False], ids=["into a younger cluster", "into an older one"])
async def test_actions_workflows_and_readers_go_on_after_a_restore(copier: Copier, dsn: str, is_younger: bool) -> None:
    await use_transaction_ids(dsn if is_younger else copier.cluster, 5_000)
    async with replica_on(dsn) as replica:
        await replica.services.bindings.register(ROOT, DEAL)
        await replica.services.workflows.register(ROOT, WORKFLOW)
        await record_deals(replica, 1, 2)
        await replica.settle()
        await record_deals(replica, 3)  # recorded, and not yet dispatched
        seen, place = await read_log(replica.database, Place())
        await copier.dump()

    target = await copier.restore("restored")
    sql: Any = await asyncpg.connect(target, server_settings={"search_path": "atomo"})
    try:
        # An application that is there before the service is.
        early = await sql.fetchval("SELECT atomo.enqueue_job('early', 'early')")
        assert any(line.startswith(RESTORED) for line in await migrate(target))
        assert await migrate(target) == []
        async with replica_on(target) as replica:
            await record_deals(replica, 4, 5)
            await replica.settle()
            assert await _kinds(sql) == [("early", 1), ("greet", 5), ("w", 5)]
            told, place = await read_log(replica.database, place)
            names = [e.data.get("eventId") for e in told if e.stream is Stream.MODEL]
            assert names == ["deal 4", "deal 5"], "and nothing that had been read before"
            assert early in {e.stream_id for e in told}
            assert len(told) == len({(e.stream_id, e.version) for e in told})
            await record_deals(replica, 6)
            told, place = await read_log(replica.database, place)
            assert [e.data.get("eventId") for e in told] == ["deal 6"]
            everything, _ = await read_log(replica.database, Place())
            assert [e.position for e in everything if e.stream is Stream.MODEL][: len(seen)] == sorted(
                e.position for e in everything if e.stream is Stream.MODEL
            )[: len(seen)]
            await replica.settle()
            for job in await replica.lease("w"):
                await replica.complete(job)
            await replica.settle()
            runs = await sql.fetch("SELECT status, count(*) FROM workflow_runs GROUP BY status")
            assert [tuple(run) for run in runs] == [("Completed", 6)]
            assert await replica.differences() == []
    finally:
        await sql.close()


async def test_a_second_restore_goes_on_too_and_the_same_cluster_is_not_taken_for_another(
    copier: Copier, dsn: str, other_cluster: str
) -> None:
    await use_transaction_ids(dsn, 2_000)
    async with replica_on(dsn) as replica:
        await replica.services.bindings.register(ROOT, DEAL)
        await record_deals(replica, 1)
        await replica.settle()
    await copier.dump()
    second = Copier(await copier.restore("first"), copier.source, copier.folder)
    assert await migrate(second.source) != []
    async with replica_on(second.source) as replica:
        await record_deals(replica, 2)
        await replica.settle()
        _, place = await read_log(replica.database, Place())
    await second.dump()

    back = await second.restore(f"{database_name(dsn)}_back")
    try:
        assert any(line.startswith(RESTORED) for line in await migrate(back))
        async with replica_on(back) as replica:
            await record_deals(replica, 3)
            await replica.settle()
            told, _ = await read_log(replica.database, place)
            assert [e.data.get("eventId") for e in told if e.stream is Stream.MODEL] == ["deal 3"]
            assert len(await replica.lease("actions")) == 3, "an action for each, and no more"
        await copier.dump()
    finally:
        connection: Any = await asyncpg.connect(dsn)
        await connection.execute(f"DROP DATABASE {database_name(back)} WITH (FORCE)")
        await connection.close()

    again = await Copier(dsn, dsn, copier.folder).restore(f"{database_name(dsn)}_again")
    try:
        assert await migrate(again) == [], "transaction ids are the cluster's, so nothing has changed"
    finally:
        connection = await asyncpg.connect(dsn)
        await connection.execute(f"DROP DATABASE {database_name(again)} WITH (FORCE)")
        await connection.close()


async def test_a_dump_of_a_rewrite_under_way_is_restored_without_it(
    copier: Copier, database: Database, sql: Any
) -> None:
    await age_partitions(database, sql, 4)
    made = await old_jobs(database, sql, [3, 2])
    assert await housekeeping.begin_rewrite(database, UUID(int=0), None)
    await housekeeping.copy_partitions(database, 1)
    await copier.dump()

    target = await copier.restore("rewriting")

    assert await migrate(target) != []
    restored = Database(target)
    await restored.open()
    try:
        assert {r["id"] for r in await restored.fetch("job_rows", made, None)} == set(made)
        assert await differences(restored) == []
        assert await housekeeping.copy_partitions(restored, 1) is None
    finally:
        await restored.close()


_WAYS: dict[str, list[list[str]]] = {
    "by two at once": [["-j", "2"]],
    "in one transaction": [["--single-transaction"]],
    "section by section": [["--section=pre-data"], ["--section=data"], ["--section=post-data"]],
}


async def _enqueue_early(sql: Any) -> list[Any]:
    """As an application does that is there before the service: by itself, and in a savepoint."""
    ids = [await sql.fetchval("SELECT atomo.enqueue_job('early', 'early')")]
    async with sql.transaction():
        await sql.execute("SELECT pg_current_xact_id()")
        async with sql.transaction():
            ids.append(await sql.fetchval("SELECT atomo.enqueue_job('early', 'early')"))
    return ids


@pytest.mark.parametrize("way", _WAYS.values(), ids=_WAYS.keys())
@pytest.mark.parametrize("is_younger", [True, False], ids=["younger", "older"])
async def test_an_event_written_before_the_first_start_is_told_however_the_dump_was_restored(
    copier: Copier, dsn: str, way: list[list[str]], is_younger: bool
) -> None:
    await use_transaction_ids(dsn if is_younger else copier.cluster, 3_000)
    async with replica_on(dsn) as replica:
        await record_deals(replica, *range(20))
        seen, place = await read_log(replica.database, Place())
        await copier.dump()
        await record_deals(replica, 20)
        _, ahead = await read_log(replica.database, place)
        await copier.make("ways")
    for options in way:
        target = await copier.load("ways", *options)
    sql: Any = await asyncpg.connect(target, server_settings={"search_path": "atomo"})
    early = await _enqueue_early(sql)
    [adopted] = await migrate(target)
    assert adopted.startswith(RESTORED)
    assert "2 events written here" in adopted
    async with replica_on(target) as replica:
        for kept in (place, ahead):  # the source went on after the dump
            told, _ = await read_log(replica.database, kept)
            assert [e.stream_id for e in told] == early
        everything, _ = await read_log(replica.database, Place())
        assert everything[: len(seen)] == seen
    await sql.close()


async def _outrun(source: str, target: str) -> None:
    """Have the target give out higher ids than the source has."""
    first: Any = await asyncpg.connect(source)
    second: Any = await asyncpg.connect(target)
    ids = "SELECT pg_current_xact_id()::text::bigint"
    behind = await first.fetchval(ids) - await second.fetchval(ids)
    await use_transaction_ids(target, max(0, behind) + 1_000)
    await first.close()
    await second.close()


async def test_a_reader_ahead_of_the_dump_misses_nothing_in_a_cluster_with_higher_ids(copier: Copier, dsn: str) -> None:
    await _outrun(dsn, copier.cluster)
    async with replica_on(dsn) as replica:
        await record_deals(replica, 1)
        await copier.dump()
        restored = await copier.restore("ahead")
        await use_transaction_ids(dsn, 20_000)  # past the other cluster's
        await record_deals(replica, 2)
        _, place = await read_log(replica.database, Place())
    await migrate(restored)
    async with replica_on(restored) as replica:
        await record_deals(replica, 3)
        told, _ = await read_log(replica.database, place)
        assert [e.data["eventId"] for e in told] == ["deal 3"]


async def test_a_role_that_may_not_read_the_cluster_s_identifier_notices_a_restore(copier: Copier, dsn: str) -> None:
    await _outrun(dsn, copier.cluster)
    async with replica_on(dsn) as replica:
        await record_deals(replica, 1)
        _, place = await read_log(replica.database, Place())
    await copier.dump()
    target = await copier.make("unread")
    sql: Any = await asyncpg.connect(target)
    await sql.execute(
        "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC; DROP ROLE IF EXISTS low; "
        "CREATE ROLE low LOGIN PASSWORD 'low'; GRANT CREATE ON DATABASE unread TO low"
    )
    await sql.close()
    host = target.rpartition("@")[2]
    target = await copier.load("unread", "--no-acl", address=f"postgresql://low:low@{host}")
    sql = await asyncpg.connect(target)
    early = await _enqueue_early(sql)
    await sql.close()
    assert any(line.startswith(RESTORED) for line in await migrate(target))
    assert await migrate(target) == []
    async with replica_on(target) as replica:
        assert [e.stream_id for e in (await read_log(replica.database, place))[0]] == early


async def test_a_transaction_that_stays_open_does_not_hold_the_start_up(copier: Copier, dsn: str) -> None:
    await use_transaction_ids(dsn, 3_000)
    async with replica_on(dsn) as replica:
        await record_deals(replica, 1)
        _, place = await read_log(replica.database, Place())
    await copier.dump()
    target = await copier.restore("open")
    sql: Any = await asyncpg.connect(target)
    transaction = sql.transaction()
    await transaction.start()
    early = await sql.fetchval("SELECT atomo.enqueue_job('early', 'early')")
    [waits] = await migrate(target)
    assert waits.startswith(RESTORED)
    assert "once the transactions have ended" in waits
    async with replica_on(target) as replica:
        with pytest.raises(Unavailable):
            await replica.services.housekeeping.adopt_cluster()
        await record_deals(replica, 2)
        assert await read_log(replica.database, place) == ([], place)
        await transaction.commit()
        await replica.services.housekeeping.adopt_cluster()
        told, _ = await read_log(replica.database, place)
        assert [e.stream_id for e in told if e.stream is Stream.JOB] == [early]
        assert [e.data["eventId"] for e in told if e.stream is Stream.MODEL] == ["deal 2"]
    await sql.close()


async def _drop_schema(sql: Any) -> bool:
    with contextlib.suppress(asyncpg.DeadlockDetectedError):  # the server uses it
        await sql.execute("DROP SCHEMA atomo CASCADE")
        return True
    return False


async def test_a_server_that_runs_notices_that_its_schema_was_replaced(
    copier: Copier, dsn: str, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await use_transaction_ids(dsn, 3_000)
    async with replica_on(dsn) as replica:
        await replica.services.bindings.register(ROOT, DEAL)
        await record_deals(replica, 1)
    await copier.dump()
    target = await copier.make("running")
    await migrate(target)
    settings = Settings(jwt_secret=SECRET, data_dir=tmp_path, port=0, env="test")
    sql: Any = await asyncpg.connect(target, server_settings={"search_path": "atomo"})
    async with running(settings, target) as server:
        await until(lambda: _drop_schema(sql), within=30)
        await copier.load("running")
        services = server.application.services
        await services.records.record(
            ROOT, NewEvent(model="Deal", event="created", entity_id="2", data={}, event_id="deal 2")
        )

        async def has_fired() -> bool:
            return [tuple(r) for r in await sql.fetch("SELECT kind, count(*) FROM ready GROUP BY 1")] == [("greet", 2)]

        await until(has_fired, within=30)
        await services.health.check_ready()
    assert any(line.startswith(RESTORED) for line in caplog.messages)
    caplog.clear()  # what the loops said while there was no schema
    await sql.close()
