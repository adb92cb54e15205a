"""The waiting room: lease requests that found nothing, and wait for a job.

A waiter is called when a hint says that a job of its lanes may be eligible, when the database says that the next one's
time has come, and, in case a hint was lost, once a second. Of those that match, the one who has waited longest is
served first, and the next only if it got something: a job that arrives does not wake a crowd.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from atomo_gql.domain.errors import AtomoError, TooManyRequests
from atomo_gql.domain.jobs import Lane, LeasedJob, LeaseRequest
from atomo_gql.domain.principals import WorkerToken
from atomo_gql.service import metrics
from atomo_gql.store.lease import Scope

_LOOK_SECS = 1.0
_LEAST_PAUSE_SECS = 0.02  # between two looks: what is due, but held by somebody, must not make the loop spin


@dataclass(eq=False, slots=True)
class Waiter:
    """A worker that waits."""

    token: WorkerToken
    request: LeaseRequest
    jobs: "asyncio.Future[list[LeasedJob]]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def scope(self) -> Scope:
        """Whose jobs, of which queues and kinds, it would take."""
        return self.token.tenant, self.request.queues, self.request.kinds

    def wants(self, lanes: Iterable[Lane]) -> bool:
        """Whether a job of one of these lanes would do."""
        tenant, queues, _ = self.scope
        return any((tenant is None or tenant == t) and ("*" in queues or q in queues) for t, q in lanes)


class WaitingRoom:
    """One per process."""

    def __init__(
        self,
        lease: Callable[[WorkerToken, LeaseRequest], Awaitable[list[LeasedJob]]],
        hand_back: Callable[[WorkerToken, list[LeasedJob]], None],
        next_eligible: Callable[[Sequence[Scope]], Awaitable[list[float | None]]],
        most: int,
    ) -> None:
        """`hand_back` takes jobs that were leased for somebody who had left."""
        self._lease = lease
        self._hand_back = hand_back
        self._next_eligible = next_eligible
        self._most = most
        self._waiters: dict[Waiter, None] = {}  # in order of arrival
        self._lanes: set[Lane] = set()
        self._called: dict[Waiter, None] = {}
        self._rung = asyncio.Event()
        self._look_at = 0.0
        self._is_open = True
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Open the room."""
        self._tasks = [asyncio.create_task(self._serve(), name="waiting room")]

    def close(self) -> None:
        """Let nobody wait any more: those who do get an empty list now."""
        self._is_open = False
        for waiter in list(self._waiters):
            if not waiter.jobs.done():
                waiter.jobs.set_result([])

    async def stop(self) -> None:
        """Close, and end."""
        self.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait(
        self, token: WorkerToken, request: LeaseRequest, hung_up: Callable[[], Awaitable[None]]
    ) -> list[LeasedJob]:
        """Jobs as soon as there are any; none when the time is up, or the client has gone (`hung_up` returns).

        Raises:
            TooManyRequests: the room is full.
        """
        if len(self._waiters) >= self._most:
            raise TooManyRequests(f"{self._most} workers are waiting on this server already; wait less, or try another")
        if not self._is_open:
            return []
        waiter = Waiter(token, request)
        self._waiters[waiter] = None
        metrics.WAITING.set(len(self._waiters))
        self._call([waiter])  # what was committed before it came in, no hint tells of
        gone = asyncio.ensure_future(hung_up())
        try:
            waited: set[asyncio.Future[Any]] = {waiter.jobs, gone}
            await asyncio.wait(waited, timeout=request.wait_secs, return_when=asyncio.FIRST_COMPLETED)
            if waiter.jobs.done():
                jobs = waiter.jobs.result()
                if gone.done() and jobs:
                    self._hand_back(token, jobs)
                    return []
                return jobs
            return []
        finally:
            gone.cancel()
            waiter.jobs.cancel()
            self._waiters.pop(waiter, None)
            self._called.pop(waiter, None)
            metrics.WAITING.set(len(self._waiters))

    def __len__(self) -> int:
        return len(self._waiters)

    def wake(self, lanes: Iterable[Lane]) -> None:
        """Jobs may have become eligible there, now or soon."""
        if self._waiters:
            self._lanes.update(lanes)
            self._rung.set()

    def wake_all(self) -> None:
        """Hints may have been missed."""
        self._look_at = 0.0
        self._rung.set()

    def _call(self, waiters: Iterable[Waiter]) -> None:
        self._called.update(dict.fromkeys(waiters))
        self._rung.set()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            pause = max(0.0, self._look_at - loop.time())
            if not self._rung.is_set():
                try:
                    async with asyncio.timeout(pause if self._waiters else None):
                        await self._rung.wait()
                except TimeoutError:
                    pass
            self._rung.clear()
            lanes, self._lanes = self._lanes, set()
            called, self._called = self._called, {}
            try:
                if lanes or called:
                    called.update(dict.fromkeys(w for w in self._waiters if w.wants(lanes)))
                    await self._offer([w for w in self._waiters if w in called])
                    self._look_at = min(self._look_at, loop.time() + _LEAST_PAUSE_SECS)
                if self._waiters and loop.time() >= self._look_at:
                    self._look_at = loop.time() + await self._look()
            except AtomoError:
                self._look_at = loop.time() + _LOOK_SECS / 4  # the database is away; those who wait go on waiting

    async def _offer(self, waiters: list[Waiter]) -> None:
        """Serve in order, first one, then twice as many each time, until somebody comes away with nothing."""
        by_scope: dict[Scope, list[Waiter]] = {}
        for waiter in waiters:
            by_scope.setdefault(waiter.scope, []).append(waiter)
        count = 1
        while by_scope:
            turn = [waiter for queue in by_scope.values() for waiter in queue[:count]]
            got = dict(zip(turn, await asyncio.gather(*map(self._try, turn)), strict=True))
            by_scope = {s: q[count:] for s, q in by_scope.items() if len(q) > count and all(got[w] for w in q[:count])}
            count *= 2

    async def _try(self, waiter: Waiter) -> bool:
        if waiter.jobs.done():
            return True
        jobs = await self._lease(waiter.token, waiter.request)
        if not jobs:
            return waiter.jobs.done()
        if waiter.jobs.done():  # left while the statement ran
            self._hand_back(waiter.token, jobs)
        else:
            waiter.jobs.set_result(jobs)
        return True

    async def _look(self) -> float:
        """Ask the database what is due for those who wait; seconds until the next look."""
        scopes = list(dict.fromkeys(waiter.scope for waiter in self._waiters))
        due = dict(zip(scopes, await self._next_eligible(scopes), strict=True))
        self._call(w for w in self._waiters if (seconds := due.get(w.scope)) is not None and seconds <= 0)
        soonest = min((seconds for seconds in due.values() if seconds is not None), default=_LOOK_SECS)
        return max(_LEAST_PAUSE_SECS, min(_LOOK_SECS, soonest))
