"""What both kinds of WebSocket share."""

from starlette.types import Scope, Send

from atomo_gql.api.errors import problem
from atomo_gql.domain.errors import AtomoError


async def refuse_upgrade(scope: Scope, send: Send, error: AtomoError) -> None:
    """Answer the handshake with a problem instead of an open connection."""
    status, body = problem(error)
    if "websocket.http.response" in scope.get("extensions", {}):
        headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
    else:
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
