"""The lease loop: one request at a time, for the room that is free."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from atomo_gql.worker.backoff import Backoff
from atomo_gql.worker.client import Ask, Client
from atomo_gql.worker.config import Config
from atomo_gql.worker.errors import Refused, Unavailable
from atomo_gql.worker.job import Job
from atomo_gql.worker.outbox import Outbox

logger = logging.getLogger("atomo_gql.worker")

MOST_PER_LEASE = 100
LONGEST_IDLE_PAUSE_SECONDS = 1.0
HANG_UP_SECONDS = 0.25  # a round trip and the lease statement
_TRANSIENT = frozenset({404, 405})  # another server may stand there for a while, as in a deployment


@dataclass(frozen=True, slots=True)
class Room:
    """For how many jobs there is room, and of which kinds; None: any."""

    jobs: int
    kinds: list[str] | None = None


class Leasing:
    """Leases until told to stop.

    room: waits for free room, and tells how much, and of which kinds. begin: takes each job in hand.
    """

    def __init__(
        self,
        client: Client,
        config: Config,
        room: Callable[[], Awaitable[Room]],
        begin: Callable[[Job], None],
    ) -> None:
        self._client = client
        self._config = config
        self._room = room
        self._begin = begin
        self._trouble = Backoff()
        self._trouble_since: float | None = None
        self._idle = Backoff(longest=LONGEST_IDLE_PAUSE_SECONDS)
        self._is_asking = False
        self._ended = False
        self._is_back = asyncio.Event()
        self.is_in_between = False  # about to ask as soon as there is room: reports may come along
        self.outbox: Outbox

    async def end(self, task: "asyncio.Task[None]") -> None:
        """Ask no more, and wait until the task that runs this is done.

        An answer may be on its way just now: whoever hangs up on it loses the jobs in it, and an attempt of each. So
        an open request is given a moment before its long poll is hung up; then the server takes no job for it.
        """
        self._ended = True
        if self._is_asking:
            await asyncio.wait([task], timeout=HANG_UP_SECONDS)
        task.cancel()
        await asyncio.wait([task])

    async def run(self) -> None:
        """Returns after end(), and raises Refused when asking again would be refused again."""
        loop = asyncio.get_running_loop()
        while not self._ended:
            self.is_in_between = True
            try:
                room = await self._room()
            finally:
                self.is_in_between = False
            asked_at = loop.time()
            ask = Ask(min(room.jobs, MOST_PER_LEASE), room.kinds, self.outbox.take())
            jobs = await self._answer(ask)
            for job in jobs:
                self._begin(job)
            if jobs or ask.reports:
                self._idle.reset()
                await asyncio.sleep(0)  # handlers that end at once shall have their reports ride on the next request
            elif not self._config.wait or loop.time() - asked_at < self._config.wait / 2:
                await asyncio.sleep(self._idle.pause())  # a server that does not wait is not asked in a hot loop

    async def _answer(self, ask: Ask) -> list[Job]:
        """Ask until there is an answer: by its id the server knows the request, and gives nothing twice."""
        loop = asyncio.get_running_loop()
        while True:
            asked_at = loop.time()
            self._is_asking = True
            try:
                jobs, outcomes = await self._client.lease(ask)
            except (Unavailable, Refused) as error:
                if ask.reports:  # their outcomes shall not wait for a lease
                    self.outbox.put_back(ask.reports, error)
                    ask = replace(ask, reports=[])
                if isinstance(error, Refused) and error.status not in _TRANSIENT:
                    raise
                if self._ended:
                    return []
                pause = self._pause_in_trouble(error, asked_at)
            except asyncio.CancelledError:
                if ask.reports:
                    self.outbox.put_back(ask.reports, Unavailable("the worker is stopping"))
                raise
            else:
                self.outbox.answered()
                self.outbox.settle(ask.reports, outcomes)
                if self._trouble_since is not None:
                    self._trouble_over(loop.time())
                return jobs
            finally:
                self._is_asking = False
            await self._sleep(pause)

    def answered(self) -> None:
        """The server is there: ask again at once."""
        self._is_back.set()

    async def _sleep(self, seconds: float) -> None:
        self._is_back.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_back.wait(), seconds)

    def _pause_in_trouble(self, error: Unavailable | Refused, asked_at: float) -> float:
        """Seconds until the next try; the first trouble is a warning in the log, the same again is not."""
        level = logging.WARNING if self._trouble_since is None else logging.DEBUG
        logger.log(level, "no lease from %s: %s; asking until it answers", self._config.public_url, error)
        if self._trouble_since is None:
            self._trouble_since = asked_at
        return self._trouble.pause(error.retry_after if isinstance(error, Unavailable) else None)

    def _trouble_over(self, now: float) -> None:
        logger.info("the server answers again, after %.1f s", now - (self._trouble_since or now))
        self._trouble_since = None
        self._trouble.reset()
