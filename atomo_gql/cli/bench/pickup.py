"""How long an idle worker takes to begin a job: one every 50 ms, from the call that enqueues it to its handler."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import aiohttp

from atomo_gql.cli.bench.drain import mint
from atomo_gql.cli.bench.figures import Figure, Measure, Scenario, Tell, percentiles
from atomo_gql.cli.bench.rig import Rig, module

ROUND_TRIP = "a round trip to the echo"
_QUEUE, _EVERY = "pickup", 0.05  # s


class _Pickup:
    def __init__(self, rig: Rig, http: aiohttp.ClientSession, lines: asyncio.StreamReader) -> None:
        self._rig, self._http, self._lines = rig, http, lines

    async def pickup(self, scale: float) -> Figure:
        return percentiles([await self._one() for _ in range(max(10, int(200 * scale)))])

    async def _one(self) -> float:
        await asyncio.sleep(_EVERY)
        job = {"queue": _QUEUE, "kind": "noop", "payload": {"t": time.time()}}
        async with self._http.post(f"{self._rig.place.url}/jobs", json=job) as answer:
            answer.raise_for_status()
        return float(await asyncio.wait_for(self._lines.readline(), 30))

    async def commit(self, scale: float) -> Figure:
        """What a row costs until the disk has it; before a handler starts there are two, the job's and the lease's."""
        took = []
        async with self._rig.place.store.connection() as sql:
            await sql.execute("CREATE TABLE IF NOT EXISTS bench_commits (n integer)")
            for number in range(max(10, int(200 * scale))):
                await asyncio.sleep(_EVERY)
                began = time.perf_counter()
                await sql.execute("INSERT INTO bench_commits VALUES ($1)", number)
                took.append((time.perf_counter() - began) * 1000)
        return percentiles(took)


async def round_trips(rig: Rig, http: aiohttp.ClientSession, count: int, every: float) -> Figure:
    """To the bare echo, one every so many seconds: what the machine gives, in ms."""
    took = []
    for _ in range(count):
        await asyncio.sleep(every)
        began = time.perf_counter()
        url = f"http://127.0.0.1:{rig.echo.port}/jobs"
        async with http.post(url, json={"queue": _QUEUE, "kind": "noop"}) as answer:
            await answer.read()
        took.append((time.perf_counter() - began) * 1000)
    return percentiles(took)


@contextlib.asynccontextmanager
async def _prepare(rig: Rig, scale: float, tell: Tell) -> AsyncIterator[list[Measure]]:
    _, token = await mint(rig.place, [_QUEUE])
    environment = {"ATOMO_URL": rig.place.url, "ATOMO_WORKER_TOKEN": token}
    async with (
        module("worker", "pickup", _QUEUE, piped=True, **environment) as worker,
        aiohttp.ClientSession(headers=rig.place.bearer) as http,
    ):
        await asyncio.sleep(1.5)  # until it waits
        measured = _Pickup(rig, http, worker.stdout)
        yield [
            Measure(
                ROUND_TRIP,
                "ms",
                lambda scale: round_trips(rig, http, max(10, int(200 * scale)), _EVERY),
                less_is_better=True,
            ),
            Measure("a commit of one row", "ms", measured.commit, less_is_better=True),
            Measure(
                "pickup", "ms", measured.pickup, ROUND_TRIP, less_is_better=True, limits={"value": 4.0, "p99": 8.0}
            ),
        ]


SCENARIO = Scenario("pickup", "From enqueue to the handler's start, an idle worker", _prepare, warm_up=0.2)
