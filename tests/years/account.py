"""What a year must have left behind, and nothing else."""

from collections import Counter
from datetime import timedelta
from typing import Any

from .year import Expected, Year

_STATUSES = "SELECT id::text, status FROM jobs"
_ORPHANS = {
    "idempotency keys without a job": "SELECT count(*) FROM idempotency_keys AS k WHERE NOT EXISTS "
    "(SELECT FROM job_records AS j WHERE j.id = k.job_id)",
    "homes without a record": "SELECT count(*) FROM (SELECT id FROM ready UNION ALL SELECT id FROM leases UNION ALL "
    "SELECT id FROM dead) AS h WHERE NOT EXISTS (SELECT FROM job_records AS j WHERE j.id = h.id)",
    "events without a record": "SELECT count(*) FROM events AS e WHERE stream = 'Job' AND NOT EXISTS "
    "(SELECT FROM job_records AS j WHERE j.id = e.stream_id)",
    "records without an event": "SELECT count(*) FROM job_records AS j WHERE NOT EXISTS "
    "(SELECT FROM events AS e WHERE e.stream_id = j.id AND e.version = 1)",
    "waits without a run": "SELECT count(*) FROM run_waits AS w WHERE NOT EXISTS "
    "(SELECT FROM workflow_runs AS r WHERE r.id = w.run_id)",
    "tables that were replaced": "SELECT count(*) FROM pg_class WHERE relname LIKE 'detached%'",
    "rewrites under way": "SELECT count(*) FROM partition_rewrites",
}


async def problems(year: Year, succeeded: float | None, dead: float | None, recorded: float | None) -> list[str]:
    """What is lost, wrong or left behind, in words. The retention is in days; None: for ever."""
    found: list[str] = []
    machine, now = year.machine, year.machine.clock.now
    async with machine.sql() as sql:
        statuses = {row["id"]: row["status"] for row in await sql.fetch(_STATUSES)}
        for what, query in _ORPHANS.items():
            if count := await sql.fetchval(query):
                found.append(f"{count} {what}")
        if recorded is not None:
            old = now - timedelta(days=recorded)
            if count := await sql.fetchval("SELECT count(*) FROM events WHERE stream = 'Model' AND at < $1", old):
                found.append(f"{count} recorded events are older than {recorded} days")
        elif (count := await sql.fetchval("SELECT count(*) FROM job_records WHERE kind = 'notify'")) != year.events:
            found.append(f"{year.events} events fired {count} actions")
    kinds: Counter[str] = Counter()
    for id_, expected in year.jobs.items():
        days = {"succeeded": succeeded, "dead": dead}.get(expected.end or "")
        if problem := _problem(
            expected, statuses.get(id_), days, (now - expected.ended_at).days if expected.ended_at else None
        ):
            kinds[f"{expected.plan}: {problem}"] += 1
    return found + [f"{count} jobs, {what}" for what, count in kinds.items()]


def _problem(expected: Expected, status: Any, kept_days: float | None, age: int | None) -> str | None:
    if expected.end is None:
        return None if status == "queued" else f"should wait, and is {status}"
    if status is None:
        # A job that the sweep ended, without telling the worker, has no known age.
        return None if kept_days is not None and (age is None or age + 1 >= kept_days) else f"is lost at {age} days"
    if status != expected.end:
        return f"is {status}"
    if kept_days is not None and age is not None and age > kept_days * 1.125 + 1:
        return f"is there after {age} days"
    return None
