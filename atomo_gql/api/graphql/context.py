"""What a resolver has at hand: who is calling, the services, and loaders that ask once for a whole page."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from uuid import UUID

import orjson
import strawberry
from strawberry.dataloader import DataLoader

from atomo_gql.api.auth import Authenticator
from atomo_gql.domain.attempts import Attempt
from atomo_gql.domain.errors import AnswerTooLarge, Unauthenticated, Unavailable
from atomo_gql.domain.events import Event
from atomo_gql.domain.jobs import Body, Job, Json, Waiting
from atomo_gql.domain.principals import Caller
from atomo_gql.domain.workflows.definition import Definition
from atomo_gql.domain.workflows.runs import Run, RunBody
from atomo_gql.service.services import Services
from atomo_gql.service.workflows.definitions import Registered

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
EACH = 2_048  # bytes that one of them costs at least: a short one takes its time, too


@dataclass
class Budget:
    """What one answer may hold. It is spent where values are put into it: an alias puts the same one in again."""

    left: int = AnswerTooLarge.MOST

    def spend(self, size: int, count: int = 1) -> None:
        """Put in so many bytes, in so many things, and what is around each of them.

        Raises:
            AnswerTooLarge: it is full.
        """
        self.left -= size + EACH * count
        if self.left < 0:
            raise AnswerTooLarge

    def spend_json(self, value: Json) -> None:
        """Put in a JSON value.

        Raises:
            AnswerTooLarge: it is full.
        """
        self.spend(len(orjson.dumps(value)))


@dataclass
class Context:
    """One per operation."""

    services: Services
    authenticator: Authenticator
    tenant_header: str | None = None
    trace: str | None = None
    maybe_caller: Caller | None = None
    budget: Budget = field(default_factory=Budget)
    loaders: dict[str, DataLoader[Any, Any]] = field(default_factory=dict)

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

    async def events(self, stream_id: UUID, after: int, most: int) -> list[Event]:
        """The history of a job or a run."""

        async def load(ids: list[UUID]) -> dict[UUID, list[Event]]:
            return await self.services.history.of_streams(ids, after=after, most=most, most_bytes=self.budget.left)

        events = await self._load(f"events {after} {most}", stream_id, load) or []
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
        """A job that an event tells of, or that a run enqueued."""

        async def load(ids: list[UUID]) -> dict[UUID, Job]:
            return await self.services.jobs.get_many(self.caller, ids)

        return await self._load("jobs", job_id, load)

    async def run(self, run_id: UUID) -> Run | None:
        """A run that a job is a step of, or that an event tells of; without what `run_body` has."""

        async def load(ids: list[UUID]) -> dict[UUID, Run]:
            return await self.services.runs.get_many(self.caller, ids)

        return await self._load("runs", run_id, load)

    async def run_body(self, run_id: UUID) -> RunBody:
        """The context of a run, and the results of its steps."""

        async def load(ids: list[UUID]) -> dict[UUID, RunBody]:
            return await self.services.runs.bodies(ids, self.budget.left)

        return await self._load("run bodies", run_id, load) or RunBody({}, {})

    async def run_jobs(self, run_id: UUID, most: int) -> list[Job]:
        """The jobs that a run enqueued, oldest first."""

        async def load(ids: list[UUID]) -> dict[UUID, list[UUID]]:
            return await self.services.runs.jobs(ids, most)

        ids = await self._load(f"run jobs {most}", run_id, load) or []
        self.budget.spend(0, len(ids))  # before they are looked for: what cannot be shown is not looked for
        found = await asyncio.gather(*(self.job(job_id) for job_id in ids))
        return [job for job in found if job is not None]

    async def versions(self, workflow_id: UUID, most: int) -> list[Registered]:
        """The versions of a workflow, newest first."""

        async def load(ids: list[UUID]) -> dict[UUID, list[Registered]]:
            return await self.services.workflows.history(ids, most)

        found = await self._load(f"versions {most}", workflow_id, load) or []
        self.budget.spend(0, len(found))
        return found

    async def definition(self, version: tuple[UUID, int]) -> Definition | Unavailable:
        """A version of a definition; an error in the place of one that cannot be read."""
        found = await self._load("definitions", version, self.services.workflows.of_runs)
        assert found is not None  # noqa: S101  # there is an error for each that is missing
        return found

    async def definition_source(self, version: tuple[UUID, int]) -> Json:
        """A version of a definition as it was given."""

        async def load(versions: list[tuple[UUID, int]]) -> dict[tuple[UUID, int], Json]:
            return await self.services.workflows.sources(versions, self.budget.left)

        source = await self._load("definition sources", version, load)
        self.budget.spend_json(source)
        return source

    async def _load(
        self, name: str, key: Key, fetch: Callable[[list[Key]], Awaitable[dict[Key, Value]]]
    ) -> Value | None:
        loader = self.loaders.get(name)
        if loader is None:

            async def load(keys: list[Key]) -> list[Value | None]:
                found = await fetch(list(dict.fromkeys(keys)))
                return [found.get(key) for key in keys]

            loader = self.loaders[name] = DataLoader(load_fn=load, cache=False)
        value: Value | None = await loader.load(key)
        return value


Info = strawberry.Info[Context, None]
