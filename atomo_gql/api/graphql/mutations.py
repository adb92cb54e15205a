"""What can be done with jobs, queues and tokens: each field parses, asks a service, and renders what changed."""

import dataclasses
from datetime import UTC, datetime
from typing import Annotated, Any

import strawberry
from graphql import GraphQLResolveInfo
from strawberry.scalars import JSON
from strawberry.utils.str_converters import to_camel_case

from atomo_gql.api.graphql.context import Context, Info
from atomo_gql.api.graphql.types.inputs import EnqueueJobInput, JobFilter
from atomo_gql.api.graphql.types.jobs import Job
from atomo_gql.api.graphql.types.paging import argument
from atomo_gql.api.graphql.types.queues import Queue
from atomo_gql.api.graphql.types.tokens import BulkChange, JobToken, MintedWorkerToken, WorkerToken
from atomo_gql.domain.rules import check_range, parse_id

_PYTHON = {to_camel_case(field.name): field.name for field in dataclasses.fields(EnqueueJobInput)}
_JOB = argument("The job's id.")
_MAX_PASS_SECS = 86_400
_FILTER = argument("Which; all conditions together.")
_LIMIT = argument("At most so many, oldest first; 1–10,000.")
_DRY_RUN = argument("Only say which they would be.")


@strawberry.type
class JobMutations:
    """A part of `Mutation`."""

    @strawberry.mutation(description="Make a job, or find the one that the idempotency key names; its id.")
    async def enqueue_job(
        self,
        info: Info,
        queue: Annotated[str, argument("The lane it waits in.")],
        kind: Annotated[str, argument("What handler it is for.")],
        payload: Annotated[JSON | None, argument("What the worker gets; {} when left out.")] = strawberry.UNSET,
        idempotency_key: Annotated[str | None, argument("The same key in the same queue is the same job.")] = None,
        max_attempts: Annotated[int | None, argument("Leases it may use before it is dead; 1–1,000.")] = 5,
        priority: Annotated[int | None, argument("Higher goes first; ±32,767.")] = 0,
        run_at: Annotated[datetime | None, argument("Not before this moment.")] = None,
        timeout_secs: Annotated[int | None, argument("Seconds that one attempt may take; 1–604,800.")] = None,
        deadline: Annotated[datetime | None, argument("From this moment on it is not worth doing.")] = None,
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
            timeout_secs=timeout_secs,
            deadline=deadline,
        ).checked()
        context = info.context
        return strawberry.ID(str(await context.services.jobs.enqueue(context.caller, job, trace=context.trace)))

    @strawberry.mutation(description="Make up to 1,000 jobs, all or none; their ids, in order.")
    async def enqueue_jobs(
        self, info: Info, jobs: Annotated[list[EnqueueJobInput], argument("At least one.")]
    ) -> list[strawberry.ID]:
        """`enqueueJobs(jobs)`; `enqueue_many` takes its place when graphql-core runs it."""
        return await _enqueue(info.context, jobs)

    @strawberry.mutation(
        description="Queue a dead job again, with all its attempts before it. One that is queued or leased stays so."
    )
    async def retry_job(self, info: Info, id: Annotated[strawberry.ID, _JOB]) -> Job:  # noqa: A002  # the contract's word
        """`retryJob(id)`."""
        context = info.context
        return Job.of(await context.services.manage.retry(context.caller, parse_id("id", id), trace=context.trace))

    @strawberry.mutation(
        description="End a job that is queued or leased: it is dead. Its worker learns it with its next report. One "
        "that is dead stays so."
    )
    async def cancel_job(
        self,
        info: Info,
        id: Annotated[strawberry.ID, _JOB],  # noqa: A002  # the contract's word
        reason: Annotated[str | None, argument("Kept in its error.")] = None,
    ) -> Job:
        """`cancelJob(id, reason)`."""
        context = info.context
        return Job.of(
            await context.services.manage.cancel(context.caller, parse_id("id", id), reason, trace=context.trace)
        )

    @strawberry.mutation(description="Retry the dead jobs that match; for admins.")
    async def retry_jobs(
        self,
        info: Info,
        filter: Annotated[JobFilter, _FILTER],  # noqa: A002  # as in jobs(filter)
        limit: Annotated[int, _LIMIT] = 1_000,
        dry_run: Annotated[bool, _DRY_RUN] = False,
    ) -> BulkChange:
        """`retryJobs(filter, limit, dryRun)`."""
        context = info.context
        change = await context.services.manage.retry_many(
            context.caller, filter.checked(), limit, dry_run=dry_run, trace=context.trace
        )
        return BulkChange.of(change, dry_run=dry_run)

    @strawberry.mutation(description="Cancel the queued and leased jobs that match; for admins.")
    async def cancel_jobs(
        self,
        info: Info,
        filter: Annotated[JobFilter, _FILTER],  # noqa: A002  # as in jobs(filter)
        limit: Annotated[int, _LIMIT] = 1_000,
        reason: Annotated[str | None, argument("Kept in their errors.")] = None,
        dry_run: Annotated[bool, _DRY_RUN] = False,
    ) -> BulkChange:
        """`cancelJobs(filter, limit, reason, dryRun)`."""
        context = info.context
        change = await context.services.manage.cancel_many(
            context.caller, filter.checked(), limit, reason, dry_run=dry_run, trace=context.trace
        )
        return BulkChange.of(change, dry_run=dry_run)

    @strawberry.mutation(
        description="Lease nothing from a queue; what is leased goes on. A tenant's admin pauses that tenant's part. "
        "For admins."
    )
    async def pause_queue(self, info: Info, queue: Annotated[str, argument("Its name.")]) -> Queue:
        """`pauseQueue(queue)`."""
        context = info.context
        await context.services.manage.pause(context.caller, queue, trace=context.trace)
        return await _queue(info, queue)

    @strawberry.mutation(description="End your own pause of a queue; for admins.")
    async def resume_queue(self, info: Info, queue: Annotated[str, argument("Its name.")]) -> Queue:
        """`resumeQueue(queue)`."""
        context = info.context
        await context.services.manage.resume(context.caller, queue, trace=context.trace)
        return await _queue(info, queue)

    @strawberry.mutation(description="Make a worker token; its secret is shown this once. For admins.")
    async def mint_worker_token(
        self,
        info: Info,
        name: Annotated[str, argument("For people.")],
        queues: Annotated[list[str], argument('What it may lease; ["*"]: any.')],
        tenant_id: Annotated[str | None, argument("Bind it to a tenant; for unbound admins.")] = None,
        kinds: Annotated[list[str] | None, argument("Only jobs of these kinds; default: any.")] = None,
        expires_at: Annotated[datetime | None, argument("Good until then; default: until it is revoked.")] = None,
    ) -> MintedWorkerToken:
        """`mintWorkerToken(…)`."""
        return MintedWorkerToken.of(
            *await info.context.services.tokens.mint(
                info.context.caller, name, queues, tenant=tenant_id, kinds=kinds, expires_at=expires_at
            )
        )

    @strawberry.mutation(
        description="Make a successor of a worker token, with its name and its scope. The old one goes on until it is "
        "revoked, or for graceSecs more. For admins."
    )
    async def rotate_worker_token(
        self,
        info: Info,
        id: Annotated[strawberry.ID, argument("The old token's id.")],  # noqa: A002  # as in REST
        grace_secs: Annotated[int | None, argument("0–2,592,000; default: until it is revoked.")] = None,
    ) -> MintedWorkerToken:
        """`rotateWorkerToken(id, graceSecs)`."""
        service, token_id = info.context.services.tokens, parse_id("id", id)
        return MintedWorkerToken.of(*await service.rotate(info.context.caller, token_id, grace_secs))

    @strawberry.mutation(description="End a worker token, at once and on every replica; for admins.")
    async def revoke_worker_token(
        self,
        info: Info,
        id: Annotated[strawberry.ID, argument("The token's id.")],  # noqa: A002  # as in REST
    ) -> WorkerToken:
        """`revokeWorkerToken(id)`."""
        service, caller, token_id = info.context.services.tokens, info.context.caller, parse_id("id", id)
        await service.revoke(caller, token_id)
        return WorkerToken.of(await service.get(caller, token_id))

    @strawberry.mutation(
        description="A token for a page, with which to watch one job and nothing else. It is checked like every "
        "token, and cannot be revoked: keep it short."
    )
    async def job_token(
        self,
        info: Info,
        id: Annotated[strawberry.ID, _JOB],  # noqa: A002  # as in job(id)
        expires_in: Annotated[int, argument("Seconds; 1–86,400.")] = 900,
    ) -> JobToken:
        """`jobToken(id, expiresIn)`."""
        context = info.context
        seconds = check_range("expiresIn", expires_in, 1, _MAX_PASS_SECS)
        job = await context.services.jobs.get(context.caller, parse_id("id", id))
        token, expires_at = context.authenticator.sign_pass(context.caller, job, seconds)
        return JobToken(token=token, expires_at=datetime.fromtimestamp(expires_at, UTC))


async def enqueue_many(_: None, info: GraphQLResolveInfo[Context], jobs: list[dict[str, Any]]) -> list[strawberry.ID]:
    """`enqueueJobs`, for graphql-core alone: what Strawberry does to each input costs more than all the rest."""
    inputs = [EnqueueJobInput(**{_PYTHON[name]: value for name, value in job.items()}) for job in jobs]
    return await _enqueue(info.context, inputs)


async def _enqueue(context: Context, jobs: list[EnqueueJobInput]) -> list[strawberry.ID]:
    checked = [job.checked(f"jobs[{index}].") for index, job in enumerate(jobs)]
    made = await context.services.jobs.enqueue_many(context.caller, checked, trace=context.trace)
    return [strawberry.ID(str(job_id)) for job_id in made]


async def _queue(info: Info, name: str) -> Queue:
    [view] = await info.context.services.queues.views(info.context.caller, [name])
    return Queue.of(view)
