"""The life of a worker: lease while there is room, drain when told to stop, hand back what is left."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress

from atomo_gql.worker.attempt import Attempt, Cut
from atomo_gql.worker.client import Client
from atomo_gql.worker.config import Config
from atomo_gql.worker.errors import Refused, WorkerRejected
from atomo_gql.worker.handlers import Handler
from atomo_gql.worker.heartbeat import Heartbeats
from atomo_gql.worker.job import Job
from atomo_gql.worker.leasing import Leasing, Room
from atomo_gql.worker.outbox import Outbox
from atomo_gql.worker.processes import Processes
from atomo_gql.worker.surroundings import Surroundings
from atomo_gql.worker.tally import Tally
from atomo_gql.worker.threads import Threads

logger = logging.getLogger("atomo_gql.worker")

MOST_UNREPORTED = 1_000  # results beyond the concurrency that wait for the server, before no more jobs are asked for
# After the drain: with its default of 25 s, all is over within the 30 s that Kubernetes and Docker Compose allow.
CANCEL_SECONDS = 2.0
RETURN_SECONDS = 2.0


class Runner:
    """Runs once: from run() until stop(), or until the server refuses the worker. Lives on one event loop."""

    def __init__(self, config: Config, handlers: Mapping[str, Handler]) -> None:
        self._config = config
        self._handlers = handlers
        self._limits = {kind: h.concurrency for kind, h in handlers.items() if h.concurrency is not None}
        self._client = Client(config)
        self._leasing = Leasing(self._client, config, self._room, self._begin, may_ask_ahead=not self._limits)
        self._outbox = self._leasing.outbox = Outbox(self._client, self._is_carried, self._leasing.answered)
        self._threads = Threads(config.concurrency, lambda: self._room_freed.set())
        self._processes = Processes()
        self.tally = Tally()
        self._around = Surroundings(
            self._outbox,
            self._threads,
            self._processes,
            self.tally,
            config.visibility,
            on_room=self._freed,
            on_end=self._end,
            on_refused=self._refused,
        )
        self._in_hand: set[Attempt] = set()
        self._heartbeats = Heartbeats(self._in_hand, config.visibility)
        self._running: Counter[str] = Counter()  # handlers, by kind
        self._room_freed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._now = False
        self._rejection: WorkerRejected | None = None

    def stop(self, *, now: bool = False) -> None:
        """Lease no more, and drain; `now`: hand back at once."""
        self._stopping.set()
        if now:
            self._now = True
            self._room_freed.set()

    async def run(self) -> None:
        """Raises WorkerRejected when the server refuses the worker."""
        async with self._client:
            leasing = asyncio.create_task(self._leasing.run())
            leasing.add_done_callback(lambda _: self._stopping.set())
            try:
                await self._stopping.wait()
                await self._leasing.end(leasing)
                self._judge(leasing)
                await self._drain()
            finally:
                leasing.cancel()
                await self._hand_back()
                self._outbox.close()
                self._heartbeats.close()
                self._threads.close()
                self._processes.close()
        if self._rejection is not None:
            logger.error("rejected: %s", self._rejection)
            raise self._rejection

    async def _room(self, least: int) -> Room:
        """Wait until there is room for so many jobs."""
        while (room := self._free()) is None or room.jobs < least:
            self._room_freed.clear()
            await self._room_freed.wait()
        return room

    def _free(self) -> Room | None:
        """For how many jobs there is room. A handler that has ended makes room, though its report is on its way."""
        left_behind = self._threads.left_behind
        jobs = self._config.concurrency - self._running.total() - left_behind.total() - self._leasing.asked
        if len(self._in_hand) - self._running.total() >= self._config.concurrency + MOST_UNREPORTED:
            return None
        if jobs <= 0 or not self._limits:
            return Room(jobs) if jobs > 0 else None
        free = {kind: limit - self._running[kind] - left_behind[kind] for kind, limit in self._limits.items()}
        kinds = [kind for kind in self._handlers if free.get(kind, 1) > 0]
        if not kinds:
            return None
        narrowed = min([jobs, *(free[kind] for kind in kinds if kind in free)])
        others = [kind for kind in kinds if kind not in free]
        rest = Room(jobs, others) if others and narrowed < jobs else None
        return Room(narrowed, None if all(left > 0 for left in free.values()) else kinds, rest)

    def _is_carried(self) -> bool:
        """Whether the lease loop takes the reports that wait along, with a request that it is just about to make."""
        return self._leasing.is_in_between and not self._stopping.is_set() and self._free() is not None

    def _begin(self, jobs: list[Job]) -> None:
        now = asyncio.get_running_loop().time()
        if jobs:
            self._heartbeats.began(now)
        for job in jobs:
            attempt = Attempt(job, self._handlers.get(job.kind), self._around, now)
            self._in_hand.add(attempt)
            self._running[job.kind] += 1
            if self._stopping.is_set():  # it came with the last answer: back with it
                attempt.cut(Cut.STOPPING)
        self._room_freed.set()  # what was asked for and did not come

    def _freed(self, attempt: Attempt) -> None:
        """Its handler has ended."""
        self._running[attempt.job.kind] -= 1
        self._leasing.freed(attempt.job.kind)
        self._room_freed.set()

    def _end(self, attempt: Attempt) -> None:
        self._in_hand.discard(attempt)
        if attempt.is_running:  # it was cut before its handler began
            self._freed(attempt)
        self._room_freed.set()

    def _judge(self, leasing: asyncio.Task[None]) -> None:
        """Why the lease loop ended, where it was not stopped."""
        if leasing.cancelled() or (error := leasing.exception()) is None:
            return
        if not isinstance(error, Refused):
            raise error
        self._refused(error)
        if self._rejection is None:
            self._rejection = _rejection(error, self._config)

    def _refused(self, error: Refused) -> None:
        """With a token that is no longer good nothing can be reported either: stop at once."""
        if error.status == 401 and self._rejection is None:
            self._rejection = _rejection(error, self._config)
            self.stop(now=True)

    async def _drain(self) -> None:
        if not self._in_hand or self._now:
            return
        logger.info("draining: %d in hand, at most %g s", len(self._in_hand), self._config.drain_timeout)
        try:
            await self._wait_for_ends(self._config.drain_timeout, lambda: self._now)
        except TimeoutError:
            logger.warning("drain timeout: handing back %d", len(self._in_hand))

    async def _hand_back(self) -> None:
        """Cut what is still in hand. Each attempt hands its job back by itself; those that hang are pressed twice."""
        is_refused = self._rejection is not None and self._rejection.status == 401
        for attempt in self._in_hand:
            attempt.cut(Cut.REJECTED if is_refused else Cut.STOPPING)
        with suppress(TimeoutError):
            await self._wait_for_ends(CANCEL_SECONDS)
        for seconds in (RETURN_SECONDS, 0.1):
            for attempt in list(self._in_hand):
                attempt.give_up()
            with suppress(TimeoutError):
                await self._wait_for_ends(seconds)
        if deaf := [asyncio.create_task(attempt.abandon()) for attempt in self._in_hand]:
            await asyncio.wait(deaf, timeout=RETURN_SECONDS)

    async def _wait_for_ends(self, seconds: float, is_enough: Callable[[], bool] = lambda: False) -> None:
        """Until nothing is in hand. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while self._in_hand and not is_enough():
                self._room_freed.clear()
                await self._room_freed.wait()


def _rejection(error: Refused, config: Config) -> WorkerRejected:
    if error.status == 401:
        reason = "the worker's token is wrong or was revoked"
        if not config.token.startswith("wkr_"):
            reason = "the worker's token is wrong (a worker token begins with wkr_)"
    elif error.status == 403:
        reason = f"the worker's token does not cover its queues ({', '.join(config.queues)})"
    else:
        reason = "the server does not accept this worker's lease request"
    return WorkerRejected(f"{reason}: {config.public_url} answered {error}", error.status)
