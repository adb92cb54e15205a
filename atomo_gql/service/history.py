"""The log, for those who read it: what happened to a job, to many, and what is happening now."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from uuid import UUID

from atomo_gql.domain.attempts import Attempt, attempts_of
from atomo_gql.domain.errors import TooManyRequests, Unavailable
from atomo_gql.domain.events import Event, EventFilter, Place, Stream
from atomo_gql.domain.principals import Caller
from atomo_gql.domain.rules import check_range
from atomo_gql.realtime.interest import Want
from atomo_gql.service.access import require_admin, visible_tenant
from atomo_gql.service.context import Resources
from atomo_gql.store import events as store

_LOOKED_AT = 1_000  # events in one statement
_LOOKS = 20  # statements for one page: a reader who wants little gets a short page, and goes on from there
_BYTES = 4_000_000  # of their data, for those who follow
_LEAST_PAUSE_SECS = 0.05  # between two looks of a follower: coalesces what happens in a burst
_MOST_PAUSE_SECS = 1.0  # a hint may be lost, and an older transaction may hold the log's end back
_OF_TENANTS = {Stream.JOB, Stream.WORKFLOW, Stream.MODEL}  # streams that everybody reads, each tenant its own


class HistoryService:
    """Reads events."""

    def __init__(self, resources: Resources) -> None:
        self._database = resources.database
        self._most = resources.limits.max_subscriptions
        self.following = 0
        self._news = asyncio.Event()
        self._hub = resources.hub
        self._hub.on_news(self._stir)
        self._hub.wants.provide(Want.NEWS, lambda: self.following > 0)

    async def of_streams(
        self, ids: Sequence[UUID], *, after: int, most: int, most_bytes: int
    ) -> dict[UUID, list[Event]]:
        """The history of these jobs or runs, which the caller has been shown: the events after a version, oldest first.

        Raises:
            AnswerTooLarge: their data is larger than so many bytes.
        """
        check_range("first", most, 1, 1_000)
        check_range("after", after, 0, 2**31 - 1)
        return await store.streams(self._database, ids, after, most, most_bytes)

    async def attempts(self, jobs: Sequence[UUID], most: int, most_bytes: int) -> dict[UUID, list[Attempt]]:
        """The attempts of these jobs, which the caller has been shown, oldest first.

        Raises:
            AnswerTooLarge: more has happened to them than so many events, or so many bytes of errors.
        """
        found = await store.attempts(self._database, jobs, most, most_bytes)
        return {job_id: attempts_of(events) for job_id, events in found.items()}

    async def page(
        self, caller: Caller, after: Place, wanted: EventFilter, most: int, most_bytes: int
    ) -> tuple[list[Event], Place, bool]:
        """What is wanted after a place in the log, where to go on from, and whether there may be more. A page of large
        events ends early, and so does one of rare ones.

        Raises:
            Forbidden: other streams than those of jobs, runs and models are for admins.
        """
        tenant = self._allowed(caller, wanted)
        found: list[Event] = []
        place, has_more = after, True
        for _ in range(_LOOKS):
            if not has_more or len(found) >= most or most_bytes <= 0:
                break
            events, place, has_more = await store.tail(self._database, place, tenant, wanted, _LOOKED_AT, most_bytes)
            found += events
            most_bytes -= sum(event.size for event in events)
        if len(found) > most:
            return found[:most], found[most - 1].place, True
        return found, place, has_more

    async def follow(self, caller: Caller, after: Place | None, wanted: EventFilter) -> AsyncGenerator[Event]:
        """What is wanted after a place in the log (None: from now on), then what comes; without end.

        No event is missed and none told twice, also while the database is away.

        Raises:
            Forbidden: as `page`.
            TooManyRequests: as many follow as the server takes.
        """
        tenant = self._allowed(caller, wanted)
        if self.following >= self._most:
            raise TooManyRequests(f"{self._most} subscriptions are open here already; try again")
        place = await store.head(self._database) if after is None else after
        self.following += 1
        self._hub.wanting(Want.NEWS)
        try:
            while True:
                try:
                    events, place, has_more = await store.tail(
                        self._database, place, tenant, wanted, _LOOKED_AT, _BYTES
                    )
                except Unavailable:
                    await asyncio.sleep(_MOST_PAUSE_SECS)
                    continue
                for event in events:
                    yield event
                if not has_more:
                    await self._wait()
        finally:
            self.following -= 1

    async def _wait(self) -> None:
        # The more who follow, the rarer each looks, so that they do not drown the database together.
        await asyncio.sleep(max(_LEAST_PAUSE_SECS, self.following / 500))
        try:
            async with asyncio.timeout(_MOST_PAUSE_SECS):
                await self._news.wait()
        except TimeoutError:
            pass

    def _stir(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    @staticmethod
    def _allowed(caller: Caller, wanted: EventFilter) -> str | None:
        if not set(wanted.streams) <= _OF_TENANTS:
            require_admin(caller)
        return visible_tenant(caller)
