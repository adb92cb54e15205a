"""The admin plane: worker tokens."""

from atomo_gql.api.rest import render
from atomo_gql.api.rest.endpoint import Answer, Call
from atomo_gql.domain.errors import BadUserInput, NotFound
from atomo_gql.domain.rules import parse_id


async def mint(call: Call) -> Answer:
    """`POST /jobs/workers`."""
    token, secret = await call.services.tokens.mint(call.caller, call.body.name, call.body.queues, call.body.tenant_id)
    return Answer(201, render.to_json({**render.worker_token(token), "token": secret}))


async def listing(call: Call) -> Answer:
    """`GET /jobs/workers`."""
    tokens = await call.services.tokens.all_of(call.caller)
    return Answer(200, render.to_json({"workers": [render.worker_token(token) for token in tokens]}))


async def revoke(call: Call) -> Answer:
    """`DELETE /jobs/workers/{id}`."""
    try:
        token_id = parse_id("id", call.path["id"])
    except BadUserInput:
        raise NotFound(f"there is no live worker token {call.path['id'][:100]!r}") from None
    await call.services.tokens.revoke(call.caller, token_id)
    return Answer(204)
