"""`sql/queries/lease.sql`."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import orjson

from atomo_gql.domain.jobs import LeasedJob
from atomo_gql.store.database import Database


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """One worker's request: so many jobs of these queues ("*": any)."""

    worker_id: UUID
    count: int
    visibility_secs: int
    queues: tuple[str, ...]


async def lease(database: Database, rows: Sequence[LeaseRow]) -> list[list[LeasedJob]]:
    """The jobs each request gets, the requests served in their order."""
    pairs = [(number, queue) for number, row in enumerate(rows, 1) for queue in row.queues]
    found = await database.dispatch(
        "job_lease",
        [r.worker_id for r in rows],
        [r.count for r in rows],
        [r.visibility_secs for r in rows],
        [number for number, _ in pairs],
        [queue for _, queue in pairs],
    )
    answers: list[list[LeasedJob]] = [[] for _ in rows]
    for row in found:
        answers[row["request"] - 1].append(
            LeasedJob(
                id=row["id"],
                lease_id=row["lease_id"],
                queue=row["queue"],
                kind=row["kind"],
                payload=orjson.Fragment(row["payload"]),
                attempt=row["attempt"],
                max_attempts=row["max_attempts"],
                priority=row["priority"],
                created_at=row["created_at"],
                leased_at=row["leased_at"],
                lease_expires_at=row["lease_expires_at"],
                trace=row["trace"],
                tenant=row["tenant"] or None,
            )
        )
    return answers


async def next_eligible(database: Database, scopes: Sequence[tuple[str | None, tuple[str, ...]]]) -> list[float | None]:
    """Of each scope (tenant, queues): seconds until a job is eligible, below zero when one is; None: none is queued."""
    pairs = [(number, queue) for number, (_, queues) in enumerate(scopes, 1) for queue in queues]
    rows = await database.dispatch(
        "job_next_eligible",
        [tenant for tenant, _ in scopes],
        [number for number, _ in pairs],
        [queue for _, queue in pairs],
    )
    answers: list[float | None] = [None] * len(scopes)
    for row in rows:
        answers[row["ord"] - 1] = row["seconds"]
    return answers
