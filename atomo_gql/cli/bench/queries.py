"""Whether a look at the jobs costs the same however many there are: through GraphQL, beside a hundredth of them."""

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp

from atomo_gql.cli.bench import fill
from atomo_gql.cli.bench.figures import Figure, Measure, Scenario, Tell
from atomo_gql.cli.bench.rig import Place, Rig

MANY = 5_000_000
_FEW = 0.01  # of them
_PAGE = "query ($filter: JobFilter) { jobs(filter: $filter, first: 50) { nodes { id status } } }"
_OLDEST = "{ jobs(orderBy: OLDEST_FIRST, first: 50) { nodes { id status } } }"
_NODES = "id queue kind status attempts createdAt finishedAt durationMs waitingFor { message }"
# By name: a document and its variables; "ID", "THEN" and "CURSOR" stand for a job in the middle, when it was made,
# and the page after it.
_LOOKS: dict[str, tuple[str, dict[str, object]]] = {
    "job(id)": (f"query ($id: ID!) {{ job(id: $id) {{ {_NODES} }} }}", {"id": "ID"}),
    "waitingFor": ("query ($id: ID!) { job(id: $id) { waitingFor { message } } }", {"id": "WAITING"}),
    "jobs": (_PAGE, {}),
    "jobs, in the middle": (
        "query ($after: String) { jobs(first: 50, after: $after) { nodes { id } } }",
        {"after": "CURSOR"},
    ),
    "jobs, oldest first": (_OLDEST, {}),
    "jobs made until then": (_PAGE, {"filter": {"created": {"to": "THEN"}}}),
    "jobs by queue": (_PAGE, {"filter": {"queue": "q7"}}),
    "jobs by kind": (_PAGE, {"filter": {"kind": "kind3"}}),
    "jobs by tenant": (_PAGE, {"filter": {"tenantId": "tenant"}}),
    "jobs queued": (_PAGE, {"filter": {"status": ["QUEUED"]}}),
    "jobs leased": (_PAGE, {"filter": {"status": ["LEASED"]}}),
    "jobs succeeded": (_PAGE, {"filter": {"status": ["SUCCEEDED"]}}),
    "jobs dead": (_PAGE, {"filter": {"status": ["DEAD"]}}),
    "jobs dead in a queue": (_PAGE, {"filter": {"status": ["DEAD"], "queue": "q0"}}),
    "jobs by key": (_PAGE, {"filter": {"idempotencyKey": "key 100"}}),
    "jobs by the error's text": (_PAGE, {"filter": {"error": "error 1"}}),
    "jobs finished in an hour long ago": (
        _PAGE,
        {"filter": {"finished": {"from": "2020-01-01T00:00:00Z", "to": "2020-01-01T01:00:00Z"}}},
    ),
    "jobs finished until just now": (_PAGE, {"filter": {"finished": {"from": "NOW"}}}),
    "jobs finished when none did": (_PAGE, {"filter": {"finished": {"from": "LATER"}}}),
    "queues": (
        "{ queues(first: 50) { nodes { name depth { queued leased scheduled dead } oldestEligibleSecs isPaused } } }",
        {},
    ),
}


@dataclass(frozen=True, slots=True)
class _Filled:
    """A server on many jobs, and what the looks need to know of them."""

    place: Place
    stand_ins: dict[str, str]


class _Queries:
    def __init__(self, http: aiohttp.ClientSession, few: _Filled, many: _Filled) -> None:
        self._http, self._few, self._many = http, few, many

    async def look(self, name: str, scale: float) -> Figure:
        """The median time at all the jobs, beside that at a hundredth of them."""
        few, many = [], []
        for _ in range(max(5, int(40 * scale))):
            few.append(await self._time(self._few, name))
            many.append(await self._time(self._many, name))
        return Figure(statistics.median(many), statistics.median(few), more={"worst": max(many)})

    async def _time(self, filled: _Filled, name: str) -> float:
        query, variables = _LOOKS[name]
        body = {"query": query, "variables": _replaced(variables, filled.stand_ins)}
        began = time.perf_counter()
        async with self._http.post(f"{filled.place.url}/graphql", json=body, headers=filled.place.bearer) as answer:
            told = await answer.json()
        took = time.perf_counter() - began
        if "errors" in told:
            raise RuntimeError(f"{name}: {told['errors']}")
        return took * 1000


def _replaced(value: object, stand_ins: dict[str, str]) -> object:
    if isinstance(value, dict):
        return {name: _replaced(inner, stand_ins) for name, inner in value.items()}
    return stand_ins.get(value, value) if isinstance(value, str) else value


@contextlib.asynccontextmanager
async def _filled(rig: Rig, http: aiohttp.ClientSession, count: int, tell: Tell) -> AsyncIterator[_Filled]:
    async with rig.another() as store:
        await fill.queued(store, ["q1", "q2"], min(count, 10_000))
        await fill.leased(store, "q1")
        await fill.ended(store, count, tell)
        async with store.connection() as sql:
            middle, then = await sql.fetchrow(
                "SELECT id::text, to_json(created_at) #>> '{}' FROM job_records ORDER BY id OFFSET $1 LIMIT 1",
                count // 2,
            )
            waiting = await sql.fetchval("SELECT id::text FROM ready ORDER BY id DESC LIMIT 1")
            now, later = await sql.fetchrow(
                "SELECT to_json(m - interval '1 second') #>> '{}', to_json(m + interval '1 second') #>> '{}'"
                " FROM (SELECT max(at) AS m FROM events) AS e"
            )
        async with rig.serving(store) as place:
            query = "query ($id: ID!) { jobs(first: 1, filter: {}) { edges { cursor } } job(id: $id) { id } }"
            body = {"query": query, "variables": {"id": middle}}
            async with http.post(f"{place.url}/graphql", json=body, headers=place.bearer) as answer:
                cursor = (await answer.json())["data"]["jobs"]["edges"][0]["cursor"]
            ids = {"ID": middle, "WAITING": waiting, "CURSOR": cursor}
            yield _Filled(place, {**ids, "THEN": then, "NOW": now, "LATER": later})


@contextlib.asynccontextmanager
async def _prepare(rig: Rig, scale: float, tell: Tell) -> AsyncIterator[list[Measure]]:
    many = fill.rounded(MANY * scale)
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        few = await stack.enter_async_context(_filled(rig, http, fill.rounded(many * _FEW), tell))
        all_of_them = await stack.enter_async_context(_filled(rig, http, many, tell))
        queries = _Queries(http, few, all_of_them)
        await asyncio.sleep(1)

        def measure(name: str) -> Measure:
            return Measure(name, "ms", lambda scale: queries.look(name, scale), wanted=1.5, less_is_better=True)

        yield [measure(name) for name in _LOOKS]


SCENARIO = Scenario("queries", "Looks at many jobs, beside the same at a hundredth of them", _prepare, warm_up=0.2)
