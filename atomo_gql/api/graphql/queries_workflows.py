"""What can be asked about workflows, their runs and schedules, and about actions."""

from typing import Annotated

import strawberry

from atomo_gql.api.graphql.context import Info
from atomo_gql.api.graphql.types import bindings, runs, workflows
from atomo_gql.api.graphql.types.bindings import BindingConnection
from atomo_gql.api.graphql.types.inputs import WorkflowRunFilter, WorkflowRunOrder
from atomo_gql.api.graphql.types.paging import AFTER, BEFORE, FIRST, LAST, argument, uuid_key, window
from atomo_gql.api.graphql.types.runs import WorkflowRun, WorkflowRunConnection
from atomo_gql.api.graphql.types.workflows import ScheduleConnection, Workflow, WorkflowConnection, workflow_key
from atomo_gql.domain.errors import NotFound
from atomo_gql.domain.rules import parse_id


@strawberry.type
class WorkflowQueries:
    """A part of `Query`."""

    @strawberry.field(description="The workflow of that name that you can run: your tenant's own before the service's.")
    async def workflow(self, info: Info, name: Annotated[str, argument("Its name.")]) -> Workflow | None:
        """`workflow(name)`."""
        context = info.context
        try:
            return Workflow.of(await context.services.workflows.find(context.caller, name))
        except NotFound:
            return None

    @strawberry.field(description="The workflows that you may see: your tenant's own, and the service's.")
    async def workflows(
        self,
        info: Info,
        first: Annotated[int | None, FIRST] = None,
        after: Annotated[str | None, AFTER] = None,
        last: Annotated[int | None, LAST] = None,
        before: Annotated[str | None, BEFORE] = None,
    ) -> WorkflowConnection:
        """`workflows(…)`."""
        part = window(workflows.SORT, workflow_key, first=first, after=after, last=last, before=before)
        return WorkflowConnection.of(await info.context.services.workflows.page(info.context.caller, part))

    @strawberry.field(description="The schedules of these workflows.")
    async def schedules(
        self,
        info: Info,
        first: Annotated[int | None, FIRST] = None,
        after: Annotated[str | None, AFTER] = None,
        last: Annotated[int | None, LAST] = None,
        before: Annotated[str | None, BEFORE] = None,
    ) -> ScheduleConnection:
        """`schedules(…)`."""
        context = info.context
        part = window(workflows.SCHEDULES, workflow_key, first=first, after=after, last=last, before=before)
        return ScheduleConnection.of(await context.services.workflows.page(context.caller, part, is_scheduled=True))

    @strawberry.field(description="A run as it stands; null when there is none, or none that you may see.")
    async def workflow_run(
        self,
        info: Info,
        id: Annotated[strawberry.ID, argument("The run's id.")],  # noqa: A002  # as in job(id)
    ) -> WorkflowRun | None:
        """`workflowRun(id)`."""
        context = info.context
        try:
            return WorkflowRun.of(await context.services.runs.get(context.caller, parse_id("id", id)))
        except NotFound:
            return None

    @strawberry.field(description="The runs that you may see.")
    async def workflow_runs(
        self,
        info: Info,
        filter: Annotated[WorkflowRunFilter | None, argument("Only those that match.")] = None,  # noqa: A002  # as in jobs
        order_by: Annotated[WorkflowRunOrder, argument("In this order.")] = WorkflowRunOrder.NEWEST_FIRST,
        first: Annotated[int | None, FIRST] = None,
        after: Annotated[str | None, AFTER] = None,
        last: Annotated[int | None, LAST] = None,
        before: Annotated[str | None, BEFORE] = None,
    ) -> WorkflowRunConnection:
        """`workflowRuns(…)`."""
        context, wanted = info.context, (filter or WorkflowRunFilter()).checked()
        part = window(runs.SORT, uuid_key, first=first, after=after, last=last, before=before)
        page = await context.services.runs.page(
            context.caller, wanted, part, oldest_first=order_by is WorkflowRunOrder.OLDEST_FIRST
        )
        return WorkflowRunConnection.of(page, wanted)

    @strawberry.field(description="The bindings that you may see: your tenant's own, and the service's.")
    async def bindings(
        self,
        info: Info,
        first: Annotated[int | None, FIRST] = None,
        after: Annotated[str | None, AFTER] = None,
        last: Annotated[int | None, LAST] = None,
        before: Annotated[str | None, BEFORE] = None,
    ) -> BindingConnection:
        """`bindings(…)`."""
        part = window(bindings.SORT, uuid_key, first=first, after=after, last=last, before=before)
        return BindingConnection.of(await info.context.services.bindings.page(info.context.caller, part))
