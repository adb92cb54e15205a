"""Whether a job costs the same however much has piled up: drains beside those on an empty database."""

import asyncio
import base64
import contextlib
import os
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp

from atomo_gql.cli.bench import fill
from atomo_gql.cli.bench.drain import drained, mint
from atomo_gql.cli.bench.figures import Figure, Measure, Scenario, Tell
from atomo_gql.cli.bench.rig import Place, Rig
from atomo_gql.cli.bench.worker import CONCURRENCY
from atomo_gql.store.database import Database

JOBS = 60_000  # three seconds, so that a visit of autovacuum weighs less
_QUEUE = "load"
_Around = Callable[[Place], contextlib.AbstractAsyncContextManager[None]]
_Pile = Callable[[Database], Awaitable[object]]


@contextlib.asynccontextmanager
async def _nothing(place: Place) -> AsyncIterator[None]:
    yield


@contextlib.asynccontextmanager
async def _held_snapshot(place: Place) -> AsyncIterator[None]:
    """A transaction that holds its snapshot open: nothing that dies meanwhile is cleaned away."""
    async with place.store.connection() as sql, sql.transaction(isolation="repeatable_read"):
        await sql.fetchval("SELECT pg_current_xact_id()")
        yield


@contextlib.asynccontextmanager
async def _idle_workers(place: Place) -> AsyncIterator[None]:
    """200 long polls on queues in which nothing is."""
    _, token = await mint(place, ["*"])
    async with aiohttp.ClientSession(
        headers={"x-worker-token": token}, connector=aiohttp.TCPConnector(limit=0)
    ) as http:

        async def poll(number: int) -> None:
            body = {"queues": [f"idle {number}"], "capacity": 1, "waitSecs": 20}
            while True:
                async with http.post(f"{place.url}/jobs/lease", json=body) as answer:
                    answer.raise_for_status()
                    await answer.read()

        polls = [asyncio.create_task(poll(number)) for number in range(200)]
        await asyncio.sleep(1)
        try:
            yield
        finally:
            for task in polls:
                task.cancel()
            for outcome in await asyncio.gather(*polls, return_exceptions=True):
                if not isinstance(outcome, asyncio.CancelledError):
                    raise RuntimeError(f"a long poll ended: {outcome!r}")


def _rate(halves: list[Figure]) -> float:
    """Of drains of the same size together."""
    return statistics.harmonic_mean([half.value for half in halves])


class _Adversity:
    """On one rig."""

    def __init__(self, rig: Rig, scale: float, stack: contextlib.AsyncExitStack, tell: Tell) -> None:
        self._rig, self._scale, self._stack, self._tell = rig, scale, stack, tell

    def measure(
        self,
        name: str,
        pile: _Pile,
        *,
        around: _Around = _nothing,
        filled: list[str] | None = None,
        asked: list[str] | None = None,
        before: int = 0,
        wanted: float = 0.9,
    ) -> Measure:
        """A measure on a database of its own; `filled`: the queues that each round's jobs go to; `before`: as many jobs
        have been drained before those that are measured.

        The drains are halved, and those on the empty database come first and last: a machine that others share slows
        down and speeds up, and so it does for both.
        """
        piled_up: list[Database] = []

        async def store_of_its_own() -> Database:
            if not piled_up:  # in the first round, which warms up: not for a measure that nobody wants
                self._tell(name)
                store = await self._stack.enter_async_context(self._rig.another())
                await pile(store)
                await fill.tidy(store)
                piled_up.append(store)
            return piled_up[0]

        async def run(scale: float) -> Figure:
            store = await store_of_its_own()
            half = JOBS / 2 * scale
            async with self._rig.serving(store) as served:

                async def piled(count: float) -> Figure:
                    return await self._drain(served, filled or [_QUEUE], asked or filled or [_QUEUE], count)

                await piled(JOBS / 10 * scale)
                await asyncio.sleep(7)  # until it knows that nobody else wants its hints
                empties = [await self._on_empty(half)]
                async with around(served):
                    if before:
                        await piled(before * scale)
                    found = [await piled(half), await piled(half)]
                empties.append(await self._on_empty(half))
            cpu = statistics.mean(figure.cpu or 0.0 for figure in found)
            return Figure(_rate(found), _rate(empties), cpu=cpu)

        return Measure(name, "jobs/s", run, wanted=wanted)

    async def _on_empty(self, count: float) -> Figure:
        await fill.emptied(self._rig.place.store)
        return await self._drain(self._rig.place, [_QUEUE], [_QUEUE], count)

    async def _drain(self, place: Place, filled: list[str], asked: list[str], count: float) -> Figure:
        await fill.queued(place.store, filled, count + 2 * CONCURRENCY)  # so that each ends with its hands full
        return await drained(place, asked, count)

    def all(self) -> list[Measure]:
        """(a) to (g)."""
        n = self._scale
        now = datetime.now(UTC)
        twenty = [f"queue {number}" for number in range(20)]
        many = [f"queue {number}" for number in range(int(2_000 * min(1.0, n * 10)))]

        async def pile(store: Database, queues: list[str], count: float, **fields: Any) -> None:
            await fill.queued(store, queues, count * n, **fields)

        async def later(store: Database, count: float, priorities: int) -> None:
            """Of several priorities, half have failed and wait for their retry."""
            for nth in range(1, priorities + 1):
                await pile(store, [_QUEUE], count / priorities, priority=nth, run_at=now + timedelta(hours=nth))
            async with store.connection() as sql:
                await sql.execute("UPDATE ready SET attempts = 1, error = 'e' WHERE priority % 2 = 0", timeout=120)

        async def nothing(store: Database) -> None:
            pass

        return [
            self.measure("(a) 1,000,000 ended jobs", lambda s: fill.ended(s, int(1_000_000 * n), self._tell)),
            self.measure("(b) a backlog of 500,000", lambda s: pile(s, [_QUEUE], 500_000)),
            self.measure("(c) 200,000 scheduled, of higher priority", lambda s: later(s, 200_000, 1)),
            self.measure("(c) the same, of ten priorities, half failed", lambda s: later(s, 200_000, 10)),
            self.measure("(d) a snapshot held open", nothing, around=_held_snapshot, wanted=0.8),
            self.measure("(d) the same, after 50,000 jobs", nothing, around=_held_snapshot, before=50_000, wanted=0.8),
            self.measure("(e) 20 queues of 10,000", lambda s: pile(s, twenty, 200_000), filled=twenty),
            self.measure("(f) 2,000 queues, [*]", lambda s: pile(s, many, JOBS), filled=many, asked=["*"]),
            self.measure("(g) 200 idle long polls", nothing, around=_idle_workers),
        ]


@contextlib.asynccontextmanager
async def _prepare(rig: Rig, scale: float, tell: Tell) -> AsyncIterator[list[Measure]]:
    async with contextlib.AsyncExitStack() as stack:
        yield _Adversity(rig, scale, stack, tell).all()


SCENARIO = Scenario("adversity", "Drain rate beside that on an empty database", _prepare, warm_up=0.1)

_KILOBYTES = 64


class _Payloads:
    """Big payloads, in MB/s: in, and out again."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._payload = base64.b64encode(os.urandom(_KILOBYTES * 768))  # 64 KiB that do not compress much

    async def plain(self, scale: float) -> Figure:
        """An insert of the same bytes into a table of one jsonb column, ten rows a statement."""
        body = (b'"' + self._payload + b'"').decode()
        async with self._rig.place.store.connection() as sql:
            await sql.execute("CREATE TABLE IF NOT EXISTS bench_plain (data jsonb)")
        count = _tens(scale)

        async def flight() -> None:
            async with self._rig.place.store.connection() as sql:
                for _ in range(count // 20):
                    await sql.execute("INSERT INTO bench_plain SELECT unnest($1::text[])::jsonb", [body] * 10)

        began = time.perf_counter()
        await asyncio.gather(flight(), flight())
        return Figure(self._megabytes(count) / (time.perf_counter() - began))

    async def enqueue(self, scale: float) -> Figure:
        """`POST /jobs/batch`, ten jobs each, on two connections."""
        place, count = self._rig.place, _tens(scale)
        job = {"queue": "big", "kind": "noop", "payload": self._payload.decode()}
        used = place.server.cpu_seconds()
        async with aiohttp.ClientSession(headers=place.bearer) as http:

            async def flight() -> None:
                for _ in range(count // 20):
                    async with http.post(f"{place.url}/jobs/batch", json={"jobs": [job] * 10}) as answer:
                        answer.raise_for_status()

            began = time.perf_counter()
            await asyncio.gather(flight(), flight())
        took = time.perf_counter() - began
        return Figure(self._megabytes(count) / took, cpu=(place.server.cpu_seconds() - used) / count * 1e6)

    async def drain(self, scale: float) -> Figure:
        """Leased and completed by a worker, after they were enqueued by SQL."""
        count = fill.rounded(_tens(scale))
        await fill.queued(self._rig.place.store, ["big out"], count, payload=b'"' + self._payload + b'"', each=20)
        found = await drained(self._rig.place, ["big out"], count)
        return Figure(found.value * self._megabytes(1), cpu=found.cpu)

    def _megabytes(self, count: int) -> float:
        return count * len(self._payload) / 1e6


def _tens(scale: float) -> int:
    return max(20, int(1_000 * scale) // 20 * 20)


@contextlib.asynccontextmanager
async def _prepare_payloads(rig: Rig, scale: float, tell: Tell) -> AsyncIterator[list[Measure]]:
    payloads = _Payloads(rig)
    plain = "a plain insert of the same bytes"
    yield [
        Measure(plain, "MB/s", payloads.plain),
        Measure("POST /jobs/batch, 10 each", "MB/s", payloads.enqueue, plain),
        Measure("lease and complete", "MB/s", payloads.drain, plain),
    ]


PAYLOADS = Scenario("payloads", "Payloads of 64 KB", _prepare_payloads)
