"""What a resolver has at hand: who is calling, the services, and loaders that ask once for a whole page."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from uuid import UUID

import strawberry
from strawberry.dataloader import DataLoader

from atomo_gql.api.auth import Authenticator
from atomo_gql.domain.attempts import Attempt
from atomo_gql.domain.errors import AnswerTooLarge, Unauthenticated
from atomo_gql.domain.events import Event
from atomo_gql.domain.jobs import Body, Job, Json, Waiting
from atomo_gql.domain.principals import Caller
from atomo_gql.service.services import Services

Value = TypeVar("Value")
EACH = 2_048  # bytes that one of them costs at least: a short one takes its time, too


@dataclass
class Budget:
    """What one answer may hold. It is spent where values are put into it: an alias puts the same one in again."""

    left: int = AnswerTooLarge.MOST

    def spend(self, size: int) -> None:
        """Put in so many bytes, and what is around them.

        Raises:
            AnswerTooLarge: it is full.
        """
        self.left -= size + EACH
        if self.left < 0:
            raise AnswerTooLarge


@dataclass
class Context:
    """One per operation."""

    services: Services
    authenticator: Authenticator
    tenant_header: str | None = None
    trace: str | None = None
    maybe_caller: Caller | None = None
    budget: Budget = field(default_factory=Budget)
    loaders: dict[str, DataLoader[UUID, Any]] = field(default_factory=dict)

    def fresh(self) -> "Context":
        """The same caller's, for another operation."""
        return replace(self, loaders={}, budget=Budget())

    @property
    def caller(self) -> Caller:
        """Who is calling.

        Raises:
            Unauthenticated: nobody is known.
        """
        if self.maybe_caller is None:
            raise Unauthenticated("a token is needed: Authorization: Bearer <JWT>, or in the connection_init payload")
        return self.maybe_caller

    async def body(self, job_id: UUID, what: Body) -> Json:
        """The payload, result or progress of a job."""

        async def load(ids: list[UUID]) -> dict[UUID, tuple[Json, int]]:
            return await self.services.jobs.bodies(ids, what, self.budget.left)

        body, size = await self._load(what, job_id, load) or (None, 0)
        self.budget.spend(size)
        return body

    async def events(self, job_id: UUID, after: int, most: int) -> list[Event]:
        """The history of a job."""

        async def load(ids: list[UUID]) -> dict[UUID, list[Event]]:
            return await self.services.history.of_jobs(ids, after=after, most=most, most_bytes=self.budget.left)

        events = await self._load(f"events {after} {most}", job_id, load) or []
        for event in events:
            self.budget.spend(event.size)
        return events

    async def attempts(self, job_id: UUID) -> list[Attempt]:
        """The attempts of a job."""

        async def load(ids: list[UUID]) -> dict[UUID, list[Attempt]]:
            left = self.budget.left
            return await self.services.history.attempts(ids, left // EACH, left)

        attempts = await self._load("attempts", job_id, load) or []
        for attempt in attempts:
            self.budget.spend(len(attempt.error or ""))
        return attempts

    async def waiting(self, job_id: UUID) -> Waiting | None:
        """Why a job is not running."""
        return await self._load("waiting", job_id, self.services.jobs.waiting)

    async def job(self, job_id: UUID) -> Job | None:
        """A job that an event tells of."""

        async def load(ids: list[UUID]) -> dict[UUID, Job]:
            return await self.services.jobs.get_many(self.caller, ids)

        return await self._load("jobs", job_id, load)

    async def _load(
        self, name: str, key: UUID, fetch: Callable[[list[UUID]], Awaitable[dict[UUID, Value]]]
    ) -> Value | None:
        loader = self.loaders.get(name)
        if loader is None:

            async def load(keys: list[UUID]) -> list[Value | None]:
                found = await fetch(list(dict.fromkeys(keys)))
                return [found.get(key) for key in keys]

            loader = self.loaders[name] = DataLoader(load_fn=load, cache=False)
        value: Value | None = await loader.load(key)
        return value


Info = strawberry.Info[Context, None]
