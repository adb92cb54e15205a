"""What every HTTP answer has: a request id, a line in the log, a count for Prometheus; and paths that are not there."""

import itertools
import logging
import secrets
import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atomo_gql.api.errors import problem
from atomo_gql.domain.errors import NotFound
from atomo_gql.service import metrics

log = logging.getLogger("atomo_gql.http")

_MAX_REQUEST_ID = 128


class RequestLog:
    """Middleware: names each request, measures it, and writes it down."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, watching the answer go by."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = self._request_id(scope)
        began = time.perf_counter()
        status = 0

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        structlog.contextvars.bind_contextvars(request_id=request_id.decode())
        try:
            await self._app(scope, receive, note)
        finally:
            took = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", "unknown")
            metrics.observe(route, scope["method"] if route != "unknown" else "-", status, took)
            level = logging.ERROR if status >= 500 else logging.DEBUG
            if log.isEnabledFor(level):
                log.log(level, "%s %s %d in %.1f ms", scope["method"], scope["path"], status, took * 1000)

    def _request_id(self, scope: Scope) -> bytes:
        for name, value in scope["headers"]:
            if (
                name == b"x-request-id"
                and 0 < len(value) <= _MAX_REQUEST_ID
                and value.isascii()
                and value.decode().isprintable()
            ):
                given: bytes = value
                return given
        return f"{self._prefix}-{next(self._numbers):x}".encode()


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Any path that is not a route."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    status, body = problem(NotFound(f"there is nothing at {scope['path'][:200]}; see /openapi.json"))
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
