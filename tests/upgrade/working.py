"""A worker that leases from whichever server comes, and reports to another."""

import asyncio
import uuid
from typing import Any

from tests.chaos.definitions import QUEUE as STEPS
from tests.chaos.definitions import work as work_of_a_step
from tests.conftest import admin

from . import enqueuing
from .balancer import Balancer
from .turns import Turn

QUEUES = (enqueuing.QUEUE, STEPS, "crm", "actions")
_VISIBILITY = 120  # seconds: nobody dies here, so no lease may run out


class Working:
    """One worker's token, and some loops."""

    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer
        self._headers: dict[str, str] = {}
        self._released: set[str] = set()

    def turns(self) -> list[Turn]:
        """What workers do."""
        return [
            Turn("lease with a long poll", self._lease, pause=0, loops=3),
            Turn("lease", self._lease_at_once, 0.5),
        ]

    async def mint(self) -> None:
        """The token."""
        body = {"name": "upgrade", "queues": list(QUEUES)}
        answer = await self._balancer.ask("mint", "POST", "/jobs/workers", body, accepted=[201], headers=admin())
        self._headers = {"X-Worker-Token": answer.data["token"]}

    async def _lease(self, wait: float = 3) -> None:
        body = {
            "queues": list(QUEUES),
            "capacity": 10,
            "visibilitySecs": _VISIBILITY,
            "waitSecs": wait,
            "requestId": str(uuid.uuid4()),  # so that an answer that is lost is given again
        }
        kind = "lease with a long poll" if wait else "lease"
        answer = await self._balancer.ask(kind, "POST", "/jobs/lease", body, headers=self._headers)
        listed = [job for job in answer.data["jobs"] if job["kind"] == "listed"]
        if listed:
            await self._report_together(listed)
        await asyncio.gather(*(self._work(job) for job in answer.data["jobs"] if job not in listed))

    async def _lease_at_once(self) -> None:
        await self._lease(wait=0)

    async def _work(self, job: Any) -> None:
        if job["queue"] == STEPS:
            verb, body = work_of_a_step(job)
            await self._report(job, verb, **body)
            return
        match job["kind"]:
            case "progress":
                await self._report(job, "heartbeat", visibilitySecs=_VISIBILITY)
                await self._report(job, "progress", percent=0.5, message="half", data={"of": job["payload"]["n"]})
                await self._report(job, "complete", result={"n": job["payload"]["n"]})
            case "fail once" if job["attempts"] == 1:
                await self._report(job, "fail", error="not yet", retryAfterSecs=1)
            case "die":
                await self._report(job, "fail", error="never", retryable=False)
            case "release once" if job["id"] not in self._released:
                self._released.add(job["id"])
                await self._report(job, "release")
            case _:
                await self._report(job, "complete", result={"n": job["payload"].get("n")})

    async def _report(self, job: Any, verb: str, **body: Any) -> None:
        path, full = f"/jobs/{job['id']}/{verb}", {"leaseId": job["leaseId"], **body}
        await self._balancer.ask(f"report {verb}", "POST", path, full, accepted=[200, 204], headers=self._headers)

    async def _report_together(self, jobs: list[Any]) -> None:
        reports = [
            {"type": "complete", "id": job["id"], "leaseId": job["leaseId"], "result": {"n": job["payload"]["n"]}}
            for job in jobs
        ]
        answer = await self._balancer.ask(
            "report on many", "POST", "/jobs/reports", {"reports": reports}, headers=self._headers
        )
        statuses = {outcome.get("status") for outcome in answer.data["outcomes"]}
        assert answer.was_repeated or statuses <= {200, 204}, answer.data
