"""Jobs, as GraphQL shows them."""

from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, cast
from uuid import UUID

import strawberry
from strawberry.scalars import JSON

from atomo_gql.api.graphql.context import Info
from atomo_gql.api.graphql.types.attempts import Attempt, WaitingFor, Worker, milliseconds, worker_of
from atomo_gql.api.graphql.types.events import JobEvent
from atomo_gql.api.graphql.types.paging import Count, PageInfo, argument, cursor_of
from atomo_gql.domain import jobs as domain
from atomo_gql.domain.paging import Page, Window
from atomo_gql.domain.updates import JobUpdate

if TYPE_CHECKING:
    from atomo_gql.api.graphql.types.runs import WorkflowRun

_Run = Annotated["WorkflowRun", strawberry.lazy("atomo_gql.api.graphql.types.runs")]  # which shows jobs, too
SORT = "job"
_MOST_COUNTED = 1_000


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


@strawberry.type(description="A unit of work, as it stands.")
class Job:
    """One row of the projection."""

    id: strawberry.ID = strawberry.field(description="Sorts by the time of enqueueing.")
    queue: str = strawberry.field(description="The lane it waits in.")
    kind: str = strawberry.field(description="What handler it is for.")
    status: JobStatus = strawberry.field(description="Where it is in its life.")
    priority: int = strawberry.field(description="Higher goes first.")
    attempts: int = strawberry.field(description="Leases given so far, but for those handed back.")
    deliveries: int = strawberry.field(description="Leases given so far.")
    max_attempts: int = strawberry.field(description="Leases it may use before it is dead.")
    timeout_secs: int | None = strawberry.field(
        description="Seconds that one attempt may take; no heartbeat extends it."
    )
    deadline: datetime | None = strawberry.field(
        description="From this moment on it is not worth doing: no lease lasts longer, then it is dead."
    )
    run_at: datetime | None = strawberry.field(description="Not before this moment, as asked.")
    created_at: datetime = strawberry.field(description="When it was enqueued.")
    eligible_at: datetime | None = strawberry.field(description="Since, or from, when a worker may have it.")
    leased_at: datetime | None = strawberry.field(
        description="When the attempt under way began, or that in which it ended."
    )
    lease_expires_at: datetime | None = strawberry.field(description="When its lease runs out.")
    finished_at: datetime | None = strawberry.field(description="When it ended.")
    idempotency_key: str | None = strawberry.field(description="The same key in the same queue is the same job.")
    tenant_id: str | None = strawberry.field(description="Whose it is.")
    run_id: strawberry.ID | None = strawberry.field(description="Of the workflow's run that enqueued it.")
    row: strawberry.Private[domain.Job]
    is_whole: strawberry.Private[bool]  # whether the row has its result and progress

    @strawberry.field(description="The newest {percent, message, data} of the attempt under way.")
    async def progress(self, info: Info) -> JSON | None:
        """Loaded for all jobs of a page at once."""
        return cast("JSON | None", self.row.progress if self.is_whole else await self._body(info, "progress"))

    @strawberry.field(description="What came of it, once it has succeeded.")
    async def result(self, info: Info) -> JSON | None:
        """Loaded for all jobs of a page at once."""
        return cast("JSON | None", self.row.result if self.is_whole else await self._body(info, "result"))

    @strawberry.field(description="Of the last attempt that failed.")
    def error(self, info: Info) -> str | None:
        """It may be long."""
        if self.row.error is not None:
            info.context.budget.spend(len(self.row.error))
        return self.row.error

    @strawberry.field(description="Milliseconds from its enqueueing to its end, or to now.")
    def duration_ms(self) -> float:
        """Its whole life so far."""
        return milliseconds(self.created_at, self.finished_at)

    @strawberry.field(description="What was sent with it; null may be just that.")
    async def payload(self, info: Info) -> JSON | None:
        """Kept in its first event."""
        return cast("JSON | None", await self._body(info, "payload"))

    @strawberry.field(
        description="Its history, oldest first: what was sent, what came back, on which attempt, by whom."
    )
    async def events(
        self,
        info: Info,
        first: Annotated[int, argument("At most so many; 1–1,000.")] = 100,
        after: Annotated[int, argument("From after this version.")] = 0,
    ) -> list[JobEvent]:
        """Loaded for all jobs of a page at once."""
        return [JobEvent.of(event) for event in await info.context.events(UUID(self.id), after, first)]

    @strawberry.field(description="Its attempts, oldest first, those handed back too.")
    async def attempt_history(self, info: Info) -> list[Attempt]:
        """Loaded for all jobs of a page at once."""
        return [Attempt.of(attempt) for attempt in await info.context.attempts(UUID(self.id))]

    @strawberry.field(description="The worker that has it, or had it when it ended; null when none has.")
    async def worker(self, info: Info) -> Worker | None:
        """Of the last attempt."""
        if self.row.worker_id is None or not (attempts := await info.context.attempts(self.row.id)):
            return None
        return worker_of(attempts[-1])

    @strawberry.field(description="Why it is not running; null unless it is queued.")
    async def waiting_for(self, info: Info) -> WaitingFor | None:
        """Loaded for all jobs of a page at once."""
        if self.status is not JobStatus.QUEUED:
            return None
        waiting = await info.context.waiting(UUID(self.id))
        return None if waiting is None else WaitingFor.of(waiting)

    @strawberry.field(description="The workflow's run that it is a step of; null when it is none.")
    async def run(self, info: Info) -> _Run | None:
        """Loaded for all jobs of a page at once."""
        from atomo_gql.api.graphql.types.runs import run_of

        return await run_of(info, self.row.run_id)

    async def _body(self, info: Info, what: domain.Body) -> Any:
        return await info.context.body(self.row.id, what)

    @classmethod
    def of(cls, job: domain.Job, *, is_whole: bool = True) -> "Job":
        """From the domain."""
        return cls(
            id=strawberry.ID(str(job.id)),
            queue=job.queue,
            kind=job.kind,
            status=JobStatus(job.status),
            priority=job.priority,
            attempts=job.attempts,
            deliveries=job.deliveries,
            max_attempts=job.max_attempts,
            timeout_secs=job.timeout_secs,
            deadline=job.deadline,
            run_at=job.run_at,
            created_at=job.created_at,
            eligible_at=job.eligible_at,
            leased_at=job.leased_at,
            lease_expires_at=job.lease_expires_at,
            finished_at=job.finished_at,
            idempotency_key=job.idempotency_key,
            tenant_id=job.tenant,
            run_id=None if job.run_id is None else strawberry.ID(str(job.run_id)),
            row=job,
            is_whole=is_whole,
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


@strawberry.type(description="A job in a list.")
class JobEdge:
    """Relay's own shape."""

    cursor: str = strawberry.field(description="Opaque; stays good while jobs come in.")
    node: Job = strawberry.field(description="The job.")


@strawberry.type(description="A page of jobs (Relay).")
class JobConnection:
    """Relay's own shape."""

    edges: list[JobEdge] = strawberry.field(description="The jobs, each with its cursor.")
    nodes: list[Job] = strawberry.field(description="The jobs.")
    page_info: PageInfo = strawberry.field(description="Where it begins and ends.")
    is_partial: bool = strawberry.field(
        description="Whether a search by `error` ended before it had looked at all: it looks at 5,000 jobs of each"
        " state at a time, or fewer with long errors. Go on as from any page, even from one without a job; only the"
        " next pages tell whether there is more."
    )
    wanted: strawberry.Private[domain.JobFilter]
    oldest_first: strawberry.Private[bool]

    @strawberry.field(description="How many match, on all pages, counted up to a thousand, as far as a page looks.")
    async def total_count(self, info: Info) -> Count:
        """Counted only when asked for."""
        context = info.context
        value, is_exact = await context.services.jobs.count(
            context.caller, self.wanted, _MOST_COUNTED, oldest_first=self.oldest_first
        )
        return Count(value=value, is_exact=is_exact)

    @classmethod
    def of(
        cls, page: Page[domain.Job], wanted: domain.JobFilter, part: Window[UUID], *, oldest_first: bool
    ) -> "JobConnection":
        """From the domain."""
        edges = [JobEdge(cursor=cursor_of(SORT, str(job.id)), node=Job.of(job, is_whole=False)) for job in page.items]
        ends = [edge.cursor for edge in edges]
        if page.resumes_at is not None:
            ends.insert(0 if part.is_backwards else len(ends), cursor_of(SORT, str(page.resumes_at)))
        return cls(
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=PageInfo.of(page, ends),
            is_partial=page.resumes_at is not None,
            wanted=wanted,
            oldest_first=oldest_first,
        )
