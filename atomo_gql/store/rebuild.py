"""Proving the projection from the events, and making it anew.

The log is read in ranges of ids, each in a short snapshot of its own, so that a proof of millions of jobs on a live
database holds no old row versions back.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, fields, replace
from typing import Any
from uuid import UUID

from atomo_gql.domain.events import BrokenStream, fold
from atomo_gql.domain.jobs import Job, JobStatus
from atomo_gql.store import rows
from atomo_gql.store.database import Database
from atomo_gql.store.statements import statements

_RANGE = 2_000  # jobs compared in one snapshot
_PUT = {
    "records": "rebuild_put_records",
    "ready": "rebuild_put_ready",
    "leases": "rebuild_put_leases",
    "dead": "rebuild_put_dead",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """A job whose row is not what its events make of it."""

    job_id: UUID
    detail: str


@dataclass(frozen=True, slots=True)
class Proof:
    """How far a verification has come."""

    compared: int  # jobs so far
    events: int
    differences: tuple[Difference, ...]  # found in this range


async def estimate(database: Database) -> int:
    """About how many jobs there are."""
    row = await database.fetch_one("rebuild_estimate")
    return int(row["jobs"])


async def verify(database: Database) -> AsyncIterator[Proof]:
    """Compare every job's row, column for column, with its events; yields after each range."""
    after, compared, seen = UUID(int=0), 0, 0
    while True:
        async with (
            database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            found = await connection.fetch(statements()["rebuild_range"].text, after, _RANGE)
            if not found:
                return
            ids = [row["id"] for row in found]
            actual = {
                row["id"]: rows.job(row) for row in await connection.fetch(statements()["rebuild_jobs"].text, ids)
            }
            events: dict[UUID, list[Any]] = {job_id: [] for job_id in ids}
            for row in await connection.fetch(statements()["rebuild_events"].text, ids):
                events[row["stream_id"]].append(rows.event(row))
        differences = [d for job_id in ids if (d := _compare(job_id, actual.get(job_id), events[job_id]))]
        compared += len(ids)
        seen += sum(map(len, events.values()))
        after = ids[-1]
        yield Proof(compared, seen, tuple(differences))


def _compare(job_id: UUID, actual: Job | None, events: list[Any]) -> Difference | None:
    try:
        expected = fold(events)
    except (BrokenStream, KeyError, TypeError, ValueError) as error:
        return Difference(job_id, f"its events do not make a job: {error}")
    if actual is None:
        return Difference(job_id, "it has events, but no row")
    # Heartbeats and progress move these two, and are not events.
    actual = replace(actual, lease_expires_at=None, progress=None)
    names = [f.name for f in fields(Job) if getattr(actual, f.name) != getattr(expected, f.name)]
    if not names:
        return None
    shown = ", ".join(f"{n} is {getattr(actual, n)!r}, should be {getattr(expected, n)!r}" for n in names)
    return Difference(job_id, shown)


async def rebuild(database: Database) -> int:
    """Drop the projection and make it anew from the events, in one transaction that others wait for; how many jobs.

    A live lease gets its full visibility again, counted from now: its deadline is not in the events.

    Raises:
        BrokenStream: a stream contradicts itself; nothing is changed.
    """
    async with database.connection() as connection, connection.transaction():
        await connection.execute(
            "LOCK TABLE job_records, ready, leases, dead, events IN ACCESS EXCLUSIVE MODE", timeout=None
        )
        await connection.execute("TRUNCATE job_records, ready, leases, dead", timeout=None)
        after, made = UUID(int=0), 0
        while found := await connection.fetch(statements()["rebuild_streams"].text, after, _RANGE, timeout=None):
            ids = [row["id"] for row in found]
            events: dict[UUID, list[Any]] = {job_id: [] for job_id in ids}
            for row in await connection.fetch(statements()["rebuild_events"].text, ids, timeout=None):
                events[row["stream_id"]].append(rows.event(row))
            await _write(connection, [(fold(events[job_id]), events[job_id]) for job_id in ids])
            after, made = ids[-1], made + len(ids)
        return made


async def _write(connection: Any, folded: list[tuple[Job, list[Any]]]) -> None:
    homes: dict[str, list[tuple[object, ...]]] = {name: [] for name in ("records", "ready", "leases", "dead")}
    for job, events in folded:
        lane = (job.tenant or "", job.queue)
        record = (job.id, job.created_at, job.run_at, job.deadline, job.timeout_secs, job.priority, job.max_attempts)
        homes["records"].append((*record, *lane, job.kind, job.idempotency_key, job.run_id))
        rest = (*lane, job.kind, job.deliveries, job.timeout_secs, job.deadline, job.error)
        if job.status is JobStatus.QUEUED:
            counts = (job.version, job.priority, job.attempts, job.max_attempts)
            homes["ready"].append((job.id, job.eligible_at, *counts, *rest))
        elif job.status is JobStatus.LEASED:
            lease = (job.id, job.lease_id, job.worker_id, job.leased_at, job.eligible_at, job.version)
            counts = (events[-1].data["visibilitySecs"], job.priority, job.attempts, job.max_attempts)
            homes["leases"].append((*lease, *counts, *rest))
        elif job.status is JobStatus.DEAD:
            end = (job.id, job.finished_at, job.version, job.attempts, job.deliveries)
            homes["dead"].append((*end, *lane, job.error))
    for name, values in homes.items():
        if values:
            await connection.executemany(statements()[_PUT[name]].text, values, timeout=None)
