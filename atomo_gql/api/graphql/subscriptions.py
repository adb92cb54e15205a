"""What can be watched."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated

import strawberry

from atomo_gql.api.graphql.context import Info
from atomo_gql.api.graphql.types.events import JobEvent, place_of
from atomo_gql.api.graphql.types.inputs import JobEventFilter
from atomo_gql.api.graphql.types.jobs import JobProgress
from atomo_gql.api.graphql.types.paging import argument
from atomo_gql.api.graphql.types.queues import Queue
from atomo_gql.api.graphql.types.runs import WorkflowRun
from atomo_gql.domain.errors import BadUserInput, Unavailable
from atomo_gql.domain.paging import Window
from atomo_gql.domain.rules import check_queues, parse_id
from atomo_gql.service.queues import QueueView

_MOST_QUEUES = 100


@strawberry.type(description="What can be watched.")
class Subscription:
    """Live."""

    @strawberry.subscription(
        description="A job's present state first, then each update, then its end; then it completes."
    )
    async def job_progress(
        self,
        info: Info,
        id: Annotated[strawberry.ID, argument("The job's id.")],  # noqa: A002  # the contract's word
    ) -> AsyncGenerator[JobProgress, None]:
        """`jobProgress(id)`."""
        async for update in info.context.services.watching.follow(info.context.caller, parse_id("id", id)):
            yield JobProgress.of(update)

    @strawberry.subscription(
        description="What happens to jobs: history from behind a position, then what comes; without end. Keep the "
        "last position, and go on from there after a break: nothing is missed, nothing told twice."
    )
    async def job_events(
        self,
        info: Info,
        filter: Annotated[JobEventFilter | None, argument("Only those that match.")] = None,  # noqa: A002  # as in jobs
        after: Annotated[
            str | None, argument('From behind this position; "0.0": from the beginning; null: from now on.')
        ] = None,
    ) -> AsyncGenerator[JobEvent, None]:
        """`jobEvents(filter, after)`."""
        wanted = (filter or JobEventFilter()).checked()
        place = None if after is None else place_of("after", after)
        async for event in info.context.services.history.follow(info.context.caller, place, wanted):
            yield JobEvent.of(event)

    @strawberry.subscription(
        description="A run's present state first, then each time it has changed, then its end; then it completes. One "
        "who is slow skips to the newest state."
    )
    async def workflow_run(
        self,
        info: Info,
        id: Annotated[strawberry.ID, argument("The run's id.")],  # noqa: A002  # as in jobProgress
    ) -> AsyncGenerator[WorkflowRun, None]:
        """`workflowRun(id)`."""
        async for run in info.context.services.runs.follow(info.context.caller, parse_id("id", id)):
            yield WorkflowRun.of(run)

    @strawberry.subscription(description="How queues are: at once, and then whenever that has changed; without end.")
    async def queue_stats(
        self,
        info: Info,
        queues: Annotated[list[str] | None, argument("These; null: the first 100 by name.")] = None,
        every: Annotated[float, argument("Seconds between two looks; 0.5–60.")] = 2.0,
    ) -> AsyncGenerator[list[Queue], None]:
        """`queueStats(queues, every)`."""
        if not 0.5 <= every <= 60:
            raise BadUserInput(f"every must be from 0.5 to 60, not {every:g}", field="every")
        names = None if queues is None else check_queues("queues", queues)
        if names is not None and (len(names) > _MOST_QUEUES or "*" in names):
            raise BadUserInput(f"queues must name at most {_MOST_QUEUES} queues, and not *", field="queues")
        service, caller = info.context.services.queues, info.context.caller
        first: Window[str] = Window(_MOST_QUEUES, None, None, is_backwards=False)
        told: Sequence[QueueView] | None = None
        while True:
            views: Sequence[QueueView] | None = None
            with contextlib.suppress(Unavailable):  # the database is away; it goes on when it is back
                views = await service.views(caller, names) if names else (await service.page(caller, first)).items
            if views is not None and views != told:
                told = views
                yield [Queue.of(view) for view in views]
            await asyncio.sleep(every)
