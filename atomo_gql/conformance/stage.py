"""A server that plays the troubles it is told to, in memory, and writes down all that a worker says."""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

TOKEN = "wkr_" + "c" * 43
QUEUE = "conformance"
PREFIX = "/behind/a/prefix"
_ENDING = {"complete": "succeeded", "fail": "failed", "release": "released"}
_EXTENDING = ("heartbeat", "progress")


@dataclass(slots=True)
class Call:
    """A request, as it came. at: seconds by this process's clock."""

    at: float
    path: str
    query: str
    headers: dict[str, str]
    body: Any
    given: int = 0  # jobs in the answer

    @property
    def is_lease(self) -> bool:
        """Whether it asks for jobs."""
        return self.path == "/jobs/lease"

    def reports(self) -> list[dict[str, Any]]:
        """What it says of jobs, as entries of a list."""
        body = self.body if isinstance(self.body, dict) else {}
        if self.path in ("/jobs/reports", "/jobs/lease"):
            return list(body.get("reports") or [])
        parts = self.path.split("/")
        return [{**body, "type": parts[3], "id": parts[2]}] if len(parts) == 4 else []


@dataclass(slots=True)
class Said:
    """A report, and how it was answered."""

    at: float
    type: str
    fields: dict[str, Any]
    status: int


@dataclass(slots=True)
class StageJob:
    """A job. state: queued, leased, succeeded, failed, released or lost."""

    kind: str
    payload: Any
    timeout_secs: int | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: str = "queued"
    lease_id: str = ""
    request_id: str | None = None
    attempts: int = 0
    deadline: float = 0.0
    has_expired: bool = False
    said: list[Said] = field(default_factory=list)

    def ending(self) -> list[Said]:
        """The reports that would end it."""
        return [said for said in self.said if said.type in _ENDING]


Trouble = Callable[[Call], web.Response | None]


class Stage:
    """One per play. trouble: answers in place of the server, where it answers. loses: whether the answer is lost,
    after the call has taken effect. waits: whether long polls wait."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.jobs: list[StageJob] = []
        self.trouble: Trouble = lambda call: None
        self.loses: Callable[[Call], bool] = lambda call: False
        self.waits = True
        self.url = ""
        self._port = 0
        self._polls = 0  # a number that changes when the open ones shall end
        self._runner: web.AppRunner | None = None

    def put(self, kind: str, payload: Any = None, *, count: int = 1, timeout_secs: int | None = None) -> list[StageJob]:
        """Enqueue jobs."""
        made = [StageJob(f"conformance.{kind}", payload, timeout_secs) for _ in range(count)]
        self.jobs += made
        return made

    def end_polls(self) -> None:
        """Answer the open long polls, with nothing."""
        self._polls += 1

    async def until(self, condition: Callable[[], object], seconds: float = 20) -> bool:
        """Whether the condition comes to be true in that time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                return True
            await asyncio.sleep(0.02)
        return bool(condition())

    @contextlib.asynccontextmanager
    async def playing(self) -> AsyncIterator["Stage"]:
        """Listens for the length of the block."""
        await self.open()
        try:
            yield self
        finally:
            await self.close()

    async def open(self) -> None:
        """Listen; again on the same port."""
        application = web.Application(client_max_size=2**24)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}{PREFIX}"

    async def close(self) -> None:
        """Cut every connection, and take none."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        headers = {name.lower(): value for name, value in request.headers.items()}
        call = Call(time.monotonic(), request.path.removeprefix(PREFIX), request.query_string, headers, body)
        self.calls.append(call)
        if (answer := self.trouble(call)) is not None:
            return answer
        if not request.path.startswith(PREFIX):
            return problem(404, "NOT_FOUND")
        answer = await self._answer(call)
        if self.loses(call) and request.transport is not None:
            request.transport.abort()
        return answer

    async def _answer(self, call: Call) -> web.Response:
        if call.headers.get("x-worker-token") != TOKEN:
            return problem(401, "UNAUTHENTICATED")
        if not isinstance(call.body, dict):
            return problem(400, "BAD_USER_INPUT")
        if call.is_lease:
            return await self._lease(call)
        outcomes = [self._report(call.at, report) for report in call.reports()]
        if call.path == "/jobs/reports":
            return web.json_response({"outcomes": outcomes, "aFieldOfTomorrow": 1})
        if not outcomes:
            return problem(404, "NOT_FOUND")
        [outcome] = outcomes
        if outcome["status"] >= 400:
            return problem(outcome["status"], outcome["code"], **{k: outcome[k] for k in ("ended",) if k in outcome})
        if outcome["status"] == 204:
            return web.Response(status=204)
        return web.json_response({name: outcome[name] for name in ("outcome", "delaySecs") if name in outcome})

    async def _lease(self, call: Call) -> web.Response:
        body = call.body
        if body.get("queues") != [QUEUE]:
            return problem(403, "FORBIDDEN")
        outcomes = [self._report(call.at, report) for report in call.reports()]
        until = call.at + (0 if outcomes or not self.waits else float(body.get("waitSecs") or 0))
        polls = self._polls
        # What is waited for may come in many ways: a play is looked at again and again.
        while not (jobs := self._take(body)) and time.monotonic() < until and polls == self._polls:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        call.given = len(jobs)
        answer = {"jobs": [_wire(job) for job in jobs], "aFieldOfTomorrow": {"n": 1}}
        return web.json_response(answer if body.get("reports") is None else {**answer, "outcomes": outcomes})

    def _take(self, body: dict[str, Any]) -> list[StageJob]:
        request_id = body.get("requestId")
        if request_id is not None and (before := [job for job in self.jobs if job.request_id == request_id]):
            return [job for job in before if job.state == "leased"]
        kinds = body.get("kinds")
        free = [job for job in self.jobs if job.state == "queued" and (kinds is None or job.kind in kinds)]
        taken = free[: max(1, min(int(body.get("capacity") or 1), 100))]
        for job in taken:
            job.state, job.lease_id, job.request_id = "leased", str(uuid.uuid4()), request_id
            job.attempts += 1
            job.deadline = time.monotonic() + int(body.get("visibilitySecs") or 30)
        return taken

    def _report(self, at: float, report: dict[str, Any]) -> dict[str, Any]:
        job = next((job for job in self.jobs if job.id == report.get("id")), None)
        if job is None or job.lease_id != report.get("leaseId"):
            return {"id": report.get("id"), "status": 409, "code": "LEASE_LOST", "detail": "not held"}
        type_ = str(report.get("type"))
        if job.state != "leased":
            job.said.append(Said(at, type_, report, 409))
            ended = {"ended": job.state} if job.state in _ENDING.values() else {}
            return {"id": job.id, "status": 409, "code": "LEASE_LOST", "detail": "over", **ended}
        job.has_expired |= at > job.deadline
        status = 200 if type_ == "fail" else 204
        job.said.append(Said(at, type_, report, status))
        if type_ in _EXTENDING:
            job.deadline = at + int(report.get("visibilitySecs") or 30)
            return {"id": job.id, "status": 204}
        job.state = _ENDING[type_]
        is_dead = report.get("retryable") is False
        told: dict[str, Any] = {"outcome": "dead"} if is_dead else {"outcome": "retry", "delaySecs": 5}
        return {"id": job.id, "status": status, **(told if type_ == "fail" else {})}


def problem(status: int, code: str, *, retry_after: int | None = None, **more: Any) -> web.Response:
    """An error's answer."""
    body = {"type": "about:blank", "status": status, "title": code, "detail": f"{code}, in this play", "code": code}
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return web.json_response({**body, **more}, status=status, content_type="application/problem+json", headers=headers)


def _wire(job: StageJob) -> dict[str, Any]:
    return {
        "id": job.id,
        "queue": QUEUE,
        "kind": job.kind,
        "payload": job.payload,
        "attempts": job.attempts,
        "maxAttempts": 5,
        "deliveries": job.attempts,
        "leaseId": job.lease_id,
        "leaseExpiresAt": "2030-01-01T00:00:00Z",
        "timeoutSecs": job.timeout_secs,
        "deadline": None,
        "priority": 0,
        "createdAt": "2026-01-01T00:00:00Z",
        "traceparent": None,
        "tenantId": None,
        "aFieldOfTomorrow": [1, 2, 3],
    }
