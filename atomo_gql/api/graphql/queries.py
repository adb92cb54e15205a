"""What can be asked about jobs, queues and the log: each field parses, asks a service, and renders."""

from typing import Annotated

import strawberry

from atomo_gql.api.graphql.context import Info
from atomo_gql.api.graphql.types import jobs, queues, tokens
from atomo_gql.api.graphql.types.events import EventType, place_of
from atomo_gql.api.graphql.types.inputs import JobFilter, JobOrder
from atomo_gql.api.graphql.types.jobs import Job, JobConnection
from atomo_gql.api.graphql.types.log import EventConnection, Stream
from atomo_gql.api.graphql.types.paging import AFTER, BEFORE, FIRST, LAST, argument, uuid_key, window
from atomo_gql.api.graphql.types.queues import Queue, QueueConnection
from atomo_gql.api.graphql.types.tokens import WorkerTokenConnection
from atomo_gql.domain import events as domain
from atomo_gql.domain.errors import NotFound
from atomo_gql.domain.rules import check_queue, check_range, parse_id


@strawberry.type
class JobQueries:
    """A part of `Query`."""

    @strawberry.field(description="A job as it stands; null when there is none, or none that you may see.")
    async def job(self, info: Info, id: Annotated[strawberry.ID, argument("The job's id.")]) -> Job | None:  # noqa: A002  # the contract's word
        """`job(id)`."""
        try:
            return Job.of(await info.context.services.jobs.get(info.context.caller, parse_id("id", id)))
        except NotFound:
            return None

    @strawberry.field(description="The jobs that you may see.")
    async def jobs(
        self,
        info: Info,
        filter: Annotated[JobFilter | None, argument("Only those that match.")] = None,  # noqa: A002  # the contract's word
        order_by: Annotated[JobOrder, argument("In this order.")] = JobOrder.NEWEST_FIRST,
        first: Annotated[int | None, FIRST] = None,
        after: Annotated[str | None, AFTER] = None,
        last: Annotated[int | None, LAST] = None,
        before: Annotated[str | None, BEFORE] = None,
    ) -> JobConnection:
        """`jobs(…)`."""
        context, wanted = info.context, (filter or JobFilter()).checked()
        part = window(jobs.SORT, uuid_key, first=first, after=after, last=last, before=before)
        oldest_first = order_by is JobOrder.OLDEST_FIRST
        page = await context.services.jobs.page(context.caller, wanted, part, oldest_first=oldest_first)
        return JobConnection.of(page, wanted, part, oldest_first=oldest_first)

    @strawberry.field(description="The queues that your jobs have been in, by name.")
    async def queues(
        self,
        info: Info,
        first: Annotated[int | None, FIRST] = None,
        after: Annotated[str | None, AFTER] = None,
        last: Annotated[int | None, LAST] = None,
        before: Annotated[str | None, BEFORE] = None,
    ) -> QueueConnection:
        """`queues(…)`."""
        part = window(queues.SORT, str, first=first, after=after, last=last, before=before)
        return QueueConnection.of(await info.context.services.queues.page(info.context.caller, part))

    @strawberry.field(description="One queue; one that no job has been in is empty.")
    async def queue(self, info: Info, name: Annotated[str, argument("Its name.")]) -> Queue:
        """`queue(name)`."""
        [view] = await info.context.services.queues.views(info.context.caller, [check_queue("name", name)])
        return Queue.of(view)

    @strawberry.field(description="The worker tokens that you may see, newest first, revoked ones too; for admins.")
    async def worker_tokens(
        self,
        info: Info,
        first: Annotated[int | None, FIRST] = None,
        after: Annotated[str | None, AFTER] = None,
        last: Annotated[int | None, LAST] = None,
        before: Annotated[str | None, BEFORE] = None,
    ) -> WorkerTokenConnection:
        """`workerTokens(…)`."""
        part = window(tokens.SORT, uuid_key, first=first, after=after, last=last, before=before)
        return WorkerTokenConnection.of(await info.context.services.tokens.page(info.context.caller, part))

    @strawberry.field(
        description="The log in the order of commit, from behind a position. Nothing can appear before a position "
        "that was given, so a reader that keeps its last one misses nothing."
    )
    async def events(
        self,
        info: Info,
        after: Annotated[str | None, argument("From behind this position; null: from the beginning.")] = None,
        first: Annotated[int, argument("At most so many; 1–1,000.")] = 100,
        streams: Annotated[list[Stream] | None, argument("Only of these; null: JOB. See which are for admins.")] = None,
        types: Annotated[list[EventType] | None, argument("Only of these types.")] = None,
        stream_id: Annotated[strawberry.ID | None, argument("Only of this job, run, pause or token …")] = None,
    ) -> EventConnection:
        """`events(…)`."""
        context = info.context
        wanted = domain.EventFilter(
            streams=tuple(domain.Stream[s.name] for s in ((Stream.JOB,) if streams is None else streams)),
            stream_id=None if stream_id is None else parse_id("streamId", stream_id),
            types=None if types is None else tuple(domain.EventType[t.name] for t in types),
        )
        place = domain.Place() if after is None else place_of("after", after)
        found, end, has_more = await context.services.history.page(
            context.caller, place, wanted, check_range("first", first, 1, 1_000), context.budget.left // 2
        )
        return EventConnection.of(found, end, has_next=has_more, has_previous=after is not None)
