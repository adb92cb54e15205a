"""A server in front of ours that is broken in one way."""

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web


@dataclass
class Exchange:
    """A request on its way in, and its answer on the way out."""

    path: str
    headers: dict[str, str]
    body: Any  # decoded, or None where it is no JSON
    raw: bytes
    memory: dict[str, Any]  # of the broken server
    status: int = 0
    answer: Any = None
    media_type: str = field(default="application/json")


Tamper = Callable[[Exchange], None]


@contextlib.asynccontextmanager
async def broken(target: str, *, before: Tamper | None = None, after: Tamper | None = None) -> AsyncIterator[str]:
    """The address of a server that answers as `target` does, but for what is done to each exchange."""
    memory: dict[str, Any] = {}

    async def handle(request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        headers = {n: v for n, v in request.headers.items() if n.lower() not in ("host", "content-length")}
        exchange = Exchange(request.path, headers, _decoded(raw), raw, memory)
        if before:
            before(exchange)
            if exchange.body is not None and exchange.body != _decoded(raw):
                exchange.raw = json.dumps(exchange.body).encode()
        async with http.request(
            request.method, target + exchange.path, data=exchange.raw, headers=exchange.headers
        ) as response:
            content = await response.read()
            exchange.status, exchange.media_type = response.status, response.content_type
            exchange.answer = _decoded(content)
        if after:
            after(exchange)
        if exchange.status == 204:
            return web.Response(status=204)
        content = content if exchange.answer is None else json.dumps(exchange.answer).encode()
        return web.Response(status=exchange.status, body=content, content_type=exchange.media_type)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(application, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


def _decoded(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
