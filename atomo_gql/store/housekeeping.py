"""`sql/queries/sweep.sql` and `sql/queries/housekeeping.sql`: what time asks for."""

from dataclasses import dataclass
from datetime import datetime, timedelta
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
class Partition:
    """A pair of partitions: the ids it spans, and how large it is."""

    first_id: UUID
    end_id: UUID  # of the first id behind it
    begins_at: datetime
    ends_at: datetime
    bytes: int  # of its tables, without indexes

    def remaining_days(self, now: datetime) -> float:
        """How many days are left until it ends."""
        return (self.ends_at - now) / timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Swapped:
    """What a rewrite has put in place."""

    replaced: int  # pairs of partitions
    left_out: int  # jobs that had expired


async def reclaim(database: Database, most: int, spare: int) -> list[Reclaimed]:
    """Take back at most so many expired leases; a job of more deliveries than its attempts and so many is dead."""
    return [_reclaimed(row) for row in await database.dispatch("lease_reclaim", most, spare)]


async def shorten_leases(database: Database) -> int:
    """Give leases that end later than any can, since the clock was ahead, their own time from now; how many."""
    shortened: int = (await database.fetch_one("lease_shorten"))["shortened"]
    return shortened


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
    """Make the partitions of the days ahead; how many pairs were missing."""
    made: int = (await database.fetch_one("partition_make", ahead))["made"]
    return made


async def adopt_cluster(database: Database) -> str | None:
    """Go on with the order of events if the schema has come from another PostgreSQL cluster; what was done.

    None: nothing had to be done.

    Raises:
        Unavailable: somebody holds the table of events; nothing was changed.
    """
    done: str | None = (await database.fetch_one("cluster_adopt"))["done"]
    return done


async def database_now(database: Database) -> datetime:
    """What time it is by the database's clock."""
    now: datetime = (await database.fetch_one("clock_now"))["now"]
    return now


async def span_partitions(database: Database, days: int) -> None:
    """Have the partitions that are made from now on span that many days."""
    await database.fetch("partition_span", days)


async def partitions(database: Database) -> list[Partition]:
    """All pairs, oldest first."""
    return [Partition(**row) for row in await database.fetch("partition_list")]


async def begin_rewrite(
    database: Database, first_id: UUID, end_id: UUID | None, expired: datetime | None = None
) -> bool:
    """Begin to make one pair out of those that span these ids (no end: up to the day after tomorrow).

    Jobs that succeeded before `expired` are left out.

    False: another rewrite is under way.
    """
    has_begun: bool = (await database.fetch_one("partition_rewrite", first_id, end_id, expired))["has_begun"]
    return has_begun


async def copy_partitions(database: Database, events: int) -> bool | None:
    """Copy the next `events` events of the rewrite that is under way; whether there are more.

    None: there is no rewrite, or somebody else is at it.
    """
    has_more: bool | None = (await database.fetch_one("partition_copy", events))["has_more"]
    return has_more


async def swap_partitions(database: Database) -> Swapped | None:
    """Put a finished copy in place; None: there is none, or somebody else is at it.

    Raises:
        Unavailable: others had the tables for too long; nothing was changed.
    """
    row = await database.fetch_one("partition_swap")
    return None if row["replaced"] is None else Swapped(row["replaced"], row["left_out"])


async def drop_detached(database: Database) -> None:
    """Drop the tables that a rewrite has replaced."""
    await database.fetch_one("partition_drop_detached")


async def count_expired(database: Database, partition: Partition, succeeded: datetime | None, most: int) -> int:
    """How many jobs of a partition succeeded before that moment, counted up to `most`."""
    if succeeded is None:
        return 0
    row = await database.fetch_one("retention_count", partition.first_id, partition.end_id, succeeded, most)
    count: int = row["expired"]
    return count


async def delete_finished(
    database: Database, partition: Partition, succeeded: datetime | None, dead: datetime | None, most: int
) -> int:
    """Delete at most so many jobs that ended before these moments; how many there were."""
    row = await database.fetch_one("retention_delete", partition.first_id, partition.end_id, succeeded, dead, most)
    deleted: int = row["deleted"]
    return deleted
