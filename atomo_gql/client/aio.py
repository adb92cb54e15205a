"""The client for asyncio."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from types import TracebackType
from typing import Any
from urllib.parse import quote

from atomo_gql.client.connection import Connection
from atomo_gql.client.errors import JobDead
from atomo_gql.worker.tracing import current_traceparent

_WATCH = "subscription ($id: ID!) { jobProgress(id: $id) { jobId status attempts percent message data } }"
_CANCEL = "mutation ($id: ID!, $reason: String) { cancelJob(id: $id, reason: $reason) { id } }"
_RETRY = "mutation ($id: ID!) { retryJob(id: $id) { id } }"
_ENDED = ("succeeded", "dead")
_LEFT_OUT: Any = object()  # a payload may be None, which is null
_WIRE = {
    "idempotency_key": "idempotencyKey",
    "max_attempts": "maxAttempts",
    "run_at": "runAt",
    "timeout_secs": "timeoutSecs",
}


class AsyncClient:
    """Enqueues and follows jobs; an async context manager.

    url: the service's address; default: the variable ATOMO_URL. token: a JWT; default: the variable ATOMO_TOKEN.
    tenant: whom an unbound admin acts for. timeout: seconds that one call may take.

    Every method raises ServiceError where the service refuses, ValueError for what is no JSON, and Unreachable where
    the service does not answer: then it is not known whether an `enqueue` took place, and one with an `idempotency_key`
    can simply be made again.
    """

    def __init__(
        self, url: str | None = None, token: str | None = None, *, tenant: str | None = None, timeout: float = 30.0
    ) -> None:
        url, token = url or os.environ.get("ATOMO_URL", ""), token or os.environ.get("ATOMO_TOKEN", "")
        if not url.startswith(("http://", "https://")):
            raise ValueError("url must be an http:// or https:// address, or ATOMO_URL be set")
        if not token or not token.isprintable() or not token.isascii():
            raise ValueError("token must be a JWT, or ATOMO_TOKEN be set")
        self._connection = Connection(url, token, tenant=tenant, timeout=timeout)

    async def __aenter__(self) -> "AsyncClient":
        await self._connection.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.__aexit__(kind, error, trace)

    async def enqueue(
        self,
        queue: str,
        kind: str,
        payload: Any = _LEFT_OUT,
        *,
        idempotency_key: str | None = None,
        max_attempts: int = 5,
        priority: int = 0,
        run_at: datetime | None = None,
        timeout_secs: int | None = None,
        deadline: datetime | None = None,
    ) -> str:
        """Make a job, or find the one that its idempotency key names; its id.

        payload: any JSON value; {} when left out. The trace under way here goes on in the job's handler.
        """
        body = {
            "queue": queue,
            "kind": kind,
            "payload": {} if payload is _LEFT_OUT else payload,
            "idempotency_key": idempotency_key,
            "max_attempts": max_attempts,
            "priority": priority,
            "run_at": run_at,
            "timeout_secs": timeout_secs,
            "deadline": deadline,
        }
        made = await self._connection.rest("POST", "/jobs", _wire(body), _trace())
        return str(made["id"])

    async def enqueue_many(self, jobs: Sequence[Mapping[str, Any]]) -> list[str]:
        """Make up to 1,000 jobs, all or none; their ids, in order. Each has the arguments of `enqueue`, by name."""
        made = await self._connection.rest("POST", "/jobs/batch", {"jobs": [_wire(job) for job in jobs]}, _trace())
        return [str(job["id"]) for job in made["jobs"]]

    async def get(self, job_id: str) -> dict[str, Any]:
        """The job as it stands: the answer of GET /jobs/{id}."""
        found: dict[str, Any] = await self._connection.rest("GET", f"/jobs/{quote(job_id, safe='')}")
        return found

    async def cancel(self, job_id: str, reason: str | None = None) -> None:
        """End a job that is queued or leased: it is dead, and its worker learns it. One that is dead stays so."""
        await self._connection.graphql(_CANCEL, {"id": job_id, "reason": reason})

    async def retry(self, job_id: str) -> None:
        """Queue a dead job again, with all its attempts before it. One that is queued or leased stays so."""
        await self._connection.graphql(_RETRY, {"id": job_id})

    async def watch(self, job_id: str) -> AsyncIterator[dict[str, Any]]:
        """The job's present state, each update {jobId, status, attempts, percent, message, data}, and its end.

        A lost connection is made again. Raises ServiceError, and Unreachable when it is not back within the client's
        timeout.
        """
        async with aclosing(self._connection.subscribe(_WATCH, {"id": job_id})) as updates:  # type: ignore[type-var]
            async for update in updates:
                told = update["jobProgress"]
                yield {**told, "status": told["status"].lower()}

    async def wait(self, job_id: str, timeout: float | None = None) -> dict[str, Any]:
        """The job, once it has ended. timeout: seconds; None: no limit.

        Raises TimeoutError.
        """
        async with asyncio.timeout(timeout), aclosing(self.watch(job_id)) as updates:  # type: ignore[type-var]
            async for update in updates:
                if update["status"] in _ENDED:
                    break
            return await self.get(job_id)

    async def result(self, job_id: str, timeout: float | None = None) -> Any:
        """What came of it, once it has succeeded. timeout: seconds; None: no limit.

        Raises JobDead where it ended without a result, and TimeoutError.
        """
        job = await self.wait(job_id, timeout)
        if job["status"] == "dead":
            raise JobDead(job)
        return job["result"]


def _wire(job: Mapping[str, Any]) -> dict[str, Any]:
    return {_WIRE.get(name, name): value for name, value in job.items()}


def _trace() -> dict[str, str]:
    traceparent = current_traceparent()
    return {} if traceparent is None else {"traceparent": traceparent}
