"""What the SQL function writes is what the servers write, column for column."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from atomo_gql.store import JobStore, enqueue
from atomo_gql.store.database import Database
from atomo_gql.store.enqueue import EnqueueRow

_TABLES = ("events", "job_records", "ready", "lanes", "idempotency_keys")
_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_PAST, _FUTURE = datetime(2020, 1, 1, tzinfo=UTC), datetime(2040, 6, 1, 12, 30, 0, 250, tzinfo=UTC)


async def _written(sql: Any, job_id: UUID) -> dict[str, list[dict[str, Any]]]:
    """All rows, with the job's id and its moment named, and what the log counts left out."""
    found = {}
    for table in _TABLES:
        rows = [orjson.loads(row[0]) for row in await sql.fetch(f"SELECT to_jsonb(t)::text FROM {table} AS t")]
        found[table] = rows
    at = found["events"][0]["at"]
    for row in (row for rows in found.values() for row in rows):
        row.pop("position", None)
        row.pop("xid", None)
        row.update({name: "ID" for name, value in row.items() if value == str(job_id)})
        row.update({name: "AT" for name, value in row.items() if value == at})
    return found


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"tenant": "acme", "key": "k-1", "payload": b'{"a": ["b", 1e20, null]}', "priority": -7, "max_attempts": 1},
        {"run_at": _FUTURE, "deadline": datetime(2041, 1, 1, tzinfo=UTC)},
        {"run_at": _PAST, "timeout_secs": 60},
        {"trace": _TRACE, "actor": "system:nightly", "payload": b"null"},
    ],
    ids=str,
)
async def test_the_function_writes_what_the_statement_writes(
    database: Database, sql: Any, given: dict[str, Any]
) -> None:
    fields = {"tenant": "", "payload": b"{}", "key": None, "max_attempts": 5, "priority": 0, "run_at": None}
    row = EnqueueRow(**{"queue": "q", "kind": "k", "actor": "user:alice", "trace": None, **fields, **given})
    [done] = await enqueue.enqueue(database, [row])
    expected = await _written(sql, done.id)
    await sql.execute(f"TRUNCATE {', '.join(_TABLES)}")
    # A session that has little in common with a server's.
    await sql.execute("SET timezone = 'America/New_York'; SET datestyle = 'SQL, DMY'; SET extra_float_digits = -10")
    await sql.execute("SET search_path = ''")

    job_id = await JobStore().enqueue(
        row.queue,
        row.kind,
        orjson.loads(row.payload),
        row.key,
        row.max_attempts,
        row.priority,
        row.tenant or None,
        row.run_at,
        row.timeout_secs,
        row.deadline,
        row.actor,
        row.trace,
        sql,
    )

    await sql.execute("SET search_path = atomo; SET timezone = 'UTC'")
    assert await _written(sql, job_id) == expected


@pytest.mark.parametrize("trace", ["", "no trace", _TRACE.upper(), f"{_TRACE}\n", "\x00"])
async def test_what_is_no_trace_is_left_out(sql: Any, trace: str) -> None:
    await JobStore().enqueue("q", "k", trace=trace, connection=sql)
    if "\x00" not in trace:
        await sql.fetchval("SELECT atomo.enqueue_job('q', 'k', traceparent => $1)", trace)
    assert {row["trace"] for row in await sql.fetch("SELECT trace FROM events")} == {None}


async def test_the_docs_say_the_function_s_arguments_in_their_order(sql: Any) -> None:
    text = (Path(__file__).parents[2] / "docs" / "transactional-enqueue.md").read_text()
    [written] = re.findall(r"    atomo\.enqueue_job\((.*?)\) RETURNS uuid", text, re.DOTALL)
    names = await sql.fetchval("SELECT proargnames FROM pg_proc WHERE proname = 'enqueue_job'")
    assert re.findall(r"(\w+) (?:text|jsonb|integer|timestamptz)\b", written) == names
