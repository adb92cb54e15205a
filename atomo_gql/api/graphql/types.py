"""The shapes of the schema."""

from datetime import datetime
from enum import Enum
from typing import Annotated
from uuid import UUID

import strawberry
from strawberry.scalars import JSON

from atomo_gql.api.graphql.context import Info
from atomo_gql.domain import events as domain_events
from atomo_gql.domain import jobs as domain
from atomo_gql.domain.rules import check_json
from atomo_gql.domain.updates import JobUpdate


@strawberry.enum(description="Where a job is in its life.")
class JobStatus(Enum):
    """Upper-case here, as GraphQL does; lower-case in REST."""

    QUEUED = strawberry.enum_value(
        domain.JobStatus.QUEUED, description="Waits for a worker, for its time, or for its retry."
    )
    LEASED = strawberry.enum_value(domain.JobStatus.LEASED, description="With a worker.")
    SUCCEEDED = strawberry.enum_value(domain.JobStatus.SUCCEEDED, description="Done.")
    DEAD = strawberry.enum_value(
        domain.JobStatus.DEAD, description="Attempts used up, not retryable, or cancelled; kept for a person."
    )


@strawberry.type(description="An immutable fact in a job's life.")
class JobEvent:
    """One row of the event store."""

    job_id: strawberry.ID = strawberry.field(description="Whose life it is.")
    version: int = strawberry.field(description="Its place in the job's life: 1, 2, 3 … without gaps.")
    type: str = strawberry.field(
        description="enqueued, leased, released, reclaimed, failed, succeeded, dead, retried or cancelled."
    )
    at: datetime = strawberry.field(description="When, by the database's clock.")
    actor: str = strawberry.field(description="user:<sub>, worker:<token id> or system:<who>.")
    trace: str | None = strawberry.field(description="W3C traceparent of the request that caused it.")
    data: JSON = strawberry.field(description="What was sent, or came back.")

    @classmethod
    def of(cls, event: domain_events.Event) -> "JobEvent":
        """From the domain."""
        return cls(
            job_id=strawberry.ID(str(event.stream_id)),
            version=event.version,
            type=event.type.value,
            at=event.at,
            actor=event.actor,
            trace=event.trace,
            data=event.data,
        )


@strawberry.type(description="A unit of work, as it stands.")
class Job:
    """One row of the projection."""

    id: strawberry.ID = strawberry.field(description="Sorts by the time of enqueueing.")
    queue: str = strawberry.field(description="The lane it waits in.")
    kind: str = strawberry.field(description="What handler it is for.")
    status: JobStatus = strawberry.field(description="Where it is in its life.")
    priority: int = strawberry.field(description="Higher goes first.")
    attempts: int = strawberry.field(description="Leases given so far, but for those handed back.")
    max_attempts: int = strawberry.field(description="Leases it may use before it is dead.")
    run_at: datetime | None = strawberry.field(description="Not before this moment, as asked.")
    created_at: datetime = strawberry.field(description="When it was enqueued.")
    eligible_at: datetime | None = strawberry.field(description="Since, or from, when a worker may have it.")
    leased_at: datetime | None = strawberry.field(description="When the attempt under way began.")
    lease_expires_at: datetime | None = strawberry.field(description="When its lease runs out.")
    finished_at: datetime | None = strawberry.field(description="When it ended.")
    idempotency_key: str | None = strawberry.field(description="The same key in the same queue is the same job.")
    tenant_id: str | None = strawberry.field(description="Whose it is.")
    progress: JSON | None = strawberry.field(
        description="The newest {percent, message, data} of the attempt under way."
    )
    result: JSON | None = strawberry.field(description="What came of it, once it has succeeded.")
    error: str | None = strawberry.field(description="Of the last attempt that failed.")

    @strawberry.field(description="What was sent with it.")
    async def payload(self, info: Info) -> JSON:
        """Kept in its first event."""
        return JSON(await info.context.payloads().load(UUID(self.id)))

    @strawberry.field(
        description="Its history, oldest first: what was sent, what came back, on which attempt, by whom."
    )
    async def events(
        self,
        info: Info,
        first: Annotated[int, strawberry.argument(description="At most so many; 1–1,000.")] = 100,
        after: Annotated[int, strawberry.argument(description="From after this version.")] = 0,
    ) -> list[JobEvent]:
        """Loaded for all jobs of a page at once."""
        found = await info.context.events(after, first).load(UUID(self.id))
        return [JobEvent.of(event) for event in found]

    @classmethod
    def of(cls, job: domain.Job) -> "Job":
        """From the domain."""
        return cls(
            id=strawberry.ID(str(job.id)),
            queue=job.queue,
            kind=job.kind,
            status=JobStatus(job.status),
            priority=job.priority,
            attempts=job.attempts,
            max_attempts=job.max_attempts,
            run_at=job.run_at,
            created_at=job.created_at,
            eligible_at=job.eligible_at,
            leased_at=job.leased_at,
            lease_expires_at=job.lease_expires_at,
            finished_at=job.finished_at,
            idempotency_key=job.idempotency_key,
            tenant_id=job.tenant,
            progress=job.progress,
            result=job.result,
            error=job.error,
        )


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
        )


@strawberry.type(description="One word about a job: its state, and the newest progress of the attempt under way.")
class JobProgress:
    """What `jobProgress` yields."""

    job_id: strawberry.ID = strawberry.field(description="Whose.")
    status: JobStatus = strawberry.field(description="Where it is in its life; SUCCEEDED and DEAD are the last word.")
    attempts: int = strawberry.field(description="Leases given so far, this one included.")
    percent: float | None = strawberry.field(description="As the worker counts; 0 to 1 is usual.")
    message: str | None = strawberry.field(description="For people.")
    data: JSON | None = strawberry.field(description="For programs.")
    result: JSON | None = strawberry.field(description="What came of it, once it has succeeded.")
    error: str | None = strawberry.field(description="Of the last attempt that failed.")

    @classmethod
    def of(cls, update: JobUpdate) -> "JobProgress":
        """From the domain."""
        return cls(
            job_id=strawberry.ID(str(update.job_id)),
            status=JobStatus(update.status),
            attempts=update.attempts,
            percent=update.percent,
            message=update.message,
            data=update.data,
            result=update.result,
            error=update.error,
        )


@strawberry.type(description="Where a page of a connection begins and ends (Relay).")
class PageInfo:
    """Relay's own shape."""

    has_next_page: bool = strawberry.field(description="Whether there is more behind the end.")
    has_previous_page: bool = strawberry.field(description="Whether the page was asked for from behind a cursor.")
    start_cursor: str | None = strawberry.field(description="Of the first edge.")
    end_cursor: str | None = strawberry.field(description="Of the last edge; pass it as `after` for the next page.")


@strawberry.type(description="A job in a list.")
class JobEdge:
    """Relay's own shape."""

    cursor: str = strawberry.field(description="Opaque; stays good while jobs come in.")
    node: Job = strawberry.field(description="The job.")


@strawberry.type(description="A page of jobs, newest first (Relay).")
class JobConnection:
    """Relay's own shape."""

    edges: list[JobEdge] = strawberry.field(description="The jobs, each with its cursor.")
    nodes: list[Job] = strawberry.field(description="The jobs.")
    page_info: PageInfo = strawberry.field(description="Where it begins and ends.")
