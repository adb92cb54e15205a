"""What jobs and runs have in common: their events, range by range, and how a row can differ from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from atomo_gql.domain.events import BrokenStream, Event
from atomo_gql.store import rows
from atomo_gql.store.statements import statements

RANGE = 2_000  # streams in one snapshot

Folded = TypeVar("Folded")


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not what its events make of it."""

    what: str  # job or run
    id: UUID
    detail: str


async def ids_after(connection: Any, statement: str, after: UUID) -> list[UUID]:
    """The next ids that a statement of ranges knows."""
    return [row["id"] for row in await connection.fetch(statements()[statement].text, after, RANGE, timeout=None)]


async def events_of(connection: Any, ids: Sequence[UUID]) -> dict[UUID, list[Event]]:
    """The events of these streams, in their order."""
    found: dict[UUID, list[Event]] = {stream_id: [] for stream_id in ids}
    for row in await connection.fetch(statements()["rebuild_events"].text, list(ids), timeout=None):
        found[row["stream_id"]].append(rows.event(row))
    return found


def folded(fold: Callable[[Sequence[Event]], Folded], events: Sequence[Event]) -> Folded | str:
    """What these events make, or why they make nothing."""
    try:
        return fold(events)
    except (BrokenStream, KeyError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
