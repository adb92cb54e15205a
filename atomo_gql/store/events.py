"""`sql/queries/events.sql`: the log."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from atomo_gql.domain.attempts import LeaseEvent
from atomo_gql.domain.errors import AnswerTooLarge
from atomo_gql.domain.events import Event, EventFilter, EventType, Place
from atomo_gql.store import rows
from atomo_gql.store.database import Database, fetch_in


async def streams(
    database: Database, ids: Sequence[UUID], after: int, most: int, most_bytes: int
) -> dict[UUID, list[Event]]:
    """The events of these streams after a version, at most so many of each.

    Raises:
        PayloadTooLarge: their data is larger than so many bytes.
    """
    answers: dict[UUID, list[Event]] = {stream_id: [] for stream_id in ids}
    for row in await database.dispatch("event_stream", list(ids), after, most, most_bytes):
        if row["is_beyond"]:
            raise AnswerTooLarge
        answers[row["stream_id"]].append(rows.event(row))
    return answers


async def attempts(database: Database, ids: Sequence[UUID], most: int, most_bytes: int) -> dict[UUID, list[LeaseEvent]]:
    """What happened to these jobs under their leases, oldest first.

    Raises:
        PayloadTooLarge: there is more of it, in all, than so many events, or than so many bytes of errors.
    """
    answers: dict[UUID, list[LeaseEvent]] = {stream_id: [] for stream_id in ids}
    for row in await database.dispatch("event_attempts", list(ids), most, most_bytes):
        if row["is_beyond"]:
            raise AnswerTooLarge
        answers[row["stream_id"]].append(
            LeaseEvent(
                at=row["at"],
                type=EventType(row["type"]),
                attempt=row["attempt"],
                error=row["error"],
                worker_id=row["worker_id"],
                worker_name=row["worker_name"],
            )
        )
    return answers


async def tail(
    database: Database, after: Place, tenant: str | None, wanted: EventFilter, most: int, most_bytes: int
) -> tuple[list[Event], Place, bool]:
    """What was committed after that place and is wanted, where to go on from, and whether there may be more.

    At most so many events are looked at, wanted or not, and about so many bytes of data come back. The order is safe to
    resume from.
    """
    # Without a stream one plan is good for all values; to make it anew costs more, the more partitions there are.
    async with database.connection("query" if wanted.stream_id else "dispatch") as connection:
        return await tail_in(connection, after, tenant, wanted, most, most_bytes)


async def tail_in(
    connection: Any, after: Place, tenant: str | None, wanted: EventFilter, most: int, most_bytes: int
) -> tuple[list[Event], Place, bool]:
    """The same, on a connection that has our settings."""
    found = await fetch_in(
        connection,
        "event_tail",
        after.xid,
        after.position,
        tenant,
        list(wanted.streams),
        wanted.stream_id,
        wanted.queue,
        wanted.kind,
        None if wanted.types is None else list(wanted.types),
        most,
        most_bytes,
    )
    if not found:
        return [], after, False
    last = Place(found[-1]["xid"], found[-1]["position"])
    return [rows.event(row) for row in found if row["is_match"]], last, found[-1]["has_more"]


async def head(database: Database) -> Place:
    """The place after everything that is committed."""
    async with database.connection() as connection:
        return await head_in(connection)


async def head_in(connection: Any) -> Place:
    """The same, on a connection that has our settings."""
    [row] = await fetch_in(connection, "event_head")
    return Place(row["xid"], row["position"])
