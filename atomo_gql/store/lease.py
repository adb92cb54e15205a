"""`sql/queries/lease.sql`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from atomo_gql.domain.jobs import LeasedJob
from atomo_gql.store.database import Database

Scope = tuple[str | None, tuple[str, ...], tuple[str, ...] | None]  # tenant, queues, kinds; None: any


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """One worker's request: so many jobs of these queues ("*": any)."""

    worker_id: UUID
    count: int
    visibility_secs: int
    queues: tuple[str, ...]
    kinds: tuple[str, ...] | None = None  # None: any
    request_id: str | None = None

    @property
    def identity(self) -> object:
        """Two rows of the same are one request."""
        return id(self) if self.request_id is None else (self.worker_id, self.request_id)


async def lease(database: Database, rows: Sequence[LeaseRow]) -> list[list[LeasedJob]]:
    """The jobs each request gets, the requests served in their order; a request made before gets what it got."""
    unique = list({row.identity: row for row in reversed(rows)}.values())[::-1] if len(rows) > 1 else list(rows)
    try:
        answers = await _lease(database, unique)
    except asyncpg.UniqueViolationError:
        if len(unique) > 1:
            raise  # the batcher tries them one by one
        answers = await _lease(database, unique)  # the same request was answered at the same moment, elsewhere
    if len(unique) == len(rows):
        return answers
    by_identity = {row.identity: answer for row, answer in zip(unique, answers, strict=True)}
    return [by_identity[row.identity] for row in rows]


async def _lease(database: Database, rows: Sequence[LeaseRow]) -> list[list[LeasedJob]]:
    queues, kinds = _pairs(row.queues for row in rows), _pairs(row.kinds or () for row in rows)
    found = await database.dispatch(
        "job_lease",
        [r.worker_id for r in rows],
        [r.count for r in rows],
        [r.visibility_secs for r in rows],
        [r.request_id for r in rows],
        *queues,
        *kinds,
    )
    answers: list[list[LeasedJob]] = [[] for _ in rows]
    for row in found:
        answers[row[0] - 1].append(LeasedJob._make(row[1:]))
    return answers


async def close(database: Database, rows: Sequence[LeaseRow]) -> list[bool]:
    """Lease nothing for these requests any more; False: somebody has, meanwhile."""
    found = await database.dispatch(
        "lease_request_close",
        [r.worker_id for r in rows],
        [r.request_id for r in rows],
        [r.visibility_secs for r in rows],
    )
    closed = {row["ord"] for row in found}
    return [number in closed for number in range(1, len(rows) + 1)]


async def next_eligible(database: Database, scopes: Sequence[Scope]) -> list[float | None]:
    """Of each scope: seconds until a job is eligible, below zero when one is; None: none is queued."""
    rows = await database.dispatch(
        "job_next_eligible",
        [tenant for tenant, _, _ in scopes],
        *_pairs(queues for _, queues, _ in scopes),
        *_pairs(kinds or () for _, _, kinds in scopes),
    )
    answers: list[float | None] = [None] * len(scopes)
    for row in rows:
        answers[row["ord"] - 1] = row["seconds"]
    return answers


def _pairs(names: Iterable[tuple[str, ...]]) -> tuple[list[int], list[str]]:
    """Names of each row, as two columns: the number of the row, and the name."""
    pairs = [(number, name) for number, of_row in enumerate(names, 1) for name in of_row]
    return [number for number, _ in pairs], [name for _, name in pairs]
