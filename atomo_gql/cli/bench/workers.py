"""How throughput goes with the number of lease loops that ask at the same time."""

import contextlib
from collections.abc import AsyncIterator

import orjson

from atomo_gql.cli.bench import fill
from atomo_gql.cli.bench.drain import mint
from atomo_gql.cli.bench.figures import Figure, Measure, Scenario, Tell
from atomo_gql.cli.bench.rig import Place, Rig, module

_LOOPS = (1, 4, 16, 64, 256)
_JOBS = 20_000


async def _looped(place: Place, loops: int, count: float) -> Figure:
    total = fill.rounded(count)
    await fill.emptied(place.store)
    await fill.queued(place.store, ["loops"], total)
    _, token = await mint(place, ["loops"])
    used = place.server.cpu_seconds()
    arguments = (str(place.server.port), "loops", str(total), str(loops))
    async with module("loops", *arguments, piped=True, ATOMO_WORKER_TOKEN=token) as process:
        out = await process.stdout.read()
        if await process.wait():
            raise RuntimeError("the lease loops failed; the lines above say why")
    found = orjson.loads(out)
    return Figure(found["rate"], cpu=(place.server.cpu_seconds() - used) / total * 1e6, busy=found["busy"])


@contextlib.asynccontextmanager
async def _prepare(rig: Rig, scale: float, tell: Tell) -> AsyncIterator[list[Measure]]:
    def measure(loops: int) -> Measure:
        name = f"{loops} loop" + ("s" if loops > 1 else "")
        before = _LOOPS[_LOOPS.index(loops) - 1] if loops > _LOOPS[0] else None
        return Measure(
            name,
            "jobs/s",
            lambda scale: _looped(rig.place, loops, _JOBS * scale * min(1.0, 0.2 + loops / 20)),
            against=None if before is None else f"{before} loop" + ("s" if before > 1 else ""),
            wanted=None if before is None else 0.9,
            x=loops,
        )

    yield [measure(loops) for loops in _LOOPS]


SCENARIO = Scenario("workers", "Lease loops at a time, ten jobs a request", _prepare, x="lease loops")
