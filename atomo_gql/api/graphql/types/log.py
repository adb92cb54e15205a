"""The whole log, as GraphQL shows it."""

from enum import Enum
from uuid import UUID

import strawberry

from atomo_gql.api.graphql.context import Info
from atomo_gql.api.graphql.types.events import Fact, position_of
from atomo_gql.api.graphql.types.jobs import Job
from atomo_gql.api.graphql.types.paging import PageInfo
from atomo_gql.api.graphql.types.runs import WorkflowRun, run_of
from atomo_gql.domain import events as domain


@strawberry.enum(description="What has a life that events tell of.")
class Stream(Enum):
    """The kinds of streams."""

    JOB = strawberry.enum_value(domain.Stream.JOB, description="A job, from its enqueueing to its end.")
    QUEUE = strawberry.enum_value(domain.Stream.QUEUE, description="One pause of a queue; for admins.")
    WORKER_TOKEN = strawberry.enum_value(domain.Stream.WORKER_TOKEN, description="A worker token; for admins.")
    WORKFLOW = strawberry.enum_value(domain.Stream.WORKFLOW, description="A run of a workflow.")
    DEFINITION = strawberry.enum_value(
        domain.Stream.DEFINITION, description="A workflow and the versions of its definition; for admins."
    )
    BINDING = strawberry.enum_value(domain.Stream.BINDING, description="A binding; for admins.")
    MODEL = strawberry.enum_value(
        domain.Stream.MODEL, description="One thing of an application: what was recorded of it."
    )


@strawberry.type(description="An immutable fact.")
class Event(Fact):
    """One row of the event store."""

    stream: Stream = strawberry.field(description="The life of what it is a part of.")
    stream_id: strawberry.ID = strawberry.field(description="Of the job, the run, the pause or the token …")

    @strawberry.field(description="The job as it stands now; null for other streams.")
    async def job(self, info: Info) -> Job | None:
        """Loaded for all events of a page at once."""
        if self.stream is not Stream.JOB:
            return None
        job = await info.context.job(UUID(self.stream_id))
        return None if job is None else Job.of(job, is_whole=False)

    @strawberry.field(description="The run as it stands now; null for other streams.")
    async def run(self, info: Info) -> WorkflowRun | None:
        """Loaded for all events of a page at once."""
        return await run_of(info, self.fact.stream_id if self.stream is Stream.WORKFLOW else None)

    @classmethod
    def of(cls, event: domain.Event) -> "Event":
        """From the domain."""
        return cls.made(event, stream=Stream(event.stream), stream_id=strawberry.ID(str(event.stream_id)))


@strawberry.type(description="An event in a list.")
class EventEdge:
    """Relay's own shape."""

    cursor: str = strawberry.field(description="The event's position.")
    node: Event = strawberry.field(description="The event.")


@strawberry.type(description="A page of the log, in the order of commit (Relay).")
class EventConnection:
    """Relay's own shape. The end cursor may lie behind the last event, where the search came to."""

    edges: list[EventEdge] = strawberry.field(description="The events, each with its cursor.")
    nodes: list[Event] = strawberry.field(description="The events.")
    page_info: PageInfo = strawberry.field(
        description="Where it begins and ends; the end cursor is good for later too."
    )

    @classmethod
    def of(
        cls, events: list[domain.Event], end: domain.Place, *, has_next: bool, has_previous: bool
    ) -> "EventConnection":
        """From the domain."""
        edges = [EventEdge(cursor=position_of(event.place), node=Event.of(event)) for event in events]
        return cls(
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=PageInfo(
                has_next_page=has_next,
                has_previous_page=has_previous,
                start_cursor=edges[0].cursor if edges else None,
                end_cursor=position_of(end),
            ),
        )
