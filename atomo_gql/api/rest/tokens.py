"""The admin plane: worker tokens."""

from uuid import UUID

from atomo_gql.api.rest import render
from atomo_gql.api.rest.endpoint import Answer, Call
from atomo_gql.domain.errors import BadUserInput, NotFound
from atomo_gql.domain.rules import parse_id


async def mint(call: Call) -> Answer:
    """`POST /jobs/workers`."""
    body = call.body
    token, secret = await call.services.tokens.mint(
        call.caller,
        body.name,
        body.queues,
        tenant=body.tenant_id,
        kinds=body.kinds,
        expires_at=body.expires_at,
    )
    return Answer(201, render.to_json({**render.worker_token(token), "token": secret}))


async def rotate(call: Call) -> Answer:
    """`POST /jobs/workers/{id}/rotate`."""
    token, secret = await call.services.tokens.rotate(call.caller, _id(call), call.body.grace_secs)
    return Answer(201, render.to_json({**render.worker_token(token), "token": secret}))


async def listing(call: Call) -> Answer:
    """`GET /jobs/workers`."""
    tokens = await call.services.tokens.all_of(call.caller)
    return Answer(200, render.to_json({"workers": [render.worker_token(token) for token in tokens]}))


async def revoke(call: Call) -> Answer:
    """`DELETE /jobs/workers/{id}`."""
    await call.services.tokens.revoke(call.caller, _id(call))
    return Answer(204)


def _id(call: Call) -> UUID:
    try:
        return parse_id("id", call.path["id"])
    except BadUserInput:
        raise NotFound(f"there is no live worker token {call.path['id'][:100]!r}") from None
