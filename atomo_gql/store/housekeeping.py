"""`sql/queries/sweep.sql` and `sql/queries/housekeeping.sql`: what time asks for."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from atomo_gql.store.database import Database


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """A job whose lease ran out."""

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


async def reclaim(database: Database, most: int) -> list[Reclaimed]:
    """Take back at most so many expired leases."""
    found = await database.dispatch("lease_reclaim", most)
    return [Reclaimed(r["id"], r["tenant"] or None, r["queue"], r["is_dead"]) for r in found]


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
