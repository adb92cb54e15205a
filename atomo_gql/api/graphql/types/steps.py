"""Steps of runs, as GraphQL shows them."""

from collections.abc import Iterator
from datetime import datetime
from enum import Enum
from typing import Any
from uuid import UUID

import strawberry
from strawberry.scalars import JSON

from atomo_gql.api.graphql.context import Info
from atomo_gql.api.graphql.types.jobs import Job
from atomo_gql.domain.errors import Unavailable
from atomo_gql.domain.workflows import runs as domain
from atomo_gql.domain.workflows.definition import Definition, Delay, JobAction, Parallel, SetVariable, Step


@strawberry.enum(description="Where a step of a run is.")
class WorkflowStepStatus(Enum):
    """Upper-case here, as GraphQL does."""

    PENDING = strawberry.enum_value("pending", description="It has not begun, and may never.")
    OPEN = strawberry.enum_value(domain.StepStatus.OPEN, description="A group whose branches run.")
    WAITING = strawberry.enum_value(domain.StepStatus.WAITING, description="For its job's end.")
    DELAYED = strawberry.enum_value(domain.StepStatus.DELAYED, description="Until its time has come.")
    RETRYING = strawberry.enum_value(domain.StepStatus.RETRYING, description="It failed, and will be tried again.")
    COMPLETED = strawberry.enum_value(domain.StepStatus.COMPLETED, description="Done.")
    SKIPPED = strawberry.enum_value(domain.StepStatus.SKIPPED, description="Its condition was false.")
    PASSED = strawberry.enum_value(domain.StepStatus.PASSED, description="It failed, and the run goes on.")
    FAILED = strawberry.enum_value(domain.StepStatus.FAILED, description="It failed, and so does the run.")
    CANCELLED = strawberry.enum_value(domain.StepStatus.CANCELLED, description="The run ended while it was under way.")


@strawberry.enum(description="What a step does.")
class WorkflowAction(Enum):
    """As definitions have it."""

    JOB = strawberry.enum_value(JobAction, description="Enqueues a job, and perhaps waits for its end.")
    SET_VARIABLE = strawberry.enum_value(SetVariable, description="Puts a value into the context.")
    DELAY = strawberry.enum_value(Delay, description="Lets time pass.")
    PARALLEL = strawberry.enum_value(Parallel, description="Runs branches side by side.")


@strawberry.type(description="A step of a run, as it stands.")
class WorkflowStep:
    """Made from the definition that the run began with, and the state of those that have begun."""

    name: str = strawberry.field(description="Unique in the definition.")
    action: WorkflowAction | None = strawberry.field(
        description="What it does; null when the definition cannot be read any more."
    )
    group: str | None = strawberry.field(description="The group that it is in a branch of.")
    status: WorkflowStepStatus = strawberry.field(description="Where it is.")
    attempt: int = strawberry.field(description="The present one, or the last: 1, 2, 3 …; 0 before it has begun.")
    job_id: strawberry.ID | None = strawberry.field(description="Of the job of that attempt.")
    until: datetime | None = strawberry.field(description="When its delay is over, or when it is tried again.")
    began_at: datetime | None = strawberry.field(description="When it began.")
    ended_at: datetime | None = strawberry.field(description="When it ended.")
    state: strawberry.Private[domain.StepState | None]
    run: strawberry.Private[domain.Run]
    is_whole: strawberry.Private[bool]  # whether the run has the results of its steps

    @strawberry.field(description="The job as it stands; null when it has none, or retention took it.")
    async def job(self, info: Info) -> Job | None:
        """Loaded for all steps of a page at once."""
        job = None if self.job_id is None else await info.context.job(UUID(self.job_id))
        return None if job is None else Job.of(job, is_whole=False)

    @strawberry.field(description="Of the last attempt that failed.")
    def error(self, info: Info) -> str | None:
        """It may be long."""
        if self.state is None or self.state.error is None:
            return None
        info.context.budget.spend(len(self.state.error))
        return self.state.error

    @strawberry.field(description="What came of its job, once that has succeeded and where it was waited for.")
    async def result(self, info: Info) -> JSON | None:
        """Loaded for all runs of a page at once."""
        if self.state is None or self.job_id is None:
            return None
        result: Any = self.state.result
        if not self.is_whole:
            result = (await info.context.run_body(self.run.id)).results.get(self.name)
        info.context.budget.spend_json(result)
        return result  # type: ignore[no-any-return]

    @classmethod
    def of(cls, run: domain.Run, name: str, step: Step | None, group: str | None, *, is_whole: bool) -> "WorkflowStep":
        """From the domain."""
        state = run.steps.get(name)
        return cls(
            name=name,
            action=None if step is None else WorkflowAction(type(step.action)),
            group=group,
            status=WorkflowStepStatus.PENDING if state is None else WorkflowStepStatus(state.status),
            attempt=0 if state is None else state.attempt,
            job_id=None if state is None or state.job_id is None else strawberry.ID(str(state.job_id)),
            until=None if state is None else state.until,
            began_at=None if state is None else state.began_at,
            ended_at=None if state is None else state.ended_at,
            state=state,
            run=run,
            is_whole=is_whole,
        )


def steps_of(run: domain.Run, definition: Definition | Unavailable, *, is_whole: bool) -> list[WorkflowStep]:
    """In the order of the definition; of one that cannot be read any more, those that have begun, in their order."""
    if isinstance(definition, Definition):
        return [WorkflowStep.of(run, step.name, step, group, is_whole=is_whole) for step, group in _grouped(definition)]
    begun = sorted(run.steps, key=lambda name: run.steps[name].began_at)
    return [WorkflowStep.of(run, name, None, None, is_whole=is_whole) for name in begun]


def _grouped(definition: Definition) -> Iterator[tuple[Step, str | None]]:
    for step in definition.steps:
        yield step, None
        if isinstance(step.action, Parallel):
            for branch in step.action.branches:
                for inner in branch:
                    yield inner, step.name
