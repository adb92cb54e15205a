"""The ways in and out, each beside what the same work costs without the service."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator

from atomo_gql.cli.bench import fill
from atomo_gql.cli.bench.drain import drained
from atomo_gql.cli.bench.figures import Figure, Measure, Scenario, Tell
from atomo_gql.cli.bench.load import post
from atomo_gql.cli.bench.rig import Rig, generate
from atomo_gql.cli.bench.target import Target
from atomo_gql.store import lease, report, tokens
from atomo_gql.store.lease import LeaseRow
from atomo_gql.store.report import ReportRow

CONNECTIONS = 32
IN_BULK = 500
_ECHO, _SQL, _TRIVIAL = "echo: bare Starlette", f"SQL enqueue, {IN_BULK} each", "trivial Strawberry mutation"
_SQL_DRAIN = "SQL lease + complete, in hundreds"
_JOB = {"queue": "load", "kind": "noop", "payload": {"n": 1}}
_MUTATION = 'mutation ($payload: JSON) { enqueueJob(queue: "load", kind: "noop", payload: $payload) }'
_BULK_MUTATION = "mutation ($jobs: [EnqueueJobInput!]!) { enqueueJobs(jobs: $jobs) }"


class _Paths:
    """On one rig."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._place = rig.place

    def all(self) -> list[Measure]:
        """In the order they are measured: each reference next to what is held against it."""
        return [
            Measure(_ECHO, "/s", self._echo),
            Measure("REST enqueue, one by one", "/s", self._rest, _ECHO, wanted=0.55),
            Measure(_TRIVIAL, "/s", self._trivial, _ECHO),
            Measure("GraphQL enqueueJob", "/s", self._graphql, _TRIVIAL, wanted=0.8),
            Measure(f"REST enqueue, batches of {IN_BULK}", "jobs/s", self._rest_batch, _SQL, wanted=0.5),
            Measure(f"GraphQL enqueueJobs, {IN_BULK} each", "jobs/s", self._graphql_batch, _SQL, wanted=0.3),
            Measure(_SQL, "jobs/s", self._sql_enqueue),
            Measure("SDK lease + complete", "jobs/s", self._sdk_drain, _SQL_DRAIN, wanted=0.5),
            Measure(_SQL_DRAIN, "jobs/s", self._sql_drain),
        ]

    async def _echo(self, scale: float) -> Figure:
        return await _load(self._rig.echo, post("/jobs", _JOB), 20_000 * scale, 201)

    async def _rest(self, scale: float) -> Figure:
        return await _load(self._place.server, post("/jobs", _JOB, **self._place.bearer), 20_000 * scale, 201)

    async def _trivial(self, scale: float) -> Figure:
        return await _load(self._rig.echo, self._enqueue_mutation(), 6_000 * scale, 200)

    async def _graphql(self, scale: float) -> Figure:
        return await _load(self._place.server, self._enqueue_mutation(), 6_000 * scale, 200)

    def _enqueue_mutation(self) -> bytes:
        body = {"query": _MUTATION, "variables": {"payload": _JOB["payload"]}}
        return post("/graphql", body, **self._place.bearer)

    async def _rest_batch(self, scale: float) -> Figure:
        return await self._bulk(post("/jobs/batch", {"jobs": [_JOB] * IN_BULK}, **self._place.bearer), scale, 201)

    async def _graphql_batch(self, scale: float) -> Figure:
        body = {"query": _BULK_MUTATION, "variables": {"jobs": [_JOB] * IN_BULK}}
        return await self._bulk(post("/graphql", body, **self._place.bearer), scale, 200)

    async def _bulk(self, request: bytes, scale: float, status: int) -> Figure:
        """In jobs: few connections do, as one request carries many."""
        count = max(4, int(60 * scale))
        figure = await _load(self._place.server, request, count, status, connections=4)
        return Figure(figure.value * IN_BULK, cpu=figure.cpu and figure.cpu / IN_BULK, busy=figure.busy)

    async def _sql_enqueue(self, scale: float) -> Figure:
        return Figure(await fill.queued(self._place.store, ["sql"], 20_000 * scale, each=IN_BULK))

    async def _sql_drain(self, scale: float) -> Figure:
        queue, store = f"sql drain {next(self._rig.numbers)}", self._place.store
        await fill.queued(store, [queue], 10_000 * scale)
        token = await tokens.mint(
            store, tenant="", name="bench", queues=[queue], token_hash=os.urandom(32), created_by="user:bench"
        )

        async def drain() -> int:
            done = 0
            while True:
                [jobs] = await lease.lease(store, [LeaseRow(token.id, fill.BATCH, 30, (queue,))])
                if not jobs:
                    return done
                held = [ReportRow(j.id, j.lease_id, token.id, body=b"null") for j in jobs]
                done += sum(accepted is not None for accepted in await report.complete(store, held))

        began = time.perf_counter()
        done = sum(await asyncio.gather(*(drain() for _ in range(fill.FLIGHTS))))
        return Figure(done / (time.perf_counter() - began))

    async def _sdk_drain(self, scale: float) -> Figure:
        queue = f"sdk drain {next(self._rig.numbers)}"
        await fill.queued(self._place.store, [queue], 10_000 * scale)
        return await drained(self._place, [queue], 10_000 * scale)


async def _load(target: Target, request: bytes, count: float, status: int, *, connections: int = CONNECTIONS) -> Figure:
    found = await generate(target, request, int(count), connections, status)
    return Figure(found["rate"], cpu=found["cpu"], busy=found["busy"])


@contextlib.asynccontextmanager
async def _prepare(rig: Rig, scale: float, tell: Tell) -> AsyncIterator[list[Measure]]:
    yield _Paths(rig).all()


SCENARIO = Scenario("paths", "The ways in and out", _prepare)
