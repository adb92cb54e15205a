"""Carrying runs on, and reading the log for actions, touches what is at hand, however much there is beside it."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from atomo_gql.cli.bench import fill
from atomo_gql.store.database import Database
from atomo_gql.store.statements import statements
from tests.conftest import with_database
from tests.store.test_plans import rows_read, scans

_PAGES = 1_000  # 100 runs by their ids, and what hangs on them; the smallest of those tables has more
_FEW = 2_000  # rows
_GROWS = ("workflow_runs", "run_waits", "events", "job_records", "ready", "leases", "model_streams", "recorded_ids")
_NOW = datetime.now(UTC)
# 24,000 runs, of which 12,000 have ended, 11,900 are parked and 100 have something to do. All that are parked wait for
# a job: every twentieth for one that somebody else had enqueued. 100 jobs have ended.
_FILL = """
CREATE TEMP TABLE made AS
SELECT new_id() AS id, i,
    CASE WHEN i <= 12000 THEN 'Completed' WHEN i <= 23900 THEN 'Paused' ELSE 'Running' END AS status,
    CASE WHEN i % 2 = 0 THEN now() + interval '1 d' END AS timeout_at
FROM generate_series(1, 24000) AS i;
INSERT INTO workflow_runs (id, tenant, workflow, workflow_id, definition_version, status, steps_run, version, via,
    started_at, changed_at, finished_at, timeout_at, wake_at, actor, key, trigger, context, steps, errors, bytes)
SELECT id, CASE WHEN i % 10 = 0 THEN 'acme' ELSE '' END, 'w' || i % 50, '00000000-0000-7000-8000-000000000007', 1,
    status, 1, 3, '[]', now(), now(), CASE WHEN status = 'Completed' THEN now() END, timeout_at,
    CASE status WHEN 'Running' THEN now() - interval '1 s' WHEN 'Paused' THEN timeout_at END, 'user:x',
    CASE WHEN i % 3 = 0 THEN 'key:' || i END, '{"kind": "manual"}', jsonb_build_object('n', i), '{}', '[]', 20
FROM made;
INSERT INTO run_waits (job_id, run_id, step, is_shared, ended_at)
SELECT r.id, m.id, 's', m.n % 20 = 0, CASE WHEN m.n <= 100 THEN now() END
FROM (SELECT id, row_number() OVER (ORDER BY i) AS n FROM made WHERE status = 'Paused') AS m
JOIN (SELECT id, row_number() OVER (ORDER BY id) AS n FROM ready) AS r ON r.n = m.n;
INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data)
SELECT id, version, now(), 'Workflow', 'step_completed', '', 'system:workflows', '{"step": "s"}'
FROM made CROSS JOIN generate_series(1, 3) AS version;
INSERT INTO model_streams SELECT '', 'deal', i::text, new_id(), 1 FROM made;
INSERT INTO recorded_ids SELECT '', 'e' || i, now() FROM made;
INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data)
SELECT new_id(), 1, now(), 'Model', 'recorded', '', 'user:x',
    jsonb_build_object('model', 'deal', 'event', 'updated', 'id', i::text, 'eventId', 'e' || i, 'data', NULL)
FROM made;
DROP TABLE made"""


@pytest.fixture(scope="module")
async def busy(cluster: str, template: str) -> AsyncIterator[Database]:
    """It, with 20,000 jobs that have ended and 12,000 that wait."""
    name = f"{template}_busy"
    beside: Any = await asyncpg.connect(cluster)
    await beside.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    database = Database(with_database(cluster, name))
    await database.open()
    await fill.queued(database, [f"w{n}" for n in range(20)], 12_000)
    await fill.ended(database, 20_000, lambda _: None)
    async with database.connection() as sql:
        await sql.execute(_FILL, timeout=60)
    await fill.tidy(database)
    yield database
    await database.close()
    await beside.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await beside.close()


async def _measured(database: Database, pool: str, name: str, *arguments: Any) -> tuple[int, float, list[str]]:
    """The pages that a statement touches, the most rows that one node of its plan reads, and what it scans. Undone."""
    text = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statements()[name].text}"
    async with database.connection(pool) as connection:
        for _ in range(2):  # the first look at anything reads the catalogue
            transaction = connection.transaction()
            await transaction.start()
            [[plan]] = await connection.fetch(text, *arguments)
            await transaction.rollback()
    top = json.loads(plan)[0]["Plan"]
    tables = [table for table in scans(top) if table.startswith(_GROWS)]
    return top["Shared Hit Blocks"] + top["Shared Read Blocks"], max(rows_read(top)), tables


async def _ids(database: Database, query: str) -> list[UUID]:
    async with database.connection() as sql:
        return [row["id"] for row in await sql.fetch(query)]


async def test_the_engine_touches_the_runs_at_hand(busy: Database) -> None:
    parked = await _ids(busy, "SELECT run_id AS id FROM run_waits WHERE ended_at IS NOT NULL LIMIT 100")
    jobs = await _ids(busy, "SELECT job_id AS id FROM run_waits WHERE ended_at IS NOT NULL LIMIT 100")
    hundred = len(parked)
    assert hundred == 100
    json_, moments = [b"{}"] * hundred, [_NOW] * hundred
    begun = ([UUID(int=7)], ["w"], [1], [""], ["user:x"], [None], ["key:new"], [b"[]"], [None], [b"{}"], [b"{}"])
    looks: dict[str, tuple[Any, ...]] = {
        "run_due": (100,),
        "run_due_ids": (100,),
        "run_next_wake": (),
        "run_take": (parked, None),
        "run_get": (parked, "acme"),
        "run_job_ends": (parked,),
        "run_start": begun,
        "run_save": (parked, ["Paused"] * hundred, [2] * hundred, [4] * hundred, _NOW, *[moments] * 3, *[json_] * 3),
        "run_log": (parked, [4] * hundred, ["step_completed"] * hundred, [""] * hundred, "x", None, _NOW, json_),
        "run_postpone": (parked,),
        "run_jobs": (parked[:10], 100),
        "wait_add": (jobs, parked, ["t"] * hundred, [False] * hundred),
        "wait_again": (parked, jobs),
        "wait_remove": (parked, jobs),
        "wait_wanted": (jobs, parked),
        "wait_settle": (500,),
        "run_forget": (_NOW - timedelta(days=1), _NOW - timedelta(days=2), 2_000),
    }
    found = {name: await _measured(busy, "dispatch", name, *arguments) for name, arguments in looks.items()}
    # All that waits for somebody else's job is looked at, and nothing else.
    shared = found.pop("wait_settle")
    assert shared[1] <= 600 and shared[2] == []
    assert {name: what for name, what in found.items() if what[1] > _FEW or what[2]} == {}
    wide = {"run_save", "run_log", "run_postpone", "run_due", "wait_add", "wait_again", "run_take", "run_job_ends"}
    assert {name: pages for name, (pages, _, _) in found.items() if pages > (3 if name in wide else 1) * _PAGES} == {}


async def test_the_log_is_read_from_where_the_reader_is(busy: Database) -> None:
    async with busy.connection() as sql:
        place = "SELECT xid::text::bigint AS xid, position FROM events"
        middle = await sql.fetchrow(f"{place} WHERE stream = 'Model' ORDER BY position OFFSET 12000")
        last = await sql.fetchrow(f"{place} ORDER BY xid DESC, position DESC LIMIT 1")
        jobs = [row["id"] for row in await sql.fetch("SELECT id FROM job_records LIMIT 100")]
    recorded = ([""], ["deal"], ["7"], ["new"], ["user:x"], [None], [b"{}"])
    looks: dict[str, list[tuple[Any, ...]]] = {
        "recorded_tail": [(*at, 500, 8_000_000) for at in (middle, last)],
        "job_beginnings": [(jobs,)],
        "event_record": [recorded],
        "checkpoint_take": [("actions",)],
        "schedule_due": [(None, 50)],
        "trigger_list": [()],
        "binding_list": [(None,)],
    }
    found: dict[str, Any] = {}
    for name, several in looks.items():
        for arguments in several:
            found[f"{name} {str(arguments)[:40]}"] = await _measured(busy, "dispatch", name, *arguments)
    for is_all in (False, True):
        for at in ((0, 0), middle, last):
            async with busy.connection() as sql:
                await sql.execute("UPDATE checkpoints SET xid = $1, position = $2", *at)
            found[f"dispatch_lag {is_all} {at[0]}"] = await _measured(busy, "dispatch", "dispatch_lag", is_all)
    assert {name: what for name, what in found.items() if what[0] > _PAGES or what[1] > _FEW or what[2]} == {}


PAGES: dict[str, tuple[Any, ...]] = {  # tenant, workflow, statuses, key
    "all": (None, None, None, None),
    "a tenant": ("acme", None, None, None),
    "none's": ("", None, None, None),
    "a workflow": (None, "w7", None, None),
    "a workflow that is not there": (None, "nope", None, None),
    "a status": (None, None, ["Running"], None),
    "statuses": (None, None, ["Completed", "Failed"], None),
    "a status that none has": (None, None, ["Failed"], None),
    "none's of a status": ("", None, ["Running"], None),
    "a key": (None, None, None, "key:300"),
    "a key that none has": (None, None, None, "key:nope"),
    "a key of a workflow": (None, "w0", None, "key:300"),
    "a tenant's of a workflow": ("acme", "w10", None, None),
}


@pytest.mark.parametrize("name", PAGES)
async def test_a_page_of_runs_walks_an_index_whatever_is_asked(busy: Database, name: str) -> None:
    [middle] = await _ids(busy, "SELECT id FROM workflow_runs ORDER BY id OFFSET 12000 LIMIT 1")
    for above, below in ((None, None), (middle, None), (None, middle)):
        for descending in (True, False):
            pages, most, scanned = await _measured(
                busy, "query", "run_page", *PAGES[name], above, below, descending, 50
            )
            assert scanned == [], (name, above, below)
            assert most <= 2 * _FEW and pages <= 2 * _PAGES, (name, above, below, descending, pages, most)
