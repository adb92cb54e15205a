"""Jobs: each one's rows, column for column, are what its events say."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any
from uuid import UUID

from atomo_gql.domain.events import Event, fold
from atomo_gql.domain.jobs import Job, JobStatus
from atomo_gql.store import rows
from atomo_gql.store.rebuild.log import Difference, folded
from atomo_gql.store.statements import statements

IN_EITHER = "rebuild_job_range"
IN_THE_LOG = "rebuild_job_streams"
_PUT = {
    "records": "rebuild_put_records",
    "ready": "rebuild_put_ready",
    "leases": "rebuild_put_leases",
    "dead": "rebuild_put_dead",
}


async def compare(connection: Any, events: dict[UUID, list[Event]]) -> list[Difference]:
    """Which of these jobs are not what their events say."""
    found = await connection.fetch(statements()["rebuild_jobs"].text, list(events))
    actual = {row["id"]: rows.job(row) for row in found}
    return [
        Difference("job", job_id, detail)
        for job_id, told in events.items()
        if (detail := _difference(actual.get(job_id), told))
    ]


def _difference(actual: Job | None, events: Sequence[Event]) -> str | None:
    expected = folded(fold, events)
    if isinstance(expected, str):
        return f"its events do not make a job: {expected}"
    if actual is None:
        return "it has events, but no row"
    # Heartbeats and progress move these two, and are not events.
    actual = replace(actual, lease_expires_at=None, progress=None)
    names = [f.name for f in fields(Job) if getattr(actual, f.name) != getattr(expected, f.name)]
    return ", ".join(f"{n} is {getattr(actual, n)!r}, should be {getattr(expected, n)!r}" for n in names) or None


async def write(connection: Any, events: dict[UUID, list[Event]]) -> None:
    """The rows of these jobs.

    Raises:
        BrokenStream: a stream contradicts itself.
    """
    homes: dict[str, list[tuple[object, ...]]] = {name: [] for name in _PUT}
    for told in events.values():
        job = fold(told)
        lane = (job.tenant or "", job.queue)
        record = (job.id, job.created_at, job.run_at, job.deadline, job.timeout_secs, job.priority, job.max_attempts)
        homes["records"].append((*record, *lane, job.kind, job.idempotency_key, job.run_id))
        rest = (*lane, job.kind, job.deliveries, job.timeout_secs, job.deadline, job.error)
        if job.status is JobStatus.QUEUED:
            counts = (job.version, job.priority, job.attempts, job.max_attempts)
            homes["ready"].append((job.id, job.eligible_at, *counts, *rest))
        elif job.status is JobStatus.LEASED:
            lease = (job.id, job.lease_id, job.worker_id, job.leased_at, job.eligible_at, job.version)
            counts = (told[-1].data["visibilitySecs"], job.priority, job.attempts, job.max_attempts)
            homes["leases"].append((*lease, *counts, *rest))
        elif job.status is JobStatus.DEAD:
            end = (job.id, job.finished_at, job.version, job.attempts, job.deliveries)
            homes["dead"].append((*end, *lane, job.error))
    for name, values in homes.items():
        if values:
            await connection.executemany(statements()[_PUT[name]].text, values, timeout=None)
