"""Workflows and their schedules, as GraphQL shows them."""

from datetime import datetime
from enum import Enum
from typing import Annotated
from uuid import UUID

import strawberry
from strawberry.scalars import JSON

from atomo_gql.api.graphql.context import Info
from atomo_gql.api.graphql.types.paging import PageInfo, argument, cursor_of
from atomo_gql.domain.paging import Page
from atomo_gql.domain.rules import check_range
from atomo_gql.domain.workflows import definition as domain
from atomo_gql.service.workflows import definitions as service
from atomo_gql.service.workflows.schedules import next_ticks

SORT = "workflow"
SCHEDULES = "schedule"
_PARTED = "\x1f"  # a name has no control characters


@strawberry.enum(description="What begins runs of a workflow, beside people, who always may.")
class WorkflowTrigger(Enum):
    """As definitions have it."""

    MANUAL = strawberry.enum_value(domain.Manual, description="Nothing else.")
    EVENT = strawberry.enum_value(domain.OnEvent, description="An event of a model.")
    SCHEDULE = strawberry.enum_value(domain.Schedule, description="The clock.")


@strawberry.enum(description="What becomes of ticks that passed while no server ran.")
class MissedTicks(Enum):
    """As definitions have it."""

    LATEST = strawberry.enum_value("latest", description="The newest of them begins a run.")
    ALL = strawberry.enum_value("all", description="Each begins a run, up to a hundred.")
    SKIP = strawberry.enum_value("skip", description="None does.")


@strawberry.type(description="A pause: neither its schedule nor events begin runs; people can.")
class WorkflowPause:
    """Ends with `resumeWorkflow`, or with a new version."""

    at: datetime = strawberry.field(description="Since when.")
    by: str = strawberry.field(description="Who paused it.")


@strawberry.type(description="One version of a workflow's definition.")
class WorkflowVersion:
    """Runs keep the one they began with."""

    version: int = strawberry.field(description="1, 2, 3 …")
    registered_at: datetime = strawberry.field(description="When it was registered.")
    registered_by: str = strawberry.field(description="Who registered it.")
    workflow_id: strawberry.Private[UUID]

    @strawberry.field(description="As it was given.")
    async def definition(self, info: Info) -> JSON:
        """Loaded for all versions of a page at once."""
        return JSON(await info.context.definition_source((self.workflow_id, self.version)))


@strawberry.type(description="A workflow in its newest version.")
class Workflow:
    """What runs are begun with."""

    id: strawberry.ID = strawberry.field(description="Of all its versions.")
    name: str = strawberry.field(description="What it is run by; unique in its tenant.")
    version: int = strawberry.field(description="Of its definition.")
    description: str | None = strawberry.field(description="For people.")
    trigger: WorkflowTrigger = strawberry.field(description="What begins its runs.")
    model: str | None = strawberry.field(description="Whose events begin it; with EVENT.")
    event_type: str | None = strawberry.field(description="Which events begin it; with EVENT.")
    timeout_secs: int | None = strawberry.field(description="Seconds that a whole run may take.")
    is_paused: bool = strawberry.field(description="Whether only people begin it for now.")
    pause: WorkflowPause | None = strawberry.field(description="Since when, and by whom.")
    registered_at: datetime = strawberry.field(description="When this version was registered.")
    registered_by: str = strawberry.field(description="Who registered it.")
    source_file: str | None = strawberry.field(description="The file it was read from at boot.")
    removed_at: datetime | None = strawberry.field(description="When it was removed; those under way go on.")
    tenant_id: str | None = strawberry.field(description="Whose it is; null: the service's, for every tenant.")
    known: strawberry.Private[service.Workflow]

    @strawberry.field(description="Its definition, as it was given.")
    def definition(self, info: Info) -> JSON:
        """It may be large."""
        info.context.budget.spend_json(self.known.row.source)
        return JSON(self.known.row.source)

    @strawberry.field(description="When the clock begins it; null when it does not.")
    def schedule(self) -> "Schedule | None":
        """Of its newest version."""
        return Schedule.of(self.known)

    @strawberry.field(description="Its versions, newest first.")
    async def history(
        self, info: Info, first: Annotated[int, argument("At most so many; 1–100.")] = 20
    ) -> list[WorkflowVersion]:
        """Loaded for all workflows of a page at once."""
        versions = await info.context.versions(self.known.row.id, first)
        return [
            WorkflowVersion(
                version=version.version,
                registered_at=version.registered_at,
                registered_by=version.registered_by,
                workflow_id=version.workflow_id,
            )
            for version in versions
        ]

    @classmethod
    def of(cls, workflow: service.Workflow) -> "Workflow":
        """From the service."""
        row, definition = workflow.row, workflow.definition
        return cls(
            id=strawberry.ID(str(row.id)),
            name=row.name,
            version=row.definition_version,
            description=definition.description,
            trigger=WorkflowTrigger(type(definition.trigger)),
            model=row.model,
            event_type=row.event_type,
            timeout_secs=definition.timeout_secs,
            is_paused=row.paused_at is not None,
            pause=_pause(workflow),
            registered_at=row.registered_at,
            registered_by=row.registered_by,
            source_file=row.source_file,
            removed_at=row.removed_at,
            tenant_id=row.tenant or None,
            known=workflow,
        )


@strawberry.type(description="When the clock begins runs of a workflow.")
class Schedule:
    """Of the workflow's newest version."""

    name: str = strawberry.field(description="The workflow's.")
    cron: str = strawberry.field(description="As it was given.")
    timezone: str = strawberry.field(description="The zone whose clock it goes by.")
    missed: MissedTicks = strawberry.field(description="What becomes of ticks that passed while no server ran.")
    next_at: datetime | None = strawberry.field(description="The next tick; null while it is paused.")
    is_paused: bool = strawberry.field(description="Whether it begins nothing for now.")
    pause: WorkflowPause | None = strawberry.field(description="Since when, and by whom.")
    tenant_id: str | None = strawberry.field(description="Whose it is; null: the service's.")
    known: strawberry.Private[service.Workflow]

    @strawberry.field(description="The next ticks; none while it is paused.")
    def ticks(self, info: Info, first: Annotated[int, argument("At most so many; 1–20.")] = 5) -> list[datetime]:
        """Reckoned from the next one."""
        info.context.budget.spend(0)
        return next_ticks(self.known, check_range("first", first, 1, 20))

    @strawberry.field(description="The workflow.")
    def workflow(self) -> Workflow:
        """All of it."""
        return Workflow.of(self.known)

    @classmethod
    def of(cls, workflow: service.Workflow) -> "Schedule | None":
        """From the service; None: it has none."""
        row, trigger = workflow.row, workflow.definition.trigger
        if not isinstance(trigger, domain.Schedule):
            return None
        return cls(
            name=row.name,
            cron=trigger.cron,
            timezone=trigger.timezone,
            missed=MissedTicks(trigger.missed),
            next_at=row.next_at,
            is_paused=row.paused_at is not None,
            pause=_pause(workflow),
            tenant_id=row.tenant or None,
            known=workflow,
        )


def _pause(workflow: service.Workflow) -> WorkflowPause | None:
    row = workflow.row
    return None if row.paused_at is None else WorkflowPause(at=row.paused_at, by=row.paused_by or "")


def workflow_key(text: str) -> service.WorkflowKey:
    """The key of lists that are sorted by name and tenant."""
    name, _, tenant = text.partition(_PARTED)
    return name, tenant


def _cursor(sort: str, workflow: service.Workflow) -> str:
    return cursor_of(sort, f"{workflow.row.name}{_PARTED}{workflow.row.tenant}")


@strawberry.type(description="A workflow in a list.")
class WorkflowEdge:
    """Relay's own shape."""

    cursor: str = strawberry.field(description="Opaque.")
    node: Workflow = strawberry.field(description="The workflow.")


@strawberry.type(description="A page of workflows, by name (Relay).")
class WorkflowConnection:
    """Relay's own shape."""

    edges: list[WorkflowEdge] = strawberry.field(description="The workflows, each with its cursor.")
    nodes: list[Workflow] = strawberry.field(description="The workflows.")
    page_info: PageInfo = strawberry.field(description="Where it begins and ends.")

    @classmethod
    def of(cls, page: Page[service.Workflow]) -> "WorkflowConnection":
        """From the service."""
        edges = [WorkflowEdge(cursor=_cursor(SORT, workflow), node=Workflow.of(workflow)) for workflow in page.items]
        return cls(
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=PageInfo.of(page, [edge.cursor for edge in edges]),
        )


@strawberry.type(description="A schedule in a list.")
class ScheduleEdge:
    """Relay's own shape."""

    cursor: str = strawberry.field(description="Opaque.")
    node: Schedule = strawberry.field(description="The schedule.")


@strawberry.type(description="A page of schedules, by the workflow's name (Relay).")
class ScheduleConnection:
    """Relay's own shape."""

    edges: list[ScheduleEdge] = strawberry.field(description="The schedules, each with its cursor.")
    nodes: list[Schedule] = strawberry.field(description="The schedules.")
    page_info: PageInfo = strawberry.field(description="Where it begins and ends.")

    @classmethod
    def of(cls, page: Page[service.Workflow]) -> "ScheduleConnection":
        """From the service."""
        edges = [
            ScheduleEdge(cursor=_cursor(SCHEDULES, workflow), node=schedule)
            for workflow in page.items
            if (schedule := Schedule.of(workflow))
        ]
        return cls(
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=PageInfo.of(page, [edge.cursor for edge in edges]),
        )
