"""Runs of workflows, as GraphQL shows them."""

from datetime import datetime
from enum import Enum
from typing import Annotated
from uuid import UUID

import strawberry
from strawberry.scalars import JSON

from atomo_gql.api.graphql.context import Info
from atomo_gql.api.graphql.types.attempts import milliseconds
from atomo_gql.api.graphql.types.events import WorkflowRunEvent
from atomo_gql.api.graphql.types.jobs import Job
from atomo_gql.api.graphql.types.paging import Count, PageInfo, argument, cursor_of
from atomo_gql.api.graphql.types.steps import WorkflowStep, steps_of
from atomo_gql.domain.paging import Page
from atomo_gql.domain.rules import check_range
from atomo_gql.domain.workflows import runs as domain
from atomo_gql.service.workflows.runs import RunFilter, key_of

SORT = "run"
_MOST_COUNTED = 1_000


@strawberry.enum(description="Where a run is in its life.")
class WorkflowRunStatus(Enum):
    """Upper-case here, as GraphQL does; Running, Paused, Completed and Failed in REST."""

    RUNNING = strawberry.enum_value(domain.RunStatus.RUNNING, description="It has something to do now.")
    PAUSED = strawberry.enum_value(
        domain.RunStatus.PAUSED, description="Parked until a job ends or a time comes; it goes on by itself."
    )
    COMPLETED = strawberry.enum_value(domain.RunStatus.COMPLETED, description="All its steps are done.")
    FAILED = strawberry.enum_value(
        domain.RunStatus.FAILED, description="A step failed, its time ran out, or somebody cancelled it; errors say so."
    )


@strawberry.type(description="A run of a workflow, as it stands.")
class WorkflowRun:
    """One row of the projection."""

    id: strawberry.ID = strawberry.field(description="Sorts by the time of its beginning.")
    workflow: str = strawberry.field(description="The workflow's name.")
    workflow_id: strawberry.ID = strawberry.field(description="The workflow's id.")
    definition_version: int = strawberry.field(description="Of the definition that it began with, and keeps.")
    status: WorkflowRunStatus = strawberry.field(description="Where it is in its life.")
    steps_run: int = strawberry.field(description="Steps that are done, those that failed for good included.")
    version: int = strawberry.field(description="Of its newest event.")
    trigger: JSON = strawberry.field(
        description='What began it: {"kind": "manual"}, an event, or a tick of a schedule.'
    )
    started_by: str = strawberry.field(description="Who began it: user:<sub> or system:<who>.")
    started_at: datetime = strawberry.field(description="When it began.")
    changed_at: datetime | None = strawberry.field(description="When something last happened to it.")
    finished_at: datetime | None = strawberry.field(description="When it ended.")
    timeout_at: datetime | None = strawberry.field(description="When it fails, unless it has ended.")
    idempotency_key: str | None = strawberry.field(description="The same key of the same workflow is the same run.")
    tenant_id: str | None = strawberry.field(description="Whose it is.")
    trace: str | None = strawberry.field(description="W3C traceparent of the request that began it.")
    row: strawberry.Private[domain.Run]
    is_whole: strawberry.Private[bool]  # whether the row has its context and results

    @strawberry.field(description="Its variables, as the steps so far have made them.")
    async def context(self, info: Info) -> JSON:
        """Loaded for all runs of a page at once."""
        context = self.row.context if self.is_whole else (await info.context.run_body(self.row.id)).context
        info.context.budget.spend_json(context)
        return JSON(context)

    @strawberry.field(description="What went wrong, each with the step it went wrong in.")
    def errors(self, info: Info) -> list[str]:
        """They may be long."""
        info.context.budget.spend(sum(map(len, self.row.errors)))
        return self.row.errors

    @strawberry.field(description="Milliseconds from its beginning to its end, or to now.")
    def duration_ms(self) -> float:
        """Its whole life so far."""
        return milliseconds(self.started_at, self.finished_at)

    @strawberry.field(description="Its steps in the order of the definition, those that have not begun too.")
    async def steps(self, info: Info) -> list[WorkflowStep]:
        """Definitions are loaded for all runs of a page at once."""
        definition = await info.context.definition((self.row.workflow_id, self.row.definition_version))
        steps = steps_of(self.row, definition, is_whole=self.is_whole)
        info.context.budget.spend(0, len(steps))
        return steps

    @strawberry.field(description="The jobs that its steps enqueued, oldest first.")
    async def jobs(self, info: Info, first: Annotated[int, argument("At most so many; 1–1,000.")] = 100) -> list[Job]:
        """Loaded for all runs of a page at once."""
        jobs = await info.context.run_jobs(self.row.id, check_range("first", first, 1, 1_000))
        return [Job.of(job, is_whole=False) for job in jobs]

    @strawberry.field(description="Its history, oldest first: each step, what it waited for, and what came of it.")
    async def events(
        self,
        info: Info,
        first: Annotated[int, argument("At most so many; 1–1,000.")] = 100,
        after: Annotated[int, argument("From after this version.")] = 0,
    ) -> list[WorkflowRunEvent]:
        """Loaded for all runs of a page at once."""
        return [WorkflowRunEvent.of(event) for event in await info.context.events(self.row.id, after, first)]

    @strawberry.field(description="The definition that it began with, as it was registered.")
    async def definition(self, info: Info) -> JSON:
        """Loaded for all runs of a page at once."""
        return JSON(await info.context.definition_source((self.row.workflow_id, self.row.definition_version)))

    @classmethod
    def of(cls, run: domain.Run, *, is_whole: bool = True) -> "WorkflowRun":
        """From the domain."""
        return cls(
            id=strawberry.ID(str(run.id)),
            workflow=run.workflow,
            workflow_id=strawberry.ID(str(run.workflow_id)),
            definition_version=run.definition_version,
            status=WorkflowRunStatus(run.status),
            steps_run=run.steps_run,
            version=run.version,
            trigger=run.trigger,
            started_by=run.actor,
            started_at=run.started_at,
            changed_at=run.changed_at,
            finished_at=run.finished_at,
            timeout_at=run.timeout_at,
            idempotency_key=key_of(run),
            tenant_id=run.tenant,
            trace=run.trace,
            row=run,
            is_whole=is_whole,
        )


async def run_of(info: Info, run_id: UUID | None) -> WorkflowRun | None:
    """The run that something belongs to, loaded for a whole page at once."""
    run = None if run_id is None else await info.context.run(run_id)
    if run is None:
        return None
    info.context.budget.spend(0)
    return WorkflowRun.of(run, is_whole=False)


@strawberry.type(description="A run in a list.")
class WorkflowRunEdge:
    """Relay's own shape."""

    cursor: str = strawberry.field(description="Opaque; stays good while runs begin.")
    node: WorkflowRun = strawberry.field(description="The run.")


@strawberry.type(description="A page of runs (Relay).")
class WorkflowRunConnection:
    """Relay's own shape."""

    edges: list[WorkflowRunEdge] = strawberry.field(description="The runs, each with its cursor.")
    nodes: list[WorkflowRun] = strawberry.field(description="The runs.")
    page_info: PageInfo = strawberry.field(description="Where it begins and ends.")
    wanted: strawberry.Private[RunFilter]

    @strawberry.field(description="How many match, on all pages, counted up to a thousand.")
    async def total_count(self, info: Info) -> Count:
        """Counted only when asked for."""
        context = info.context
        value, is_exact = await context.services.runs.count(context.caller, self.wanted, _MOST_COUNTED)
        return Count(value=value, is_exact=is_exact)

    @classmethod
    def of(cls, page: Page[domain.Run], wanted: RunFilter) -> "WorkflowRunConnection":
        """From the domain."""
        edges = [
            WorkflowRunEdge(cursor=cursor_of(SORT, str(run.id)), node=WorkflowRun.of(run, is_whole=False))
            for run in page.items
        ]
        return cls(
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=PageInfo.of(page, [edge.cursor for edge in edges]),
            wanted=wanted,
        )
