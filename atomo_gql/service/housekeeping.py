"""What time asks for: taking back expired leases, partitions ahead, retention. Safe on every replica at once."""

import asyncio
import contextlib
import logging
import math
import random
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from atomo_gql.domain.errors import Unavailable
from atomo_gql.service import metrics
from atomo_gql.service.context import Resources
from atomo_gql.store import actions as store_actions
from atomo_gql.store import housekeeping as store
from atomo_gql.store import runs as store_runs
from atomo_gql.store.housekeeping import Partition

log = logging.getLogger("atomo_gql.housekeeping")

_SWEEP = 500  # leases in one statement
_FORGET = 5_000  # lease requests in one statement
_DELETE = 2_000  # jobs in one statement
_DAYS_AHEAD = 4
_REWRITE = 20_000  # expired jobs of a partition from which on it is written anew without them
_JUMP_SECS = 600
_COPY = 20_000  # events in one statement
_SWAPS = 15  # tries to have the tables for a moment
_SETTLED_DAYS = 2  # after its end little happens to the jobs of a partition
_UNMERGED = 8  # partitions of the past, where everything is kept
_MERGED = 4  # partitions of what has expired
_MERGED_AT_ONCE = 64
_DAYS_FOR_EVER = 365  # that a partition spans where jobs are kept for ever
_SPANS = 8  # partitions that a retention is made of


@dataclass(frozen=True, slots=True)
class Retention:
    """Days that ended jobs and runs are kept; None: for ever."""

    succeeded_days: float | None
    dead_days: float | None
    events_days: float | None = None  # that recorded events are kept

    @property
    def partition_days(self) -> int:
        """How many days a partition spans: few, so that little outlives its time, but not too few."""
        if self.succeeded_days is None:
            return _DAYS_FOR_EVER
        return min(_DAYS_FOR_EVER, max(1, math.ceil(self.succeeded_days / _SPANS)))


@dataclass(frozen=True, slots=True)
class Total:
    """What retention has done."""

    replaced: int = 0  # pairs of partitions
    left_out: int = 0  # jobs forgotten

    def __add__(self, other: "Total") -> "Total":
        return Total(self.replaced + other.replaced, self.left_out + other.left_out)


class HousekeepingService:
    """Called by the clock."""

    def __init__(self, resources: Resources, retention: Retention) -> None:
        self._database = resources.database
        self._hub = resources.hub
        self._bells = resources.runs_bell, resources.log_bell
        self._retention = retention
        self._spare = resources.limits.spare_deliveries
        self._clock: tuple[datetime, float] | None = None  # the database's, and this process's, at one moment

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

    async def adopt_cluster(self) -> None:
        """Notice a schema that was restored while this process runs, and a standby that has taken over."""
        if done := await store.adopt_cluster(self._database):
            log.warning(done)
            for bell in self._bells:
                bell.ring()

    async def shorten_leases(self) -> int:
        """Have leases that were given while the database's clock was ahead end in time; how many."""
        if shortened := await store.shorten_leases(self._database):
            log.warning("%d leases were given while the database's clock was ahead; they end in time now", shortened)
        return shortened

    async def make_partitions(self) -> int:
        """Make the partitions of the days ahead; how many pairs were missing."""
        await store.span_partitions(self._database, self._retention.partition_days)
        return await store.make_partitions(self._database, _DAYS_AHEAD)

    async def is_clock_steady(self) -> bool:
        """Whether the database's clock has gone on as time has since the last call, ten minutes ago.

        Retention waits until it has. So a machine that starts with a wrong clock has a moment to set it right.
        """
        now, elapsed = await store.database_now(self._database), time.monotonic()
        before, self._clock = self._clock, (now, elapsed)
        if before is None:
            return False
        jump = (now - before[0]).total_seconds() - (elapsed - before[1])
        if abs(jump) > _JUMP_SECS:
            log.warning("the database's clock has moved by %d s; retention waits for the next round", jump)
            return False
        return True

    async def retain_runs(self, now: datetime | None = None) -> tuple[int, int]:
        """Forget runs, and recorded events, that are older than the retention; how many of each."""
        now = now or await store.database_now(self._database)
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
        """Forget jobs that are older than the retention, and keep the number of partitions small.

        Few jobs are deleted one by one. Where many of a partition have expired, the partition is written anew without
        them. Each statement is bounded and leaves the database in order, so this may be killed at any moment.

        Returns:
            How many pairs of partitions were replaced, and how many jobs were forgotten.
        """
        now = now or await store.database_now(self._database)
        succeeded, dead = (
            None if days is None else now - timedelta(days=days)
            for days in (self._retention.succeeded_days, self._retention.dead_days)
        )
        moments = [moment for moment in (succeeded, dead) if moment]
        await self._drop_detached()
        total = await self._go_on_with_rewrite()
        if moments:
            for partition in await store.partitions(self._database):
                if partition.ends_at <= max(moments):
                    total += await self._expire(partition, succeeded, dead)
                elif partition.begins_at < now and partition.remaining_days(now) > 2 * self._retention.partition_days:
                    # It was made when jobs were kept for longer. It ends the day after tomorrow from now on.
                    total += await self._delete(partition, None, dead)
                    shortened = await self._rewrite(partition.first_id, None, succeeded)
                    total += shortened if shortened.replaced else await self._delete(partition, succeeded, None)
        # What is left of a partition when its succeeded jobs are gone is few, however long dead ones are kept.
        total += await self._merge(
            succeeded or now - timedelta(days=_SETTLED_DAYS), _MERGED if succeeded else _UNMERGED
        )
        if total.replaced or total.left_out:
            log.info("retention forgot %d jobs, and replaced %d partitions", total.left_out, total.replaced)
        metrics.PARTITIONS_REPLACED.inc(total.replaced)
        metrics.RETENTION_DELETED.inc(total.left_out)
        return total.replaced, total.left_out

    async def _expire(self, partition: Partition, succeeded: datetime | None, dead: datetime | None) -> Total:
        if await store.count_expired(self._database, partition, succeeded, _REWRITE) < _REWRITE:
            return await self._delete(partition, succeeded, dead)
        return await self._delete(partition, None, dead) + await self._rewrite(
            partition.first_id, partition.end_id, succeeded
        )

    async def _delete(self, partition: Partition, succeeded: datetime | None, dead: datetime | None) -> Total:
        total = Total()
        while count := await store.delete_finished(self._database, partition, succeeded, dead, _DELETE):
            total += Total(0, count)
        return total

    async def _merge(self, before: datetime, most: int) -> Total:
        """Have at most so many partitions end before that moment: neighbours that are small together become one."""
        total = Total()
        while True:
            old = [p for p in await store.partitions(self._database) if p.ends_at <= before]
            if len(old) <= most:
                return total
            count = min(len(old) - most + 1, _MERGED_AT_ONCE)
            starts = range(len(old) - count + 1)
            start = min(starts, key=lambda s: sum(p.bytes for p in old[s : s + count]))
            done = await self._rewrite(old[start].first_id, old[start + count - 1].end_id, None)
            if not done.replaced:
                return total  # others are in the way; there is another round
            total += done

    async def _rewrite(self, first_id: UUID, end_id: UUID | None, expired: datetime | None) -> Total:
        if await store.begin_rewrite(self._database, first_id, end_id, expired):
            return await self._go_on_with_rewrite()
        return Total()

    async def _go_on_with_rewrite(self) -> Total:
        has_more = True
        while has_more:
            answer = await store.copy_partitions(self._database, _COPY)
            if answer is None:
                return Total()  # there is none, or another replica is at it
            has_more = answer
        for _ in range(_SWAPS):
            try:
                swapped = await store.swap_partitions(self._database)
            except Unavailable:  # somebody reads for long; nobody shall wait for us for long
                await asyncio.sleep(random.uniform(0.5, 2))  # noqa: S311  # jitter, not a secret
                continue
            await self._drop_detached()
            return Total(swapped.replaced, swapped.left_out) if swapped else Total()
        log.warning("partitions could not be replaced, since others read them all the time; the next round tries again")
        return Total()

    async def _drop_detached(self) -> None:
        with contextlib.suppress(Unavailable):  # somebody reads them for long; there is another round
            await store.drop_detached(self._database)
