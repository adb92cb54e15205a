"""The worker plane's verbs: lease, heartbeat, progress, complete, fail, release."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

import orjson

from atomo_gql.domain.errors import AtomoError, LeaseLost
from atomo_gql.domain.jobs import FailOutcome, JobStatus, Json, Lease, LeasedJob, LeaseRequest, Progress
from atomo_gql.domain.principals import WorkerToken
from atomo_gql.domain.updates import JobUpdate
from atomo_gql.service import metrics
from atomo_gql.service.access import require_queues
from atomo_gql.service.context import Resources
from atomo_gql.service.encoding import encode
from atomo_gql.service.tokens import TokenService
from atomo_gql.service.waiting import WaitingRoom
from atomo_gql.store import lease as store_lease
from atomo_gql.store import report as store
from atomo_gql.store.batching import Batcher
from atomo_gql.store.database import Database
from atomo_gql.store.lease import LeaseRow
from atomo_gql.store.report import Accepted, Report

log = logging.getLogger("atomo_gql.leases")

Verb = Callable[[Database, Sequence[Report]], Awaitable[list[Accepted | None]]]


class LeaseService:
    """What workers do. Every verb is checked against the worker's token in the statement that acts."""

    def __init__(self, resources: Resources, tokens: TokenService) -> None:
        self._database = resources.database
        self._hub = resources.hub
        self._seen = resources.seen
        self._limits = resources.limits
        self._tokens = tokens
        self._leasing: Batcher[LeaseRow, list[LeasedJob]] = Batcher(
            lambda rows: store_lease.lease(self._database, rows), size=100, flights=2
        )
        self._beating = self._batched(store.heartbeat)
        self._progressing = self._batched(store.progress)
        self._completing = self._batched(store.complete)
        self._failing = self._batched(store.fail)
        self._releasing = self._batched(store.release)
        self._background: set[asyncio.Task[None]] = set()
        self.room = WaitingRoom(
            self._lease_now,
            self._hand_back,
            lambda scopes: store_lease.next_eligible(self._database, scopes),
            resources.limits.max_waiting,
        )
        self._hub.on_wake(self.room.wake)
        self._hub.on_gap(self.room.wake_all)

    def _batched(self, verb: Verb) -> Batcher[Report, Accepted | None]:
        return Batcher(lambda reports: verb(self._database, reports), weigh=lambda r: len(r.body or b""))

    async def lease(
        self, token: WorkerToken, request: LeaseRequest, hung_up: Callable[[], Awaitable[None]]
    ) -> list[LeasedJob]:
        """Jobs to work on, waiting for some up to `wait_secs`. `hung_up` returns when the client has gone.

        Raises:
            Forbidden: a queue is outside the token.
            Unauthenticated: the token has been revoked.
            TooManyRequests: too many are waiting.
        """
        require_queues(token, request.queues)
        self._seen.worker(token.id, request.queues)
        jobs = await self._lease_now(token, request)
        if not jobs and request.wait_secs > 0:
            await self._tokens.require_live(token)
            jobs = await self.room.wait(token, request, hung_up)
        if not jobs:
            await self._tokens.require_live(token)
        return jobs

    async def heartbeat(self, token: WorkerToken, lease: Lease, visibility_secs: int) -> None:
        """Move the deadline to so many seconds from now.

        Raises:
            LeaseLost: the lease is not the current one.
            Unauthenticated: the token has been revoked.
        """
        await self._report(self._beating, token, Report(lease, token.id, visibility_secs=visibility_secs))

    async def progress(self, token: WorkerToken, lease: Lease, progress: Progress, visibility_secs: int | None) -> None:
        """Tell the watchers, and move the deadline (by the lease's own visibility when none is named).

        Raises:
            LeaseLost, Unauthenticated: as `heartbeat`.
            PayloadTooLarge: the data are over the limit.
        """
        data = encode("data", progress.data, self._limits.max_body)
        body = orjson.dumps({"percent": progress.percent, "message": progress.message, "data": orjson.Fragment(data)})
        report = Report(lease, token.id, visibility_secs=visibility_secs, body=body)
        done = await self._report(self._progressing, token, report)
        self._hub.publish(
            JobUpdate(
                job_id=lease.job_id,
                status=JobStatus.LEASED,
                attempts=done.attempt or 0,
                percent=progress.percent,
                message=progress.message,
                data=progress.data,
            )
        )

    async def complete(self, token: WorkerToken, lease: Lease, result: Json) -> None:
        """The work is done.

        Raises:
            LeaseLost, Unauthenticated: as `heartbeat`.
            PayloadTooLarge: the result is over the limit.
        """
        body = encode("result", result, self._limits.max_body)
        done = await self._report(self._completing, token, Report(lease, token.id, body=body))
        metrics.SUCCEEDED.inc()
        self._seen.lane(done.tenant, done.queue or "").succeeded += 1
        self._hub.changed([lease.job_id])

    async def fail(self, token: WorkerToken, lease: Lease, error: str, *, retryable: bool) -> FailOutcome:
        """The attempt failed; what becomes of the job.

        Raises:
            LeaseLost, Unauthenticated: as `heartbeat`.
        """
        done = await self._report(self._failing, token, Report(lease, token.id, error=error, retryable=retryable))
        self._seen.lane(done.tenant, done.queue or "").failed += 1
        outcome = done.failure or FailOutcome(None)
        if outcome.delay_secs is None:
            metrics.DEAD.inc()
        else:
            metrics.FAILED.inc()
            self._hub.wake(self._lanes_of(done))
        self._hub.changed([lease.job_id])
        return outcome

    async def release(self, token: WorkerToken, lease: Lease) -> None:
        """Hand a job back unharmed: it is queued where it stood, and the attempt is not counted.

        Raises:
            LeaseLost, Unauthenticated: as `heartbeat`.
        """
        done = await self._report(self._releasing, token, Report(lease, token.id))
        metrics.RELEASED.inc()
        self._hub.wake(self._lanes_of(done))
        self._hub.changed([lease.job_id])

    async def _lease_now(self, token: WorkerToken, request: LeaseRequest) -> list[LeasedJob]:
        jobs = await self._leasing.submit(LeaseRow(token.id, request.capacity, request.visibility_secs, request.queues))
        if jobs:
            metrics.LEASED.inc(len(jobs))
            for job in jobs:
                self._seen.lane(job.tenant, job.queue).leased += 1
            self._hub.changed(job.id for job in jobs)
        return jobs

    async def _report(self, batcher: Batcher[Report, Accepted | None], token: WorkerToken, report: Report) -> Accepted:
        done = await batcher.submit(report)
        if done is None:
            await self._tokens.require_live(token)
            metrics.LEASES_LOST.inc()
            raise LeaseLost(str(report.lease.job_id))
        return done

    def _hand_back(self, token: WorkerToken, jobs: Iterable[LeasedJob]) -> None:
        async def release(job: LeasedJob) -> None:
            try:
                await self.release(token, Lease(job.id, job.lease_id))
            except AtomoError as error:  # then the lease runs out by itself
                log.warning("job %s could not be handed back: %s", job.id, error)

        for job in jobs:
            task = asyncio.create_task(release(job))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    @staticmethod
    def _lanes_of(done: Accepted) -> list[tuple[str, str]]:
        return [(done.tenant or "", done.queue)] if done.queue else []
