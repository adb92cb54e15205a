"""Where leases begin to look while what was leased before cannot be cleaned away."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from atomo_gql.domain.jobs import LeasedJob
from atomo_gql.store import enqueue, lease, report
from atomo_gql.store.database import Database
from atomo_gql.store.lease import Heads, LeaseRow
from atomo_gql.store.report import ReportRow
from tests.guard.meter import Meter
from tests.store.test_projection import make_token, row


@pytest.mark.parametrize("queues", [("q",), ("q", "r"), ("*",)])
async def test_the_walk_begins_where_it_is_told_and_passes_over_nothing_for_long(
    database: Database, sql: Any, queues: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_REMEMBERED_SECS", 60)
    worker = await make_token(database)
    made = [m.id for m in await enqueue.enqueue(database, [row("q" if n % 2 else "r") for n in range(30)])]
    if queues == ("q",):
        await sql.execute("UPDATE ready SET queue = 'q'")
    heads = Heads()

    async def take(count: int) -> list[LeasedJob]:
        [jobs] = await lease.lease(database, [LeaseRow(worker.id, count, 30, queues)], heads)
        return jobs

    [first] = await lease.lease(database, [LeaseRow(worker.id, 10, 30, queues)])
    place = await sql.fetchrow("SELECT eligible_at FROM leases WHERE id = $1", UUID(first[5].id))
    # Jobs of one batch are eligible at the same moment: apart, so that the place is one.
    await sql.execute("UPDATE ready SET eligible_at = eligible_at + interval '1 millisecond'")
    at = place["eligible_at"]
    since = await sql.fetchval("SELECT min(eligible_at) FROM ready")
    heads.learn(LeaseRow(worker.id, 1, 30, queues), first[5], since)
    await report.release(database, [ReportRow(first[0].id, first[0].lease_id, worker.id)], 100)
    assert await sql.fetchval("SELECT eligible_at FROM ready WHERE id = $1", UUID(first[0].id)) == at

    later = datetime.now(UTC) + timedelta(hours=1)
    await enqueue.enqueue(database, [row("q", priority=n)._replace(run_at=later) for n in (7, 9)])  # it stays the place
    assert [UUID(job.id) for job in await take(10)] == made[10:20]  # what was put back waits a moment
    [urgent] = await enqueue.enqueue(database, [row("q", priority=5)])
    assert [UUID(job.id) for job in await take(1)] == [urgent.id]  # what is more urgent does not
    assert {UUID(job.id) for job in await take(20)} == {made[0], *made[20:]}  # nor does it when there is room for it


async def test_a_place_is_remembered_of_slow_leases_and_not_for_long(
    database: Database, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await make_token(database)
    await enqueue.enqueue(database, [row(), row()])
    asked = LeaseRow(worker.id, 1, 30, ("q",))
    heads = Heads()

    monkeypatch.setattr(lease, "_SLOW_SECS", 60)
    await lease.lease(database, [asked], heads)
    assert heads.of(asked) == (None, None)
    monkeypatch.setattr(lease, "_SLOW_SECS", -1)
    [[job]] = await lease.lease(database, [asked], heads)
    assert heads.of(asked) == (0, await sql.fetchval("SELECT eligible_at FROM leases WHERE id = $1", UUID(job.id)))

    since = datetime.fromisoformat(job.fields()["createdAt"])
    heads = Heads()

    heads.learn(asked, job, since)
    assert heads.of(asked) == (job.fields()["priority"], since)
    assert heads.of(LeaseRow(worker.id, 1, 30, ("r",))) == (None, None)

    monkeypatch.setattr(lease, "_REMEMBERED_SECS", 0)
    heads = Heads()
    heads.learn(asked, job, since)
    assert heads.of(asked) == (None, None)


async def test_a_snapshot_held_open_makes_no_lease_read_all_that_was_leased(
    database: Database, cluster: str, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_REMEMBERED_SECS", 60)
    worker = await make_token(database)
    meter = await Meter.on(database, cluster)
    holder: Any = await asyncpg.connect(database.dsn)
    await holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()")
    for _ in range(8):
        await enqueue.enqueue(database, [row() for _ in range(1_000)])
    asked = LeaseRow(worker.id, 1, 30, ("q",))
    await lease.lease(database, [LeaseRow(worker.id, 7_000, 30, ("q",))])

    async def take(heads: Heads) -> int:
        return (await meter.spent(lambda: lease.lease(database, [asked], heads))).buffers

    [[job]] = await lease.lease(database, [asked])
    heads = Heads()
    heads.learn(asked, job, await sql.fetchval("SELECT eligible_at FROM leases WHERE id = $1", UUID(job.id)))
    from_the_start, from_the_place = await take(Heads()), await take(heads)
    await holder.close()
    await meter.close()
    assert from_the_place < from_the_start / 3, (from_the_place, from_the_start)
