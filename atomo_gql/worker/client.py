"""The protocol's HTTP calls. Each tries once; who calls decides what to do about Unavailable."""

from types import TracebackType
from typing import Any

import aiohttp
import orjson

from atomo_gql.worker.backoff import parse_retry_after
from atomo_gql.worker.config import Config
from atomo_gql.worker.encoding import encode
from atomo_gql.worker.errors import LeaseLost, Refused, Unavailable
from atomo_gql.worker.job import Job

CALL_SECONDS = 30.0
CALL = aiohttp.ClientTimeout(total=CALL_SECONDS)
LEASE_GRACE_SECONDS = 10.0
_LATER = frozenset({408, 425, 429})
_DETAIL_CHARACTERS = 500


class Client:
    """One keep-alive session to the server; an async context manager.

    Every call raises Unavailable (no answer, 5xx, "later") or Refused (4xx), and the calls on a job LeaseLost (409).
    """

    def __init__(self, config: Config) -> None:
        self._jobs = f"{config.url}/jobs"
        self._lease_url = f"{self._jobs}/lease"
        self._lease_timeout = aiohttp.ClientTimeout(total=config.wait + LEASE_GRACE_SECONDS)
        self._config = config

    async def __aenter__(self) -> "Client":
        self._session = aiohttp.ClientSession(
            # One connection for the lease; per job one for its report or progress, one for its heartbeat.
            connector=aiohttp.TCPConnector(limit=2 * self._config.concurrency + 1),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "X-Worker-Token": self._config.token,
                "Content-Type": "application/json",
                "User-Agent": "atomo-gql-worker",
            },
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def lease(self, capacity: int) -> list[Job]:
        """Up to `capacity` jobs (1–100); waits on the server for the first, as long as the configuration says."""
        config = self._config
        body = {
            "queues": config.queues,
            "capacity": capacity,
            "visibilitySecs": config.visibility,
            "waitSecs": config.wait,
        }
        answer = await self._post(self._lease_url, encode(body), self._lease_timeout)
        try:
            return [Job.from_wire(wire) for wire in orjson.loads(answer)["jobs"]]
        except (KeyError, TypeError, ValueError) as error:
            raise Unavailable(f"the answer to a lease is not the protocol's: {answer[:200]!r}") from error

    async def heartbeat(self, job: Job, visibility: int) -> None:
        """Move the lease's deadline to `visibility` seconds from now."""
        # A call that hangs must leave time for another before the deadline.
        timeout = aiohttp.ClientTimeout(total=min(CALL_SECONDS, visibility / 3))
        await self._report(job, "heartbeat", encode({"leaseId": job.lease_id, "visibilitySecs": visibility}), timeout)

    async def progress(self, job: Job, body: bytes) -> None:
        """Fan out a progress update; `body` is encoded already."""
        await self._report(job, "progress", body)

    async def complete(self, job: Job, body: bytes) -> None:
        """The job succeeded; `body` holds the result, encoded already."""
        await self._report(job, "complete", body)

    async def fail(self, job: Job, error: str, retryable: bool) -> float | None:
        """The attempt failed. Returns the seconds until the next one, or None when the job is dead."""
        body = encode({"leaseId": job.lease_id, "error": error, "retryable": retryable})
        answer = await self._report(job, "fail", body)
        try:
            outcome = orjson.loads(answer)
            return float(outcome["delaySecs"]) if outcome["outcome"] == "retry" else None
        except (KeyError, TypeError, ValueError) as problem:
            raise Unavailable(f"the answer to a failure is not the protocol's: {answer[:200]!r}") from problem

    async def release(self, job: Job) -> None:
        """Give the job back at once; the attempt is not counted."""
        await self._report(job, "release", encode({"leaseId": job.lease_id}))

    async def _report(self, job: Job, verb: str, body: bytes, timeout: aiohttp.ClientTimeout = CALL) -> bytes:
        return await self._post(f"{self._jobs}/{job.id}/{verb}", body, timeout)

    async def _post(self, url: str, body: bytes, timeout: aiohttp.ClientTimeout) -> bytes:
        try:
            # A redirect would turn the POST into a GET, and could carry the token to another host.
            async with self._session.post(url, data=body, timeout=timeout, allow_redirects=False) as response:
                if response.status == 204:
                    return b""
                answer = await response.read()
        except TimeoutError as error:
            raise Unavailable("the server did not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(str(error) or type(error).__name__) from error
        if 200 <= response.status < 300:
            return answer
        raise _unsuccessful(response, answer)


def _unsuccessful(response: aiohttp.ClientResponse, body: bytes) -> LeaseLost | Refused | Unavailable:
    """The exception for an answer that is no success."""
    status = response.status
    problem = _problem(response, body)
    detail = str(problem.get("detail") or problem.get("title") or response.reason or "")[:_DETAIL_CHARACTERS]
    message = f"{status} {detail}".rstrip()
    if status == 409:
        return LeaseLost(message)
    # A 404 or 405 that the server did not write comes from something between, while the server restarts.
    if status in _LATER or not 400 <= status < 500 or (status in (404, 405) and not problem):
        if location := response.headers.get("Location"):
            message = f"{message}, redirected to {location}"
        return Unavailable(message, parse_retry_after(response.headers.get("Retry-After")))
    return Refused(message, status, str(problem.get("code", "")))


def _problem(response: aiohttp.ClientResponse, body: bytes) -> dict[str, Any]:
    """The problem document (RFC 9457) of an answer, or an empty one."""
    if response.content_type != "application/problem+json":
        return {}
    try:
        problem = orjson.loads(body)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}
