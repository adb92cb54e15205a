"""What every HTTP answer has: a request id, a line in the log, a count for Prometheus; and paths that are not there."""

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import Awaitable

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atomo_gql.api.errors import problem
from atomo_gql.domain.errors import AtomoError, NotFound, TooManyRequests, Unavailable
from atomo_gql.service import metrics

log = logging.getLogger("atomo_gql.http")

ALWAYS_OPEN = ("/healthz", "/readyz", "/metrics")  # however busy: who watches the service must not take it for dead
_MAX_REQUEST_ID = 128


class RequestLog:
    """Middleware: names each request, measures it, and writes it down."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        """`most`: requests and WebSockets under way at a time; more are refused."""
        self._app = app
        self._most = most
        self._under_way = 0
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, unless there is too much under way."""
        if scope["path"].endswith("\n"):  # a route's pattern would take it for nothing
            await not_found(scope, receive, send)
            return
        if self._under_way >= self._most and scope["path"] not in ALWAYS_OPEN:
            await refuse(scope, send, TooManyRequests(f"{self._most} connections are in use already; try again"))
            return
        self._under_way += 1
        try:
            if scope["type"] == "http":
                await self._watched(scope, receive, send)
            else:
                await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not _is_cancelled():
                raise
        finally:
            self._under_way -= 1

    async def _watched(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = self._request_id(scope)
        began = time.perf_counter()
        status = 0

        def note(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            return send(message)

        structlog.contextvars.bind_contextvars(request_id=request_id.decode())
        try:
            await self._app(scope, receive, note)
        except asyncio.CancelledError:
            if not _is_cancelled():
                raise
            if not status:
                await refuse(scope, note, Unavailable("the server is stopping; try again"))
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


def _is_cancelled() -> bool:
    """Whether uvicorn has cancelled the request, since the server stops and waits no longer; else it is a fault."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Any path that is not a route."""
    await refuse(scope, send, NotFound(f"there is nothing at {scope['path'][:200]!r}; see /openapi.json"))


async def refuse(scope: Scope, send: Send, error: AtomoError) -> None:
    """Answer with a problem, before any route has a say."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    status, body = problem(error)
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
    if isinstance(error, TooManyRequests):
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
