"""What a resolver has at hand: who is calling, and the services."""

from dataclasses import dataclass, field, replace
from typing import Any

import strawberry
from strawberry.dataloader import DataLoader

from atomo_gql.domain.errors import Unauthenticated
from atomo_gql.domain.events import Event
from atomo_gql.domain.jobs import Json
from atomo_gql.domain.principals import Caller
from atomo_gql.service.services import Services


@dataclass
class Context:
    """One per operation."""

    services: Services
    tenant_header: str | None = None
    trace: str | None = None
    maybe_caller: Caller | None = None
    loaders: dict[str, DataLoader[Any, Any]] = field(default_factory=dict)

    def fresh(self) -> "Context":
        """The same caller's, for another operation."""
        return replace(self, loaders={})

    @property
    def caller(self) -> Caller:
        """Who is calling.

        Raises:
            Unauthenticated: nobody is known.
        """
        if self.maybe_caller is None:
            raise Unauthenticated("a token is needed: Authorization: Bearer <JWT>, or in the connection_init payload")
        return self.maybe_caller

    def payloads(self) -> "DataLoader[Any, Json]":
        """What was sent with each job."""

        async def load(ids: list[Any]) -> list[Json]:
            found = await self.services.jobs.payloads(self.caller, ids)
            return [found.get(job_id) for job_id in ids]

        return self.loaders.setdefault("payloads", DataLoader(load_fn=load, cache=False))

    def events(self, after: int, most: int) -> "DataLoader[Any, list[Event]]":
        """The history of each job, loaded for all jobs of a page at once."""

        async def load(ids: list[Any]) -> list[list[Event]]:
            found = await self.services.jobs.events(self.caller, ids, after=after, most=most)
            return [found[job_id] for job_id in ids]

        return self.loaders.setdefault(f"events {after} {most}", DataLoader(load_fn=load, cache=False))


Info = strawberry.Info[Context, None]
