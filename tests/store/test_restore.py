"""A dump that is restored into another cluster, whose transaction ids are lower or higher, goes on where it was."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from atomo_gql.domain.actions import NewEvent
from atomo_gql.domain.events import Event, EventFilter, Place, Stream
from atomo_gql.embedded import EmbeddedPostgres
from atomo_gql.embedded.binaries import find_binaries, program
from atomo_gql.store import events, housekeeping
from atomo_gql.store.database import Database
from atomo_gql.store.migrations import migrate
from tests.conftest import with_database
from tests.parts import ROOT, Replica, replica_on
from tests.store.test_partitions import age_partitions, differences, old_jobs

RESTORED = "the schema has come from another PostgreSQL cluster"
DEAL = {"model": "Deal", "event": "created", "action": "greet"}
WORKFLOW = {
    "name": "welcome",
    "trigger": {"OnEvent": {"model": "Deal", "event_type": "created"}},
    "steps": [{"name": "a", "action": {"Job": {"queue": "w", "kind": "w", "wait": True}}}],
}


async def run_program(*command: object) -> None:
    """A program of PostgreSQL, which must end with 0."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


@pytest.fixture(scope="module")
async def other_cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address of a PostgreSQL that has just been made: its transaction ids are low."""
    postgres = EmbeddedPostgres(tmp_path_factory.mktemp("other"), settings={"fsync": "off"})
    yield await postgres.start()
    await postgres.stop()


async def _use_transaction_ids(dsn: str, count: int) -> None:
    connection: Any = await asyncpg.connect(dsn)
    await connection.execute(
        f"DO $$ BEGIN FOR i IN 1..{count} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
    )
    await connection.close()


@dataclass
class Copier:
    """Dumps one database, and restores it elsewhere."""

    source: str
    cluster: str
    folder: Any

    async def dump(self) -> None:
        """As docs/operations.md has it."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder / "dump")
        await run_program(program(find_binaries(), "pg_dump"), "-n", "atomo", "-Fd", "-f", self.folder / "dump", self.source)

    async def restore(self, name: str) -> str:
        """Into a new database; its address."""
        connection: Any = await asyncpg.connect(self.cluster)
        await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()
        target = with_database(self.cluster, name)
        await run_program(program(find_binaries(), "pg_restore"), "-d", target, "--no-owner", self.folder / "dump")
        return target


@pytest.fixture
def copier(dsn: str, other_cluster: str, tmp_path: Any) -> Copier:
    """From the test's database into the other cluster."""
    return Copier(dsn, other_cluster, tmp_path)


async def record_deals(replica: Replica, *numbers: int) -> None:
    """Events that fire DEAL and begin WORKFLOW."""
    for n in numbers:
        event = NewEvent(model="Deal", event="created", entity_id=str(n), data={}, event_id=f"deal {n}")
        await replica.services.records.record(ROOT, event)


async def read_log(database: Database, after: Place) -> tuple[list[Event], Place]:
    """What a reader that was at that place is told, and where it is then."""
    wanted = EventFilter(streams=(Stream.MODEL, Stream.JOB))
    found, place, _ = await events.tail(database, after, None, wanted, 1_000, 10_000_000)
    return found, place


async def _kinds(sql: Any) -> list[tuple[str, int]]:
    rows = await sql.fetch("SELECT kind, count(*) FROM job_records GROUP BY kind ORDER BY kind")
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("is_younger", [True, False], ids=["into a younger cluster", "into an older one"])
async def test_actions_workflows_and_readers_go_on_after_a_restore(copier: Copier, dsn: str, is_younger: bool) -> None:
    await _use_transaction_ids(dsn if is_younger else copier.cluster, 5_000)
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
    await _use_transaction_ids(dsn, 2_000)
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

    back = await second.restore(f"back_{dsn.rpartition('_')[2]}")
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
        await connection.execute(f"DROP DATABASE {back.rpartition('/')[2]} WITH (FORCE)")
        await connection.close()

    again = await Copier(dsn, dsn, copier.folder).restore(f"again_{dsn.rpartition('_')[2]}")
    try:
        assert await migrate(again) == [], "transaction ids are the cluster's, so nothing has changed"
    finally:
        connection = await asyncpg.connect(dsn)
        await connection.execute(f"DROP DATABASE {again.rpartition('/')[2]} WITH (FORCE)")
        await connection.close()


async def test_a_dump_of_a_rewrite_under_way_is_restored_without_it(
    copier: Copier, database: Database, sql: Any
) -> None:
    await age_partitions(database, sql, 4)
    made = await old_jobs(database, sql, [3, 2])
    [first, *_, last] = [p for p in await housekeeping.partitions(database) if p.days == 1 or p.begins_at.year == 1970]
    assert await housekeeping.begin_rewrite(database, first.first_id, last.end_id, None)
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
