"""Enqueueing and reading jobs, for people and applications."""

from collections.abc import Sequence
from uuid import UUID

from atomo_gql.domain.errors import BadUserInput, NotFound
from atomo_gql.domain.events import Event
from atomo_gql.domain.jobs import Job, JobStatus, Json, NewJob
from atomo_gql.domain.principals import Caller
from atomo_gql.domain.rules import MAX_BATCH, check_new_job, check_range
from atomo_gql.service import metrics
from atomo_gql.service.access import visible_tenant
from atomo_gql.service.context import Resources
from atomo_gql.service.encoding import encode
from atomo_gql.store import enqueue as store_enqueue
from atomo_gql.store import jobs as store_jobs
from atomo_gql.store.batching import Batcher
from atomo_gql.store.enqueue import Enqueued, EnqueueRow

MAX_PAGE = 100


class JobService:
    """The app plane's verbs."""

    def __init__(self, resources: Resources) -> None:
        self._database = resources.database
        self._hub = resources.hub
        self._limits = resources.limits
        self._enqueueing: Batcher[EnqueueRow, Enqueued] = Batcher(self._write, weigh=lambda row: len(row.payload))
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
        job = await self._reading.submit((job_id, visible_tenant(caller)))
        if job is None:
            raise NotFound(f"there is no job {job_id}")
        return job

    async def page(
        self,
        caller: Caller,
        *,
        status: JobStatus | None = None,
        queue: str | None = None,
        kind: str | None = None,
        before: UUID | None = None,
        most: int = 20,
    ) -> list[Job]:
        """At most so many (1–100) jobs that the caller may see, newest first, from below an id.

        One more than asked for is answered when there are more.
        """
        check_range("first", most, 1, MAX_PAGE)
        return await store_jobs.page(
            self._database, visible_tenant(caller), status=status, queue=queue, kind=kind, before=before, most=most + 1
        )

    async def payloads(self, caller: Caller, jobs: Sequence[UUID]) -> dict[UUID, Json]:
        """What was sent with these jobs, which the caller has been shown."""
        return await store_jobs.payloads(self._database, jobs)

    async def events(
        self, caller: Caller, jobs: Sequence[UUID], *, after: int = 0, most: int = 500
    ) -> dict[UUID, list[Event]]:
        """The history of these jobs, which the caller has been shown: the events after a version, oldest first."""
        check_range("first", most, 1, 1_000)
        return await store_jobs.streams(self._database, jobs, after, most)

    def _row(self, caller: Caller, job: NewJob, trace: str | None, prefix: str = "") -> EnqueueRow:
        job = check_new_job(job, prefix)
        return EnqueueRow(
            tenant=caller.tenant or "",
            queue=job.queue,
            kind=job.kind,
            payload=encode(f"{prefix}payload", job.payload, self._limits.max_body),
            key=job.idempotency_key,
            max_attempts=job.max_attempts,
            priority=job.priority,
            run_at=job.run_at,
            actor=caller.actor,
            trace=trace,
        )

    async def _write(self, rows: Sequence[EnqueueRow]) -> list[Enqueued]:
        done = await store_enqueue.enqueue(self._database, rows)
        metrics.ENQUEUED.inc(sum(d.is_new for d in done))
        self._hub.wake({(row.tenant, row.queue) for row, d in zip(rows, done, strict=True) if d.is_new})
        return done
