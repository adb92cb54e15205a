"""Watching jobs: the present state first, then each update, then the end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from uuid import UUID

from atomo_gql.domain.errors import NotFound, TooManyRequests, Unavailable
from atomo_gql.domain.principals import Caller
from atomo_gql.domain.updates import JobUpdate, update_of
from atomo_gql.realtime.hub import Mailbox
from atomo_gql.service import metrics
from atomo_gql.service.context import Resources
from atomo_gql.service.jobs import JobService

_RETRY_SECS = 0.5
_LOT = 25  # jobs looked up together
_LOOK_OVER_SECS = 8.0  # that one round of looks is spread over


class Watch:
    """One watcher's view of any number of jobs: `add` and `remove` them, and read `updates`."""

    def __init__(self, service: "WatchService", caller: Caller) -> None:
        self._service = service
        self._caller = caller
        self._mailbox = Mailbox()
        self._last: dict[UUID, JobUpdate | None] = {}

    async def add(self, job_id: UUID) -> None:
        """Watch one more; its present state comes as an update.

        Raises:
            NotFound: there is none, or none that the caller may see.
            TooManyRequests: the server has as many watchers as it takes.
        """
        if job_id in self._last:
            return
        self._service.make_room()
        # Listen first, then read: the other order loses what happens in between.
        self._service.hub.watch(job_id, self._mailbox)
        try:
            await self._service.read(self._caller, job_id)
        except BaseException:
            self._service.hub.unwatch(job_id, self._mailbox)
            raise
        self._last[job_id] = None
        self._mailbox.put(job_id, None)
        metrics.WATCHERS.set(self._service.hub.watchers)

    def remove(self, job_id: UUID) -> None:
        """Watch it no more."""
        if self._last.pop(job_id, self) is not self:
            self._service.hub.unwatch(job_id, self._mailbox)
            metrics.WATCHERS.set(self._service.hub.watchers)

    def close(self) -> None:
        """Watch nothing any more."""
        for job_id in list(self._last):
            self.remove(job_id)

    def __len__(self) -> int:
        return len(self._last)

    async def updates(self) -> AsyncIterator[JobUpdate]:
        """Each update of each job that is not what was told before; a job's last one ends its watch. Never ends."""
        while True:
            for job_id, news in await self._mailbox.take():
                if job_id not in self._last:
                    continue
                try:
                    update = news or update_of(await self._service.read(self._caller, job_id))
                except NotFound:  # retention took it
                    self.remove(job_id)
                    continue
                except Unavailable:
                    asyncio.get_running_loop().call_later(_RETRY_SECS, self._mailbox.put, job_id, None)
                    continue
                if update == self._last[job_id]:
                    continue
                self._last[job_id] = update
                if update.is_last:
                    self.remove(job_id)
                yield update


class WatchService:
    """Opens watches. What a replica missed is made up for by a look at the store now and then."""

    def __init__(self, resources: Resources, jobs: JobService) -> None:
        self.hub = resources.hub
        self.read = jobs.watch
        self._most = resources.limits.max_subscriptions

    def make_room(self) -> None:
        """Refuse one more when there are as many as the server takes.

        Raises:
            TooManyRequests: it has.
        """
        if self.hub.watchers >= self._most:
            raise TooManyRequests(f"{self._most} subscriptions are open here already; try again")

    @contextlib.contextmanager
    def open(self, caller: Caller) -> Iterator[Watch]:
        """A watch for the length of the block."""
        watch = Watch(self, caller)
        try:
            yield watch
        finally:
            watch.close()

    async def look_again(self) -> None:
        """Have every watcher compare what it was told with the store, should a hint have been lost.

        A few at a time, so that thousands who look do not hold up a word that is on its way to one of them.
        """
        watched = self.hub.watched()
        lots = [watched[start : start + _LOT] for start in range(0, len(watched), _LOT)]
        for lot in lots:
            self.hub.look_again(lot)
            await asyncio.sleep(_LOOK_OVER_SECS / len(lots))

    async def follow(self, caller: Caller, job_id: UUID) -> AsyncIterator[JobUpdate]:
        """One job: its present state, each update, its end.

        Raises:
            NotFound: there is none, or none that the caller may see.
        """
        with self.open(caller) as watch:
            await watch.add(job_id)
            async for update in watch.updates():
                yield update
                if update.is_last:
                    return
