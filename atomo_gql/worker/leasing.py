"""The lease loop: one request at a time, for the room that is free, and others ahead of it while jobs are piled up."""

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
from atomo_gql.worker.report import Outcome

logger = logging.getLogger("atomo_gql.worker")

MOST_PER_LEASE = 100
LONGEST_IDLE_PAUSE_SECONDS = 1.0
LEAST_TO_ASK_AHEAD = 20  # jobs of concurrency: a worker of few jobs gains nothing by a second request
MOST_AHEAD = 15  # requests beside the first; as many as there is room for full answers
HANG_UP_SECONDS = 0.25  # a round trip and the lease statement
_TRANSIENT = frozenset({404, 405})  # another server may stand there for a while, as in a deployment


@dataclass(frozen=True, slots=True)
class Room:
    """For how many jobs there is room, and of which kinds; None: any.

    rest: the room for kinds without limits of their own, where those of others narrow this one.
    """

    jobs: int
    kinds: list[str] | None = None
    rest: "Room | None" = None


class Leasing:
    """Leases until told to stop.

    While answers come back full, others are under way: server and database find jobs as the worker handles those of the
    answers before. They share the room that is there, never wait, and rest once an answer is not full.

    room: waits for so much free room, at least, and tells how much there is, and of which kinds. begin: takes an
    answer's jobs in hand. may_ask_ahead: whether there may be more than one request at all.
    """

    def __init__(
        self,
        client: Client,
        config: Config,
        room: Callable[[int], Awaitable[Room]],
        begin: Callable[[list[Job]], None],
        *,
        may_ask_ahead: bool,
    ) -> None:
        self._client = client
        self._config = config
        self._room = room
        self._begin = begin
        self._trouble = Backoff()
        self._trouble_since: float | None = None
        self._idle = Backoff(longest=LONGEST_IDLE_PAUSE_SECONDS)
        self._open_requests = 0
        self._ended = False
        may_ask_ahead = may_ask_ahead and config.concurrency >= LEAST_TO_ASK_AHEAD
        self._ahead = max(1, min(MOST_AHEAD, config.concurrency // MOST_PER_LEASE - 1)) if may_ask_ahead else 0
        self._share = -(-config.concurrency // (1 + self._ahead))  # of the room, for each request
        self._piled_up = asyncio.Event()
        self.asked = 0  # jobs that may come with the answers under way
        self._polled: list[str] | None = None  # the kinds that are being waited for, where not all are
        self._has_widened = asyncio.Event()
        self._is_back = asyncio.Event()
        self.is_in_between = False  # about to ask as soon as there is room: reports may come along
        self.outbox: Outbox

    async def end(self, task: "asyncio.Task[None]") -> None:
        """Ask no more, and wait until the task that runs this is done.

        An answer may be on its way just now: whoever hangs up on it loses the jobs in it, and an attempt of each. So
        an open request is given a moment before its long poll is hung up; then the server takes no job for it.
        """
        self._ended = True
        self._piled_up.set()
        if self._open_requests:
            await asyncio.wait([task], timeout=HANG_UP_SECONDS)
        task.cancel()
        await asyncio.wait([task])

    async def run(self) -> None:
        """Returns after end(), and raises Refused when asking again would be refused again."""
        ahead = [asyncio.create_task(self._run_ahead()) for _ in range(self._ahead)]
        try:
            await self._run()
            await asyncio.gather(*ahead)
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        is_narrow = False  # whether the last answer would have been longer, but for the limits of some kinds
        while not self._ended:
            self.is_in_between = True
            try:
                room = await self._room(1)
            finally:
                self.is_in_between = False
            if is_narrow and room.rest is not None:
                is_narrow = False
                await self._turn(Ask(self._capacity(room.rest), room.rest.kinds, self.outbox.take(), wait=0))
                await asyncio.sleep(0)
                continue
            asked_at = loop.time()
            ask = Ask(self._capacity(room), room.kinds, self.outbox.take())
            count = await self._turn(ask)
            is_narrow = room.rest is not None and count == ask.capacity
            if count or ask.reports:
                self._idle.reset()
                await asyncio.sleep(0)  # handlers that end at once shall have their reports ride on the next request
            elif not self._config.wait or loop.time() - asked_at < self._config.wait / 2:
                await asyncio.sleep(self._idle.pause())  # a server that does not wait is not asked in a hot loop

    async def _run_ahead(self) -> None:
        while not self._ended:
            await self._piled_up.wait()
            room = await self._room(self._share // 2)  # so that a request is worth its while
            if self._ended or not self._piled_up.is_set():
                continue
            try:
                await self._turn(Ask(self._capacity(room), room.kinds, self.outbox.take(), wait=0))
            except Refused:
                self._piled_up.clear()  # the other request finds out as well, and tells
            await asyncio.sleep(0)

    def _capacity(self, room: Room) -> int:
        """How many to ask for: where there are other requests, room is left for them."""
        if self._piled_up.is_set():
            return min(room.jobs, MOST_PER_LEASE, self._share)
        return min(room.jobs, MOST_PER_LEASE)

    async def _turn(self, ask: Ask) -> int:
        """One request, and its jobs taken in hand; how many there were."""
        self.asked += ask.capacity
        try:
            jobs = await self._answer(ask)
        finally:
            self.asked -= ask.capacity
        if not self._ended and self._ahead and len(jobs) == ask.capacity > 1:
            self._piled_up.set()
        elif not self._ended:
            self._piled_up.clear()
        self._begin(jobs)
        return len(jobs)

    async def _answer(self, ask: Ask) -> list[Job]:
        """Ask until there is an answer: by its id the server knows the request, and gives nothing twice."""
        loop = asyncio.get_running_loop()
        while True:
            asked_at = loop.time()
            self._open_requests += 1
            try:
                jobs, outcomes = await self._lease(ask)
            except (Unavailable, Refused) as error:
                # The token may reach other kinds; whether it is good at all, a request without kinds finds out.
                is_of_kinds = isinstance(error, Refused) and error.status == 403 and ask.kinds is not None
                if ask.reports:  # their outcomes shall not wait for a lease
                    blamed = Unavailable(str(error)) if is_of_kinds else error
                    self.outbox.put_back(ask.reports, blamed, were_riding=True)
                    ask = replace(ask, reports=[])
                    if isinstance(error, Refused) and error.status in (400, 413):
                        continue  # they may be to blame, and not the request
                if is_of_kinds:
                    return []
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
                self._open_requests -= 1
            await self._sleep(pause)

    async def _lease(self, ask: Ask) -> tuple[list[Job], list[Outcome]]:
        """One try. A long poll for some kinds is given up once there is room for others, too."""
        if ask.kinds is None or ask.reports or ask.wait == 0:
            return await self._client.lease(ask)
        self._polled, self._has_widened = ask.kinds, asyncio.Event()
        call = asyncio.create_task(self._client.lease(ask))
        widening = asyncio.create_task(self._has_widened.wait())
        try:
            await asyncio.wait([call, widening], return_when=asyncio.FIRST_COMPLETED)
            if call.done():
                return call.result()
        finally:
            self._polled = None
            for task in (call, widening):
                task.cancel()
            await asyncio.gather(call, widening, return_exceptions=True)
        return await self._client.lease(replace(ask, wait=0))  # an answer may have been on its way: the same again

    def freed(self, kind: str) -> None:
        """There is room for another job of that kind."""
        if self._polled is not None and kind not in self._polled:
            self._has_widened.set()

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
