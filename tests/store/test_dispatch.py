"""Who gets which job."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from atomo_gql.store import enqueue, lease, report, tokens
from atomo_gql.store.database import Database
from atomo_gql.store.enqueue import EnqueueRow
from atomo_gql.store.lease import LeaseRow
from atomo_gql.store.report import ReportRow
from tests.store.test_projection import make_token, row


async def _take(database: Database, worker: Any, *queues: str, count: int = 10) -> list[Any]:
    [jobs] = await lease.lease(database, [LeaseRow(worker.id, count, 30, queues)])
    return jobs


async def test_two_workers_never_lease_the_same_attempt(database: Database) -> None:
    worker = await make_token(database)
    await enqueue.enqueue(database, [row("q" if n % 2 else "r") for n in range(400)])

    async def drain(*queues: str) -> list[Any]:
        mine: list[Any] = []
        while got := await _take(database, worker, *queues, count=7):
            mine += got
        return mine

    drained = await asyncio.gather(*(drain(*queues) for queues in [("q",), ("r",), ("q", "r"), ("*",)] * 2))

    ids = [UUID(job.id) for mine in drained for job in mine]
    assert len(ids) == len(set(ids)) == 400


async def test_a_row_that_somebody_holds_is_passed_over_and_not_waited_for(database: Database, sql: Any) -> None:
    worker = await make_token(database)
    first, second = await enqueue.enqueue(database, [row(), row()])

    async with sql.transaction():
        await sql.execute("SELECT 1 FROM ready WHERE id = $1 FOR UPDATE", first.id)
        for queues in (("q",), ("q", "r"), ("*",)):
            async with asyncio.timeout(60):
                jobs = await _take(database, worker, *queues)
            if jobs:
                assert [UUID(job.id) for job in jobs] == [second.id]
                await report.release(database, [ReportRow(j.id, j.lease_id, worker.id) for j in jobs], 100)


async def test_many_queues_are_served_in_one_order(database: Database) -> None:
    worker = await make_token(database)
    made = await enqueue.enqueue(database, [row(q, priority=p) for q, p in [("a", 0), ("b", 5), ("c", 0), ("a", 5)]])
    expected = [made[1].id, made[3].id, made[0].id, made[2].id]

    for queues in (("a", "b", "c"), ("*",)):
        jobs = await _take(database, worker, *queues)
        assert [UUID(job.id) for job in jobs] == expected
        await report.release(database, [ReportRow(j.id, j.lease_id, worker.id) for j in jobs], 100)


async def test_a_bound_token_leases_only_its_tenant_s_jobs(database: Database) -> None:
    acme = await make_token(database, tenant="acme")
    await enqueue.enqueue(database, [row(tenant=t) for t in ("", "acme", "acm", "acme2")])

    for queues in (("q",), ("q", "r"), ("*",)):
        jobs = await _take(database, acme, *queues)
        assert [job.tenant for job in jobs] == ["acme"]
        await report.release(database, [ReportRow(j.id, j.lease_id, acme.id) for j in jobs], 100)


async def test_a_report_needs_a_token_that_reaches_the_job(database: Database) -> None:
    worker, other_queue = await make_token(database, "q"), await make_token(database, "r")
    other_tenant = await make_token(database, tenant="acme")
    await enqueue.enqueue(database, [row()])
    [job] = await _take(database, worker, "q")
    held = job.id, job.lease_id

    for stranger in (other_queue, other_tenant):
        said = [ReportRow(*held, stranger.id, visibility_secs=5, body=b"{}", error="x")]
        for verb in (report.heartbeat, report.complete, report.fail, report.progress):
            assert await verb(database, said) == [None]
        assert await report.release(database, said, 100) == [None]
    await tokens.revoke(database, worker.id, None, "user:x")
    assert await report.complete(database, [ReportRow(*held, worker.id, body=b"1")]) == [None]


async def test_the_same_report_twice_in_one_batch_counts_once(database: Database, sql: Any) -> None:
    worker = await make_token(database)
    await enqueue.enqueue(database, [row()])
    [job] = await _take(database, worker, "q")
    said = ReportRow(job.id, job.lease_id, worker.id, body=b"1")

    done = await report.complete(database, [said, said, said])

    assert [d is not None for d in done].count(True) == 1
    assert await sql.fetchval("SELECT count(*) FROM events WHERE type = 'succeeded'") == 1


async def test_requests_gathered_in_one_statement_are_served_in_turn(database: Database) -> None:
    worker = await make_token(database)
    made = await enqueue.enqueue(database, [row() for _ in range(5)])

    answers = await lease.lease(database, [LeaseRow(worker.id, 2, 30, ("q",)), LeaseRow(worker.id, 9, 30, ("*",))])

    assert [[UUID(job.id) for job in jobs] for jobs in answers] == [[m.id for m in made[:2]], [m.id for m in made[2:]]]


async def test_dispatch_walks_an_index_past_a_big_backlog(database: Database, sql: Any) -> None:
    """Beside 30,000 jobs that are not due and 30,000 of another queue, a lease reads a handful of pages."""
    worker = await make_token(database)
    later = datetime.now(UTC) + timedelta(days=1)

    def job(queue: str, priority: int, run_at: datetime | None, tenant: str = "") -> EnqueueRow:
        return EnqueueRow(tenant, queue, "k", orjson.dumps({}), None, 5, priority, run_at, "user:x", None)

    crowd = [job("q", 9, later, "acme") for _ in range(30_000)] + [job("other", 5, None, "acme") for _ in range(30_000)]
    for begin in range(0, len(crowd), 5_000):
        await enqueue.enqueue(database, crowd[begin : begin + 5_000])
    [due] = await enqueue.enqueue(database, [job("q", 0, None, "acme")])
    bound = await make_token(database, tenant="acme")

    for token, queues in ((worker, ("q",)), (worker, ("q", "none")), (bound, ("q",)), (bound, ("q", "none"))):
        before = await _reads(sql)
        jobs = await _take(database, token, *queues, count=1)
        assert [UUID(j.id) for j in jobs] == [due.id]
        assert await _reads(sql) - before < 1_000, queues
        await report.release(database, [ReportRow(j.id, j.lease_id, token.id) for j in jobs], 100)


async def _reads(sql: Any) -> int:
    """Rows of `ready` that were fetched so far, by scans and by indexes."""
    await sql.execute("SELECT pg_stat_clear_snapshot()")
    await asyncio.to_thread(lambda: None)
    await sql.execute("SELECT pg_stat_force_next_flush()")
    row = await sql.fetchrow(
        "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) AS n FROM pg_stat_user_tables WHERE relname = 'ready'"
    )
    reads: int = row["n"]
    return reads


async def test_dispatch_of_a_kind_walks_an_index_past_the_other_kinds(database: Database, sql: Any) -> None:
    """In front of it, in the same queue, stand 30,000 due jobs of another kind and of higher priority."""
    worker, bound = await make_token(database), await make_token(database, tenant="acme")
    crowd = [row(tenant="acme", priority=9)._replace(kind="other") for _ in range(30_000)]
    for begin in range(0, len(crowd), 5_000):
        await enqueue.enqueue(database, crowd[begin : begin + 5_000])
    [wanted] = await enqueue.enqueue(database, [row(tenant="acme")])

    for token, queues in ((worker, ("q",)), (worker, ("*",)), (bound, ("q",)), (bound, ("*",))):
        before = await _reads(sql)
        [jobs] = await lease.lease(database, [LeaseRow(token.id, 1, 30, queues, ("k", "none"))])
        assert [UUID(job.id) for job in jobs] == [wanted.id]
        assert await _reads(sql) - before < 1_000, (token.tenant, queues)
        await report.release(database, [ReportRow(j.id, j.lease_id, token.id) for j in jobs], 100)


async def test_queues_of_unequal_age_are_merged_in_order_and_read_no_deeper_than_needed(
    database: Database, sql: Any
) -> None:
    """Whatever queue the oldest jobs are in, each request takes exactly those that have waited longest."""
    worker = await make_token(database)
    names = [f"m{n}" for n in range(20)]
    for name in (*names, "m3", "m3", "m3", "m7"):  # two queues are longer
        await enqueue.enqueue(database, [row(name) for _ in range(40)])
    await sql.execute("""
        UPDATE ready SET eligible_at = now() - make_interval(secs => CASE queue
            WHEN 'm3' THEN 5000 + random() WHEN 'm5' THEN random() ELSE 1000 * random() END)""")
    expected = [str(r["id"]) for r in await sql.fetch("SELECT id FROM ready ORDER BY eligible_at, id")]

    taken: list[str] = []
    for count in (1, 30, 200, 400, 1_000):
        taken += [job.id for job in await _take(database, worker, *names, count=count)]

    assert taken == expected


async def test_what_another_is_just_taking_leaves_the_next_request_no_shorter(database: Database, sql: Any) -> None:
    worker = await make_token(database)
    made = await enqueue.enqueue(database, [row("q" if n % 2 else "r") for n in range(250)])
    ids = [m.id for m in made]

    async with sql.transaction():
        await sql.execute("SELECT FROM ready WHERE id = ANY ($1) FOR UPDATE", ids[:240])
        for queues in (("q", "r"), ("q", "r", *(f"idle {n}" for n in range(100))), ("*",)):
            jobs = await _take(database, worker, *queues, count=10)
            assert [UUID(job.id) for job in jobs] == ids[240:]
            await report.release(database, [ReportRow(j.id, j.lease_id, worker.id) for j in jobs], 100)


async def _wait_until_blocked(sql: Any) -> None:
    """Until a statement of another connection waits for a lock."""
    async with asyncio.timeout(60):
        while not await sql.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ):
            await asyncio.sleep(0.01)


async def test_a_job_committed_after_the_lease_s_statement_began_comes_whole(database: Database, sql: Any) -> None:
    worker = await make_token(database)
    assert (
        await _take(database, worker, "q") == []
    )  # prepared: from now on the statement itself touches nothing of `ready`
    async with sql.transaction():
        made = await sql.fetchval("SELECT enqueue_job('q', 'k', '[1]')")
        await sql.execute("LOCK TABLE queue_pauses IN ACCESS EXCLUSIVE MODE")
        leasing = asyncio.create_task(_take(database, worker, "q"))
        async with database.connection() as other:
            await _wait_until_blocked(other)

    [job] = await leasing

    assert (job.id, job.fields()["payload"]) == (str(made), [1])
    assert job.fields()["createdAt"] is not None


async def test_a_report_that_waited_for_a_heartbeat_of_its_lease_counts(database: Database, sql: Any) -> None:
    worker = await make_token(database)
    await enqueue.enqueue(database, [row("q")])
    [job] = await _take(database, worker, "q")
    async with sql.transaction():
        await sql.execute("UPDATE leases SET expires_at = expires_at + interval '1 minute'")
        completing = asyncio.create_task(
            report.complete(database, [ReportRow(job.id, job.lease_id, worker.id, body=b"null")])
        )
        async with database.connection() as other:
            await _wait_until_blocked(other)

    assert await completing != [None]
    assert await sql.fetchval("SELECT count(*) FROM leases") == 0
