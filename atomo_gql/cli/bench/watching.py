"""How long a worker's progress takes to a page, with many pages open, and what a page costs the server.

Each socket watches a job of its own over `graphql-transport-ws`. Progress is sent at a steady pace; the time runs from
before the worker's request until the frame is there, in one process and by one clock.
"""

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson

from atomo_gql.cli.bench import fill
from atomo_gql.cli.bench.drain import mint
from atomo_gql.cli.bench.figures import Figure, Measure, Scenario, Tell, percentiles
from atomo_gql.cli.bench.pickup import ROUND_TRIP, round_trips
from atomo_gql.cli.bench.rig import Rig

_QUEUE = "watched"
_SOCKETS = 2_000
_REPORTS = 2_000
_PACE = 200  # progress reports per second
_WATCH = "subscription ($id: ID!) { jobProgress(id: $id) { percent } }"


class Page:
    """A socket that watches one job, and notes when each progress arrives."""

    def __init__(self) -> None:
        self.seen: dict[float, float] = {}  # percent → when
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def watch(self, http: aiohttp.ClientSession, url: str, jwt: str, job_id: str) -> None:
        """Until it is cancelled."""
        async with http.ws_connect(f"{url}/graphql", protocols=["graphql-transport-ws"], max_msg_size=0) as socket:
            await socket.send_json({"type": "connection_init", "payload": {"authorization": f"Bearer {jwt}"}})
            await socket.receive()
            payload = {"query": _WATCH, "variables": {"id": job_id}}
            await socket.send_json({"id": "1", "type": "subscribe", "payload": payload})
            async for message in socket:
                now = time.perf_counter()
                percent = orjson.loads(message.data)["payload"]["data"]["jobProgress"]["percent"]
                if percent is None:
                    if not self.ready.done():
                        self.ready.set_result(None)
                else:
                    self.seen[percent] = now


class Pages:
    """So many open pages, each on a leased job."""

    def __init__(self, rig: Rig, http: aiohttp.ClientSession) -> None:
        self._place, self._http = rig.place, http
        self._watching: list[asyncio.Task[None]] = []
        self._numbers = iter(range(1, 1_000_000_000))
        self.pages: dict[str, Page] = {}
        self.kib_each = 0.0

    async def open(self, count: int) -> None:
        """Enqueue, lease and watch, until every page has seen its job."""
        await fill.queued(self._place.store, [_QUEUE], count)
        _, token = await mint(self._place, [_QUEUE])
        self._worker = {"x-worker-token": token}
        self._leased: list[dict[str, Any]] = []
        body = {"queues": [_QUEUE], "capacity": fill.BATCH, "visibilitySecs": 86_400}
        while len(self._leased) < count:
            async with self._http.post(f"{self._place.url}/jobs/lease", json=body, headers=self._worker) as answer:
                self._leased += (await answer.json())["jobs"]
        before = self._place.server.resident_kib()
        for job in self._leased:
            page = self.pages[job["id"]] = Page()
            self._watching.append(
                asyncio.create_task(page.watch(self._http, self._place.url, self._place.jwt, job["id"]))
            )
            if len(self._watching) % 50 == 0:
                await page.ready
        await asyncio.gather(*(page.ready for page in self.pages.values()))
        self.kib_each = (self._place.server.resident_kib() - before) / len(self.pages)

    async def close(self) -> None:
        """Close them all."""
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)

    async def measure(self, scale: float) -> Figure:
        """The median latency in ms, and the 99th percentile."""
        sent: dict[tuple[str, float], float] = {}
        gc.disable()  # the clock is here: what this process itself stops for is nobody's latency

        async def report() -> None:
            number = next(self._numbers)
            job, percent = self._leased[number % len(self._leased)], float(number)
            sent[job["id"], percent] = time.perf_counter()
            body = {"leaseId": job["leaseId"], "percent": percent}
            url = f"{self._place.url}/jobs/{job['id']}/progress"
            async with self._http.post(url, json=body, headers=self._worker) as answer:
                answer.raise_for_status()

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(max(100, int(_REPORTS * scale))):
                await asyncio.sleep(max(0.0, began + number / _PACE - time.perf_counter()))
                group.create_task(report())
        await asyncio.sleep(1)
        gc.enable()
        seen = [
            (self.pages[job_id].seen[percent] - at) * 1000
            for (job_id, percent), at in sent.items()
            if percent in self.pages[job_id].seen
        ]
        return percentiles(seen, **{"arrived": len(seen) / len(sent), "KiB a page": self.kib_each})


@contextlib.asynccontextmanager
async def _prepare(rig: Rig, scale: float, tell: Tell) -> AsyncIterator[list[Measure]]:
    count = fill.rounded(_SOCKETS * scale)
    tell(f"opening {count:,} pages")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        pages = Pages(rig, http)
        try:
            await pages.open(count)
            name = f"progress to one of {count:,} open pages"
            yield [
                Measure(
                    ROUND_TRIP,
                    "ms",
                    lambda scale: round_trips(rig, http, max(100, int(_REPORTS * scale)), 1 / _PACE),
                    less_is_better=True,
                ),
                Measure(name, "ms", pages.measure, ROUND_TRIP, less_is_better=True),
            ]
        finally:
            await pages.close()


SCENARIO = Scenario("watching", "From a worker's progress to a page", _prepare)
