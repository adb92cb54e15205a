"""Old partitions become few beside a working service, and retention leaves nothing half."""

import asyncio
import contextlib
import itertools
import re
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from atomo_gql.domain.errors import Unavailable
from atomo_gql.domain.events import EventFilter, Place
from atomo_gql.domain.jobs import JobFilter
from atomo_gql.service import housekeeping as service
from atomo_gql.store import enqueue, events, housekeeping, jobs, lease, report
from atomo_gql.store.database import Database
from atomo_gql.store.lease import LeaseRow
from atomo_gql.store.report import ReportRow
from atomo_gql.store.statements import statements
from tests.conftest import until
from tests.store.aging import age_partitions, differences, keeping, lose_partitions, old_jobs, shape
from tests.store.test_projection import make_token, row


async def test_days_become_few_partitions_and_keep_all_that_is_in_them(database: Database, sql: Any) -> None:
    await age_partitions(database, sql, 60)
    made = await old_jobs(database, sql, list(range(60)))
    before = await sql.fetch("SELECT * FROM jobs ORDER BY id")
    history = await sql.fetch("SELECT * FROM events ORDER BY stream_id, version")

    replaced, forgotten = await keeping(database).retain()

    assert (replaced > 40, forgotten) == (True, 0)
    ranges = await shape(database)
    assert len(ranges) <= 8 + 4, "eight that are old, and those of these days"
    assert ranges[0][0] == UUID(int=0)
    assert all(end == first for (_, end), (first, _) in itertools.pairwise(ranges))
    assert await sql.fetch("SELECT * FROM jobs ORDER BY id") == before
    assert await sql.fetch("SELECT * FROM events ORDER BY stream_id, version") == history
    assert {r["id"] for r in await sql.fetch("SELECT id FROM job_records")} == set(made)
    assert await differences(database) == []
    assert await sql.fetchval("SELECT count(*) FROM pg_class WHERE relname LIKE 'detached%'") == 0


async def test_what_happens_to_old_jobs_while_they_are_copied_is_kept(database: Database, sql: Any) -> None:
    await age_partitions(database, sql, 5)
    kept, cancelled, deleted, *_ = await old_jobs(database, sql, [4, 4, 4, 3, 3])
    [first, *_, last] = [p for p in await housekeeping.partitions(database) if p.ends_at < datetime.now(UTC)]
    assert await housekeeping.begin_rewrite(database, first.first_id, last.end_id, None)
    while await housekeeping.copy_partitions(database, 2):
        pass
    # An event that is appended, a record that is changed with one, and a job that is deleted.
    append = (
        "INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data) "
        "VALUES ($1, 9, now(), 'Job', 'retried', '', 'x', '{}')"
    )
    await sql.execute(append, kept)
    async with sql.transaction():
        await sql.execute(append, cancelled)
        await sql.execute("UPDATE job_records SET deadline = 'epoch' WHERE id = $1", cancelled)
    await sql.execute("DELETE FROM job_records WHERE id = $1", deleted)
    await sql.execute("DELETE FROM events WHERE stream_id = $1", deleted)
    jobs = await sql.fetch("SELECT * FROM job_records ORDER BY id")
    history = await sql.fetch("SELECT * FROM events ORDER BY stream_id, version")

    assert await housekeeping.swap_partitions(database) == housekeeping.Swapped(6, 0)

    assert await sql.fetch("SELECT * FROM job_records ORDER BY id") == jobs
    assert await sql.fetch("SELECT * FROM events ORDER BY stream_id, version") == history


async def test_a_deletion_that_has_not_committed_yet_is_followed(database: Database, sql: Any) -> None:
    await age_partitions(database, sql, 3)
    [job] = await old_jobs(database, sql, [2])
    [first, *_, last] = [p for p in await housekeeping.partitions(database) if p.ends_at < datetime.now(UTC)]
    async with sql.transaction():
        await sql.execute("DELETE FROM events WHERE stream_id = $1", job)
        await sql.execute("DELETE FROM job_records WHERE id = $1", job)
        assert await housekeeping.begin_rewrite(database, first.first_id, last.end_id, None)
        copying = asyncio.create_task(housekeeping.copy_partitions(database, 100))
        waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"
        await until(lambda: sql.fetchval(waiting))
    assert await copying is True, "and it looks once more for what has happened since"
    assert await housekeeping.copy_partitions(database, 100) is False

    assert await housekeeping.swap_partitions(database)

    assert await sql.fetchval("SELECT count(*) FROM events WHERE stream_id = $1", job) == 0
    assert await sql.fetchval("SELECT count(*) FROM job_records") == 0


class Killed(Exception):
    """The process ended here."""


_STEPS = re.compile(r"(rewrite|copy|swap)_partitions|drop_detached")


@pytest.mark.parametrize("statement", [name for name, s in statements().items() if _STEPS.search(s.text)])
@pytest.mark.parametrize("is_done", [True, False], ids=["after", "before"])
async def test_retention_that_is_killed_at_any_statement_leaves_nothing_half(
    database: Database, sql: Any, monkeypatch: pytest.MonkeyPatch, statement: str, is_done: bool
) -> None:
    monkeypatch.setattr(service, "_REWRITE", 1)
    monkeypatch.setattr(service, "_COPY", 2)
    await age_partitions(database, sql, 40)
    made = await old_jobs(database, sql, [35, 35, 34, 5])
    fetch_one, calls = database.fetch_one, itertools.count()

    async def dies(name: str, *arguments: object) -> Any:
        is_last = name == statement and next(calls) == 1
        if is_last and not is_done:
            raise Killed
        answer = await fetch_one(name, *arguments)
        if is_last:
            raise Killed
        return answer

    monkeypatch.setattr(database, "fetch_one", dies)
    with pytest.raises(Killed):
        await keeping(database, succeeded=30).retain()

    # Whatever was forgotten by then, its key was, too; what was not is there as a whole.
    keys = {r["job_id"] for r in await sql.fetch("SELECT job_id FROM idempotency_keys")}
    assert {r["id"] for r in await sql.fetch("SELECT id FROM job_records")} >= keys
    assert await differences(database) == []
    for number in range(4):
        [job] = await enqueue.enqueue(database, [row(key=f"k{number}")])
        assert job.is_new or await sql.fetchval("SELECT EXISTS (SELECT FROM jobs WHERE id = $1)", job.id)

    monkeypatch.setattr(database, "fetch_one", fetch_one)
    await keeping(database, succeeded=30).retain()
    left = {r["id"] for r in await sql.fetch("SELECT id FROM job_records WHERE created_at < now() - interval '1 hour'")}
    assert left == {made[3]}
    assert await differences(database) == []
    assert await sql.fetchval("SELECT count(*) FROM pg_class WHERE relname LIKE 'detached%'") == 0


async def test_years_of_days_come_to_need_few_locks(database: Database, sql: Any) -> None:
    await age_partitions(database, sql, 400)
    await old_jobs(database, sql, list(range(0, 400, 20)))

    await keeping(database).retain()

    looks: list[tuple[str, tuple[object, ...]]] = [
        ("job_page", (None,) * 11 + (True, 50)),
        ("event_tail", (0, 0, None, ["Job"], None, None, None, None, 1_000, 1_000_000)),
        ("recorded_tail", (0, 0, 1_000, 1_000_000)),
        ("dispatch_lag", (True,)),
        ("job_get", ([UUID(int=1)], None)),
    ]
    for name, arguments in looks:
        async with database.connection() as connection, connection.transaction():
            await connection.fetch(statements()[name].text, *arguments)
            locks = await connection.fetchval("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()")
        assert locks <= 200, f"{name} takes {locks}, and PostgreSQL has room for 6,400 by default"


async def test_partitions_are_replaced_under_load_and_nobody_notices(database: Database, sql: Any) -> None:
    await age_partitions(database, sql, 3)
    await old_jobs(database, sql, [2, 1])
    worker = await make_token(database)
    ended, places = 0, [Place()]
    seen: list[tuple[UUID, int]] = []

    async def work() -> None:
        nonlocal ended
        while ended < 600:
            made = await enqueue.enqueue(database, [row(key=str(uuid.uuid4())) for _ in range(5)])
            assert all(job.is_new for job in made)
            [leased] = await lease.lease(database, [LeaseRow(worker.id, 5, 300, ("q",))])
            done = [ReportRow(job.id, job.lease_id, worker.id, body=b"1") for job in leased]
            assert None not in await report.complete(database, done)
            ended += len(leased)

    async def read() -> None:
        found, places[0], _ = await events.tail(database, places[0], None, EventFilter(), 500, 10_000_000)
        seen.extend((event.stream_id, event.version) for event in found)
        ids = (await jobs.page(database, None, JobFilter(), most=50)).ids
        assert len(await database.fetch("job_rows", ids, None)) == len(ids)

    working = [asyncio.create_task(work()) for _ in range(3)]
    replaced = 0
    while not all(task.done() for task in working):
        assert await housekeeping.begin_rewrite(database, UUID(int=0), None)
        while await housekeeping.copy_partitions(database, 2_000):
            await read()
        with contextlib.suppress(Unavailable):
            replaced += await housekeeping.swap_partitions(database) is not None
        await read()
        await sql.execute("SELECT abandon_rewrite()")
    await asyncio.gather(*working)
    assert replaced > 1

    count = await sql.fetchval("SELECT count(*) FROM events WHERE stream = 'Job'")
    await until(read_all(read, seen, count))
    assert len(seen) == len(set(seen)), "none is told twice"
    assert await sql.fetchval("SELECT count(*) FROM job_records") == await sql.fetchval("SELECT count(*) FROM jobs")
    assert await differences(database) == []
    assert await sql.fetchval("SELECT count(*) FROM idempotency_keys") == await sql.fetchval(
        "SELECT count(*) FROM job_records"
    )


def read_all(
    read: Callable[[], Awaitable[None]], seen: list[tuple[UUID, int]], count: int
) -> Callable[[], Awaitable[object]]:
    """Reads on; whether so many have been seen."""

    async def look() -> object:
        await read()
        return len(seen) >= count

    return look


async def test_a_retention_that_is_set_later_has_the_partition_of_today_end_soon(database: Database, sql: Any) -> None:
    await age_partitions(database, sql, 30)
    await lose_partitions(sql)
    await housekeeping.span_partitions(database, 365)
    await housekeeping.make_partitions(database, 4)
    made = await old_jobs(database, sql, [20, 3, 0])
    assert (await housekeeping.partitions(database))[-1].remaining_days(datetime.now(UTC)) > 300

    house = keeping(database, succeeded=8)
    await house.make_partitions()
    await house.retain()

    partitions = await housekeeping.partitions(database)
    assert [p.first_id for p in partitions[1:]] == [p.end_id for p in partitions[:-1]], "without a gap"
    assert all(p.ends_at - p.begins_at <= timedelta(days=3) for p in partitions[1:])
    assert len(partitions) > 5
    assert {r["id"] for r in await sql.fetch("SELECT id FROM job_records")} == set(made[1:])
    assert await differences(database) == []


async def test_dead_jobs_that_are_kept_for_long_keep_no_partitions_apart(database: Database, sql: Any) -> None:
    await age_partitions(database, sql, 60)
    made = await old_jobs(database, sql, list(range(0, 60, 10)))

    await keeping(database, succeeded=2, dead=365).retain()

    assert len(await shape(database)) <= 4 + 2 + 6, "four of what has expired, those of the retention, and those ahead"
    assert {r["id"] for r in await sql.fetch("SELECT id FROM job_records")} == {made[0]}


@pytest.mark.parametrize("descending", [True, False])
async def test_a_page_goes_on_from_one_partition_into_the_others(
    database: Database, sql: Any, *, descending: bool
) -> None:
    await age_partitions(database, sql, 8)
    made = sorted(await old_jobs(database, sql, [0, 0, 0, 1, 3, 4, 4, 7]), reverse=descending)
    for most in range(1, 10):
        for after in [None, *made]:
            bound: dict[str, Any] = {"below" if descending else "above": after}
            found = await jobs.page(database, None, JobFilter(), descending=descending, most=most, **bound)
            begin = 0 if after is None else made.index(after) + 1
            assert found.ids == made[begin : begin + most]
    cut: dict[str, Any] = {"above": made[-2], "below": made[1]} if descending else {"above": made[1], "below": made[-2]}
    assert (await jobs.page(database, None, JobFilter(), descending=descending, most=9, **cut)).ids == made[2:-2]


async def test_a_lease_that_was_given_while_the_clock_was_ahead_ends_in_time(database: Database, sql: Any) -> None:
    worker = await make_token(database)
    await enqueue.enqueue(database, [row(), row()])
    [[ahead, _]] = await lease.lease(database, [LeaseRow(worker.id, 2, 30, ("q",))])
    await sql.execute("UPDATE leases SET expires_at = expires_at + interval '365 days' WHERE id = $1", UUID(ahead.id))

    assert await keeping(database).shorten_leases() == 1

    assert await sql.fetchval("SELECT max(expires_at) <= now() + interval '31 seconds' FROM leases")
    assert await keeping(database).shorten_leases() == 0


async def test_a_rewrite_whose_table_was_dropped_by_hand_is_given_up(database: Database, sql: Any) -> None:
    await age_partitions(database, sql, 20)
    assert await housekeeping.begin_rewrite(database, UUID(int=0), None)
    await sql.execute(f"DROP TABLE events_{await sql.fetchval('SELECT name FROM partition_rewrites')}")

    assert await housekeeping.copy_partitions(database, 10) is None

    assert await sql.fetchval("SELECT count(*) FROM partition_rewrites") == 0
    assert (await keeping(database).retain())[0] > 10, "and the next ones go on"


async def test_a_rewrite_that_the_clock_has_overtaken_is_given_up(database: Database, sql: Any) -> None:
    assert await housekeeping.begin_rewrite(database, UUID(int=0), None)
    while await housekeeping.copy_partitions(database, 10):
        pass
    ahead = (
        "INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data) VALUES "
        "(first_id_at(now() + interval '3 days'), 1, now(), 'Queue', 'paused', '', 'x', '{}')"
    )
    await sql.execute(ahead)
    before = await shape(database)

    assert await housekeeping.swap_partitions(database) is None

    assert await shape(database) == before
    assert await sql.fetchval("SELECT count(*) FROM partition_rewrites") == 0
    assert not await housekeeping.begin_rewrite(database, UUID(int=0), None), "and none is begun in vain"


async def test_a_copy_that_is_far_behind_is_not_put_in_place(database: Database, sql: Any) -> None:
    async with database.connection() as old:
        transaction = old.transaction()
        await transaction.start()
        await old.execute("SELECT pg_current_xact_id()")  # nothing that comes after this can be told yet
        assert await housekeeping.begin_rewrite(database, UUID(int=0), None)
        while await housekeeping.copy_partitions(database, 100):
            pass
        for _ in range(11):
            await enqueue.enqueue(database, [row() for _ in range(1_000)])
        assert await housekeeping.copy_partitions(database, 100) is False
        assert await housekeeping.swap_partitions(database) is None
        await transaction.commit()

    while await housekeeping.copy_partitions(database, 100):
        pass
    assert await housekeeping.swap_partitions(database)
    assert await sql.fetchval("SELECT count(*) FROM events") == 11_000
