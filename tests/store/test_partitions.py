"""What is written never lacks a partition."""

from typing import Any

import asyncpg
import pytest

from atomo_gql.store import enqueue, housekeeping
from atomo_gql.store.database import Database
from tests.conftest import MakeServer, Server, admin, bearer
from tests.store.aging import lose_partitions
from tests.store.test_projection import row


async def _rest(server: Server) -> None:
    await server.enqueue()


async def _batch(server: Server) -> None:
    body = {"jobs": [{"queue": "q", "kind": "k"}] * 3}
    assert (await server.call("POST", "/jobs/batch", body, headers=bearer()))[0] == 201


async def _graphql(server: Server) -> None:
    assert "errors" not in await server.graphql('mutation { enqueueJob(queue: "q", kind: "k") }')


async def _sql_function(server: Server) -> None:
    connection: Any = await asyncpg.connect(server.dsn)
    try:
        for isolation in ("read_committed", "repeatable_read"):
            async with connection.transaction(isolation=isolation):
                await connection.fetchval("SELECT atomo.enqueue_job('q', 'k')")
    finally:
        await connection.close()


async def _token(server: Server) -> None:
    await server.mint("q")


async def _pause(server: Server) -> None:
    answer = await server.graphql('mutation { pauseQueue(queue: "q") { isPaused } }', headers=admin())
    assert "errors" not in answer, answer


async def _event(server: Server) -> None:
    body = {"model": "Deal", "event": "created", "id": "7", "data": {}}
    assert (await server.call("POST", "/events", body, headers=bearer()))[0] == 201


async def _binding(server: Server) -> None:
    binding = '{model: "Deal", event: "created", action: "greet"}'
    answer = await server.graphql(f"mutation {{ registerAction(binding: {binding}) {{ id }} }}", headers=admin())
    assert "errors" not in answer, answer


async def _workflow(server: Server) -> None:
    definition = {"name": "w", "steps": [{"name": "a", "action": {"SetVariable": {"key": "x", "value": 1}}}]}
    assert (await server.call("POST", "/workflows", definition, headers=admin()))[0] in (200, 201)
    assert (await server.call("POST", "/workflows/w/run", {}, headers=bearer()))[0] in (200, 201)


DOORS = {f.__name__.strip("_"): f for f in (_rest, _batch, _graphql, _sql_function, _token, _pause, _event, _workflow)}


@pytest.mark.parametrize("is_known", [True, False], ids=["after days off", "dropped by hand"])
@pytest.mark.parametrize("door", DOORS)
async def test_what_is_written_finds_its_partition_by_every_door(
    make_server: MakeServer, sql: Any, door: str, is_known: bool
) -> None:
    server = await make_server()
    await lose_partitions(sql, is_known=is_known)

    await DOORS[door](server)

    assert await sql.fetchval("SELECT is_partitioned(now()) AND is_partitioned(now() + interval '3 days')")


async def test_a_snapshot_older_than_the_partition_is_no_hindrance(database: Database, sql: Any) -> None:
    await lose_partitions(sql)
    async with sql.transaction(isolation="repeatable_read"):
        await sql.fetchval("SELECT 1")
        await housekeeping.make_partitions(database, 4)
        await sql.fetchval("SELECT enqueue_job('q', 'k')")
    assert await sql.fetchval("SELECT count(*) FROM job_records") == 1


async def test_half_of_a_pair_that_was_dropped_is_made_again(database: Database, sql: Any) -> None:
    name = await sql.fetchval("SELECT name FROM partitions WHERE end_id > new_id()")
    await sql.execute(f"DROP TABLE job_records_{name}")

    assert [job.is_new for job in await enqueue.enqueue(database, [row()])] == [True]

    assert [r["name"] for r in await sql.fetch("SELECT name FROM partitions WHERE end_id > new_id()")] == [name]


async def test_making_a_partition_waits_for_no_reader_and_no_reader_waits_for_it(database: Database, sql: Any) -> None:
    reader: Any = await asyncpg.connect(database.dsn, server_settings={"search_path": "atomo"})
    try:
        async with reader.transaction():
            await reader.fetch("SELECT FROM events LIMIT 1")
            await reader.fetch("SELECT FROM job_records LIMIT 1")
            await lose_nothing_but_make_more(database)
            async with sql.transaction():
                await sql.execute("SET LOCAL lock_timeout = '1ms'; SELECT make_partitions(800)")
                await reader.execute("SET LOCAL lock_timeout = '1ms'")
                await reader.fetch("SELECT FROM events LIMIT 1")
    finally:
        await reader.close()


async def lose_nothing_but_make_more(database: Database) -> None:
    """A week more, while somebody reads."""
    await housekeeping.span_partitions(database, 1)
    ends_at = (await housekeeping.partitions(database))[-1].ends_at
    ahead = (ends_at - await housekeeping.database_now(database)).days
    assert await housekeeping.make_partitions(database, ahead + 7) == 7


@pytest.mark.parametrize("parents", [("events", "job_records"), ("events",), ("job_records",)], ids=" and ".join)
async def test_a_partition_that_was_detached_by_hand_stops_nobody(
    make_server: MakeServer, sql: Any, parents: tuple[str, ...]
) -> None:
    server = await make_server()
    name = await sql.fetchval("SELECT name FROM partitions WHERE end_id > new_id()")
    for parent in parents:
        await sql.execute(f"ALTER TABLE {parent} DETACH PARTITION {parent}_{name}")

    await server.enqueue()
    await server.mint("q")

    assert (await server.call("GET", "/readyz"))[0] == 200
    assert await sql.fetchval("SELECT bool_and(has_events AND has_records) FROM attached_partitions")


async def test_a_default_partition_of_somebody_s_is_no_hindrance(database: Database, sql: Any) -> None:
    await sql.execute("CREATE TABLE events_default PARTITION OF events DEFAULT")
    await housekeeping.span_partitions(database, 1)
    ends_at = (await housekeeping.partitions(database))[-1].ends_at
    ahead = (ends_at - await housekeeping.database_now(database)).days

    assert await housekeeping.make_partitions(database, ahead + 2) == 2
