"""`sql/queries/jobs.sql`: reading."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from atomo_gql.domain.errors import AnswerTooLarge
from atomo_gql.domain.jobs import Body, Job, JobFilter, Json, Waiting
from atomo_gql.store import rows
from atomo_gql.store.database import Database

_FEW_PARTITIONS = 3  # that a page looks into at once


class Found(NamedTuple):
    """The ids of a page of jobs, and the key from behind which a search goes on; None: it has seen all."""

    ids: list[UUID]
    resumes_at: UUID | None


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


async def listed(database: Database, ids: Sequence[UUID], tenant: str | None) -> dict[UUID, Job]:
    """As `get`, without result and progress, which may be large."""
    return {row["id"]: rows.job(row) for row in await database.dispatch("job_rows", list(ids), tenant)}


async def bodies(database: Database, ids: Sequence[UUID], what: Body, most: int) -> dict[UUID, tuple[Json, int]]:
    """What was sent with jobs, or came of them, or is told of them; each with its size in bytes.

    Raises:
        AnswerTooLarge: all together are larger than so many bytes.
    """
    found = await database.dispatch("job_bodies", list(ids), what, most)
    if any(row["is_beyond"] for row in found):
        raise AnswerTooLarge
    return {row["id"]: (row["body"], row["size"]) for row in found}


async def page(
    database: Database,
    tenant: str | None,
    wanted: JobFilter,
    *,
    above: UUID | None = None,
    below: UUID | None = None,
    descending: bool = True,
    most: int,
    look: int | None = None,
) -> Found:
    """The ids of at most so many jobs that are wanted, in the order of their ids, which is that of their making.

    `look`: among how many of each state the text of an error is searched for; None: all. Fewer where errors are long.
    """
    statuses = None if wanted.statuses is None else list(wanted.statuses)
    made = tenant, wanted.queue, wanted.kind, wanted.idempotency_key, wanted.created_from, wanted.created_to
    ended = wanted.finished_from, wanted.finished_to
    conditions = (tenant, statuses, *made[1:], *ended)
    ids: list[UUID] = []
    if wanted.error is None:
        has_state = statuses is not None or ended != (None, None)
        statement = ("job_page", *conditions) if has_state else ("job_page_made", *made)
        starts = [] if wanted.idempotency_key else await database.partition_starts()  # a key has few jobs, anywhere
        for lowest, highest in _ranges(starts, above, below, descending=descending):
            left = most - len(ids)
            ids += [row["id"] for row in await database.fetch(*statement, lowest, highest, descending, left)]
            if len(ids) == most:
                break
        return Found(ids, None)
    for row in await database.fetch("job_search", *conditions, above, below, descending, most, wanted.error, look):
        if row["is_beyond"]:
            return Found(ids, UUID(int=row["id"].int + (1 if descending else -1)))
        ids.append(row["id"])
    return Found(ids, None)


def _ranges(
    starts: Sequence[UUID], above: UUID | None, below: UUID | None, *, descending: bool
) -> list[tuple[UUID | None, UUID | None]]:
    """Where to look for a page, one range after the other: first in the partition that it begins in, then in the rest.

    Most pages are full with that. Planning a query costs as much for each partition as for the first, so this keeps
    them as fast as they are when there is only one. `starts`: the first ids of partitions, in order; one that is
    missing costs time and no more.
    """
    if len(starts) <= _FEW_PARTITIONS:
        return [(above, below)]
    if descending:
        bound = next((s for s in reversed(starts) if below is None or s < below), UUID(int=0))
        if not bound.int or (above and above >= bound):
            return [(above, below)]
        return [(bound, below), (above, UUID(int=bound.int + 1))]
    begin = above or UUID(int=0)
    bound = next((s for s in starts if s > begin), UUID(int=0))
    if not bound.int or (below and below <= bound):
        return [(above, below)]
    return [(above, bound), (UUID(int=bound.int - 1), below)]


async def waiting(database: Database, ids: Sequence[UUID], most: int) -> dict[UUID, Waiting]:
    """Why those of the jobs that are queued are not running; at most so many before each are counted."""
    found = await database.dispatch("job_waiting", list(ids), most)
    return {
        row["id"]: Waiting(
            eligible_at=row["eligible_at"],
            is_due=row["is_due"],
            paused_at=row["paused_at"],
            paused_by=row["paused_by"],
            ahead=row["ahead"],
            worker_seen_at=row["worker_seen_at"],
        )
        for row in found
    }
