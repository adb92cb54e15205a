"""`sql/queries/sweep.sql` and `sql/queries/housekeeping.sql`: what time asks for."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from atomo_gql.store.database import Database


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """A job whose time ran out."""

    id: UUID
    tenant: str | None
    queue: str
    is_dead: bool


@dataclass(frozen=True, slots=True)
class PartitionDay:
    """A pair of partitions, and the ids it spans."""

    day: str  # YYYYMMDD
    first_id: UUID
    end_id: UUID


async def reclaim(database: Database, most: int, spare: int) -> list[Reclaimed]:
    """Take back at most so many expired leases; a job of more deliveries than its attempts and so many is dead."""
    return [_reclaimed(row) for row in await database.dispatch("lease_reclaim", most, spare)]


async def end_overdue(database: Database, most: int) -> list[Reclaimed]:
    """End at most so many queued jobs whose deadline has passed."""
    return [_reclaimed(row) for row in await database.dispatch("job_overdue", most)]


async def forget_requests(database: Database, most: int) -> int:
    """Forget at most so many lease requests that nobody can repeat any more; how many there were."""
    deleted: int = (await database.dispatch("lease_requests_forget", most))[0]["deleted"]
    return deleted


def _reclaimed(row: Any) -> Reclaimed:
    return Reclaimed(row["id"], row["tenant"] or None, row["queue"], row["is_dead"])


async def make_partitions(database: Database, ahead: int) -> int:
    """Make the partitions of the days ahead; how many were missing."""
    made: int = (await database.fetch_one("partition_make", ahead))["made"]
    return made


async def expired_partitions(database: Database, before: datetime) -> list[PartitionDay]:
    """The pairs of the days that ended before that moment, oldest first."""
    return [PartitionDay(**row) for row in await database.fetch("partition_expired", before)]


async def drop_partition(
    database: Database, day: PartitionDay, succeeded: datetime | None, dead: datetime | None
) -> bool:
    """Drop a pair if every job in it ended before these moments (None: such jobs are kept for ever)."""
    dropped: bool = (await database.fetch_one("partition_drop", day.day, succeeded, dead))["dropped"]
    if dropped:
        await database.fetch_one("retention_forget_keys", day.first_id, day.end_id)
    return dropped


async def delete_finished(
    database: Database, day: PartitionDay, succeeded: datetime | None, dead: datetime | None, most: int
) -> int:
    """Delete at most so many jobs that ended before these moments; how many there were."""
    row = await database.fetch_one("retention_delete", day.first_id, day.end_id, succeeded, dead, most)
    deleted: int = row["deleted"]
    return deleted
