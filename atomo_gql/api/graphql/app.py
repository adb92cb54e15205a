"""The ASGI view: JSON, authentication for HTTP and WebSocket, and the limits that are not the schema's."""

from datetime import timedelta
from json import JSONDecodeError
from typing import Any

import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import ASGIWebSocketAdapter, GraphQL
from strawberry.exceptions import ConnectionRejectionError
from strawberry.subscriptions import GRAPHQL_SSE_PROTOCOL, GRAPHQL_TRANSPORT_WS_PROTOCOL, GRAPHQL_WS_PROTOCOL

from atomo_gql.api.errors import problem
from atomo_gql.api.graphql.context import Context
from atomo_gql.api.graphql.schema import schema
from atomo_gql.api.rest.endpoint import Doors, header_text
from atomo_gql.api.rest.jobs import trace_of
from atomo_gql.domain.errors import AtomoError, PayloadTooLarge

_MAX_OPERATIONS = 100  # under way on one WebSocket


class _TextWebSocket(ASGIWebSocketAdapter):
    """Sends frames as text, which is what every client reads."""

    async def send_json(self, message: Any) -> None:
        await self.ws.send_text(orjson.dumps(message).decode())


class GraphQLApp(GraphQL[Context, None]):
    """`/graphql`, over HTTP, SSE and WebSocket."""

    websocket_adapter_class = _TextWebSocket

    def __init__(self, doors: Doors) -> None:
        super().__init__(
            schema,
            graphql_ide=None,
            subscription_protocols=(
                GRAPHQL_TRANSPORT_WS_PROTOCOL,
                GRAPHQL_WS_PROTOCOL,
                GRAPHQL_SSE_PROTOCOL,
            ),
            connection_init_wait_timeout=timedelta(seconds=10),
            max_subscriptions_per_connection=_MAX_OPERATIONS,
            # Nothing here is reached by a cookie: a page of another origin must bring a token of its own.
            allowed_origins=["*"],
        )
        self._doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse what is too large or not authenticated before anything is parsed."""
        if scope["type"] == "http":
            try:
                receive = _bounded(receive, dict(scope["headers"]), self._doors.max_body)
                await super().__call__(scope, receive, send)
            except AtomoError as error:
                status, body = problem(error)
                await Response(body, status, media_type="application/problem+json")(scope, receive, send)
            return
        await super().__call__(scope, receive, send)

    def decode_json(self, data: str | bytes) -> object:
        """Keeps whole numbers of any size, so that those beyond 64 bits are refused and not rounded."""
        try:
            return msgspec.json.decode(data)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise JSONDecodeError(str(error), "", 0) from None

    def encode_json(self, data: object) -> str | bytes:
        """Bytes; the WebSocket has its own way."""
        return orjson.dumps(data)

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:
        """Who is calling, by the header. A WebSocket may say so later, in `connection_init`."""
        headers = dict(request.scope["headers"])
        context = Context(self._doors.services, headers)
        if request.scope["type"] == "http" or b"authorization" in headers:
            context.maybe_caller = await self._authenticate(headers, headers.get(b"authorization"))
        trace = headers.get(b"traceparent")
        context.trace = trace_of(trace.decode("latin-1")) if trace else None
        return context

    async def on_ws_connect(self, context: Context) -> Any:
        """`connection_init`: the token is in its payload, unless it came with the handshake."""
        params = context.connection_params or {}
        token = params.get("authorization", params.get("Authorization"))
        if token is None and context.maybe_caller is not None:
            return await super().on_ws_connect(context)
        try:
            authorization = token.encode() if isinstance(token, str) else None
            context.maybe_caller = await self._authenticate(context.headers, authorization)
        except AtomoError as error:
            raise ConnectionRejectionError({"message": error.detail, **error.extensions}) from None
        return await super().on_ws_connect(context)

    async def _authenticate(self, headers: dict[bytes, bytes], authorization: bytes | None) -> Any:
        tenant = headers.get(b"x-tenant-id")
        return await self._doors.authenticator.caller(
            None if authorization is None else authorization.decode("latin-1"),
            None if tenant is None else header_text("X-Tenant-ID", tenant),
        )


def _bounded(receive: Receive, headers: dict[bytes, bytes], most: int) -> Receive:
    announced = headers.get(b"content-length", b"0")
    if announced.isdigit() and int(announced[:20]) > most:
        raise PayloadTooLarge(f"the body must have at most {most} bytes, not {announced[:20].decode()}")
    size = 0

    async def bounded() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > most:
            raise PayloadTooLarge(f"the body must have at most {most} bytes")
        return message

    return bounded
