"""What callers send. The rules are the domain's, and so are their words."""

from datetime import datetime
from enum import Enum

import strawberry
from strawberry.scalars import JSON

from atomo_gql.api.graphql.types.events import EventType
from atomo_gql.api.graphql.types.jobs import JobStatus
from atomo_gql.api.graphql.types.runs import WorkflowRunStatus
from atomo_gql.domain import events as domain_events
from atomo_gql.domain import jobs as domain
from atomo_gql.domain.rules import MAX_KEY, check_json, check_moment, check_name, check_text, parse_id
from atomo_gql.domain.workflows.runs import RunStatus
from atomo_gql.service.workflows.runs import RunFilter

_MAX_SEARCH = 1_000  # characters


@strawberry.input(description="A job to enqueue.")
class EnqueueJobInput:
    """The arguments of `enqueueJob`, for a list of them."""

    queue: str = strawberry.field(description="The lane it waits in.")
    kind: str = strawberry.field(description="What handler it is for.")
    payload: JSON | None = strawberry.field(
        default=strawberry.UNSET, description="What the worker gets; {} when left out."
    )
    idempotency_key: str | None = strawberry.field(
        default=None, description="The same key in the same queue is the same job."
    )
    max_attempts: int | None = strawberry.field(default=5, description="Leases it may use before it is dead; 1–1,000.")
    priority: int | None = strawberry.field(default=0, description="Higher goes first; ±32,767.")
    run_at: datetime | None = strawberry.field(default=None, description="Not before this moment.")
    timeout_secs: int | None = strawberry.field(
        default=None, description="Seconds that one attempt may take; no heartbeat extends it. 1–604,800."
    )
    deadline: datetime | None = strawberry.field(
        default=None,
        description="From this moment on it is not worth doing: no lease lasts longer, then it is dead.",
    )

    def checked(self, prefix: str = "") -> domain.NewJob:
        """As the service takes it; null in an optional field is its default."""
        return domain.NewJob(
            queue=self.queue,
            kind=self.kind,
            payload=check_json(f"{prefix}payload", {} if self.payload is strawberry.UNSET else self.payload),
            idempotency_key=self.idempotency_key,
            max_attempts=5 if self.max_attempts is None else self.max_attempts,
            priority=0 if self.priority is None else self.priority,
            run_at=self.run_at,
            timeout_secs=self.timeout_secs,
            deadline=self.deadline,
        )


@strawberry.input(description="A stretch of time.")
class TimeRange:
    """Half open."""

    from_: datetime | None = strawberry.field(name="from", default=None, description="This moment, and after.")
    to: datetime | None = strawberry.field(default=None, description="Before this moment.")


@strawberry.input(description="Which jobs; what is left out is not asked.")
class JobFilter:
    """All conditions together."""

    status: list[JobStatus] | None = strawberry.field(default=None, description="In one of these states.")
    queue: str | None = strawberry.field(default=None, description="Of this queue.")
    kind: str | None = strawberry.field(default=None, description="Of this kind.")
    tenant_id: str | None = strawberry.field(
        default=None, description="Of this tenant; for admins who see more than one."
    )
    idempotency_key: str | None = strawberry.field(default=None, description="With this key.")
    created: TimeRange | None = strawberry.field(default=None, description="Enqueued then.")
    finished: TimeRange | None = strawberry.field(default=None, description="Ended then.")
    error: str | None = strawberry.field(
        default=None,
        description="With this in its error, in any case. Looked for among so many jobs at a time: see `isPartial`.",
    )

    def checked(self) -> domain.JobFilter:
        """As the service takes it.

        Raises:
            BadUserInput: a condition breaks a rule.
        """
        for name, value in (("queue", self.queue), ("kind", self.kind)):
            if value is not None:
                check_name(f"filter.{name}", value)
        if self.idempotency_key is not None:
            check_name("filter.idempotencyKey", self.idempotency_key, MAX_KEY)
        if self.error is not None:
            check_text("filter.error", self.error, _MAX_SEARCH)
        created, finished = self.created or TimeRange(), self.finished or TimeRange()
        return domain.JobFilter(
            statuses=None if self.status is None else tuple(domain.JobStatus[s.name] for s in self.status),
            queue=self.queue,
            kind=self.kind,
            tenant=self.tenant_id,
            idempotency_key=self.idempotency_key,
            created_from=_moment("filter.created.from", created.from_),
            created_to=_moment("filter.created.to", created.to),
            finished_from=_moment("filter.finished.from", finished.from_),
            finished_to=_moment("filter.finished.to", finished.to),
            error=self.error or None,
        )


@strawberry.input(description="Which runs; what is left out is not asked.")
class WorkflowRunFilter:
    """All conditions together."""

    workflow: str | None = strawberry.field(default=None, description="Of the workflow of this name.")
    status: list[WorkflowRunStatus] | None = strawberry.field(default=None, description="In one of these states.")
    idempotency_key: str | None = strawberry.field(default=None, description="With this key.")

    def checked(self) -> RunFilter:
        """As the service takes it.

        Raises:
            BadUserInput: a condition breaks a rule.
        """
        if self.workflow is not None:
            check_name("filter.workflow", self.workflow)
        if self.idempotency_key is not None:
            check_name("filter.idempotencyKey", self.idempotency_key, MAX_KEY)
        return RunFilter(
            workflow=self.workflow,
            statuses=None if self.status is None else tuple(RunStatus[s.name] for s in self.status),
            key=self.idempotency_key,
        )


@strawberry.enum(description="In which order.")
class WorkflowRunOrder(Enum):
    """By the time of their beginning."""

    NEWEST_FIRST = strawberry.enum_value("newest_first", description="The last one begun first.")
    OLDEST_FIRST = strawberry.enum_value("oldest_first", description="The first one begun first.")


@strawberry.enum(description="In which order.")
class JobOrder(Enum):
    """By the time of enqueueing."""

    NEWEST_FIRST = strawberry.enum_value("newest_first", description="The last one enqueued first.")
    OLDEST_FIRST = strawberry.enum_value("oldest_first", description="The first one enqueued first.")


@strawberry.input(description="Which events of jobs; what is left out is not asked.")
class JobEventFilter:
    """All conditions together."""

    job_id: strawberry.ID | None = strawberry.field(default=None, description="Of this job.")
    queue: str | None = strawberry.field(default=None, description="Of jobs of this queue.")
    kind: str | None = strawberry.field(default=None, description="Of jobs of this kind.")
    types: list[EventType] | None = strawberry.field(default=None, description="Of one of these types.")

    def checked(self) -> domain_events.EventFilter:
        """As the service takes it.

        Raises:
            BadUserInput: a condition breaks a rule.
        """
        for name, value in (("queue", self.queue), ("kind", self.kind)):
            if value is not None:
                check_name(f"filter.{name}", value)
        return domain_events.EventFilter(
            stream_id=None if self.job_id is None else parse_id("filter.jobId", self.job_id),
            queue=self.queue,
            kind=self.kind,
            types=None if self.types is None else tuple(domain_events.EventType[t.name] for t in self.types),
        )


def _moment(field: str, value: datetime | None) -> datetime | None:
    return None if value is None else check_moment(field, value)
