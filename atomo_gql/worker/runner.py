"""The life of a worker: lease while there is room, drain when told to stop, hand back what is left."""

import asyncio
import logging
from collections.abc import Mapping

from atomo_gql.worker.attempt import Attempt, Cut
from atomo_gql.worker.client import Client
from atomo_gql.worker.config import Config
from atomo_gql.worker.errors import Refused, WorkerRejected
from atomo_gql.worker.handlers import Handler
from atomo_gql.worker.job import Job
from atomo_gql.worker.leasing import Leasing
from atomo_gql.worker.threads import Threads

logger = logging.getLogger("atomo_gql.worker")

MOST_PER_LEASE = 100
# After the drain: with its default of 25 s, all is over within the 30 s that Kubernetes and Docker Compose allow.
CANCEL_SECONDS = 2.0
RETURN_SECONDS = 2.0


class Runner:
    """Runs once: from run() until stop(), or until the server refuses the worker. Lives on one event loop."""

    def __init__(self, config: Config, handlers: Mapping[str, Handler]) -> None:
        self._config = config
        self._handlers = handlers
        self._client = Client(config)
        self._threads = Threads(config.concurrency)
        self._in_hand: set[Attempt] = set()
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
            loop = Leasing(self._client, self._config, self._room, self._begin)
            leasing = asyncio.create_task(loop.run())
            leasing.add_done_callback(lambda _: self._stopping.set())
            try:
                await self._stopping.wait()
                await loop.end(leasing)
                self._judge(leasing)
                await self._drain()
            finally:
                leasing.cancel()
                await self._hand_back()
                self._threads.close()
        if self._rejection is not None:
            logger.error("rejected: %s", self._rejection)
            raise self._rejection

    async def _room(self) -> int:
        """Wait until there is room for a job; for how many. What is done but unreported is still in hand."""
        while (room := self._config.concurrency - len(self._in_hand)) <= 0:
            self._room_freed.clear()
            await self._room_freed.wait()
        return min(room, MOST_PER_LEASE)

    def _begin(self, job: Job) -> None:
        attempt = Attempt(
            job,
            self._handlers.get(job.kind),
            client=self._client,
            threads=self._threads,
            visibility=self._config.visibility,
            on_refused=self._refused,
        )
        self._in_hand.add(attempt)
        attempt.task.add_done_callback(lambda _: self._end(attempt))
        if self._stopping.is_set():  # it came with the last answer: back with it
            attempt.cut(Cut.STOPPING)

    def _end(self, attempt: Attempt) -> None:
        self._in_hand.discard(attempt)
        self._room_freed.set()
        if not attempt.task.cancelled() and (error := attempt.task.exception()) is not None:
            logger.error("%s: the worker itself failed", attempt.job.label, exc_info=error)

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
            async with asyncio.timeout(self._config.drain_timeout):
                while self._in_hand and not self._now:
                    self._room_freed.clear()
                    await self._room_freed.wait()
        except TimeoutError:
            logger.warning("drain timeout: handing back %d", len(self._in_hand))

    async def _hand_back(self) -> None:
        """Cut what is still in hand. Each attempt hands its job back by itself; those that hang are pressed twice."""
        is_refused = self._rejection is not None and self._rejection.status == 401
        for attempt in self._in_hand:
            attempt.cut(Cut.REJECTED if is_refused else Cut.STOPPING)
        await self._wait_for_ends(CANCEL_SECONDS)
        for seconds in (RETURN_SECONDS, 0.1):
            for attempt in self._in_hand:
                attempt.give_up()
            await self._wait_for_ends(seconds)

    async def _wait_for_ends(self, seconds: float) -> None:
        if tasks := [attempt.task for attempt in self._in_hand]:
            await asyncio.wait(tasks, timeout=seconds)


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
