"""What people do to jobs and queues by hand."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from atomo_gql.domain.errors import BadUserInput, Unavailable
from atomo_gql.domain.jobs import Job, JobFilter, JobStatus
from atomo_gql.domain.principals import Caller
from atomo_gql.domain.rules import MAX_REASON, check_queue, check_range, check_text
from atomo_gql.service import metrics
from atomo_gql.service.access import require_admin, visible_tenant
from atomo_gql.service.context import Resources
from atomo_gql.service.jobs import JobService
from atomo_gql.store import jobs as store_jobs
from atomo_gql.store import manage as store
from atomo_gql.store.manage import EVERYBODY, Changed

MAX_AT_ONCE = 10_000  # jobs that one call changes
_LOT = 500  # jobs in one statement
_TRIES = 5  # a job that is on the move may slip through one statement, not through several

Change = Callable[[Sequence[UUID]], Awaitable[list[Changed]]]


@dataclass(frozen=True, slots=True)
class BulkChange:
    """What a change of many came to."""

    ids: list[UUID]  # of the jobs changed, or, in a dry run, of those that would be
    has_more: bool  # whether others match, beyond the bound


class ManageService:
    """Retry, cancel, pause, resume."""

    def __init__(self, resources: Resources, jobs: JobService) -> None:
        self._database = resources.database
        self._hub = resources.hub
        self._bells = resources.runs_bell, resources.log_bell
        self._jobs = jobs

    async def retry(self, caller: Caller, job_id: UUID, *, trace: str | None = None) -> Job:
        """Queue a dead job again, with all its attempts before it. One that is queued or leased stays as it is.

        Raises:
            NotFound: there is none, or none that the caller may see.
            BadUserInput: it has succeeded.
        """
        await self._retried(caller, [job_id], trace)
        job = await self._jobs.get(caller, job_id)
        if job.status is JobStatus.SUCCEEDED:
            raise BadUserInput(f"job {job_id} has succeeded; only one that is dead can be retried", field="id")
        return job

    async def cancel(self, caller: Caller, job_id: UUID, reason: str | None = None, *, trace: str | None = None) -> Job:
        """End a job that is queued or leased. A dead one stays as it is. Its worker learns it with its next report.

        Raises:
            NotFound: there is none, or none that the caller may see.
            BadUserInput: it has succeeded.
        """
        error = _reason(caller, reason)
        for _ in range(_TRIES):
            await self._cancelled(caller, [job_id], trace, error)
            job = await self._jobs.get(caller, job_id)
            if job.status is JobStatus.SUCCEEDED:
                raise BadUserInput(f"job {job_id} has succeeded already", field="id")
            if job.status is JobStatus.DEAD:
                return job
        raise Unavailable(f"job {job_id} is changing hands too fast; try again")

    async def retry_many(
        self, caller: Caller, wanted: JobFilter, most: int, *, dry_run: bool = False, trace: str | None = None
    ) -> BulkChange:
        """Retry the dead jobs that match, oldest first.

        Raises:
            Forbidden: not an admin.
            BadUserInput: the filter asks for a status that cannot be retried, or `most` is out of range.
        """
        return await self._many(
            caller, wanted, (JobStatus.DEAD,), most, dry_run, lambda ids: self._retried(caller, ids, trace)
        )

    async def cancel_many(
        self,
        caller: Caller,
        wanted: JobFilter,
        most: int,
        reason: str | None = None,
        *,
        dry_run: bool = False,
        trace: str | None = None,
    ) -> BulkChange:
        """Cancel the queued and leased jobs that match, oldest first.

        Raises:
            Forbidden, BadUserInput: as `retry_many`.
        """
        error = _reason(caller, reason)
        return await self._many(
            caller,
            wanted,
            (JobStatus.QUEUED, JobStatus.LEASED),
            most,
            dry_run,
            lambda ids: self._cancelled(caller, ids, trace, error),
        )

    async def pause(self, caller: Caller, queue: str, *, trace: str | None = None) -> None:
        """Lease nothing from a queue; of a tenant's admin: nothing of that tenant's. What is leased goes on.

        Raises:
            Forbidden: not an admin.
            BadUserInput: no queue's name.
        """
        require_admin(caller)
        check_queue("queue", queue)
        await store.pause(self._database, queue, _part_of(caller), caller.actor, trace)

    async def resume(self, caller: Caller, queue: str, *, trace: str | None = None) -> None:
        """End the caller's own pause of a queue.

        Raises:
            Forbidden, BadUserInput: as `pause`.
        """
        require_admin(caller)
        check_queue("queue", queue)
        if await store.resume(self._database, queue, _part_of(caller), caller.actor, trace):
            self._hub.wake(await store.lanes(self._database, queue))

    async def _many(
        self,
        caller: Caller,
        wanted: JobFilter,
        allowed: tuple[JobStatus, ...],
        most: int,
        dry_run: bool,
        change: Change,
    ) -> BulkChange:
        require_admin(caller)
        check_range("limit", most, 1, MAX_AT_ONCE)
        for status in wanted.statuses or ():
            if status not in allowed:
                names = " or ".join(one.name for one in allowed)
                raise BadUserInput(f"filter.status must be {names}, not {status.name}", field="filter.status")
        if wanted.statuses is None:  # none of all states, as an empty list says, is no job
            wanted = replace(wanted, statuses=allowed)
        tenant = self._jobs.tenant_of(caller, wanted)
        found, _ = await store_jobs.page(self._database, tenant, wanted, descending=False, most=most + 1)
        ids, has_more = found[:most], len(found) > most
        if dry_run:
            return BulkChange(ids, has_more)
        changed: list[UUID] = []
        for start in range(0, len(ids), _LOT):
            changed += [job.id for job in await change(ids[start : start + _LOT])]
        return BulkChange(changed, has_more)

    async def _retried(self, caller: Caller, ids: Sequence[UUID], trace: str | None) -> list[Changed]:
        done = await store.retry(self._database, ids, visible_tenant(caller), caller.actor, trace)
        metrics.RETRIED.inc(len(done))
        self._ring()
        self._hub.wake({(job.tenant, job.queue) for job in done})
        self._hub.changed(job.id for job in done)
        return done

    async def _cancelled(self, caller: Caller, ids: Sequence[UUID], trace: str | None, error: str) -> list[Changed]:
        done = await store.cancel(self._database, ids, visible_tenant(caller), caller.actor, trace, error)
        metrics.CANCELLED.inc(len(done))
        self._ring()
        self._hub.changed(job.id for job in done)
        return done

    def _ring(self) -> None:
        for bell in self._bells:
            bell.ring_for_jobs()


def _part_of(caller: Caller) -> str:
    """Whose part of a queue an admin's pause is about."""
    return EVERYBODY if caller.sees_all else caller.tenant or ""


def _reason(caller: Caller, reason: str | None) -> str:
    if reason is not None:
        check_text("reason", reason, MAX_REASON)
    said = f": {reason.strip()}" if reason and reason.strip() else ""
    return f"cancelled by {caller.actor}{said}"
