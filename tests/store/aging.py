"""Databases whose partitions and jobs are old, and what is in them."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from atomo_gql.realtime.hub import Hub
from atomo_gql.realtime.transport import url_transport
from atomo_gql.service.context import Limits, Resources
from atomo_gql.service.housekeeping import HousekeepingService, Retention
from atomo_gql.store import enqueue, housekeeping, lease, rebuild, report
from atomo_gql.store.database import Database
from atomo_gql.store.lease import LeaseRow
from atomo_gql.store.report import ReportRow
from tests.store.test_projection import make_token, row


async def lose_partitions(sql: Any, *, is_known: bool = True) -> None:
    """As if no server had made a partition for days: those of now and later are not there.

    `is_known`: the table `partitions` does not have them, either; else somebody has dropped them by hand.
    """
    async with sql.transaction():
        for name in [r["name"] for r in await sql.fetch("SELECT name FROM partitions WHERE end_id > new_id()")]:
            await sql.execute(f"DROP TABLE events_{name}, job_records_{name}")
        if is_known:
            await sql.execute("DELETE FROM partitions WHERE end_id > new_id()")


async def age_partitions(database: Database, sql: Any, days: int) -> None:
    """A pair of partitions for each of so many days that have passed, as version 13 made them."""
    await sql.execute("DELETE FROM partitions")
    for table in await sql.fetch("SELECT relid::regclass::text AS name FROM pg_partition_tree('events') WHERE isleaf"):
        await sql.execute(f"DROP TABLE {table['name']}, {table['name'].replace('events', 'job_records')}")
    await sql.execute(
        "CREATE TEMPORARY TABLE pairs AS SELECT to_char(d, 'YYYYMMDD') AS name, first_id_at(d) AS first_id, "
        "first_id_at(d + interval '1 day') AS end_id FROM generate_series("
        "date_trunc('day', now()) - $1::interval, now() - interval '1 day', interval '1 day') AS d",
        timedelta(days=days),
    )
    await sql.execute(
        "INSERT INTO pairs SELECT 'old', '00000000-0000-0000-0000-000000000000', first_id FROM pairs "
        "ORDER BY first_id LIMIT 1"
    )
    for pair in await sql.fetch("SELECT name, first_id, end_id FROM pairs"):  # one by one: each takes locks
        await sql.execute("SELECT make_pair($1, $2, $3), attach_pair($1, $2, $3)", *pair)
    await housekeeping.make_partitions(database, 4)


async def old_jobs(database: Database, sql: Any, ages: list[int]) -> list[UUID]:
    """A job that succeeded, for each of these ages in days: rows and events are moved together."""
    worker = await make_token(database)
    made = await enqueue.enqueue(database, [row(key=f"k{n}") for n in range(len(ages))])
    [leased] = await lease.lease(database, [LeaseRow(worker.id, len(ages), 300, ("q",))])
    await report.complete(database, [ReportRow(j.id, j.lease_id, worker.id, body=b"1") for j in leased])
    aged = []
    for job, age in zip(made, ages, strict=True):
        new = await sql.fetchval(
            "SELECT nth_id((extract(epoch FROM now() - $1::interval) * 1000000)::bigint, gen_random_uuid(), 0)",
            timedelta(days=age),
        )
        await sql.execute(
            "WITH e AS (UPDATE events SET stream_id = $2, at = at - $3::interval WHERE stream_id = $1), "
            "k AS (UPDATE idempotency_keys SET job_id = $2 WHERE job_id = $1) "
            "UPDATE job_records SET id = $2, created_at = created_at - $3::interval WHERE id = $1",
            job.id,
            new,
            timedelta(days=age),
        )
        aged.append(new)
    return aged


async def differences(database: Database) -> list[rebuild.Difference]:
    """What a proof of the projection finds."""
    return [found async for proof in rebuild.verify(database) for found in proof.differences]


def keeping(database: Database, succeeded: float | None = None, dead: float | None = None) -> HousekeepingService:
    """Housekeeping with that retention, in days."""
    hub = Hub(url_transport("memory://"))
    limits = Limits(max_body=1, max_waiting=1, max_subscriptions=1, spare_deliveries=1)
    return HousekeepingService(Resources(database, hub, limits), Retention(succeeded, dead))


async def shape(database: Database) -> list[tuple[UUID, UUID]]:
    """The ranges of the partitions."""
    return [(p.first_id, p.end_id) for p in await housekeeping.partitions(database)]
