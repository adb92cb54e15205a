"""Giving jobs to workers."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from uuid import UUID

from atomo_gql.domain.errors import AtomoError
from atomo_gql.domain.jobs import LeasedJob, LeaseRequest
from atomo_gql.domain.principals import WorkerToken
from atomo_gql.domain.reports import Report, ReportType
from atomo_gql.realtime.interest import Want
from atomo_gql.service import metrics
from atomo_gql.service.access import kinds_within, require_queues
from atomo_gql.service.context import Resources
from atomo_gql.service.reports import Outcome, ReportService
from atomo_gql.service.tokens import TokenService
from atomo_gql.service.waiting import WaitingRoom
from atomo_gql.store import lease as store
from atomo_gql.store.batching import Batcher
from atomo_gql.store.lease import LeaseRow

log = logging.getLogger("atomo_gql.leases")
_MOST_LEASED = 1_000  # jobs that the requests of one statement may ask for


class LeaseService:
    """One verb: lease. It is checked against the worker's token in the statement that acts."""

    def __init__(self, resources: Resources, tokens: TokenService, reports: ReportService) -> None:
        self._database = resources.database
        self._hub = resources.hub
        self._seen = resources.seen
        self._tokens = tokens
        self._reports = reports
        self._heads = store.Heads()
        self._leasing: Batcher[LeaseRow, list[LeasedJob]] = Batcher(
            lambda rows: store.lease(self._database, rows, self._heads),
            size=100,
            weigh=lambda row: row.count,
            most_weight=_MOST_LEASED,
        )
        self._closing: Batcher[LeaseRow, bool] = Batcher(lambda rows: store.close(self._database, rows))
        self._background: set[asyncio.Task[None]] = set()
        self.room = WaitingRoom(
            self._lease_now,
            self._hand_back,
            lambda scopes: store.next_eligible(self._database, scopes),
            lambda waiters: store.standing(self._database, [_row(w.token, w.request) for w in waiters]),
            resources.limits.max_waiting,
        )
        self._hub.on_wake(self.room.wake)
        self._hub.on_gap(self.room.wake_all)
        self._hub.wants.provide(Want.WAKES, lambda: len(self.room) > 0)

    async def lease(
        self,
        token: WorkerToken,
        request: LeaseRequest,
        hung_up: Callable[[], Awaitable[None]],
        reports: Sequence[Report] = (),
    ) -> tuple[list[LeasedJob], list[Outcome]]:
        """Jobs to work on, waiting for some up to `wait_secs`, and the outcomes of reports that came along.

        With reports there is no waiting: whoever made them wants their outcomes. `hung_up` returns when the client has
        gone.

        Raises:
            Forbidden: a queue or a kind is outside the token.
            Unauthenticated: the token has been revoked.
            TooManyRequests: too many are waiting.
        """
        require_queues(token, request.queues)
        request = replace(request, kinds=kinds_within(token, request.kinds))
        self._seen.worker(token.id, request.queues)
        outcomes = await self._reports.apply(token, reports) if reports else []
        jobs = await self._lease_now(token, request)
        if not jobs and request.wait_secs > 0 and not reports:
            await self._tokens.require_live(token)
            self._hub.wanting(Want.WAKES)
            jobs = await self.room.wait(token, request, hung_up)
        if not jobs and request.request_id is not None and not await self._closing.submit(_row(token, request)):
            jobs = await self._lease_now(token, request)  # its double was served, here or elsewhere
        if not jobs:
            await self._tokens.require_live(token)
        return jobs, outcomes

    async def _lease_now(self, token: WorkerToken, request: LeaseRequest) -> list[LeasedJob]:
        jobs = await self._leasing.submit(_row(token, request))
        if jobs:
            metrics.LEASED.inc(len(jobs))
            self._seen.now.leased.update([(job.tenant or "", job.queue) for job in jobs])
            self._hub.changed(UUID(job.id) for job in jobs)
        return jobs

    def _hand_back(self, token: WorkerToken, jobs: Iterable[LeasedJob]) -> None:
        reports = [Report(ReportType.RELEASE, job.id, job.lease_id) for job in jobs]

        async def release() -> None:
            try:
                await self._reports.apply(token, reports)
            except AtomoError as error:  # then the leases run out by themselves
                log.warning("%d jobs could not be handed back: %s", len(reports), error)

        task = asyncio.create_task(release())
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _row(token: WorkerToken, request: LeaseRequest) -> LeaseRow:
    return LeaseRow(
        token.id, request.capacity, request.visibility_secs, request.queues, request.kinds, request.request_id
    )
