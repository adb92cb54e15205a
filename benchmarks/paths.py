"""What is measured. Each path answers a `Figure`; a `scale` below 1 makes every count smaller."""

import asyncio
import itertools
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp

from atomo_gql.domain.reports import Lease
from atomo_gql.store import enqueue, lease, report, tokens
from atomo_gql.store.enqueue import EnqueueRow
from atomo_gql.store.lease import LeaseRow
from atomo_gql.store.report import ReportRow
from benchmarks.load import post
from benchmarks.rig import Rig, Target, generate, process

CONNECTIONS = 32
_ECHO, _SQL, _TRIVIAL = "echo: bare Starlette", "SQL enqueue, in hundreds", "trivial Strawberry mutation"
BATCH = 100
IN_BULK = 500
_FLIGHTS = 2  # statements at a time, as the server has them
_JOB = {"queue": "load", "kind": "noop", "payload": {"n": 1}}
_MUTATION = 'mutation ($payload: JSON) { enqueueJob(queue: "load", kind: "noop", payload: $payload) }'
_BULK_MUTATION = "mutation ($jobs: [EnqueueJobInput!]!) { enqueueJobs(jobs: $jobs) }"
_LEFT = "SELECT (SELECT count(*) FROM ready WHERE queue = $1) + (SELECT count(*) FROM leases WHERE queue = $1)"
# By the database's clock, from the first lease to the last completion: the worker's start is not in it.
_DRAINED = """
SELECT (count(*) FILTER (WHERE e.type = 'succeeded') / extract(epoch FROM max(e.at) - min(e.at)))::float8
FROM job_records AS j JOIN events AS e ON e.stream_id = j.id
WHERE j.queue = $1 AND e.type IN ('leased', 'succeeded')"""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement."""

    rate: float  # per second
    cpu: float | None = None  # µs of the server's process, each
    busy: float | None = None  # of the load generator


@dataclass(frozen=True, slots=True)
class Path:
    """A way in or out."""

    name: str
    measure: Callable[[float], Awaitable[Figure]]
    against_echo: bool = False
    against: str | None = None  # another reference, such as the path that does the same with nothing but SQL
    target: float | None = None  # the least ratio
    target_of: str = ""  # to that path


class Paths:
    """On one rig."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._numbers = itertools.count(1)

    def all(self) -> list[Path]:
        """In the order they are measured: each reference next to what is held against it."""
        return [
            Path(_ECHO, self._echo),
            Path("REST enqueue, one by one", self._rest, True, _SQL, target=0.4, target_of=_ECHO),
            Path(_TRIVIAL, self._trivial),
            Path("GraphQL enqueueJob", self._graphql, True, _TRIVIAL, target=0.8, target_of=_TRIVIAL),
            Path(f"REST enqueue, batches of {IN_BULK}", self._rest_batch, True, _SQL),
            Path(f"GraphQL enqueueJobs, {IN_BULK} each", self._graphql_batch, True, _SQL, target=0.3, target_of=_SQL),
            Path(_SQL, self._sql_enqueue),
            Path("SDK lease + complete", self._sdk_drain, True, "SQL lease + complete, in hundreds"),
            Path("SQL lease + complete, in hundreds", self._sql_drain),
        ]

    async def _echo(self, scale: float) -> Figure:
        return await self._load(self._rig.echo, post("/jobs", _JOB), 20_000 * scale, 201)

    async def _rest(self, scale: float) -> Figure:
        return await self._load(self._rig.server, post("/jobs", _JOB, **self._bearer), 20_000 * scale, 201)

    async def _trivial(self, scale: float) -> Figure:
        return await self._load(self._rig.echo, self._enqueue_mutation(), 6_000 * scale, 200)

    async def _graphql(self, scale: float) -> Figure:
        return await self._load(self._rig.server, self._enqueue_mutation(), 6_000 * scale, 200)

    def _enqueue_mutation(self) -> bytes:
        body = {"query": _MUTATION, "variables": {"payload": _JOB["payload"]}}
        return post("/graphql", body, **self._bearer)

    async def _rest_batch(self, scale: float) -> Figure:
        request = post("/jobs/batch", {"jobs": [_JOB] * IN_BULK}, **self._bearer)
        return await self._bulk(request, scale, 201)

    async def _graphql_batch(self, scale: float) -> Figure:
        body = {"query": _BULK_MUTATION, "variables": {"jobs": [_JOB] * IN_BULK}}
        return await self._bulk(post("/graphql", body, **self._bearer), scale, 200)

    async def _bulk(self, request: bytes, scale: float, status: int) -> Figure:
        """In jobs: few connections do, as one request carries many."""
        count = max(4, int(60 * scale))
        figure = Figure(**await generate(self._rig.server, request, count, 4, status))
        return Figure(figure.rate * IN_BULK, figure.cpu and figure.cpu / IN_BULK, figure.busy)

    async def _sql_enqueue(self, scale: float) -> Figure:
        return Figure(await self._fill("sql", 20_000 * scale))

    async def _sql_drain(self, scale: float) -> Figure:
        queue, store = f"sql drain {next(self._numbers)}", self._rig.store
        await self._fill(queue, 10_000 * scale)
        token = await tokens.mint(
            store, tenant="", name="bench", queues=[queue], token_hash=os.urandom(32), created_by="user:bench"
        )

        async def drain() -> int:
            done = 0
            while True:
                [jobs] = await lease.lease(store, [LeaseRow(token.id, BATCH, 30, (queue,))])
                if not jobs:
                    return done
                held = [ReportRow(Lease(j.id, j.lease_id), token.id, body=b"null") for j in jobs]
                done += sum(accepted is not None for accepted in await report.complete(store, held))

        began = time.perf_counter()
        done = sum(await asyncio.gather(*(drain() for _ in range(_FLIGHTS))))
        return Figure(done / (time.perf_counter() - began))

    async def _sdk_drain(self, scale: float) -> Figure:
        queue, server = f"sdk drain {next(self._numbers)}", self._rig.server
        count = _rounded(6_000 * scale)
        await self._fill(queue, count)
        url = f"http://127.0.0.1:{server.port}"
        body = {"name": "bench", "queues": [queue]}
        async with (
            aiohttp.ClientSession(headers=self._bearer) as http,
            http.post(f"{url}/jobs/workers", json=body) as answer,
        ):
            token = (await answer.json())["token"]
        used = server.cpu_seconds()
        async with (
            process("-m", "benchmarks.worker", queue, ATOMO_URL=url, ATOMO_WORKER_TOKEN=token) as worker,
            self._rig.store.connection() as sql,
        ):
            while await sql.fetchval(_LEFT, queue):
                if worker.returncode is not None:
                    raise RuntimeError("the worker ended; the lines above say why")
                await asyncio.sleep(0.1)
            cpu = (server.cpu_seconds() - used) / count * 1e6
            return Figure(await sql.fetchval(_DRAINED, queue), cpu)

    async def _load(self, target: Target, request: bytes, count: float, status: int) -> Figure:
        return Figure(**await generate(target, request, int(count), CONNECTIONS, status))

    async def _fill(self, queue: str, count: float) -> float:
        """Enqueue so many no-op jobs by SQL; the rate."""
        row = EnqueueRow("", queue, "noop", b'{"n":1}', None, 5, 0, None, "user:bench", None)
        batches = iter(range(_rounded(count) // BATCH))

        async def flight() -> None:
            for _ in batches:
                await enqueue.enqueue(self._rig.store, [row] * BATCH)

        began = time.perf_counter()
        await asyncio.gather(*(flight() for _ in range(_FLIGHTS)))
        return _rounded(count) / (time.perf_counter() - began)

    @property
    def _bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._rig.jwt}"}


def _rounded(count: float) -> int:
    """In whole batches, and one at least."""
    return max(BATCH, int(count) // BATCH * BATCH)
