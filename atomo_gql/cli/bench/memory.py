"""What a server holds in memory while jobs go through it and pages are open: bounded, or growing."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import aiohttp

from atomo_gql.cli.bench import fill
from atomo_gql.cli.bench.drain import drained
from atomo_gql.cli.bench.figures import Figure, Measure, Scenario, Tell
from atomo_gql.cli.bench.rig import Rig
from atomo_gql.cli.bench.watching import Pages

_JOBS = 1_000_000
_PARTS = 20
_PAGES = 2_000


class _Memory:
    def __init__(self, rig: Rig) -> None:
        self._place = rig.place
        self._pause = 60 * rig.minutes / _PARTS
        self._next_at = 0.0
        self._parts = 0

    async def after(self, parts: int, count: float) -> Figure:
        """What it holds, in MiB, when so many parts of the jobs have gone through the server."""
        found = Figure(0.0)
        while self._parts < parts:
            await asyncio.sleep(self._next_at - time.monotonic())
            self._next_at = time.monotonic() + self._pause
            await fill.queued(self._place.store, ["memory"], count)
            found = await drained(self._place, ["memory"], count)
            self._parts += 1
        return Figure(self._place.server.resident_kib() / 1024, cpu=found.cpu, more={"jobs/s": found.value})


@contextlib.asynccontextmanager
async def _prepare(rig: Rig, scale: float, tell: Tell) -> AsyncIterator[list[Measure]]:
    each = _JOBS * scale / _PARTS
    memory = _Memory(rig)

    def measure(number: int) -> Measure:
        after = fill.rounded(each) * number
        first = f"after {fill.rounded(each) * 2:,} jobs"  # by then every cache and pool is there
        return Measure(
            f"after {after:,} jobs",
            "MiB",
            lambda _: memory.after(number, each),
            against=first if number > 2 else None,
            wanted=1.2 if number == _PARTS else None,
            less_is_better=True,
            x=after,
        )

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        pages = Pages(rig, http)
        try:
            await pages.open(fill.rounded(_PAGES * scale))
            yield [measure(number) for number in range(1, _PARTS + 1)]
        finally:
            await pages.close()


SCENARIO = Scenario(
    "memory", "The server's memory, with 2,000 pages open", _prepare, warm_up=0, rounds=1, x="jobs through the server"
)
