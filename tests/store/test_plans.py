"""No look at the jobs scans a table that grows: the plans are those of an index walk, however it is filtered."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from atomo_gql.cli.bench import fill
from atomo_gql.domain.jobs import JobFilter
from atomo_gql.store import enqueue, housekeeping, jobs, lease, manage, queues, report, tokens
from atomo_gql.store.database import Database
from atomo_gql.store.lease import LeaseRow
from atomo_gql.store.report import ReportRow
from atomo_gql.store.statements import statements
from tests.store.test_projection import make_token, row

_GROWS = ("job_records", "events", "ready", "dead", "idempotency_keys", "run_waits")
_HOT = ("enqueue.sql", "lease.sql", "report.sql", "sweep.sql", "queues.sql")
_FEW = 1_500  # rows; the dead letters are a thousand
_PAGES = 80  # the smallest of those tables is as large, and a lease of six jobs touches 64
_NOW = datetime.now(UTC)
# tenant, statuses, queue, kind, key, created from and to, finished from and to
_NOTHING: tuple[Any, ...] = (None,) * 9
FILTERS: dict[str, tuple[Any, ...]] = {
    "none": _NOTHING,
    "tenant": ("tenant", *_NOTHING[1:]),
    "queue": (None, None, "q7", *_NOTHING[3:]),
    "kind": (None, None, None, "kind3", *_NOTHING[4:]),
    "key": (None, None, None, None, "key 100", *_NOTHING[5:]),
    "created": (*_NOTHING[:5], _NOW - timedelta(days=1), _NOW + timedelta(days=1), *_NOTHING[7:]),
    "finished": (*_NOTHING[:7], _NOW - timedelta(days=1), _NOW + timedelta(days=1)),
    **{status: (None, [status], *_NOTHING[2:]) for status in ("queued", "leased", "succeeded", "dead")},
    "dead in a queue": (None, ["dead"], "q0", *_NOTHING[3:]),
    "queued in a queue": (None, ["queued"], "w3", *_NOTHING[3:]),
    "succeeded in a queue": (None, ["succeeded"], "q1", *_NOTHING[3:]),
    "dead of a kind": (None, ["dead"], None, "kind3", *_NOTHING[4:]),
    "dead of no kind": (None, ["dead"], None, "none", *_NOTHING[4:]),
    "queued of no kind": (None, ["queued"], None, "none", *_NOTHING[4:]),
    "queued of no tenant": ("nobody", ["queued"], *_NOTHING[2:]),
}


@pytest.fixture
async def crowded(database: Database) -> AsyncIterator[Database]:
    """20,000 jobs that have ended, and 6,000 that wait in twenty queues."""
    await fill.queued(database, [f"w{n}" for n in range(20)], 6_000)
    await fill.ended(database, 20_000, lambda _: None)
    yield database


def _read(node: dict[str, Any]) -> Iterator[int]:
    """The rows that each scan of a plan reads."""
    if "Relation Name" in node:
        passed_over = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
        yield (node.get("Actual Rows", 0) + passed_over) * node.get("Actual Loops", 1)
    for inner in node.get("Plans", ()):
        yield from _read(inner)


def scans(node: dict[str, Any]) -> Iterator[str]:
    """The tables that a plan reads from end to end, but for those that hardly hold anything."""
    read = node.get("Actual Rows", 0) + node.get("Rows Removed by Filter", 0)
    if node["Node Type"] == "Seq Scan" and read > _FEW and node.get("Actual Loops", 1):
        yield node["Relation Name"]
    for inner in node.get("Plans", ()):
        yield from scans(inner)


async def _plan(database: Database, pool: str, name: str, *arguments: Any) -> dict[str, Any]:
    async with database.connection(pool) as connection:
        text = statements()[name].text
        [[plan]] = await connection.fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}", *arguments)
    root: dict[str, Any] = json.loads(plan)[0]["Plan"]
    return root


async def _scanned(database: Database, pool: str, name: str, *arguments: Any) -> list[str]:
    found = scans(await _plan(database, pool, name, *arguments))
    return [table for table in found if table.startswith(_GROWS)]


async def test_a_page_walks_an_index_whatever_is_asked(crowded: Database) -> None:
    async with crowded.connection() as connection:
        middle = await connection.fetchval("SELECT id FROM job_records ORDER BY id OFFSET 12000 LIMIT 1")
    wrong: dict[str, list[str]] = {}
    for name, conditions in FILTERS.items():
        for below in (None, middle):
            if found := await _scanned(crowded, "query", "job_page", *conditions, None, below, True, 50):
                wrong[f"{name}, below {below}"] = found
    assert wrong == {}


@pytest.mark.parametrize("statuses", [None, ["succeeded"], ["dead"]])
async def test_a_stretch_of_time_in_which_nothing_ended_is_seen_to_be_empty(crowded: Database, statuses: Any) -> None:
    for hours in (-1_000, 1_000):
        start = _NOW + timedelta(hours=hours)
        conditions = (None, statuses, *_NOTHING[2:7], start, start + timedelta(hours=1))
        plan = await _plan(crowded, "query", "job_page", *conditions, None, None, True, 50)
        assert sum(_read(plan)) < _FEW, hours


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize(("tenant", "queue"), [(None, None), ("few", None), (None, "few"), ("few", "few"), ("", "few")])
async def test_dead_letters_are_walked_among_their_own(
    crowded: Database, tenant: str | None, queue: str | None, descending: bool
) -> None:
    async with crowded.connection() as sql:
        await sql.execute(
            "INSERT INTO dead SELECT new_id(), now(), 3, 1, 1, '', 'q', 'error' FROM generate_series(1, 9000)"
        )
        far = "ORDER BY id" if descending else "ORDER BY id DESC"  # from where the walk begins
        await sql.execute(
            f"UPDATE dead SET tenant = $1, queue = $2 WHERE id IN (SELECT id FROM dead {far} LIMIT 200)",
            tenant or "",
            queue or "q",
        )
        await sql.execute("ANALYZE dead")
    conditions = (tenant, ["dead"], queue, *_NOTHING[3:], None, None, descending, 50)
    for name, more in (("job_page", ()), ("job_search", ("error", 500)), ("job_search", ("nothing of it", 100))):
        plan = await _plan(crowded, "query", name, *conditions, *more)
        assert 50 <= sum(_read(plan)) <= 200, (name, more)


async def test_what_was_made_before_a_moment_is_walked_from_there(crowded: Database) -> None:
    async with crowded.connection() as sql:
        middle, then = await sql.fetchrow("SELECT id, created_at FROM job_records ORDER BY id OFFSET 12000 LIMIT 1")
    plan = await _plan(crowded, "query", "job_page", *_NOTHING[:6], then, None, None, None, None, True, 50)
    assert sum(_read(plan)) < 3_000  # what ten milliseconds made, and half of all are 12,000
    [first], _ = await jobs.page(crowded, None, JobFilter(created_to=then), most=1)
    async with crowded.connection() as sql:
        made = "SELECT id FROM job_records WHERE created_at < $1 ORDER BY id DESC LIMIT 1"
        assert first == await sql.fetchval(made, then)
    assert first < middle


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("tenant", [None, "few", ""])
async def test_jobs_that_wait_for_their_retry_are_searched_among_their_own(
    crowded: Database, tenant: str | None, descending: bool
) -> None:
    async with crowded.connection() as sql:
        far = "ORDER BY id" if descending else "ORDER BY id DESC"
        await sql.execute("UPDATE ready SET error = 'error', tenant = 'many'")
        own = f"UPDATE ready SET tenant = $1 WHERE id IN (SELECT id FROM ready {far} LIMIT 200)"
        await sql.execute(own, "few" if tenant is None else tenant)
        await sql.execute("ANALYZE ready")
    conditions = (tenant, ["queued"], *_NOTHING[2:], None, None, descending, 50)
    for error, look in (("error", 500), ("nothing of it", 100)):
        plan = await _plan(crowded, "query", "job_search", *conditions, error, look)
        assert 50 <= sum(_read(plan)) <= 200, error


_LATER = """INSERT INTO {table} SELECT l.* FROM {table} AS t CROSS JOIN generate_series(1, 3) AS day
CROSS JOIN LATERAL jsonb_populate_record(t, jsonb_build_object('{id}', lpad(to_hex(
    ('x' || left(replace(t.{id}::text, '-', ''), 12))::bit(48)::bigint + day * 86400000), 12, '0')
    || substr(replace(t.{id}::text, '-', ''), 13), '{moment}', t.{moment} + make_interval(days => day))) AS l {where}"""


@pytest.mark.parametrize("descending", [True, False])
async def test_a_day_s_jobs_are_found_without_a_look_at_other_days(crowded: Database, descending: bool) -> None:
    async with crowded.connection() as sql:
        await sql.execute("SELECT make_partitions(4)")
        for table, key, moment in (("job_records", "id", "created_at"), ("ready", "id", "eligible_at")):
            await sql.execute(_LATER.format(table=table, id=key, moment=moment, where=""))
        await sql.execute(_LATER.format(table="dead", id="id", moment="finished_at", where=""))
        where = "WHERE t.type = 'succeeded'"
        await sql.execute(_LATER.format(table="events", id="stream_id", moment="at", where=where))
        await sql.execute("VACUUM ANALYZE")
    for day in (0, 1, 3):
        start = _NOW + timedelta(days=day, hours=-1)
        for status in ("queued", "succeeded", "dead"):
            for tenant in (None, ""):
                conditions = (tenant, [status], *_NOTHING[2:5], start, start + timedelta(hours=2), None, None)
                plan = await _plan(crowded, "query", "job_page", *conditions, None, None, descending, 50)
                assert sum(_read(plan)) < 27_000, (day, status, tenant)  # one day of four


async def test_what_is_shown_of_jobs_is_looked_up(crowded: Database) -> None:
    async with crowded.connection() as connection:
        ids = [row["id"] for row in await connection.fetch("SELECT id FROM job_records ORDER BY id DESC LIMIT 50")]
        ids += [row["id"] for row in await connection.fetch("SELECT id FROM ready LIMIT 5")]
    looks: dict[str, tuple[Any, ...]] = {
        "job_get": (ids, None),
        "job_rows": (ids, None),
        "job_bodies": (ids, "result", 1_000_000),
        "job_waiting": (ids, 1_000),
        "event_stream": (ids, 0, 100, 1_000_000),
        "event_attempts": (ids, 1_000, 1_000_000),
    }
    found = {name: await _scanned(crowded, "dispatch", name, *arguments) for name, arguments in looks.items()}
    assert found == {name: [] for name in looks}
    names = [f"w{n}" for n in range(20)]
    assert await _scanned(crowded, "query", "queue_stats", None, names, 10_000) == []
    first = ("0", None, ["Job"], None, None, None, None, 1_000, 1_000_000)
    assert await _scanned(crowded, "query", "event_tail", 0, int(first[0]), *first[1:]) == []


class _Explained(Database):
    """Notes the plan of each statement before it runs it."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        self.pages: dict[str, int] = {}  # the most that a statement has touched, its functions included
        self.read: dict[str, float] = {}  # the most rows that one node of its plans has

    async def dispatch(self, statement: str, *arguments: object) -> list[Any]:
        await self._explain("dispatch", statement, arguments)
        return await super().dispatch(statement, *arguments)

    async def fetch(self, statement: str, *arguments: object) -> list[Any]:
        await self._explain("query", statement, arguments)
        return await super().fetch(statement, *arguments)

    async def _explain(self, pool: str, name: str, arguments: tuple[object, ...]) -> None:
        text = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statements()[name].text}"
        async with self.connection(pool) as connection:
            for _ in range(2):  # the first look at anything reads the catalogue
                transaction = connection.transaction()
                await transaction.start()
                [[plan]] = await connection.fetch(text, *arguments)
                await transaction.rollback()
        top = json.loads(plan)[0]["Plan"]
        self.pages[name] = max(self.pages.get(name, 0), top["Shared Hit Blocks"] + top["Shared Read Blocks"])
        self.read[name] = max(self.read.get(name, 0), *rows_read(top))


def rows_read(node: dict[str, Any]) -> Iterator[float]:
    """The rows that each node of a plan reads."""
    passed_over = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    yield (node["Actual Rows"] + passed_over) * node["Actual Loops"]
    for inner in node.get("Plans", ()):
        yield from rows_read(inner)


@pytest.fixture
async def explained(crowded: Database) -> AsyncIterator[_Explained]:
    """The same, with 5,000 tokens and answered lease requests beside them, and 20,000 waits of workflows."""
    async with crowded.connection() as connection:
        await connection.execute(
            """
            INSERT INTO worker_tokens (id, created_at, tenant, name, queues, token_hash, created_by)
            SELECT new_id(), now(), '', 'w', '{*}', sha256(n::text::bytea), 'user:x' FROM generate_series(1, 5000) AS n;
            INSERT INTO lease_requests (worker_id, request_id, expires_at, leased_at, job_ids)
            SELECT id, 'r', now() + interval '1 hour', now(), '{}' FROM worker_tokens;
            INSERT INTO run_waits (job_id, run_id, step, is_shared)
            SELECT id, new_id(), 's', false FROM job_records ORDER BY id DESC LIMIT 20000"""
        )
    await fill.tidy(crowded)
    opened = _Explained(crowded.dsn)
    await opened.open()
    yield opened
    await opened.close()


async def test_what_runs_with_every_job_reads_no_more_than_its_own(explained: _Explained) -> None:
    store = explained
    worker = await make_token(store)

    def said(job: Any) -> list[ReportRow]:
        return [ReportRow(job.id, job.lease_id, worker.id, visibility_secs=30, body=b"{}", error="x")]

    await enqueue.enqueue(store, [row("w1", key="new"), row("new")._replace(deadline=_NOW)])
    await store.fetch("job_enqueue_within", "w1", "k", "{}", "newer", "5", "0", *[None] * 6)
    ask = LeaseRow(worker.id, 6, 30, ("w1",), request_id="a")
    [jobs] = await lease.lease(store, [ask])
    assert await lease.lease(store, [ask]) == [jobs]
    assert await store.dispatch("lease_beginnings", [job.id for job in jobs])
    for scope in ((("*",), None), (("w1", "w2"), None), (("w3",), ("noop",))):
        await lease.lease(store, [LeaseRow(worker.id, 1, 30, *scope)])
        await lease.next_eligible(store, [(None, *scope)])
    await lease.close(store, [LeaseRow(worker.id, 1, 30, ("w1",), request_id="b")])
    assert await lease.standing(store, [ask, replace(ask, request_id=None)]) == [(True, True), (True, False)]
    await store.dispatch("leases_lock", jobs[0].id, jobs[0].lease_id)
    for verb in (report.heartbeat, report.progress, report.complete, report.fail):
        assert await verb(store, said(jobs.pop(0))) != [None]
    assert await report.release(store, said(jobs[0]), 100) != [None]
    assert await report.ends(store, said(jobs[0])) == ["released"]
    assert await manage.cancel(store, [UUID(jobs[1].id)], None, "user:x", None, "no")
    assert await manage.retry(store, [UUID(jobs[1].id)], None, "user:x", None)
    async with store.connection() as connection:
        await connection.execute("UPDATE leases SET expires_at = now() - interval '1 second'")
        await connection.execute("UPDATE lease_requests SET expires_at = now() WHERE request_id = 'a'")
    assert await housekeeping.reclaim(store, 100, 100)
    assert await housekeeping.end_overdue(store, 100)
    assert await housekeeping.forget_requests(store, 100)
    await tokens.used(store, [worker.id])
    await tokens.find(store, [b"x" * 32])
    assert await tokens.live(store, [worker.id])
    await queues.record(store, queues.Sightings(enqueued=Counter([("", "w1")]), workers={(worker.id, "w1")}))
    await queues.names(store, None, after=None, before=None, descending=False, most=50)
    await queues.stats(store, None, ["w1"], 1_000)
    await queues.workers(store, None, ["w1"], _NOW)
    await queues.forget(store)
    hot = {s.name for s in statements().values() if s.file in _HOT} | {"token_find", "token_live", "token_used"}
    assert hot <= store.read.keys()
    assert {name: read for name, read in store.read.items() if read > _FEW} == {}
    assert {name: pages for name, pages in store.pages.items() if pages > _PAGES} == {}
