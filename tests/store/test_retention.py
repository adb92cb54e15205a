"""Retention forgets what is old and ended, and nothing else."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from atomo_gql.store import enqueue, housekeeping, lease, rebuild, report
from atomo_gql.store.database import Database
from atomo_gql.store.lease import LeaseRow
from atomo_gql.store.report import ReportRow
from tests.conftest import MakeServer, admin
from tests.store.test_projection import make_token, row


@pytest.fixture
async def aged(database: Database, sql: Any) -> dict[str, Any]:
    """Jobs that were enqueued ten days ago: one succeeded, one dead, one queued; each with a key."""
    worker = await make_token(database)
    made = await enqueue.enqueue(database, [row(key="a"), row(key="b"), row("r", key="c")])
    [jobs] = await lease.lease(database, [LeaseRow(worker.id, 2, 30, ("q",))])
    await report.complete(database, [ReportRow(jobs[0].id, jobs[0].lease_id, worker.id, body=b"1")])
    await report.fail(database, [ReportRow(jobs[1].id, jobs[1].lease_id, worker.id, error="x", retryable=False)])
    return {"succeeded": made[0].id, "dead": made[1].id, "queued": made[2].id}


async def _left(sql: Any) -> set[Any]:
    ids = {r["id"] for r in await sql.fetch("SELECT id FROM job_records")}
    assert ids == {
        r["stream_id"] for r in await sql.fetch("SELECT DISTINCT stream_id FROM events WHERE stream = 'Job'")
    }
    assert ids == {r["job_id"] for r in await sql.fetch("SELECT job_id FROM idempotency_keys")}
    return ids


async def test_nothing_is_forgotten_by_default(make_server: MakeServer, aged: dict[str, Any], sql: Any) -> None:
    server = await make_server()
    later = datetime.now(UTC) + timedelta(days=4_000)

    assert await server.application.services.housekeeping.retain(later) == (0, 0)
    assert await _left(sql) == set(aged.values())


async def test_a_day_with_something_to_keep_is_thinned_out(
    make_server: MakeServer, aged: dict[str, Any], sql: Any, database: Database
) -> None:
    server = await make_server(retention_succeeded_days=7)

    _, deleted = await server.application.services.housekeeping.retain(datetime.now(UTC) + timedelta(days=9))

    assert deleted == 1

    assert await _left(sql) == {aged["dead"], aged["queued"]}
    assert [p.differences async for p in rebuild.verify(database)] == [()]


async def test_a_day_with_nothing_to_keep_is_dropped_whole(
    make_server: MakeServer, aged: dict[str, Any], sql: Any
) -> None:
    server = await make_server(retention_succeeded_days=7, retention_dead_days=7)
    worker = await server.mint("*")
    [job] = await worker.lease("r")
    await worker.report("complete", job)

    _, deleted = await server.application.services.housekeeping.retain(datetime.now(UTC) + timedelta(days=9))

    assert deleted == 3
    assert await _left(sql) == set()


async def test_the_days_ahead_are_made_once(database: Database) -> None:
    await housekeeping.span_partitions(database, 1)
    before = (await housekeeping.partitions(database))[-1].ends_at
    ahead = (before - await housekeeping.database_now(database)).days

    assert await housekeeping.make_partitions(database, ahead + 3) == 3, "three more days, a pair each"
    assert await housekeeping.make_partitions(database, ahead + 3) == 0
    assert (await housekeeping.partitions(database))[-1].ends_at == before + timedelta(days=3)


async def test_a_pause_and_a_token_outlive_the_day_they_began_on(make_server: MakeServer, sql: Any) -> None:
    server = await make_server(retention_succeeded_days=7, retention_dead_days=7)
    worker = await server.mint("q")
    pause = 'mutation { pauseQueue(queue: "q") { isPaused } }'
    assert (await server.graphql(pause, headers=admin()))["data"]["pauseQueue"]["isPaused"]

    await server.application.services.housekeeping.retain(datetime.now(UTC) + timedelta(days=9))

    resume = pause.replace("pauseQueue", "resumeQueue")
    assert not (await server.graphql(resume, headers=admin()))["data"]["resumeQueue"]["isPaused"]
    assert (await server.call("DELETE", f"/jobs/workers/{worker.token_id}", headers=admin()))[0] == 204
    assert (await worker.call("/jobs/lease", {"queues": ["q"]}))[0] == 401
    told = await sql.fetch("SELECT version, type::text FROM events ORDER BY stream, version")
    assert [tuple(row) for row in told] == [(1, "paused"), (2, "resumed"), (1, "minted"), (2, "revoked")]
