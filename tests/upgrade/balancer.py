"""Clients behind a load balancer: each call goes to the next server, and only what no server took is sent again."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp

from tests.chaos.fleet import Fleet
from tests.conftest import bearer

from .rig import TwoVersions

_TIMEOUT = aiohttp.ClientTimeout(total=60)
_REFUSED_SECS = 20  # for so long a call looks for a server that takes it
_SHOWN = 300  # characters of an answer


class Refused(Exception):
    """A server gave an answer that no client should see; it was noted."""


@dataclass(frozen=True)
class Answer:
    """Of a server."""

    status: int
    data: Any
    was_repeated: bool  # a server closed the connection before it answered, and the call was sent again


@dataclass
class Step:
    """What the clients saw during a step of the upgrade."""

    name: str
    calls: Counter[str] = field(default_factory=Counter)  # by kind
    errors: Counter[str] = field(default_factory=Counter)  # what went wrong, and how often
    longest: dict[str, float] = field(default_factory=dict)  # seconds, by kind
    secs: float = 0.0

    def took(self, kind: str, secs: float) -> None:
        """A call of that kind has been answered after so long."""
        self.calls[kind] += 1
        self.longest[kind] = max(secs, self.longest.get(kind, 0.0))

    def longest_of(self, what: str) -> float:
        """Seconds of the longest call of all kinds that begin so."""
        return max((secs for kind, secs in self.longest.items() if kind.startswith(what)), default=0.0)


class Balancer(Fleet):
    """The servers in rotation, in turn."""

    rig: TwoVersions

    def __init__(self, rig: TwoVersions, dice: Random) -> None:
        super().__init__(rig, [], dice)
        self.rotation: list[str] = []
        self.steps = [Step("before")]
        self.http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=_TIMEOUT)
        self._turn = 0

    @property
    def step(self) -> Step:
        """The one under way."""
        return self.steps[-1]

    def next(self) -> str:
        """The name of the server whose turn it is."""
        self._turn += 1
        return self.rotation[self._turn % len(self.rotation)]

    def failed(self, kind: str, why: str) -> None:
        """Note what a client must not see."""
        self.step.errors[f"{kind}: {why}"] += 1

    def errors(self) -> list[str]:
        """All of what clients must not have seen."""
        return [f"{step.name}: {count} × {why}" for step in self.steps for why, count in step.errors.items()]

    async def ask(
        self,
        kind: str,
        method: str,
        path: str,
        body: Any = None,
        *,
        accepted: Sequence[int] = (200,),
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """An answer with one of these statuses.

        Raises:
            Refused: the answer was another one, or none came.
        """
        began = time.monotonic()
        was_repeated = False
        while True:
            name = self.next()
            try:
                async with self.http.request(
                    method, self.rig.url_of(name) + path, json=body, headers=headers or bearer()
                ) as answer:
                    raw = await answer.read()
                    status, data = answer.status, (await answer.json(content_type=None) if raw else None)
                break
            except (aiohttp.ClientConnectionError, ConnectionError) as error:
                was_repeated = was_repeated or not isinstance(error, aiohttp.ClientConnectorError)
                if time.monotonic() - began > _REFUSED_SECS:
                    raise self._refused(kind, f"no server took {method} {path}: {error!r}") from None
                await asyncio.sleep(0.02)  # a load balancer's pause before it tries the next one
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                raise self._refused(kind, f"{_version(name)} {method} {_plain(path)}: {error!r}") from None
        self.step.took(kind, time.monotonic() - began)
        if status == 409 and was_repeated:  # the report that was sent twice had been taken the first time
            return Answer(status, data, was_repeated)
        if status not in accepted:
            raise self._refused(kind, f"{_version(name)} {method} {_plain(path)}: {status} {str(data)[:_SHOWN]}")
        return Answer(status, data, was_repeated)

    async def graphql(self, kind: str, query: str, variables: Any = None, headers: dict[str, str] | None = None) -> Any:
        """The data of an answer without errors.

        Raises:
            Refused: as `ask`, or the answer has errors.
        """
        body = {"query": query, "variables": variables or {}}
        answer = await self.ask(kind, "POST", "/graphql", body, headers=headers)
        if answer.data.get("errors"):
            raise self._refused(kind, f"{query[:60]}: {str(answer.data['errors'])[:_SHOWN]}")
        return answer.data["data"]

    async def call(
        self, http: aiohttp.ClientSession, path: str, body: Any, *, accepted: Sequence[int], **more: Any
    ) -> tuple[int, Any]:
        """As that of a fleet, and without its patience."""
        headers = {**http.headers, **(more.get("headers") or {})}
        answer = await self.ask("workflows", "POST", path, body, accepted=accepted, headers=headers)
        return answer.status, answer.data

    def _refused(self, kind: str, why: str) -> Refused:
        self.failed(kind, why)
        return Refused(why)


def _version(name: str) -> str:
    return "old" if name.startswith("old") else "new"


def _plain(path: str) -> str:
    """A path without the ids in it, so that errors of one kind are counted together."""
    return "/".join("…" if len(part) == 36 else part for part in path.split("/"))
