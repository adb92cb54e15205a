"""`/graphql`: who is let in, and to which transport."""

import asyncio

from starlette.types import Receive, Scope, Send

from atomo_gql.api.errors import internal
from atomo_gql.api.graphql import explorer, http
from atomo_gql.api.graphql.context import Context
from atomo_gql.api.graphql.engine import Engine, log
from atomo_gql.api.graphql.schema import core_schema
from atomo_gql.api.graphql.socket import GraphQLSocket
from atomo_gql.api.rest.endpoint import Doors, header_text
from atomo_gql.api.rest.jobs import trace_of
from atomo_gql.api.sockets import refuse_upgrade
from atomo_gql.domain.errors import AtomoError
from atomo_gql.domain.principals import Caller


class GraphQLApp:
    """An ASGI application over HTTP, SSE and WebSocket. Nothing here is reached by a cookie, so any origin may ask."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._engine = Engine(core_schema())
        self._ending = asyncio.Event()

    def end_streams(self) -> None:
        """The server ends: cut the streams of events, which would hold it up for as long as their jobs last."""
        self._ending.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or one connection."""
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
            return
        try:
            http.check_method(scope)
            headers = dict(scope["headers"])
            if explorer.wants_page(scope, headers):
                await explorer.page(scope, send)
                return
            context = self._context(headers)
            context.maybe_caller = await self._caller(headers)
            await http.exchange(scope, receive, send, self._engine, context, self._doors.max_batch, self._ending)
        except AtomoError as error:
            await http.refuse(receive, send, error)
        except Exception:
            log.exception("%s /graphql failed", scope["method"])
            await http.refuse(receive, send, internal())

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        try:
            context = self._context(headers)
            if b"authorization" in headers:
                context.maybe_caller = await self._caller(headers)
        except AtomoError as error:
            await refuse_upgrade(scope, send, error)
            return
        await GraphQLSocket(self._engine, self._doors.authenticator, context, scope).converse(receive, send)

    def _context(self, headers: dict[bytes, bytes]) -> Context:
        tenant, trace = headers.get(b"x-tenant-id"), headers.get(b"traceparent")
        return Context(
            self._doors.services,
            self._doors.authenticator,
            tenant_header=None if tenant is None else header_text("X-Tenant-ID", tenant),
            trace=trace_of(trace.decode("latin-1")) if trace else None,
        )

    async def _caller(self, headers: dict[bytes, bytes]) -> Caller:
        authorization, tenant = headers.get(b"authorization"), headers.get(b"x-tenant-id")
        return await self._doors.authenticator.caller(
            None if authorization is None else authorization.decode("latin-1"),
            None if tenant is None else header_text("X-Tenant-ID", tenant),
        )
