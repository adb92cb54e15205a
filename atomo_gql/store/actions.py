"""`sql/queries/actions.sql`: events of models, bindings, and what the action dispatcher needs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from atomo_gql.domain.actions import Binding, NewBinding
from atomo_gql.domain.events import Event, Place
from atomo_gql.domain.jobs import Json
from atomo_gql.store import rows
from atomo_gql.store.database import Database, fetch_in

_CONSUMER = "actions"


class RecordRow(NamedTuple):
    """A checked event with its data encoded, ready to be written."""

    tenant: str
    model: str
    entity_id: str
    event_id: str
    actor: str
    trace: str | None
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerRow:
    """A workflow that events start."""

    id: UUID
    tenant: str
    name: str
    definition_version: int
    model: str
    event_type: str
    since_xid: int
    timeout_secs: int | None  # that a run may take


async def record(database: Database, events: Sequence[RecordRow]) -> list[bool]:
    """Append these events; whether each is new."""
    first: dict[tuple[str, str], int] = {}
    for index, event in enumerate(events):
        first.setdefault((event.tenant, event.event_id), index)
    places = sorted(first.values())
    unique = [events[place] for place in places]
    new = await database.dispatch("event_record", *(list(column) for column in zip(*unique, strict=True)))
    news = {places[row["ord"] - 1] for row in new}
    return [index in news for index in range(len(events))]


async def forget(database: Database, before: datetime, most: int) -> int:
    """Delete at most so many recorded events older than that, and as many of their ids; how many of the more."""
    deleted: int = (await database.dispatch("record_forget", before, most))[0]["deleted"]
    return deleted


async def put(
    database: Database, tenant: str, what: NewBinding, actor: str, trace: str | None, source_file: str | None
) -> tuple[Binding, bool]:
    """Register a binding; and whether it is new."""
    condition = None if what.condition is None else orjson.dumps(what.condition)
    fields = None if what.input is None else list(what.input)
    columns = (tenant, what.model, what.event, what.action, what.queue, condition, fields, actor, trace, source_file)
    async with database.transaction() as connection:
        await fetch_in(connection, "binding_lock", tenant, what.model)
        [row] = await fetch_in(connection, "binding_put", *columns)
    return _binding(row), row["is_new"]


async def bindings(connection: Any, tenant: str | None) -> list[Binding]:
    """Those of a tenant and of the service, oldest first; None: every one."""
    return [_binding(row) for row in await fetch_in(connection, "binding_list", tenant)]


async def page(
    database: Database, tenant: str | None, *, above: UUID | None, below: UUID | None, descending: bool, most: int
) -> list[Binding]:
    """The same in pages, by id."""
    found = await database.fetch("binding_page", tenant, above, below, descending, most)
    return [_binding(row) for row in found]


async def change(
    connection: Any,
    ids: Sequence[UUID],
    tenant: str | None,
    type_: str,
    actor: str,
    trace: str | None = None,
    *,
    error: str | None = None,
    place: Place | None = None,
    skips: bool = False,
) -> list[Binding]:
    """`removed`, `set_aside` (at that place in the log) or `resumed`; those that were not so already."""
    columns = (list(ids), tenant, type_, actor, trace, error)
    at = place or Place()
    xids, positions = [at.xid] * len(ids), [at.position] * len(ids)
    return [_binding(row) for row in await fetch_in(connection, "binding_change", *columns, xids, positions, skips)]


async def move(connection: Any, places: Sequence[tuple[UUID, Place | None]]) -> None:
    """Where bindings that are behind the others are now; None: with the others."""
    await fetch_in(
        connection,
        "binding_move",
        [binding_id for binding_id, _ in places],
        [place and place.xid for _, place in places],
        [place and place.position for _, place in places],
    )


async def take_checkpoint(connection: Any) -> Place | None:
    """How far the dispatcher is, locked; None: somebody else is at it."""
    found = await fetch_in(connection, "checkpoint_take", _CONSUMER)
    return Place(found[0]["xid"], found[0]["position"]) if found else None


async def move_checkpoint(connection: Any, place: Place) -> None:
    """All before that place is done."""
    await fetch_in(connection, "checkpoint_move", _CONSUMER, place.xid, place.position)


async def recorded(connection: Any, after: Place, most: int, most_bytes: int) -> tuple[list[Event], bool]:
    """What applications recorded after that place in the log, and whether there may be more."""
    found = await fetch_in(connection, "recorded_tail", after.xid, after.position, most, most_bytes)
    return [rows.event(row) for row in found], bool(found) and found[-1]["has_more"]


async def beginnings(connection: Any, ids: Iterable[UUID]) -> dict[UUID, Json]:
    """What these jobs were enqueued as, without their payloads."""
    return {row["stream_id"]: row["data"] for row in await fetch_in(connection, "job_beginnings", list(ids))}


async def triggers(connection: Any) -> list[TriggerRow]:
    """The workflows that events start."""
    return [TriggerRow(**row) for row in await fetch_in(connection, "trigger_list")]


async def lag(database: Database, *, is_all: bool) -> float | None:
    """Seconds since the first event that the dispatcher has not seen; None: it has seen all."""
    found = await database.dispatch("dispatch_lag", is_all)
    seconds: float | None = found[0]["seconds"] if found else None
    return seconds


def _binding(row: Any) -> Binding:
    condition = row["condition"] or {}
    changed_any, inputs = condition.get("changedAny"), row["input"]
    return Binding(
        id=row["id"],
        tenant=row["tenant"] or None,
        what=NewBinding(
            model=row["model"],
            event=row["event"],
            action=row["action"],
            queue=row["queue"],
            changed_any=None if changed_any is None else tuple(changed_any),
            field_equals=condition.get("fieldEquals"),
            input=None if inputs is None else tuple(inputs),
        ),
        since_xid=row["since_xid"],
        registered_at=row["registered_at"],
        registered_by=row["registered_by"],
        source_file=row["source_file"],
        set_aside_at=row["set_aside_at"],
        error=row["error"],
        at=None if row["at_xid"] is None else Place(row["at_xid"], row["at_position"]),
    )
