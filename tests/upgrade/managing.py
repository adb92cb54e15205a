"""Those who read pages and counts, those who manage tokens and queues, and the probes of whoever runs the servers."""

import itertools
from typing import Any

import aiohttp

from tests.conftest import admin

from . import enqueuing
from .balancer import Balancer
from .enqueuing import Enqueuing
from .turns import Turn

_PAGE = """
query ($after: String, $filter: JobFilter) { jobs(first: 20, after: $after, filter: $filter) {
    nodes { id queue kind status attempts error events { position type } } pageInfo { endCursor hasNextPage }
    totalCount { value } } }"""
_QUEUE = "query ($name: String!) { queue(name: $name) { depth { queued leased dead } oldestEligibleSecs isPaused } }"
_RUNS = "{ workflows(first: 10) { nodes { name } } workflowRuns(first: 20) { nodes { id status } } }"
_FILTERS: list[dict[str, Any]] = [
    {},
    {"queue": enqueuing.QUEUE},
    {"kind": "die", "status": ["DEAD"]},
    {"queue": enqueuing.QUEUE, "status": ["SUCCEEDED"]},
    {"status": ["QUEUED", "LEASED"]},
]
_PAUSE = 'mutation { pauseQueue(queue: "pausing") { isPaused } }'
_RESUME = 'mutation { resumeQueue(queue: "pausing") { isPaused } }'
_CANCEL = "mutation ($id: ID!) { cancelJob(id: $id) { status } }"
_RETRY = "mutation ($id: ID!) { retryJob(id: $id) { status } }"


class Managing:
    """Operators."""

    def __init__(self, balancer: Balancer, jobs: Enqueuing) -> None:
        self._balancer = balancer
        self._jobs = jobs
        self._numbers = itertools.count(1)
        self.cancelled: set[str] = set()

    def reading(self) -> list[Turn]:
        """They change nothing."""
        return [
            Turn("read pages", self._pages, 0.3, loops=2),
            Turn("read a job", self._job),
            Turn("read queues", self._queues, 0.3),
            Turn("read runs", self._runs, 0.3),
            Turn("probe", self._probe, 0.5),
        ]

    def turns(self) -> list[Turn]:
        """They change something."""
        return [
            Turn("mint and revoke", self._mint, 0.5),
            Turn("pause and resume", self._pause, 0.5),
            Turn("cancel and retry", self._cancel, 0.5),
        ]

    async def _pages(self) -> None:
        """A few pages, each of another server: a cursor is good at both."""
        number = next(self._numbers)
        filter_, after, seen = _FILTERS[number % len(_FILTERS)], None, list[str]()
        for _ in range(3):
            found = await self._balancer.graphql(
                "read pages", _PAGE, {"after": after, "filter": filter_}, headers=admin()
            )
            seen.extend(job["id"] for job in found["jobs"]["nodes"])
            after = found["jobs"]["pageInfo"]["endCursor"]
            if not found["jobs"]["pageInfo"]["hasNextPage"]:
                break
        assert seen == sorted(set(seen), reverse=True), "pages that overlap"

    async def _job(self) -> None:
        if self._jobs.fates:
            job_id = list(self._jobs.fates)[next(self._numbers) * 7 % len(self._jobs.fates)]
            answer = await self._balancer.ask("read a job", "GET", f"/jobs/{job_id}")
            assert (answer.data["id"], answer.data["kind"]) == (job_id, self._jobs.fates[job_id])

    async def _queues(self) -> None:
        await self._balancer.graphql("read queues", "{ queues(first: 50) { nodes { name depth { queued } } } }")
        await self._balancer.graphql("read queues", _QUEUE, {"name": enqueuing.QUEUE})

    async def _runs(self) -> None:
        await self._balancer.graphql("read runs", _RUNS)

    async def _probe(self) -> None:
        """A load balancer takes a server that is not ready out, so each in rotation must say that it is."""
        for name in list(self._balancer.rotation):
            for path in ("/readyz", "/healthz", "/metrics"):
                url = self._balancer.rig.url_of(name) + path
                try:
                    async with self._balancer.http.get(url) as answer:
                        text = await answer.text()
                except (aiohttp.ClientConnectionError, ConnectionError) as error:
                    if name not in self._balancer.rig.draining:
                        self._balancer.failed("probe", f"{name} {path}: {error!r}")
                    continue
                self._balancer.step.calls["probe"] += 1
                if answer.status != 200:
                    self._balancer.failed("probe", f"{name} {path}: {answer.status} {text[:200]}")

    async def _mint(self) -> None:
        """A new token is good at each server at once, and one that is revoked at none."""
        kind, number = "mint and revoke", next(self._numbers)
        body = {"name": f"w{number}", "queues": [f"own {number}"]}
        made = await self._balancer.ask(kind, "POST", "/jobs/workers", body, accepted=[201], headers=admin())
        worker = {"X-Worker-Token": made.data["token"]}
        wanted = {"queues": [f"own {number}"]}
        for _ in self._balancer.rotation:
            await self._balancer.ask(kind, "POST", "/jobs/lease", wanted, headers=worker)
        path = f"/jobs/workers/{made.data['id']}"
        await self._balancer.ask(kind, "DELETE", path, accepted=[204], headers=admin())
        for _ in self._balancer.rotation:
            await self._balancer.ask(kind, "POST", "/jobs/lease", wanted, accepted=[401], headers=worker)

    async def _pause(self) -> None:
        kind = "pause and resume"
        body = {"name": "pausing", "queues": ["pausing"]}
        made = await self._balancer.ask(kind, "POST", "/jobs/workers", body, accepted=[201], headers=admin())
        worker = {"X-Worker-Token": made.data["token"]}
        await self._balancer.graphql(kind, _PAUSE, headers=admin())
        job = {"queue": "pausing", "kind": "k"}
        await self._balancer.ask(kind, "POST", "/jobs", job, accepted=[201])
        for _ in self._balancer.rotation:
            held = await self._balancer.ask(kind, "POST", "/jobs/lease", {"queues": ["pausing"]}, headers=worker)
            assert held.data["jobs"] == [], "leased from a queue that is paused"
        await self._balancer.graphql(kind, _RESUME, headers=admin())
        wanted = {"queues": ["pausing"], "capacity": 100, "waitSecs": 10, "requestId": f"r{next(self._numbers)}"}
        found = await self._balancer.ask(kind, "POST", "/jobs/lease", wanted, headers=worker)
        assert found.data["jobs"], "nothing leased from a queue that was resumed"
        for leased in found.data["jobs"]:
            path, report = f"/jobs/{leased['id']}/complete", {"leaseId": leased["leaseId"]}
            await self._balancer.ask(kind, "POST", path, report, accepted=[204], headers=worker)

    async def _cancel(self) -> None:
        kind = "cancel and retry"
        made = await self._balancer.ask(
            kind, "POST", "/jobs", {"queue": "nobody's", "kind": "cancelled"}, accepted=[201]
        )
        self.cancelled.add(made.data["id"])
        for mutation, field, status in (
            (_CANCEL, "cancelJob", "DEAD"),
            (_RETRY, "retryJob", "QUEUED"),
            (_CANCEL, "cancelJob", "DEAD"),
        ):
            done = await self._balancer.graphql(kind, mutation, {"id": made.data["id"]})
            assert done[field]["status"] == status, done

    async def check(self, sql: Any) -> None:
        """What was cancelled stays so, and nothing is left in the queue that was paused."""
        rows = await sql.fetch("SELECT id::text, status FROM jobs WHERE kind = 'cancelled'")
        assert {row["id"]: row["status"] for row in rows} == dict.fromkeys(self.cancelled, "dead")
        assert await sql.fetchval("SELECT count(*) FROM jobs WHERE queue = 'pausing' AND status <> 'succeeded'") == 0
