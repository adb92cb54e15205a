"""The protocol's HTTP calls. Each tries once; who calls decides what to do about Unavailable."""

import uuid
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

import aiohttp
import msgspec
import orjson

from atomo_gql.worker.backoff import parse_retry_after
from atomo_gql.worker.config import Config
from atomo_gql.worker.encoding import encode
from atomo_gql.worker.errors import Refused, Unavailable
from atomo_gql.worker.job import Job
from atomo_gql.worker.report import Outcome, Report, encode_list

CALL_SECONDS = 30.0
LEASE_GRACE_SECONDS = 10.0
_LATER = frozenset({408, 425, 429})
_DETAIL_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Ask:
    """A lease request: repeated as it is, until it is answered."""

    capacity: int  # 1–100
    kinds: list[str] | None = None  # None: any
    reports: list[Report] = field(default_factory=list)
    wait: int | None = None  # seconds; None: the worker's own
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


class _Leased(msgspec.Struct):
    jobs: list[Job]


class _LeasedAndReported(msgspec.Struct):
    jobs: list[Job]
    outcomes: list[Outcome]


class _Reported(msgspec.Struct):
    outcomes: list[Outcome]


_Answer = TypeVar("_Answer")


class Client:
    """One keep-alive session to the server; an async context manager.

    Every call raises Unavailable (no answer, 5xx, "later") or Refused (4xx).
    """

    def __init__(self, config: Config) -> None:
        self._lease_url = f"{config.url}/jobs/lease"
        self._reports_url = f"{config.url}/jobs/reports"
        # A heartbeat that hangs must leave time for another before the deadline.
        self._report_timeout = aiohttp.ClientTimeout(total=max(1.0, min(CALL_SECONDS, config.visibility / 3)))
        self._lease_timeout = aiohttp.ClientTimeout(total=config.wait + LEASE_GRACE_SECONDS)
        self._config = config

    async def __aenter__(self) -> "Client":
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # one for the lease, and as many as the outbox has flights
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

    async def lease(self, ask: Ask) -> tuple[list[Job], list[Outcome]]:
        """Up to `ask.capacity` jobs, and the outcomes of the reports that went along."""
        body = {
            "queues": self._config.queues,
            "capacity": ask.capacity,
            "visibilitySecs": self._config.visibility,
            "waitSecs": self._config.wait if ask.wait is None else ask.wait,
            "requestId": ask.id,
        }
        if ask.kinds is not None:
            body["kinds"] = ask.kinds
        if ask.reports:
            body["reports"] = orjson.Fragment(encode_list(ask.reports))
        answer = await self._post(self._lease_url, encode(body), self._lease_timeout)
        if not ask.reports:
            return _decoded(answer, _Leased).jobs, []
        both = _decoded(answer, _LeasedAndReported)
        return both.jobs, _counted(both.outcomes, ask.reports)

    async def report(self, reports: list[Report]) -> list[Outcome]:
        """The outcome of each."""
        body = b'{"reports":' + encode_list(reports) + b"}"
        answer = await self._post(self._reports_url, body, self._report_timeout)
        return _counted(_decoded(answer, _Reported).outcomes, reports)

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


def _decoded(body: bytes, shape: type[_Answer]) -> _Answer:
    """An answer of that shape. Payloads are as orjson decodes them, so that what they hold can be sent back.

    Raises Unavailable where it is not the protocol's: something else has answered.
    """
    try:
        return msgspec.convert(orjson.loads(body), shape)
    except (ValueError, msgspec.MsgspecError) as error:
        raise Unavailable(f"the answer is not the protocol's ({error}): {body[:200]!r}") from error


def _counted(outcomes: list[Outcome], reports: list[Report]) -> list[Outcome]:
    """One for each report, or Unavailable is raised."""
    if len(outcomes) != len(reports):
        raise Unavailable(f"the answer is not the protocol's: {len(outcomes)} outcomes for {len(reports)} reports")
    return outcomes


def _unsuccessful(response: aiohttp.ClientResponse, body: bytes) -> Refused | Unavailable:
    """The exception for an answer that is no success."""
    status = response.status
    problem = _problem(response, body)
    detail = str(problem.get("detail") or problem.get("title") or response.reason or "")[:_DETAIL_CHARACTERS]
    message = f"{status} {detail}".rstrip()
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
