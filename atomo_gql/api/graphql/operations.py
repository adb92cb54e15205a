"""Queries, mutations and subscriptions: each parses, asks a service, and renders."""

import base64
import binascii
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Annotated
from uuid import UUID

import strawberry
from strawberry.scalars import JSON

from atomo_gql.api.graphql.context import Info
from atomo_gql.api.graphql.types import EnqueueJobInput, Job, JobConnection, JobEdge, JobProgress, JobStatus, PageInfo
from atomo_gql.domain import jobs as domain
from atomo_gql.domain.errors import BadUserInput, NotFound
from atomo_gql.domain.rules import parse_id


def _argument(text: str) -> object:
    return strawberry.argument(description=text)


@strawberry.type(description="What can be asked.")
class Query:
    """Reading."""

    @strawberry.field(description="A job as it stands; null when there is none, or none that you may see.")
    async def job(self, info: Info, id: Annotated[strawberry.ID, _argument("The job's id.")]) -> Job | None:  # noqa: A002
        """`job(id)`."""
        try:
            return Job.of(await info.context.services.jobs.get(info.context.caller, parse_id("id", id)))
        except NotFound:
            return None

    @strawberry.field(description="The jobs that you may see, newest first.")
    async def jobs(
        self,
        info: Info,
        status: Annotated[JobStatus | None, _argument("Only those in this state.")] = None,
        queue: Annotated[str | None, _argument("Only those of this queue.")] = None,
        kind: Annotated[str | None, _argument("Only those of this kind.")] = None,
        first: Annotated[int, _argument("At most so many; 1–100.")] = 20,
        after: Annotated[str | None, _argument("From behind this cursor.")] = None,
    ) -> JobConnection:
        """`jobs(…)`."""
        found = await info.context.services.jobs.page(
            info.context.caller,
            status=None if status is None else domain.JobStatus[status.name],
            queue=queue,
            kind=kind,
            before=None if after is None else _id_of(after),
            most=first,
        )
        edges = [JobEdge(cursor=_cursor_of(job.id), node=Job.of(job)) for job in found[:first]]
        return JobConnection(
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=PageInfo(
                has_next_page=len(found) > first,
                has_previous_page=after is not None,
                start_cursor=edges[0].cursor if edges else None,
                end_cursor=edges[-1].cursor if edges else None,
            ),
        )


@strawberry.type(description="What can be done.")
class Mutation:
    """Writing."""

    @strawberry.mutation(description="Make a job, or find the one that the idempotency key names; its id.")
    async def enqueue_job(
        self,
        info: Info,
        queue: Annotated[str, _argument("The lane it waits in.")],
        kind: Annotated[str, _argument("What handler it is for.")],
        payload: Annotated[JSON | None, _argument("What the worker gets; {} when left out.")] = strawberry.UNSET,
        idempotency_key: Annotated[str | None, _argument("The same key in the same queue is the same job.")] = None,
        max_attempts: Annotated[int | None, _argument("Leases it may use before it is dead; 1–1,000.")] = 5,
        priority: Annotated[int | None, _argument("Higher goes first; ±32,767.")] = 0,
        run_at: Annotated[datetime | None, _argument("Not before this moment.")] = None,
    ) -> strawberry.ID:
        """`enqueueJob(…)`."""
        job = EnqueueJobInput(
            queue=queue,
            kind=kind,
            payload=payload,
            idempotency_key=idempotency_key,
            max_attempts=max_attempts,
            priority=priority,
            run_at=run_at,
        ).checked()
        context = info.context
        return strawberry.ID(str(await context.services.jobs.enqueue(context.caller, job, trace=context.trace)))

    @strawberry.mutation(description="Make up to 1,000 jobs, all or none; their ids, in order.")
    async def enqueue_jobs(
        self, info: Info, jobs: Annotated[list[EnqueueJobInput], _argument("At least one.")]
    ) -> list[strawberry.ID]:
        """`enqueueJobs(jobs)`."""
        context = info.context
        made = await context.services.jobs.enqueue_many(
            context.caller, [job.checked(f"jobs[{index}].") for index, job in enumerate(jobs)], trace=context.trace
        )
        return [strawberry.ID(str(job_id)) for job_id in made]


@strawberry.type(description="What can be watched.")
class Subscription:
    """Live."""

    @strawberry.subscription(
        description="A job's present state first, then each update, then its end; then it completes."
    )
    async def job_progress(
        self,
        info: Info,
        id: Annotated[strawberry.ID, _argument("The job's id.")],  # noqa: A002
    ) -> AsyncGenerator[JobProgress, None]:
        """`jobProgress(id)`."""
        async for update in info.context.services.watching.follow(info.context.caller, parse_id("id", id)):
            yield JobProgress.of(update)


def _cursor_of(job_id: UUID) -> str:
    return base64.urlsafe_b64encode(b"j" + job_id.bytes).decode().rstrip("=")


def _id_of(cursor: str) -> UUID:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 17 or raw[:1] != b"j":
        raise BadUserInput("after must be a cursor that this connection gave", field="after")
    return UUID(bytes=raw[1:])
