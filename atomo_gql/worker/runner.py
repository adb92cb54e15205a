"""The life of a worker: lease while there is room, drain when told to stop, hand back what is left."""

import asyncio
import logging
from collections.abc import Mapping

from atomo_gql.worker.attempt import Attempt, Cut
from atomo_gql.worker.backoff import Backoff
from atomo_gql.worker.client import Client
from atomo_gql.worker.config import Config
from atomo_gql.worker.errors import Refused, Unavailable, WorkerRejected
from atomo_gql.worker.handlers import Handler
from atomo_gql.worker.job import Job
from atomo_gql.worker.threads import Threads

logger = logging.getLogger("atomo_gql.worker")

MOST_PER_LEASE = 100
CANCEL_SECONDS = 2.0
RETURN_SECONDS = 2.0
LONGEST_IDLE_PAUSE_SECONDS = 1.0
_FINAL = frozenset({400, 401, 403, 413, 415, 422})


class Runner:
    """Runs once, from run() until stop() or until the server refuses the worker."""

    def __init__(self, config: Config, handlers: Mapping[str, Handler]) -> None:
        self._config = config
        self._handlers = handlers
        self._client = Client(config)
        self._threads = Threads(config.concurrency)
        self._in_hand: set[Attempt] = set()
        self._room = asyncio.Event()
        self._stopping = asyncio.Event()
        self._drained = asyncio.Event()
        self._rejection: WorkerRejected | None = None

    def stop(self, *, now: bool = False) -> None:
        """Lease no more and drain; `now`: hand back at once. On the event loop only."""
        self._stopping.set()
        if now or not self._in_hand:
            self._drained.set()

    async def run(self) -> None:
        """Raises WorkerRejected when the server refuses the worker."""
        async with self._client:
            leasing = asyncio.create_task(self._lease_for_ever())
            leasing.add_done_callback(lambda _: self.stop())
            try:
                await self._stopping.wait()
                leasing.cancel()  # hangs up an open long poll: the server takes no job for a client that is gone
                await asyncio.wait([leasing])
                await self._drain()
            finally:
                leasing.cancel()
                await self._hand_back()
                self._threads.close()
        if self._rejection is not None:
            raise self._rejection
        if not leasing.cancelled():
            leasing.result()

    async def _lease_for_ever(self) -> None:
        trouble, idle = Backoff(), Backoff(longest=LONGEST_IDLE_PAUSE_SECONDS)
        loop = asyncio.get_running_loop()
        in_trouble_since: float | None = None
        while True:
            capacity = await self._free_room()
            asked_at = loop.time()
            try:
                jobs = await self._client.lease(capacity)
            except Refused as error:
                self._refused(error)
                if error.status in _FINAL:
                    self._reject(error)
                    return
                problem, retry_after = str(error), None
            except Unavailable as error:
                problem, retry_after = str(error), error.retry_after
            else:
                if in_trouble_since is not None:
                    logger.info("the server answers again, after %.1f s", loop.time() - in_trouble_since)
                    in_trouble_since = None
                    trouble.reset()
                for job in jobs:
                    self._begin(job)
                if jobs:
                    idle.reset()
                elif loop.time() - asked_at < self._config.wait / 2 or not self._config.wait:
                    await asyncio.sleep(idle.pause())  # a server that does not wait must not be asked in a hot loop
                continue
            pause = trouble.pause(retry_after)
            level = logging.WARNING if in_trouble_since is None else logging.DEBUG
            logger.log(level, "no lease from %s (%s), asking again until it answers", self._config.public_url, problem)
            in_trouble_since = in_trouble_since or asked_at
            await asyncio.sleep(pause)
