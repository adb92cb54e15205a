"""The loops of every replica. Each turn is bounded and takes rows with SKIP LOCKED, so no leader is needed."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from atomo_gql.domain.errors import AtomoError
from atomo_gql.service.services import Services

log = logging.getLogger("atomo_gql.background")

_LOOK_SECS = 2  # between two rounds of looks at the store, each of some seconds
_RECORD_SECS = 2
_HOUSEKEEPING_SECS = 3_600


class Loop:
    """Calls something now and then, and goes on whatever it raises."""

    def __init__(self, name: str, turn: Callable[[], Awaitable[object]], seconds: float) -> None:
        """`seconds` between two turns, give or take a tenth, so that replicas do not march in step."""
        self._name = name
        self._turn = turn
        self._seconds = seconds
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; the first turn comes at once."""
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        """End, in the middle of a turn if need be: a turn that did not commit did not happen."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._turn()
            except AtomoError as error:
                log.warning("%s will be tried again: %s", self._name, error)
            except Exception:
                log.exception("%s failed and will be tried again", self._name)
            await asyncio.sleep(self._seconds * random.uniform(0.9, 1.1))  # noqa: S311  # jitter, not a secret


def make_loops(services: Services, reclaim_interval: float) -> list[Loop]:
    """The sweeper, the keeper of partitions and retention, the watchers' safety net, and the book of queues."""
    housekeeping, queues = services.housekeeping, services.queues

    async def keep_house() -> None:
        await housekeeping.make_partitions()
        await housekeeping.retain()
        await queues.forget()

    return [
        Loop("the sweeper", housekeeping.sweep, reclaim_interval),
        Loop("housekeeping", keep_house, _HOUSEKEEPING_SECS),
        Loop("the watchers' look", services.watching.look_again, _LOOK_SECS),
        Loop("the book of queues", queues.record, _RECORD_SECS),
    ]
