"""The client for asyncio."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from types import TracebackType
from typing import Any

from atomo_gql.client.connection import Connection
from atomo_gql.client.errors import JobDead
from atomo_gql.worker.tracing import current_traceparent

_WATCH = "subscription ($id: ID!) { jobProgress(id: $id) { jobId status attempts percent message data } }"
_ENDED = ("SUCCEEDED", "DEAD")


class AsyncClient:
    """Enqueues and follows jobs; an async context manager.

    url: the service's address; default: the variable ATOMO_URL. token: a JWT; default: the variable ATOMO_TOKEN.
    tenant: whom an unbound admin acts for. timeout: seconds that one call may take.

    Every method raises ServiceError where the service refuses, and Unreachable where it does not answer: then it is not
    known whether an `enqueue` took place, and one with an `idempotency_key` can simply be made again.
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
        payload: Any = None,
        *,
        idempotency_key: str | None = None,
        max_attempts: int = 5,
        priority: int = 0,
        run_at: datetime | None = None,
        timeout_secs: int | None = None,
        deadline: datetime | None = None,
    ) -> str:
        """Make a job, or find the one that its idempotency key names; its id.

        payload: any JSON value; None is {}. The trace under way here goes on in the job's handler.
        """
        body = {
            "queue": queue,
            "kind": kind,
            "payload": {} if payload is None else payload,
            "idempotencyKey": idempotency_key,
            "maxAttempts": max_attempts,
            "priority": priority,
            "runAt": run_at,
            "timeoutSecs": timeout_secs,
            "deadline": deadline,
        }
        made = await self._connection.rest("POST", "/jobs", body, _trace())
        return str(made["id"])

    async def enqueue_many(self, jobs: Sequence[Mapping[str, Any]]) -> list[str]:
        """Make up to 1,000 jobs, all or none; their ids, in order. Each is a body of POST /jobs."""
        made = await self._connection.rest("POST", "/jobs/batch", {"jobs": list(jobs)}, _trace())
        return [str(job["id"]) for job in made["jobs"]]

    async def get(self, job_id: str) -> dict[str, Any]:
        """The job as it stands: the answer of GET /jobs/{id}."""
        found: dict[str, Any] = await self._connection.rest("GET", f"/jobs/{job_id}")
        return found

    async def watch(self, job_id: str) -> AsyncIterator[dict[str, Any]]:
        """The job's present state, each update {jobId, status, attempts, percent, message, data}, and its end.

        A lost connection is made again. Raises ServiceError.
        """
        async with aclosing(self._connection.subscribe(_WATCH, {"id": job_id})) as updates:  # type: ignore[type-var]
            async for update in updates:
                yield update["jobProgress"]

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


def _trace() -> dict[str, str]:
    traceparent = current_traceparent()
    return {} if traceparent is None else {"traceparent": traceparent}
