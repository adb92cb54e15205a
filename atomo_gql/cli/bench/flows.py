"""Workflows and actions, each beside what plain enqueueing of as many jobs costs."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import orjson

from atomo_gql.cli.bench import fill
from atomo_gql.cli.bench.drain import drained, mint
from atomo_gql.cli.bench.figures import Figure, Measure, Scenario, Tell
from atomo_gql.cli.bench.load import post
from atomo_gql.cli.bench.rig import Place, Rig, generate, module
from atomo_gql.store import actions
from atomo_gql.store.actions import RecordRow

CONNECTIONS = 32
STEPS = 5  # of one run
_BATCH = 100
_JOB = {"queue": "flows", "kind": "noop", "payload": {"n": 1}}
_ONE, _SQL, _RECORD, _DRAIN = (
    "REST enqueue, one by one",
    "SQL enqueue, in hundreds",
    "REST events, recorded one by one",
    "SDK lease + complete",
)
_SECS = 120


class _Flows:
    """On one rig."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._place = rig.place

    def all(self) -> list[Measure]:
        """In the order they are measured: each reference next to what is held against it."""
        return [
            Measure(_ONE, "/s", self._enqueue),
            Measure(_RECORD, "/s", self._record, _ONE),
            Measure(f"steps of runs, {STEPS} jobs each, by REST", "steps/s", self._runs, _ONE),
            Measure(_SQL, "/s", self._sql),
            Measure("action dispatcher, every event fires", "events/s", self._fire, _SQL),
            Measure("action dispatcher, one of ten fires", "events/s", self._pass, _SQL),
            Measure(_DRAIN, "/s", self._drained),
            Measure(f"steps that wait for their jobs, {STEPS} a run", "steps/s", self._waits, _DRAIN),
        ]

    async def _enqueue(self, scale: float) -> Figure:
        return await self._load(post("/jobs", _JOB, **self._place.bearer), 10_000 * scale)

    async def _record(self, scale: float) -> Figure:
        event = {"model": "Nothing", "event": "updated", "id": "1", "data": {"n": 1}}
        return await self._load(post("/events", event, **self._place.bearer), 10_000 * scale)

    async def _runs(self, scale: float) -> Figure:
        steps = [{"name": f"s{n}", "action": {"Job": _JOB}} for n in range(STEPS)]
        await self._post("/workflows", {"name": "bench", "steps": steps})
        request = post("/workflows/bench/run", {}, **self._place.bearer)
        figure = await self._load(request, 2_000 * scale, 200)
        return Figure(figure.value * STEPS, cpu=figure.cpu and figure.cpu / STEPS, busy=figure.busy)

    async def _sql(self, scale: float) -> Figure:
        return Figure(await fill.queued(self._place.store, ["flows"], 20_000 * scale))

    async def _fire(self, scale: float) -> Figure:
        return await self._dispatched(fill.rounded(10_000 * scale), 1)

    async def _pass(self, scale: float) -> Figure:
        return await self._dispatched(fill.rounded(10_000 * scale), 10)

    async def _dispatched(self, count: int, of: int) -> Figure:
        """Events that were recorded while the dispatcher was held up, per second from when it is let go."""
        model, store = f"Deal {next(self._rig.numbers)}", self._place.store
        condition = {"fieldEquals": {"n": 0}}
        binding = {"model": model, "event": "updated", "action": model, "queue": model, "condition": condition}
        made = await self._post("/actions", binding)
        used = self._place.server.cpu_seconds()
        async with store.connection() as sql:
            async with sql.transaction():
                await sql.fetchval("SELECT xid FROM checkpoints WHERE consumer = 'actions' FOR UPDATE")
                for first in range(0, count, _BATCH):
                    await actions.record(store, [_row(model, n, n % of) for n in range(first, first + _BATCH)])
            began = time.perf_counter()
            wanted = count // of
            async with asyncio.timeout(_SECS):
                while await sql.fetchval("SELECT count(*) FROM ready WHERE queue = $1", model) < wanted:
                    await asyncio.sleep(0.01)
        took = time.perf_counter() - began
        await self._delete(f"/actions/{made['id']}")
        return Figure(count / took, cpu=(self._place.server.cpu_seconds() - used) / count * 1e6)

    async def _drained(self, scale: float) -> Figure:
        queue = f"flows drain {next(self._rig.numbers)}"
        await fill.queued(self._place.store, [queue], 10_000 * scale)
        return await drained(self._place, [queue], 10_000 * scale)

    async def _waits(self, scale: float) -> Figure:
        """From the first start to the last end, with a worker that does nothing."""
        queue, runs = f"flows wait {next(self._rig.numbers)}", max(10, int(1_000 * scale))
        job = {"Job": {**_JOB, "queue": queue, "wait": True}}
        await self._post(
            "/workflows", {"name": queue, "steps": [{"name": f"s{n}", "action": job} for n in range(STEPS)]}
        )
        _, token = await mint(self._place, [queue])
        environment = {"ATOMO_URL": self._place.url, "ATOMO_WORKER_TOKEN": token}
        request = post(f"/workflows/{queue.replace(' ', '%20')}/run", {}, **self._place.bearer)
        async with module("worker", "drain", str(runs * STEPS), queue, piped=True, **environment) as worker:
            await self._load(request, runs, 200)
            await worker.stdout.read()
        async with self._place.store.connection() as sql, asyncio.timeout(_SECS):
            while await sql.fetchval(_UNFINISHED, queue):
                await asyncio.sleep(0.02)
            return Figure(runs * STEPS / await sql.fetchval(_TOOK, queue))

    async def _load(self, request: bytes, count: float, status: int = 201) -> Figure:
        found = await generate(self._place.server, request, int(count), CONNECTIONS, status)
        return Figure(found["rate"], cpu=found["cpu"], busy=found["busy"])

    async def _post(self, path: str, body: object) -> dict[str, str]:
        async with self._http() as http, http.post(self._place.url + path, json=body) as answer:
            answer.raise_for_status()
            found: dict[str, str] = await answer.json()
            return found

    async def _delete(self, path: str) -> None:
        async with self._http() as http, http.delete(self._place.url + path) as answer:
            answer.raise_for_status()

    def _http(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(headers=self._place.bearer)


_UNFINISHED = "SELECT count(*) FROM workflow_runs WHERE workflow = $1 AND finished_at IS NULL"
_TOOK = """
SELECT extract(epoch FROM max(finished_at) - min(started_at))::float8 FROM workflow_runs WHERE workflow = $1"""


def _row(model: str, number: int, value: int) -> RecordRow:
    event_id = f"{model}:{number}"
    data = {"model": model, "event": "updated", "id": str(number), "eventId": event_id, "data": {"n": value}}
    return RecordRow("", model, str(number), event_id, "user:bench", None, orjson.dumps(data))


@contextlib.asynccontextmanager
async def _prepare(rig: Rig, scale: float, tell: Tell) -> AsyncIterator[list[Measure]]:
    async with rig.another() as store, rig.serving(store) as place:
        yield _Flows(_on(rig, place)).all()


def _on(rig: Rig, place: Place) -> Rig:
    """The rig with another server: others' measures shall not dispatch, nor be dispatched."""
    return replace(rig, place=place)


SCENARIO = Scenario("flows", "Workflows and actions, beside plain jobs", _prepare)
