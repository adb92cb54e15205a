"""What a job costs at each stage of its life: CPU of server and database, and bytes of the write-ahead log."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from atomo_gql.cli.bench import fill
from atomo_gql.cli.bench.drain import drained, mint
from atomo_gql.cli.bench.figures import Figure, Measure, Scenario, Tell
from atomo_gql.cli.bench.load import post
from atomo_gql.cli.bench.rig import Place, Rig, generate
from atomo_gql.cli.bench.target import TICKS, Target, children

_JOBS = 10_000
_QUEUE = "stages"
_JOB = {"queue": _QUEUE, "kind": "noop", "payload": {"n": 1}}


@dataclass(frozen=True, slots=True)
class _Cost:
    """So far, of everything."""

    server: float  # CPU seconds
    database: float | None  # CPU seconds of its processes; None where they are not to be seen from here
    wal: int  # bytes


class _Stages:
    def __init__(self, place: Place, http: aiohttp.ClientSession, token: str) -> None:
        self._place, self._http = place, http
        self._worker = {"x-worker-token": token}

    async def enqueue(self, scale: float) -> Figure:
        request = post("/jobs", _JOB, **self._place.bearer)
        count = fill.rounded(_JOBS * scale / 2)
        return await self._cost(count, lambda: generate(self._place.server, request, count, 32, 201))

    async def batch(self, scale: float) -> Figure:
        count = fill.rounded(_JOBS * scale)
        request = post("/jobs/batch", {"jobs": [_JOB] * fill.BATCH}, **self._place.bearer)
        return await self._cost(count, lambda: generate(self._place.server, request, count // fill.BATCH, 2, 201))

    async def lease(self, scale: float) -> Figure:
        await self._filled(count := fill.rounded(_JOBS * scale))
        return await self._cost(count, lambda: self._lease(count))

    async def complete(self, scale: float) -> Figure:
        await self._filled(count := fill.rounded(_JOBS * scale))
        leased = await self._lease(count)

        async def report() -> None:
            for jobs in leased:
                reports = [{"type": "complete", "id": j["id"], "leaseId": j["leaseId"], "result": None} for j in jobs]
                await self._post("/jobs/reports", {"reports": reports})

        return await self._cost(count, report)

    async def whole(self, scale: float) -> Figure:
        await self._filled(count := fill.rounded(_JOBS * scale))
        return await self._cost(count, lambda: drained(self._place, [_QUEUE], count))

    async def _filled(self, count: int) -> None:
        await fill.emptied(self._place.store)
        await fill.queued(self._place.store, [_QUEUE], count)

    async def _lease(self, count: int) -> list[Any]:
        body = {"queues": [_QUEUE], "capacity": fill.BATCH, "visibilitySecs": 600}
        return [(await self._post("/jobs/lease", body))["jobs"] for _ in range(count // fill.BATCH)]

    async def _post(self, path: str, body: object) -> Any:
        async with self._http.post(f"{self._place.url}{path}", json=body, headers=self._worker) as answer:
            answer.raise_for_status()
            return await answer.json()

    async def _cost(self, count: int, work: Callable[[], Awaitable[object]]) -> Figure:
        before = await self.so_far()
        await work()
        await asyncio.sleep(0.1)  # what is told to others after the answer
        after = await self.so_far()
        costs = {"server µs": (after.server - before.server) / count * 1e6}
        if before.database is not None and after.database is not None:
            costs["database µs"] = (after.database - before.database) / count * 1e6
        return Figure(sum(costs.values()), more={**costs, "WAL bytes": (after.wal - before.wal) / count})

    async def so_far(self) -> _Cost:
        """Of server and database."""
        async with self._place.store.connection() as sql:
            wal = await sql.fetchval("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")
            pid, name = await sql.fetchrow("SELECT pg_backend_pid(), current_database()")
        return _Cost(self._place.server.cpu_seconds(), of_processes(pid, name), wal)


def of_processes(pid: int, name: str) -> float | None:
    """CPU seconds of the PostgreSQL that has this backend, in the database of that name.

    None where /proc knows no such backend, as on another machine: the number may be anybody's here.
    """
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes()  # postgres: its user, the database, …
        if not title.startswith(b"postgres: ") or f" {name} ".encode() not in title:
            return None
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        ended = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    living = sum(Target(0, child).cpu_seconds() for child in children(parent))
    return living + (int(ended[13]) + int(ended[14])) / TICKS


@contextlib.asynccontextmanager
async def _prepare(rig: Rig, scale: float, tell: Tell) -> AsyncIterator[list[Measure]]:
    async with aiohttp.ClientSession() as http:
        _, token = await mint(rig.place, [_QUEUE])
        stages = _Stages(rig.place, http, token)
        name = "{}" if (await stages.so_far()).database is not None else "{} (of the server alone)"
        runs = {
            "enqueue, one by one": stages.enqueue,
            "enqueue, in hundreds": stages.batch,
            "lease, in hundreds": stages.lease,
            "complete, in hundreds": stages.complete,
            "lease and complete, by a worker": stages.whole,
        }
        yield [Measure(name.format(stage), "µs", run, less_is_better=True) for stage, run in runs.items()]


SCENARIO = Scenario("stages", "What a job costs at each stage (CPU of server and database)", _prepare)
