"""Recorded events and the bindings of actions to them, as GraphQL shows them."""

from datetime import datetime

import strawberry
from strawberry.scalars import JSON

from atomo_gql.api.graphql.context import Info
from atomo_gql.api.graphql.types.paging import PageInfo, cursor_of
from atomo_gql.domain import actions as domain
from atomo_gql.domain.paging import Page
from atomo_gql.service.actions.records import Recorded

SORT = "binding"


@strawberry.type(description="An event of a model, in the log.")
class RecordedEvent:
    """What `recordEvent` answers."""

    event_id: str = strawberry.field(description="The same id is the same event.")
    is_new: bool = strawberry.field(description="Whether this call recorded it.")

    @classmethod
    def of(cls, recorded: Recorded) -> "RecordedEvent":
        """From the service."""
        return cls(event_id=recorded.event_id, is_new=recorded.is_new)


@strawberry.type(description="Which action fires on which event: a match enqueues a job of the action's kind.")
class Binding:
    """One that has not been removed, or just has."""

    id: strawberry.ID = strawberry.field(description="What it is removed by.")
    model: str = strawberry.field(description="Whose events.")
    event: str = strawberry.field(description="created, updated or deleted; of Job, its transitions too.")
    action: str = strawberry.field(description="What fires: the kind of the job.")
    queue: str = strawberry.field(description="The job's queue.")
    input: list[str] | None = strawberry.field(description="The fields of the data that the job gets; null: all.")
    registered_at: datetime = strawberry.field(description="Since when it fires.")
    registered_by: str = strawberry.field(description="Who registered it.")
    source_file: str | None = strawberry.field(description="The file it was read from at boot.")
    is_set_aside: bool = strawberry.field(description="Whether it failed, and fires no more until it is resumed.")
    set_aside_at: datetime | None = strawberry.field(description="When it was set aside.")
    error: str | None = strawberry.field(
        description="The event that it failed on, and why. One of the service tells this to its operators alone."
    )
    tenant_id: str | None = strawberry.field(
        description="On whose events it fires; null: the service's, on every tenant's."
    )
    what: strawberry.Private[domain.NewBinding]

    @strawberry.field(description="On which events alone: {changedAny, fieldEquals}; null: on each.")
    def condition(self, info: Info) -> JSON | None:
        """It may be large."""
        info.context.budget.spend_json(self.what.condition)
        return self.what.condition  # type: ignore[no-any-return]

    @classmethod
    def of(cls, binding: domain.Binding) -> "Binding":
        """From the domain."""
        what = binding.what
        return cls(
            id=strawberry.ID(str(binding.id)),
            model=what.model,
            event=what.event,
            action=what.action,
            queue=what.queue,
            input=None if what.input is None else list(what.input),
            registered_at=binding.registered_at,
            registered_by=binding.registered_by,
            source_file=binding.source_file,
            is_set_aside=binding.set_aside_at is not None,
            set_aside_at=binding.set_aside_at,
            error=binding.error,
            tenant_id=binding.tenant,
            what=what,
        )


@strawberry.type(description="A binding in a list.")
class BindingEdge:
    """Relay's own shape."""

    cursor: str = strawberry.field(description="Opaque.")
    node: Binding = strawberry.field(description="The binding.")


@strawberry.type(description="A page of bindings, oldest first (Relay).")
class BindingConnection:
    """Relay's own shape."""

    edges: list[BindingEdge] = strawberry.field(description="The bindings, each with its cursor.")
    nodes: list[Binding] = strawberry.field(description="The bindings.")
    page_info: PageInfo = strawberry.field(description="Where it begins and ends.")

    @classmethod
    def of(cls, page: Page[domain.Binding]) -> "BindingConnection":
        """From the domain."""
        edges = [BindingEdge(cursor=cursor_of(SORT, str(b.id)), node=Binding.of(b)) for b in page.items]
        return cls(
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=PageInfo.of(page, [edge.cursor for edge in edges]),
        )
