"""The loops of every replica. Each turn is bounded and takes rows with SKIP LOCKED, so no leader is needed."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable

from atomo_gql.domain.errors import AtomoError, Unavailable
from atomo_gql.service.context import Bell
from atomo_gql.service.services import Services

log = logging.getLogger("atomo_gql.background")

_LOOK_SECS = 2  # between two rounds of looks at the store, each of some seconds
_RECORD_SECS = 2
_ADOPT_SECS = 2  # between two looks whether the database has come from elsewhere
_ADOPT_PAUSE_SECS = 10  # after a try that waited for a lock: others waited behind it
_HOUSEKEEPING_SECS = 600
_RUNS_SECS = 1.0  # between two looks for runs that have something to do, where nothing tells of one sooner
_SETTLE_SECS = 2
_SCHEDULE_SECS = 1
_LOG_SECS = 1.0  # between two looks of the action dispatcher
_SOON_SECS = 0.02
_COALESCE_SECS = 0.01  # what happens in a burst is dealt with together


class Loop:
    """Calls something now and then, and goes on whatever it raises."""

    def __init__(
        self, name: str, turn: Callable[[], Awaitable[object]], seconds: float, bell: Bell | None = None
    ) -> None:
        """`seconds` between two turns, give or take a tenth, so that replicas do not march in step. A turn that answers
        a number has the next one come so many seconds later at most; one with a bell comes when that is rung."""
        self._name = name
        self._turn = turn
        self._seconds = seconds
        self._bell = bell or Bell()
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
            seconds = self._seconds
            try:
                answer = await self._turn()
                if isinstance(answer, float):
                    seconds = min(seconds, answer)
            except AtomoError as error:
                log.warning("%s will be tried again: %s", self._name, error)
            except Exception:
                log.exception("%s failed and will be tried again", self._name)
            await self._bell.wait(seconds * random.uniform(0.9, 1.1))  # noqa: S311  # jitter, not a secret


async def keep_house(services: Services) -> None:
    """One round of what time asks for. A step that fails keeps no other from its turn."""
    housekeeping = services.housekeeping
    steps: list[Callable[[], Awaitable[object]]] = [
        housekeeping.make_partitions,
        housekeeping.shorten_leases,
        services.schedules.look_again,
        services.queues.forget,
    ]
    failed: list[Exception] = []
    if await housekeeping.is_clock_steady():
        steps += [housekeeping.retain_runs, housekeeping.retain]
    for step in steps:
        try:
            await step()
        except Exception as error:
            failed.append(error)
    if failed:
        raise failed[0]


def make_loops(services: Services, reclaim_interval: float) -> list[Loop]:
    """The sweeper, the keeper of partitions and retention, the watchers' safety net, the book of queues, the look
    whether the schema was restored; what carries runs of workflows on, what begins them by the clock, and the action
    dispatcher."""
    housekeeping, queues, engine, dispatcher = (
        services.housekeeping,
        services.queues,
        services.engine,
        services.dispatcher,
    )

    quiet_until = 0.0

    async def adopt() -> None:
        nonlocal quiet_until
        if time.monotonic() >= quiet_until:
            try:
                await housekeeping.adopt_cluster()
            except Unavailable:
                quiet_until = time.monotonic() + _ADOPT_PAUSE_SECS
                raise

    async def carry_on() -> float:
        while await engine.turn():
            pass
        await asyncio.sleep(_COALESCE_SECS)
        wake = await engine.next_wake()
        return _RUNS_SECS if wake is None else max(_SOON_SECS, wake)  # what is due is with another replica

    async def dispatch() -> float:
        while fired := await dispatcher.turn():
            if not fired.has_more:
                break
        await asyncio.sleep(_COALESCE_SECS)
        lag = await dispatcher.look()
        await services.health.explain_lag(lag)
        # What lies behind an older transaction that still runs, or another replica is at, comes soon, or late.
        return max(_SOON_SECS, lag / 10) if lag else _LOG_SECS

    return [
        Loop("the sweeper", housekeeping.sweep, reclaim_interval),
        Loop("housekeeping", lambda: keep_house(services), _HOUSEKEEPING_SECS),
        Loop("the order of events", adopt, _ADOPT_SECS),
        Loop("the watchers' look", services.watching.look_again, _LOOK_SECS),
        Loop("the book of queues", queues.record, _RECORD_SECS),
        Loop("the workflow engine", carry_on, _RUNS_SECS, services.bells[0]),
        Loop("the waits of workflows", services.engine.settle, _SETTLE_SECS),
        Loop("the scheduler", services.schedules.turn, _SCHEDULE_SECS),
        Loop("the action dispatcher", dispatch, _LOG_SECS, services.bells[1]),
    ]
