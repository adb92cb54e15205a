"""What tests of actions do."""

from typing import Any
from uuid import UUID

import orjson

from atomo_gql.domain.actions import NewEvent
from atomo_gql.domain.jobs import Json
from atomo_gql.domain.principals import Caller
from tests.parts import ALICE, ROOT, Replica


async def record(replica: Replica, n: Json = 1, *, caller: Caller = ALICE, **more: Any) -> str:
    """Something happened to a model; the event's id."""
    fields = {"model": "deal", "event": "updated", "entity_id": "d-1", "data": {"n": n}, **more}
    return (await replica.services.records.record(caller, NewEvent(**fields))).event_id


async def bind(replica: Replica, action: str = "act", *, caller: Caller = ROOT, **more: Any) -> UUID:
    """A binding; its id."""
    source = {"model": "deal", "event": "updated", "action": action, **more}
    return (await replica.services.bindings.register(caller, source)).id


async def fired(sql: Any, *columns: str) -> list[Any]:
    """What the jobs that actions have made are, oldest first: their payloads, or fields of them."""
    rows = await sql.fetch(
        "SELECT data FROM events WHERE stream = 'Job' AND type = 'enqueued' AND data ? 'origin' ORDER BY xid, position"
    )
    payloads = [orjson.loads(row["data"])["payload"] for row in rows]
    return [tuple(payload[column] for column in columns) for payload in payloads] if columns else payloads
