"""The hot paths, request after request on the ASGI application: no socket, no loops beside it, nothing concurrent.

Each takes what the one before it left: what was enqueued is leased, and what is leased is reported.
"""

import contextlib
import statistics
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Message

from atomo_gql.app import Application
from atomo_gql.cli.bench import fill
from atomo_gql.cli.bench.echo import echo
from atomo_gql.settings import Settings
from tests.conftest import SECRET, admin, bearer
from tests.guard.meter import Meter
from tests.guard.vm import counted

Costs = dict[str, float]  # by measure, of a job
REFERENCE = "a bare Starlette echo"
_HUNDRED = 100
_JOB = {"queue": "q", "kind": "noop", "payload": {"n": 1}}
_MUTATION = "mutation($q: String!, $k: String!, $p: JSON) { enqueueJob(queue: $q, kind: $k, payload: $p) }"
_WARM_UP = 3  # requests, in which statements are prepared and caches filled
_TRACED = 9  # requests; the median is taken
_MANY = [f"m{number}" for number in range(20)]  # queues
_SINGLE, _BULK = 300, 15  # requests that the database is measured over: enough for the splits of pages to even out
_STRETCHES = 2  # of them, and the lesser is taken: a checkpoint makes the pages that are touched after it costly


async def post(app: ASGIApp, path: str, body: Any, headers: dict[str, str]) -> Any:
    """The answer's JSON."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": encoded, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    encoded = orjson.dumps(body)
    named = {"content-type": "application/json", "content-length": str(len(encoded)), **headers}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in named.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    await app(scope, receive, send)
    answer = b"".join(message.get("body", b"") for message in sent)
    assert sent[0]["status"] < 300, answer
    return orjson.loads(answer) if answer else None


@dataclass(frozen=True, slots=True)
class _Path:
    request: Callable[[], Awaitable[object]]
    jobs: int = 1  # in a request

    async def traced(self) -> Costs:
        """The VM's share."""
        for _ in range(_WARM_UP):
            await self.request()
        counts = []
        for _ in range(_TRACED):
            with counted() as count:
                await self.request()
            counts.append(count)
        return {
            "instructions": statistics.median(c.instructions for c in counts) / self.jobs,
            "calls": statistics.median(c.calls for c in counts) / self.jobs,
        }

    async def metered(self, meter: Meter) -> Costs:
        """The database's share."""
        requests = _SINGLE if self.jobs == 1 else _BULK

        async def all_of_them() -> None:
            for _ in range(requests):
                await self.request()

        stretches = [await meter.spent(all_of_them) for _ in range(_STRETCHES)]
        least = (min(counts) / requests / self.jobs for counts in zip(*stretches, strict=True))
        return dict(zip(("WAL bytes", "buffers", "statements"), least, strict=True))


class Rig:
    """An application on a database with some thousand jobs. `asgi` may be wrapped."""

    def __init__(self, application: Application, meter: Meter) -> None:
        self.database, self.asgi, self.meter = application.database, application.asgi, meter
        self._worker: dict[str, str] = {}
        self._caller = bearer()
        self._leased: list[Any] = []
        self._beating = 0
        self._echo = Starlette(routes=[Route("/jobs", echo, methods=["POST"])])
        self.paths = {
            "POST /jobs": _Path(self._enqueue),
            "POST /jobs/batch": _Path(self._batch, _HUNDRED),
            "enqueueJob": _Path(self._mutate),
            "POST /jobs/lease": _Path(lambda: self._lease(["q"]), _HUNDRED),
            "… of 20 queues": _Path(lambda: self._lease(_MANY), _HUNDRED),
            "… of every queue": _Path(lambda: self._lease(["*"]), _HUNDRED),
            "POST /jobs/{id}/heartbeat": _Path(self._heartbeat),
            "POST /jobs/reports": _Path(self._complete, _HUNDRED),
            "… of failures": _Path(self._fail, _HUNDRED),
        }

    async def prepare(self) -> None:
        """Fill the database, and get a worker's token."""
        leases = (_WARM_UP + _TRACED + _STRETCHES * _BULK) * _HUNDRED
        await fill.queued(self.database, ["q"], 2_000)
        await fill.queued(self.database, _MANY, 2 * leases)
        await fill.queued(self.database, ["z"], leases)
        await fill.ended(self.database, 4_000, lambda _: None)
        minted = await post(self.asgi, "/jobs/workers", {"name": "guard", "queues": ["*"]}, admin())
        self._worker = {"x-worker-token": minted["token"]}

    async def measure(self, names: Collection[str] = ()) -> dict[str, Costs]:
        """What each path costs; of some only, where they are named."""
        paths = {name: path for name, path in self.paths.items() if not names or name in names}
        costs = {name: await path.traced() for name, path in paths.items()}
        for name, path in paths.items():
            costs[name] |= await path.metered(self.meter)
        return costs

    async def reference(self) -> Costs:
        """What a Starlette application costs that does nothing: a measure of the Python that runs this."""
        return await _Path(lambda: post(self._echo, "/jobs", _JOB, self._caller)).traced()

    async def _enqueue(self) -> None:
        await post(self.asgi, "/jobs", _JOB, self._caller)

    async def _batch(self) -> None:
        await post(self.asgi, "/jobs/batch", {"jobs": [_JOB] * _HUNDRED}, self._caller)

    async def _mutate(self) -> None:
        variables = {"q": _JOB["queue"], "k": _JOB["kind"], "p": _JOB["payload"]}
        answer = await post(self.asgi, "/graphql", {"query": _MUTATION, "variables": variables}, self._caller)
        assert "errors" not in answer, answer

    async def _lease(self, queues: list[str]) -> None:
        body = {"queues": queues, "capacity": _HUNDRED, "visibilitySecs": 600, "requestId": str(uuid.uuid4())}
        jobs = (await post(self.asgi, "/jobs/lease", body, self._worker))["jobs"]
        assert len(jobs) == _HUNDRED
        self._leased += jobs

    async def _heartbeat(self) -> None:
        self._beating += 1
        job = self._leased[self._beating % len(self._leased)]
        body = {"leaseId": job["leaseId"], "visibilitySecs": 600}
        await post(self.asgi, f"/jobs/{job['id']}/heartbeat", body, self._worker)

    async def _complete(self) -> None:
        await self._report({"type": "complete", "result": None}, 204)

    async def _fail(self) -> None:
        await self._report({"type": "fail", "error": "it did not work"}, 200)

    async def _report(self, said: dict[str, Any], status: int) -> None:
        jobs = [self._leased.pop() for _ in range(_HUNDRED)]
        reports = [{"id": job["id"], "leaseId": job["leaseId"], **said} for job in jobs]
        outcomes = (await post(self.asgi, "/jobs/reports", {"reports": reports}, self._worker))["outcomes"]
        assert all(outcome["status"] == status for outcome in outcomes), outcomes[0]


@contextlib.asynccontextmanager
async def rig(dsn: str, beside: str) -> AsyncIterator[Rig]:
    """A rig on an empty database, and the address of another beside it."""
    application = Application(Settings(jwt_secret=SECRET, env="test"), dsn)
    await application.database.open()
    try:
        meter = await Meter.on(application.database, beside)
        try:
            made = Rig(application, meter)
            await made.prepare()
            yield made
        finally:
            await meter.close()
    finally:
        await application.database.close()
