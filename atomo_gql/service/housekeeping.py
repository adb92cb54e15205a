"""What time asks for: taking back expired leases, partitions ahead, retention. Safe on every replica at once."""

import logging
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from atomo_gql.service import metrics
from atomo_gql.service.context import Resources
from atomo_gql.store import actions as store_actions
from atomo_gql.store import housekeeping as store
from atomo_gql.store import runs as store_runs

log = logging.getLogger("atomo_gql.housekeeping")

_SWEEP = 500  # leases in one statement
_FORGET = 5_000  # lease requests in one statement
_DELETE = 2_000  # jobs in one statement
_DAYS_AHEAD = 3


@dataclass(frozen=True, slots=True)
class Retention:
    """Days that ended jobs and runs are kept; None: for ever."""

    succeeded_days: float | None
    dead_days: float | None
    events_days: float | None = None  # that recorded events are kept


class HousekeepingService:
    """Called by the clock."""

    def __init__(self, resources: Resources, retention: Retention) -> None:
        self._database = resources.database
        self._hub = resources.hub
        self._bells = resources.runs_bell, resources.log_bell
        self._retention = retention
        self._spare = resources.limits.spare_deliveries

    async def sweep(self) -> int:
        """Take back every lease that ran out, and end what is past its deadline; how many leases there were."""
        total = await self._reclaim()
        while ended := await store.end_overdue(self._database, _SWEEP):
            metrics.DEAD.inc(len(ended))
            self._hub.changed(job.id for job in ended)
            log.warning("%d jobs were not begun before their deadline, and are dead", len(ended))
        for bell in self._bells:
            bell.ring_for_jobs()
        while await store.forget_requests(self._database, _FORGET) == _FORGET:
            pass
        return total

    async def _reclaim(self) -> int:
        total = 0
        while True:
            taken = await store.reclaim(self._database, _SWEEP, self._spare)
            total += len(taken)
            if taken:
                dead = sum(job.is_dead for job in taken)
                metrics.RECLAIMED.inc(len(taken))
                metrics.DEAD.inc(dead)
                self._hub.wake({(job.tenant or "", job.queue) for job in taken if not job.is_dead})
                self._hub.changed(job.id for job in taken)
                queues = ", ".join(
                    f"{queue} {count}" for queue, count in Counter(j.queue for j in taken).most_common(5)
                )
                log.warning("took back %d expired leases, %d of them dead (%s)", len(taken), dead, queues)
            if len(taken) < _SWEEP:
                return total

    async def make_partitions(self) -> int:
        """Make the partitions of the days ahead; how many were missing."""
        return await store.make_partitions(self._database, _DAYS_AHEAD)

    async def retain_runs(self, now: datetime | None = None) -> tuple[int, int]:
        """Forget runs, and recorded events, that are older than the retention; how many of each."""
        now = now or datetime.now(UTC)
        completed, failed, before = (
            None if days is None else now - timedelta(days=days)
            for days in (self._retention.succeeded_days, self._retention.dead_days, self._retention.events_days)
        )
        runs = events = 0
        if completed or failed:
            while count := await store_runs.forget(self._database, completed, failed, _DELETE):
                runs += count
        if before:
            while count := await store_actions.forget(self._database, before, _DELETE):
                events += count
        if runs or events:
            log.info("retention deleted %d runs of workflows and %d recorded events", runs, events)
        return runs, events

    async def retain(self, now: datetime | None = None) -> tuple[int, int]:
        """Forget what is older than the retention; the partition pairs dropped, and the jobs deleted one by one."""
        now = now or datetime.now(UTC)
        succeeded, dead = (
            None if days is None else now - timedelta(days=days)
            for days in (self._retention.succeeded_days, self._retention.dead_days)
        )
        moments = [moment for moment in (succeeded, dead) if moment]
        if not moments:
            return 0, 0
        dropped = deleted = 0
        for day in await store.expired_partitions(self._database, max(moments)):
            if await store.drop_partition(self._database, day, succeeded, dead):
                dropped += 1
                continue
            while count := await store.delete_finished(self._database, day, succeeded, dead, _DELETE):
                deleted += count
        if dropped or deleted:
            log.info("retention dropped %d days and deleted %d jobs", dropped, deleted)
        metrics.RETENTION_DROPPED.inc(dropped)
        metrics.RETENTION_DELETED.inc(deleted)
        return dropped, deleted
