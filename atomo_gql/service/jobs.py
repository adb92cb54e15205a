"""Enqueueing and reading jobs, for people and applications."""

from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from atomo_gql.domain.errors import BadUserInput, Forbidden, NotFound
from atomo_gql.domain.jobs import Body, Job, JobFilter, Json, NewJob, Waiting
from atomo_gql.domain.paging import Page, Window
from atomo_gql.domain.principals import Caller
from atomo_gql.domain.rules import MAX_BATCH, check_name, check_new_job, check_unique
from atomo_gql.service import metrics
from atomo_gql.service.access import acting_tenant, visible_tenant, watched_tenant
from atomo_gql.service.context import Resources
from atomo_gql.service.encoding import encode
from atomo_gql.store import enqueue as store_enqueue
from atomo_gql.store import jobs as store_jobs
from atomo_gql.store.batching import Batcher
from atomo_gql.store.enqueue import Enqueued, EnqueueRow

MOST_AHEAD = 1_000  # jobs counted before one that waits
MOST_SEARCHED = 5_000  # jobs of each state among whose errors one page looks for a text


class JobService:
    """The app plane's verbs."""

    def __init__(self, resources: Resources) -> None:
        self._database = resources.database
        self._hub = resources.hub
        self._seen = resources.seen
        self._limits = resources.limits
        self._log_bell = resources.log_bell
        # While one is written, the server reads the next: two at a time would leave it with nothing to do meanwhile.
        self._enqueueing: Batcher[EnqueueRow, Enqueued] = Batcher(
            self._write, weigh=lambda row: len(row.payload), beside=1.5
        )
        self._reading: Batcher[tuple[UUID, str | None], Job | None] = Batcher(
            lambda wanted: store_jobs.get_each(self._database, wanted)
        )

    async def enqueue(self, caller: Caller, job: NewJob, *, trace: str | None = None) -> UUID:
        """Make a job, or find the one its idempotency key names; its id.

        Raises:
            BadUserInput, PayloadTooLarge: a field breaks a rule, which is named.
            Unavailable: the database is out of reach.
        """
        return (await self._enqueueing.submit(self._row(caller, job, trace))).id

    async def enqueue_many(self, caller: Caller, jobs: Sequence[NewJob], *, trace: str | None = None) -> list[UUID]:
        """Make these jobs, all or none; their ids, in order.

        Raises:
            BadUserInput: names the index of the job and its field, or there are too many.
        """
        if not 0 < len(jobs) <= MAX_BATCH:
            raise BadUserInput(f"jobs must hold from 1 to {MAX_BATCH} jobs, not {len(jobs)}", field="jobs")
        rows = [self._row(caller, job, trace, f"jobs[{index}].") for index, job in enumerate(jobs)]
        return [done.id for done in await self._write(rows)]

    async def get(self, caller: Caller, job_id: UUID) -> Job:
        """A job as it stands.

        Raises:
            NotFound: there is none, or none that the caller may see.
        """
        return await self._read(job_id, visible_tenant(caller))

    async def get_many(self, caller: Caller, ids: Sequence[UUID]) -> dict[UUID, Job]:
        """Those of these jobs that the caller may see, without result and progress."""
        return await store_jobs.listed(self._database, ids, visible_tenant(caller))

    async def watch(self, caller: Caller, job_id: UUID) -> Job:
        """As `get`, for those who have but a pass to watch it too."""
        return await self._read(job_id, watched_tenant(caller, job_id))

    async def _read(self, job_id: UUID, tenant: str | None) -> Job:
        job = await self._reading.submit((job_id, tenant))
        if job is None:
            raise NotFound(f"there is no job {job_id}")
        return job

    async def page(self, caller: Caller, wanted: JobFilter, window: Window[UUID], *, oldest_first: bool) -> Page[Job]:
        """The jobs that are wanted and that the caller may see, newest first or oldest first, without result and
        progress.

        Raises:
            BadUserInput: a condition breaks a rule.
        """
        tenant = self.tenant_of(caller, wanted)
        ids, resumes_at = await store_jobs.page(
            self._database, tenant, wanted, look=MOST_SEARCHED, **window.walk(ascending=oldest_first)
        )
        found = await store_jobs.listed(self._database, ids, tenant)
        return window.page([found[job_id] for job_id in ids if job_id in found], resumes_at)

    async def count(self, caller: Caller, wanted: JobFilter, most: int, *, oldest_first: bool) -> tuple[int, bool]:
        """How many are wanted and may be seen, counted up to `most`, and whether those are all."""
        tenant = self.tenant_of(caller, wanted)
        ids, resumes_at = await store_jobs.page(
            self._database, tenant, wanted, descending=not oldest_first, most=most + 1, look=MOST_SEARCHED
        )
        return min(len(ids), most), len(ids) <= most and resumes_at is None

    def tenant_of(self, caller: Caller, wanted: JobFilter) -> str | None:
        """Whose jobs a filter is about, as the store knows it.

        Raises:
            Forbidden: the filter names a tenant that is not the caller's to see.
        """
        visible = visible_tenant(caller)
        if wanted.tenant is None:
            return visible
        check_name("filter.tenantId", wanted.tenant)
        if visible is not None and visible != wanted.tenant:
            raise Forbidden("filter.tenantId is for admins who see more than one tenant")
        return wanted.tenant

    async def bodies(self, jobs: Sequence[UUID], what: Body, most: int) -> dict[UUID, tuple[Json, int]]:
        """The payload, result or progress of these jobs, which the caller has been shown; each with its size in bytes.

        Raises:
            AnswerTooLarge: all together are larger than so many bytes.
        """
        return await store_jobs.bodies(self._database, jobs, what, most)

    async def waiting(self, jobs: Sequence[UUID]) -> dict[UUID, Waiting]:
        """Why those of these jobs, which the caller has been shown, that are queued are not running."""
        return await store_jobs.waiting(self._database, jobs, MOST_AHEAD)

    def row(
        self,
        job: NewJob,
        *,
        tenant: str,
        actor: str,
        trace: str | None,
        prefix: str = "",
        run_id: UUID | None = None,
        via: tuple[str, ...] = (),
        room: int = 0,
    ) -> EnqueueRow:
        """A job checked and encoded, ready to be written. `room`: bytes that its payload may have beside the limit.

        Raises:
            BadUserInput, PayloadTooLarge: a field breaks a rule, which is named.
        """
        job = check_new_job(job, prefix)
        if job.idempotency_key is not None:
            check_unique(f"{prefix}idempotencyKey", job.idempotency_key, job.queue, tenant, names="queue and tenant")
        return EnqueueRow(
            tenant=tenant,
            queue=job.queue,
            kind=job.kind,
            payload=encode(f"{prefix}payload", job.payload, self._limits.max_body + room),
            key=job.idempotency_key,
            max_attempts=job.max_attempts,
            priority=job.priority,
            run_at=job.run_at,
            actor=actor,
            trace=trace,
            timeout_secs=job.timeout_secs,
            deadline=job.deadline,
            run_id=run_id,
            via=via,
        )

    async def write_in(self, connection: Any, rows: Sequence[EnqueueRow]) -> list[Enqueued]:
        """Write jobs within a transaction; `tell` of them once it is committed."""
        return await store_enqueue.enqueue(self._database, rows, connection=connection)

    def tell(self, rows: Sequence[EnqueueRow], done: Sequence[Enqueued]) -> None:
        """Count those that are new, and wake who waits for them; after the commit."""
        made = Counter((row.tenant, row.queue) for row, d in zip(rows, done, strict=True) if d.is_new)
        metrics.ENQUEUED.inc(made.total())
        self._seen.now.enqueued.update(made)
        self._hub.wake(made)
        self._log_bell.ring_for_jobs()

    def _row(self, caller: Caller, job: NewJob, trace: str | None, prefix: str = "") -> EnqueueRow:
        return self.row(job, tenant=acting_tenant(caller), actor=caller.actor, trace=trace, prefix=prefix)

    async def _write(self, rows: Sequence[EnqueueRow]) -> list[Enqueued]:
        done = await store_enqueue.enqueue(self._database, rows)
        self.tell(rows, done)
        return done
