"""`sql/queries/lease.sql`."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg
import orjson

from atomo_gql.domain.jobs import LeasedJob
from atomo_gql.store.columns import sparse
from atomo_gql.store.database import Database

_SLOW_SECS, _SLOW_SECS_A_JOB = 0.002, 0.00002  # to find so many: twice what it takes when nothing is in the way
_REMEMBERED_SECS = 1.0
_UNKNOWN = (float("-inf"), 0, datetime.min)
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
    def scope(self) -> object:
        """Rows of the same ask for the same jobs."""
        return self.worker_id, self.queues, self.kinds

    @property
    def identity(self) -> object:
        """Two rows of the same are one request."""
        return id(self) if self.request_id is None else (self.worker_id, self.request_id)


class Standing(NamedTuple):
    """Of a request that got nothing."""

    lives: bool  # its token does
    is_spent: bool  # it was answered before


class Heads:
    """Where the first jobs of scopes stood a moment ago, for those whose leases are slow.

    While a transaction somewhere, of whoever, keeps dead rows from being cleaned away, each lease walks past all that
    was leased before it. One that took long tells the next ones where it found its first job. It is forgotten a moment
    later: by then a job may have been put back before that place.
    """

    def __init__(self) -> None:
        self._heads: dict[object, tuple[float, int, datetime]] = {}

    def of(self, row: LeaseRow) -> tuple[int, datetime] | tuple[None, None]:
        """Priority, and since when eligible."""
        until, priority, since = self._heads.get(row.scope, _UNKNOWN)
        return (priority, since) if until > time.monotonic() else (None, None)

    def learn(self, row: LeaseRow, first: LeasedJob, eligible_at: datetime) -> None:
        """That job came first, after a long walk."""
        if self.of(row)[0] is None:
            self._heads = {scope: head for scope, head in self._heads.items() if head[0] > time.monotonic()}
            self._heads[row.scope] = time.monotonic() + _REMEMBERED_SECS, first.fields()["priority"], eligible_at


async def lease(database: Database, rows: Sequence[LeaseRow], heads: Heads | None = None) -> list[list[LeasedJob]]:
    """The jobs each request gets, the requests served in their order; a request made before gets what it got."""
    heads = heads or Heads()
    unique = list({row.identity: row for row in reversed(rows)}.values())[::-1] if len(rows) > 1 else list(rows)
    try:
        answers = await _lease(database, unique, heads)
    except asyncpg.UniqueViolationError:
        if len(unique) > 1:
            raise  # the batcher tries them one by one
        answers = await _lease(database, unique, heads)  # the same request was answered at the same moment, elsewhere
    if len(unique) == len(rows):
        return answers
    by_identity = {row.identity: answer for row, answer in zip(unique, answers, strict=True)}
    return [by_identity[row.identity] for row in rows]


async def _lease(database: Database, rows: Sequence[LeaseRow], heads: Heads) -> list[list[LeasedJob]]:
    known = [heads.of(row) for row in rows]
    queues, kinds = _pairs(row.queues for row in rows), _pairs(row.kinds or () for row in rows)
    found = await database.dispatch(
        "job_lease",
        [r.worker_id for r in rows],
        [r.count for r in rows],
        [r.visibility_secs for r in rows],
        [r.request_id for r in rows],
        *queues,
        *kinds,
        sparse([priority for priority, _ in known]),
        sparse([since for _, since in known]),
        _SLOW_SECS + _SLOW_SECS_A_JOB * sum(row.count for row in rows),
    )
    answers: list[list[LeasedJob]] = [[] for _ in rows]
    are_whole = True
    for request, id_, tenant, queue, told, is_whole, _ in found:
        answers[request - 1].append(LeasedJob(id_, tenant, queue, told))
        are_whole = are_whole and is_whole
    if not are_whole:
        answers = await _made_whole(database, answers)
    if found and (since := found[0][-1]) is not None:
        request = found[0][0] - 1
        heads.learn(rows[request], answers[request][0], since)
    return answers


async def _made_whole(database: Database, answers: list[list[LeasedJob]]) -> list[list[LeasedJob]]:
    """With what the statement could not see of jobs that were committed after it began."""
    partial = {job.id for jobs in answers for job in jobs if job.fields()["createdAt"] is None}
    found = {row["id"]: row for row in await database.dispatch("lease_beginnings", list(partial))}

    def whole(job: LeasedJob) -> LeasedJob:
        if job.id not in partial:
            return job
        row = found[job.id]
        payload = orjson.Fragment(row["payload"])
        begun = {"payload": payload, "createdAt": row["created_at"], "traceparent": row["trace"]}
        return job._replace(told=orjson.dumps({**job.fields(), **begun}, option=orjson.OPT_UTC_Z).decode())

    return [[whole(job) for job in jobs] for jobs in answers]


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


async def standing(database: Database, rows: Sequence[LeaseRow]) -> list[Standing]:
    """Whether these requests could have got something."""
    found = await database.dispatch("lease_standing", [r.worker_id for r in rows], [r.request_id for r in rows])
    return [Standing(row["lives"], row["is_spent"]) for row in found]


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
