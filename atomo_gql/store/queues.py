"""`sql/queries/queues.sql`: how queues are, and what the servers have seen."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from atomo_gql.domain.jobs import Lane
from atomo_gql.store.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenWorker:
    """A worker that has asked for a queue."""

    id: UUID
    name: str
    seen_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """How a queue is."""

    name: str
    queued: int  # due
    scheduled: int  # not due yet
    leased: int
    dead: int
    is_bounded: bool  # whether there may be more queued than were counted
    oldest_secs: float | None
    paused_at: datetime | None
    paused_by: str | None
    is_paused_for_all: bool | None
    enqueued: int  # these four: in the last five minutes, as the servers saw them
    started: int
    succeeded: int
    failed: int


@dataclass(slots=True)
class Sightings:
    """What a server has seen: how often each thing happened in each lane, and who was there."""

    enqueued: Counter[Lane] = field(default_factory=Counter)
    leased: Counter[Lane] = field(default_factory=Counter)
    succeeded: Counter[Lane] = field(default_factory=Counter)
    failed: Counter[Lane] = field(default_factory=Counter)
    workers: set[tuple[UUID, str]] = field(default_factory=set)  # (token, queue or "*")
    used: set[UUID] = field(default_factory=set)  # tokens


async def names(
    database: Database, tenant: str | None, *, after: str | None, before: str | None, descending: bool, most: int
) -> list[str]:
    """At most so many queues' names, in their order."""
    return [row["name"] for row in await database.fetch("queue_names", tenant, after, before, descending, most)]


async def stats(database: Database, tenant: str | None, queues: Sequence[str], most: int) -> list[QueueStats]:
    """How these queues are; depths are counted up to `most`."""
    found = await database.fetch("queue_stats", tenant, list(queues), most)
    return [QueueStats(name=row["queue"], **{k: v for k, v in row.items() if k != "queue"}) for row in found]


async def workers(
    database: Database, tenant: str | None, queues: Sequence[str], seen_since: datetime
) -> Mapping[str, list[SeenWorker]]:
    """By queue, who has asked for it since then, newest first."""
    found: dict[str, list[SeenWorker]] = {queue: [] for queue in queues}
    for row in await database.fetch("queue_workers", tenant, list(queues), seen_since):
        found[row["queue"]].append(SeenWorker(id=row["id"], name=row["name"], seen_at=row["seen_at"]))
    return found


async def record(database: Database, seen: Sightings) -> None:
    """Write down what a server has seen; what is written is counted no more, should the rest fail."""
    counters = seen.enqueued, seen.leased, seen.succeeded, seen.failed
    if lanes := list(set().union(*counters)):
        await database.fetch(
            "activity_add",
            [tenant for tenant, _ in lanes],
            [queue for _, queue in lanes],
            *([counter[lane] for lane in lanes] for counter in counters),
        )
        for counter in counters:
            counter.clear()
    if seen.workers:
        await database.fetch(
            "activity_seen", [worker for worker, _ in seen.workers], [queue for _, queue in seen.workers]
        )


async def forget(database: Database) -> None:
    """Throw away what is too old to tell anything."""
    await database.fetch("activity_forget")
