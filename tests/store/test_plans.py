"""No look at the jobs scans a table that grows: the plans are those of an index walk, however it is filtered."""

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from atomo_gql.cli.bench import fill
from atomo_gql.store.database import Database
from atomo_gql.store.statements import statements

_GROWS = ("job_records", "events", "ready", "dead", "idempotency_keys")
_FEW = 1_500  # rows; the dead letters are a thousand
_NOW = datetime.now(UTC)
# tenant, statuses, queue, kind, key, created from and to, finished from and to, error
_NOTHING: tuple[Any, ...] = (None,) * 10
FILTERS: dict[str, tuple[Any, ...]] = {
    "none": _NOTHING,
    "tenant": ("tenant", *_NOTHING[1:]),
    "queue": (None, None, "q7", *_NOTHING[3:]),
    "kind": (None, None, None, "kind3", *_NOTHING[4:]),
    "key": (None, None, None, None, "key 100", *_NOTHING[5:]),
    "created": (*_NOTHING[:5], _NOW - timedelta(days=1), _NOW + timedelta(days=1), *_NOTHING[7:]),
    "finished": (*_NOTHING[:7], _NOW - timedelta(days=1), _NOW + timedelta(days=1), None),
    "error": (*_NOTHING[:9], "error 20"),
    **{status: (None, [status], *_NOTHING[2:]) for status in ("queued", "leased", "succeeded", "dead")},
    "dead in a queue": (None, ["dead"], "q0", *_NOTHING[3:]),
    "queued in a queue": (None, ["queued"], "w3", *_NOTHING[3:]),
    "succeeded in a queue": (None, ["succeeded"], "q1", *_NOTHING[3:]),
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


def _scans(node: dict[str, Any]) -> Iterator[str]:
    """The tables that a plan reads from end to end, but for those that hardly hold anything."""
    read = node.get("Actual Rows", 0) + node.get("Rows Removed by Filter", 0)
    if node["Node Type"] == "Seq Scan" and read > _FEW and node.get("Actual Loops", 1):
        yield node["Relation Name"]
    for inner in node.get("Plans", ()):
        yield from _scans(inner)


async def _plan(database: Database, pool: str, name: str, *arguments: Any) -> dict[str, Any]:
    async with database.connection(pool) as connection:
        text = statements()[name].text
        [[plan]] = await connection.fetch(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}", *arguments)
    root: dict[str, Any] = json.loads(plan)[0]["Plan"]
    return root


async def _scanned(database: Database, pool: str, name: str, *arguments: Any) -> list[str]:
    found = _scans(await _plan(database, pool, name, *arguments))
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
        conditions = (None, statuses, *_NOTHING[2:7], start, start + timedelta(hours=1), None)
        plan = await _plan(crowded, "query", "job_page", *conditions, None, None, True, 50)
        assert sum(_read(plan)) < _FEW, hours


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
