"""Day after day of a service's life, and an account of what it must have led to."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import aiohttp

from tests.conftest import admin, bearer, until

from .machine import Machine

_GONE = (aiohttp.ClientError, OSError, TimeoutError)
_TIMEOUT = aiohttp.ClientTimeout(total=20)
_HALF = timedelta(hours=12)
DELAYS = (1, 9, 40)  # days
DEFINITIONS: list[dict[str, Any]] = [
    {
        "name": f"patience-{days}",
        "steps": [
            {"name": "rest", "action": {"Delay": {"seconds": days * 86_400}}},
            {"name": "ask", "action": {"Job": {"queue": "steps", "kind": "ok", "wait": True}}},
        ],
    }
    for days in DELAYS
] + [
    {
        "name": f"daily-{missed}",
        "trigger": {"Schedule": {"cron": "0 6 * * *", "missed": missed}},
        "steps": [{"name": "note", "action": {"SetVariable": {"key": "x", "value": 1}}}],
    }
    for missed in ("latest", "all")
]
_BINDING = {"model": "Order", "event": "created", "action": "notify"}
_DUE = """
SELECT (SELECT count(*) FROM ready AS r WHERE r.eligible_at <= clock_timestamp() AND r.queue <> 'shut'
        AND NOT EXISTS (SELECT FROM queue_pauses AS p WHERE p.queue = r.queue))
    + (SELECT count(*) FROM leases)
    + (SELECT count(*) FROM workflow_runs WHERE status IN ('Running', 'Paused'))"""


@dataclass
class Expected:
    """What must become of a job."""

    plan: str
    end: str | None  # None: it waits for ever
    ended_at: datetime | None = None  # as far as it was told


@dataclass
class Year:
    """A client, a worker and an operator of one machine."""

    machine: Machine
    dice: random.Random
    jobs: dict[str, Expected] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)  # that were not the expected ones
    events: int = 0
    runs: int = 0
    day: int = 0
    is_calm: bool = True  # no server is being killed
    _token: str = ""
    _minted: list[str] = field(default_factory=list)
    _http: Any = None

    @contextlib.asynccontextmanager
    async def living(self) -> AsyncIterator["Year"]:
        """With a connection to the server."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as self._http:
            yield self

    async def found(self) -> None:
        """What an operator sets up on the first day."""
        for definition in DEFINITIONS:
            await self.call("POST", "/workflows", definition, admin())
        await self.call("POST", "/actions", _BINDING, admin())
        self._token = (await self.call("POST", "/jobs/workers", {"name": "year", "queues": ["*"]}, admin()))["token"]
        await self.graphql('mutation { pauseQueue(queue: "shut") { name } }')

    async def live(self, days: int) -> None:
        """So many days, each with jobs of every kind, and a move of the clock."""
        for _ in range(days):
            self.day += 1
            await self._morning()
            await self.work()
            self.machine.clock.move(_HALF)
            await self.work()
            self.machine.clock.move(_HALF)

    async def _morning(self) -> None:
        now = self.machine.clock.now
        plans = ["ok"] * 14 + ["retry", "retry", "lost", "exhaust", "dead", "later", "cancelled", "overdue", "slow"]
        if self.day % 10 == 0:
            plans.append("shut")
        made = await self.call(
            "POST", "/jobs/batch", {"jobs": [self._job(i, plan, now) for i, plan in enumerate(plans)]}
        )
        for plan, job in zip(plans, made["jobs"], strict=True):
            end = {"exhaust": "dead", "dead": "dead", "cancelled": "dead", "overdue": "dead", "shut": None}
            self.jobs[job["id"]] = Expected(plan, end.get(plan, "succeeded"))
            if plan == "cancelled":
                await self.graphql(f'mutation {{ cancelJob(id: "{job["id"]}") {{ id }} }}')
                self.jobs[job["id"]].ended_at = now
        for number in range(2):
            event = {
                "model": "Order",
                "event": "created",
                "id": f"o{self.day}",
                "eventId": f"e{self.day}/{number}",
                "data": {},
            }
            await self.call("POST", "/events", event)
            self.events += 1
        await self.call("POST", f"/workflows/patience-{self.dice.choice(DELAYS)}/run", {})
        self.runs += 1
        if self.day % 5 == 0:
            minted = await self.call("POST", "/jobs/workers", {"name": f"day {self.day}", "queues": ["*"]}, admin())
            self._minted.append(minted["id"])
            if len(self._minted) > 3:
                await self.call("DELETE", f"/jobs/workers/{self._minted.pop(0)}", None, admin())
        if self.day % 20 in (3, 9):
            verb = "pauseQueue" if self.day % 20 == 3 else "resumeQueue"
            await self.graphql(f'mutation {{ {verb}(queue: "slow") {{ name }} }}')

    def _job(self, number: int, plan: str, now: datetime) -> dict[str, Any]:
        job: dict[str, Any] = {"queue": {"slow": "slow", "shut": "shut"}.get(plan, "work"), "kind": plan}
        job |= {"payload": {"day": self.day}, "priority": self.dice.randrange(-2, 3), "maxAttempts": 3}
        if number % 3 == 0:
            job["idempotencyKey"] = f"{self.day}/{number}"
        if plan in ("later", "cancelled"):
            job["runAt"] = (now + timedelta(days=self.dice.choice([1, 3, 20]))).isoformat()
        if plan == "overdue":
            job |= {"runAt": (now + timedelta(hours=1)).isoformat(), "deadline": (now + timedelta(hours=2)).isoformat()}
        if plan == "exhaust":
            job["maxAttempts"] = 2
        return job

    async def work(self) -> None:
        """Lease and report until nothing is due."""
        headers = {"X-Worker-Token": self._token}
        ask = {"queues": ["*"], "capacity": 100, "visibilitySecs": 30}
        while leased := (await self.call("POST", "/jobs/lease", ask, headers))["jobs"]:
            reports = [report for job in leased if (report := self._report(job))]
            if not reports:
                continue
            told = await self.call("POST", "/jobs/reports", {"reports": reports}, headers)
            for report, outcome in zip(reports, told["outcomes"], strict=True):
                if outcome["status"] == 409:  # the clock has jumped beside it
                    self.answers["a lease was lost"] += 1
                elif outcome["status"] not in (200, 204):
                    self.answers[f"report {outcome['status']}"] += 1
                elif outcome.get("outcome") != "retry" and report["id"] in self.jobs:
                    self.jobs[report["id"]].ended_at = self.machine.clock.now

    def _report(self, job: dict[str, Any]) -> dict[str, Any] | None:
        """What the worker says of it; None: it is never heard of again."""
        said = {"id": job["id"], "leaseId": job["leaseId"]}
        kind, is_first = job["kind"], job["attempts"] == 1
        if kind == "lost" and is_first:
            return None
        if kind == "exhaust" or (kind == "retry" and is_first):
            return {"type": "fail", **said, "error": "busy"}
        if kind == "dead":
            return {"type": "fail", **said, "error": "no such customer", "retryable": False}
        return {"type": "complete", **said, "result": {"day": self.day}}

    async def settle(self, days: int = 1) -> None:
        """Have the clock go on, so many days at a time and twenty later on, until all that can end has ended."""
        if 3 <= self.day % 20 < 9:
            await self.graphql('mutation { resumeQueue(queue: "slow") { name } }')
        for number in range(80):
            await self.work()
            async with self.machine.sql() as sql:
                if not await sql.fetchval(_DUE) and all(
                    e.ended_at or not e.end for e in self.jobs.values() if e.plan != "overdue"
                ):
                    return
            self.machine.clock.move(timedelta(days=days if number < 60 else 20))
            await asyncio.sleep(0.3)  # the service's loops go by the monotonic clock, which cannot be moved

    async def call(self, method: str, path: str, body: Any, headers: dict[str, str] | None = None) -> Any:
        """The answer; said again while the server is away. What a client would have to know of is counted."""
        seconds = 60.0
        async with asyncio.timeout(seconds):
            while True:
                try:
                    async with self._http.request(
                        method, self.machine.url + path, json=body, headers=headers or bearer()
                    ) as answer:
                        if answer.status < 300:
                            return await answer.json() if answer.content_length else None
                        text = await answer.text()
                        self.answers[f"{method} {path.split('/')[1]} {answer.status}"] += 1
                        assert answer.status == 503, f"day {self.day}: {method} {path}: {answer.status} {text}"
                except _GONE as error:
                    self.answers[type(error).__name__] += 1
                await asyncio.sleep(0.1)  # as a client backs off

    async def graphql(self, document: str) -> Any:
        """What GraphQL answers to an operator."""
        answer = await self.call("POST", "/graphql", {"query": document}, admin())
        assert "errors" not in answer, answer
        return answer["data"]

    async def restart(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """SIGKILL in the middle of work, something that happens while the server is off, and a start."""
        await self.machine.kill("server")
        meanwhile()
        await self.machine.start_server()


async def housekeeping(machine: Machine) -> str:
    """One round, by the command; its words."""
    said = await machine.command("housekeeping")
    return " · ".join(line for line in said.splitlines() if line.startswith(("deleted", "made")))


async def ready(machine: Machine) -> None:
    """Until the server can work again."""
    async with aiohttp.ClientSession() as http:

        async def is_ready() -> bool:
            with contextlib.suppress(*_GONE):
                async with http.get(f"{machine.url}/readyz") as answer:
                    return bool(answer.status == 200)
            return False

        await until(is_ready, within=60)
