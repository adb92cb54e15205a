"""`sql/queries/jobs.sql` and `sql/queries/events.sql`: reading."""

from collections.abc import Sequence
from uuid import UUID

from atomo_gql.domain.events import Event
from atomo_gql.domain.jobs import Job, JobStatus, Json
from atomo_gql.store import rows
from atomo_gql.store.database import Database


async def get(database: Database, ids: Sequence[UUID], tenant: str | None) -> dict[UUID, Job]:
    """The jobs among these that the tenant may see ('': those without one; None: all)."""
    return {row["id"]: rows.job(row) for row in await database.dispatch("job_get", list(ids), tenant)}


async def get_each(database: Database, wanted: Sequence[tuple[UUID, str | None]]) -> list[Job | None]:
    """Each job, if the tenant beside it (as in `get`) may see it; one statement per tenant."""
    answers: list[Job | None] = [None] * len(wanted)
    for tenant in {tenant for _, tenant in wanted}:
        found = await get(database, [job_id for job_id, whose in wanted if whose == tenant], tenant)
        for index, (job_id, whose) in enumerate(wanted):
            if whose == tenant:
                answers[index] = found.get(job_id)
    return answers


async def payloads(database: Database, ids: Sequence[UUID]) -> dict[UUID, Json]:
    """What was sent, by job."""
    return {row["id"]: row["payload"] for row in await database.dispatch("job_payload", list(ids))}


async def page(
    database: Database,
    tenant: str | None,
    *,
    status: JobStatus | None,
    queue: str | None,
    kind: str | None,
    before: UUID | None,
    most: int,
) -> list[Job]:
    """At most so many jobs, newest first, from below an id."""
    found = await database.fetch("job_page", tenant, status, queue, kind, before, most)
    return [rows.job(row) for row in found]


async def streams(database: Database, ids: Sequence[UUID], after: int, most: int) -> dict[UUID, list[Event]]:
    """The events of these streams after a version, at most so many of each."""
    answers: dict[UUID, list[Event]] = {stream_id: [] for stream_id in ids}
    for row in await database.dispatch("event_stream", list(ids), after, most):
        answers[row["stream_id"]].append(rows.event(row))
    return answers


async def tail(database: Database, xid: int, position: int, most: int) -> list[Event]:
    """What was committed after that place in the log, in an order that is safe to resume from."""
    return [rows.event(row) for row in await database.fetch("event_tail", xid, position, most)]
