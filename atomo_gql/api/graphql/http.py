"""GraphQL over HTTP and over server-sent events.

After the GraphQL-over-HTTP draft, and the «distinct connections» mode of the graphql-sse protocol.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from urllib.parse import parse_qs

import msgspec
import orjson
from starlette.types import Message, Receive, Scope, Send

from atomo_gql.api.errors import STATUS, MethodNotAllowed
from atomo_gql.api.graphql.context import Context
from atomo_gql.api.graphql.documents import Operation
from atomo_gql.api.graphql.engine import Engine, Refused, Reply, Request, refusal, request_of
from atomo_gql.api.loose import explained
from atomo_gql.api.rest.endpoint import check_media_type, error_headers, read_away, read_body
from atomo_gql.domain.errors import AtomoError, BadUserInput, PayloadTooLarge, Unauthenticated
from atomo_gql.domain.principals import remaining_secs

_STREAM = "text/event-stream"
_RESPONSE = "application/graphql-response+json"
_METHODS = ("GET", "HEAD", "POST")
_KEEP_ALIVE_SECS = 12


def parse_json(text: str | bytes) -> Any:
    """Any JSON, with whole numbers of any size, so that those beyond 64 bits are refused and not rounded.

    Raises:
        BadUserInput: it is not JSON.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise explained(text, error, "the request") from None


def to_json(value: Any) -> bytes:
    """Encode what resolvers and scalars have made."""
    return orjson.dumps(value)


async def exchange(
    scope: Scope, receive: Receive, send: Send, engine: Engine, context: Context, most: int, ending: asyncio.Event
) -> None:
    """Answer one request of a caller who has been let in. A stream of events is cut when `ending` is set."""
    headers = dict(scope["headers"])
    accept = headers.get(b"accept", b"").decode("latin-1").lower()
    media_type = _RESPONSE if _RESPONSE in accept else "application/json"
    request = await _request(scope, receive, headers, most)
    try:
        operation = engine.prepare(request)
        if operation.is_mutation and scope["method"] != "POST":
            raise MethodNotAllowed("a mutation must be sent with POST")
        # Some clients offer everything they can read with every request; what answers once is then answered as JSON.
        if _STREAM in accept and (operation.is_subscription or "json" not in accept):
            await _send_stream(send, receive, context, engine, operation, request, ending)
            return
        if operation.is_subscription:
            raise Refused([refusal(BadUserInput(f"a subscription needs a WebSocket, or Accept: {_STREAM}"))])
        reply, status = await engine.run(operation, request, context), 200
    except Refused as refused:
        if _STREAM in accept and "json" not in accept:  # its client reads nothing else
            await _send_refusal(send, refused)
            return
        # In the older media type, a request that was understood is 200, whatever came of it.
        reply, status = {"errors": refused.errors}, 400 if media_type == _RESPONSE else 200
    await _send(send, status, to_json(reply), media_type)


async def refuse(receive: Receive, send: Send, error: AtomoError) -> None:
    """Answer a request that is not taken, in the shape GraphQL clients read."""
    body = to_json({"errors": [refusal(error)]})
    headers = error_headers(error, _METHODS)
    is_unread = isinstance(error, PayloadTooLarge)
    await _send(send, STATUS[error.code], body, "application/json", headers, more=is_unread)
    if is_unread:
        await read_away(receive)
        await send({"type": "http.response.body", "body": b""})


def check_method(scope: Scope) -> None:
    """Refuse methods that mean nothing here.

    Raises:
        MethodNotAllowed: neither GET nor POST.
    """
    if scope["method"] not in _METHODS:
        raise MethodNotAllowed(f"/graphql takes {', '.join(_METHODS)}, not {scope['method']}")


async def _request(scope: Scope, receive: Receive, headers: dict[bytes, bytes], most: int) -> Request:
    if scope["method"] == "POST":
        check_media_type(headers.get(b"content-type"))
        return request_of(parse_json(await read_body(receive, headers, most)))
    given: dict[str, Any] = {
        name: values[-1] for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()
    }
    if variables := given.get("variables"):
        given["variables"] = parse_json(variables)
    return request_of(given)


async def _send(
    send: Send,
    status: int,
    body: bytes,
    media_type: str,
    extra: list[tuple[bytes, bytes]] | None = None,
    *,
    more: bool = False,
) -> None:
    headers = [
        (b"content-type", f"{media_type}; charset=utf-8".encode()),
        (b"content-length", b"%d" % len(body)),
        *(extra or ()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _send_stream(
    send: Send,
    receive: Receive,
    context: Context,
    engine: Engine,
    operation: Operation,
    request: Request,
    ending: asyncio.Event,
) -> None:
    """Events until the operation ends, the token expires, the client goes or the server ends.

    A stream that the server cuts has no `complete`, so that its client subscribes anew, at another server.
    """
    headers = [
        (b"content-type", f"{_STREAM}; charset=utf-8".encode()),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    sending = asyncio.create_task(_events(send, context, engine, operation, request))
    tasks = (sending, asyncio.create_task(_hung_up(receive)), asyncio.create_task(ending.wait()))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await send({"type": "http.response.body", "body": b""})


async def _send_refusal(send: Send, refused: Refused) -> None:
    event = b"event: next\ndata: %b\n\nevent: complete\ndata:\n\n" % to_json({"errors": refused.errors})
    await _send(send, 200, event, _STREAM)


async def _events(send: Send, context: Context, engine: Engine, operation: Operation, request: Request) -> None:
    try:
        async with asyncio.timeout(remaining_secs(context.caller)):
            async with aclosing(_replies(engine, operation, request, context)) as replies:
                async for reply in _kept_alive(replies):
                    await _send_event(send, b"" if reply is None else b"event: next\ndata: %b\n\n" % to_json(reply))
    except Refused as refused:
        await _send_event(send, b"event: next\ndata: %b\n\n" % to_json({"errors": refused.errors}))
    except TimeoutError:
        expired = refusal(Unauthenticated("the token has expired"))
        await _send_event(send, b"event: next\ndata: %b\n\n" % to_json({"errors": [expired]}))
    await _send_event(send, b"event: complete\ndata:\n\n")


async def _replies(engine: Engine, operation: Operation, request: Request, context: Context) -> AsyncGenerator[Reply]:
    if not operation.is_subscription:
        yield await engine.run(operation, request, context)
        return
    async with aclosing(engine.stream(operation, request, context)) as replies:
        async for reply in replies:
            yield reply


async def _kept_alive(replies: AsyncGenerator[Reply]) -> AsyncGenerator[Reply | None]:
    """The replies, and None when there has been none for a while: proxies cut a connection that is silent."""
    following = asyncio.ensure_future(anext(replies, None))
    try:
        while True:
            done, _ = await asyncio.wait({following}, timeout=_KEEP_ALIVE_SECS)
            if not done:
                yield None
                continue
            if (reply := following.result()) is None:
                return
            yield reply
            following = asyncio.ensure_future(anext(replies, None))
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _send_event(send: Send, event: bytes) -> None:
    message: Message = {"type": "http.response.body", "body": event or b":\n\n", "more_body": True}
    await send(message)


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
