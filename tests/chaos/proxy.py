"""A proxy that loses, delays and doubles."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web


class Proxy:
    """Passes every request on to `target`; of every ten, one loses its answer, one is doubled and one is late."""

    def __init__(self, target: str) -> None:
        self.url = ""
        self.dropped = self.doubled = self.delayed = 0
        self._target = target
        self._numbers = itertools.count(1)
        self._strays: set[asyncio.Task[None]] = set()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        number = next(self._numbers)
        match number % 10:
            case 3:
                self.doubled += 1
                late = asyncio.create_task(self._again(request, body, 0.3 * (number % 3)))
                self._strays.add(late)
                late.add_done_callback(self._strays.discard)
            case 6:
                self.delayed += 1
                await asyncio.sleep(0.2)
            case _:
                pass
        answer = await self._pass_on(request, body)
        if number % 10 == 0 and request.transport is not None:
            self.dropped += 1
            request.transport.close()
        return answer

    async def _again(self, request: web.Request, body: bytes, seconds: float) -> None:
        await asyncio.sleep(seconds)
        with contextlib.suppress(aiohttp.ClientError):
            await self._pass_on(request, body)

    async def _pass_on(self, request: web.Request, body: bytes) -> web.Response:
        headers = {n: v for n, v in request.headers.items() if n.lower() not in ("host", "content-length")}
        async with self._http.request(
            request.method, self._target + request.path_qs, data=body, headers=headers
        ) as answer:
            headers = {"Content-Type": answer.headers.get("Content-Type", "")}
            return web.Response(status=answer.status, body=await answer.read(), headers=headers)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        """Listens for the length of the block."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as self._http:
            application = web.Application(client_max_size=2**26)
            application.router.add_route("*", "/{path:.*}", self._handle)
            runner = web.AppRunner(application)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            try:
                yield self
            finally:
                for stray in list(self._strays):
                    stray.cancel()
                await runner.cleanup()
