"""Events of the models of applications, and the bindings that make jobs of them."""

from uuid import UUID

from atomo_gql.api.rest import render
from atomo_gql.api.rest.endpoint import Answer, Call
from atomo_gql.api.rest.jobs import trace_of
from atomo_gql.domain.actions import NewEvent
from atomo_gql.domain.errors import BadUserInput, NotFound
from atomo_gql.domain.rules import parse_id


async def record(call: Call) -> Answer:
    """`POST /events`."""
    body = call.body
    event = NewEvent(
        model=body.model,
        event=body.event,
        entity_id=body.id,
        data=body.data,
        previous=body.previous_data,
        origin=body.origin,
        event_id=body.event_id,
    )
    recorded = await call.services.records.record(call.caller, event, trace=trace_of(call.header(b"traceparent")))
    return Answer(201, render.to_json({"eventId": recorded.event_id, "isNew": recorded.is_new}))


async def listing(call: Call) -> Answer:
    """`GET /actions`."""
    found = await call.services.bindings.listed(call.caller)
    return Answer(200, render.to_json({"bindings": [render.binding(binding) for binding in found]}))


async def register(call: Call) -> Answer:
    """`POST /actions`."""
    made = await call.services.bindings.register(call.caller, call.body, trace=trace_of(call.header(b"traceparent")))
    return Answer(201, render.to_json(render.binding(made)))


async def remove(call: Call) -> Answer:
    """`DELETE /actions/{id}`."""
    await call.services.bindings.remove(call.caller, _id(call))
    return Answer(204)


async def resume(call: Call) -> Answer:
    """`POST /actions/{id}/resume`."""
    resumed = await call.services.bindings.resume(call.caller, _id(call), skip=bool(call.body.skip))
    return Answer(200, render.to_json(render.binding(resumed)))


def _id(call: Call) -> UUID:
    try:
        return parse_id("id", call.path["id"])
    except BadUserInput:
        raise NotFound(f"there is no binding {call.path['id'][:100]!r}") from None
