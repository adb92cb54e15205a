"""The waiting room: lease requests that found nothing, and wait for a job.

A waiter is called when a hint says that a job of its lanes may be eligible, when the database says that the next one's
time has come, and, in case a hint was lost, once a second. Of those that match, the one who has waited longest is
served first, and the next only if it got something: a job that arrives does not wake a crowd. Those who ask for the
same jobs form one line, and no line waits for another.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from atomo_gql.domain.errors import AtomoError, TooManyRequests
from atomo_gql.domain.jobs import Lane, LeasedJob, LeaseRequest
from atomo_gql.domain.principals import WorkerToken
from atomo_gql.service import metrics
from atomo_gql.store.lease import Scope, Standing

log = logging.getLogger("atomo_gql.leases")
_LOOK_SECS = 1.0
_LEAST_PAUSE_SECS = 0.02  # between two looks: what is due, but held by somebody, must not make the loop spin
_MOST_ASKED = 1_000  # jobs at a time, of those in a line
_AWAY_SECS = 0.25  # between two looks at a database that is away


@dataclass(eq=False, slots=True)
class Waiter:
    """A worker that waits."""

    token: WorkerToken
    request: LeaseRequest
    number: int  # in order of arrival
    jobs: "asyncio.Future[list[LeasedJob]]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    is_spent: bool = False  # its request was answered before, and gets nothing any more
    trying: "asyncio.Future[None] | None" = None  # ends with the statement that is under way for it

    @property
    def scope(self) -> Scope:
        """Whose jobs, of which queues and kinds, it would take."""
        return self.token.tenant, self.request.queues, self.request.kinds


def _wants(scope: Scope, lanes: Iterable[Lane]) -> bool:
    """Whether a job of one of these lanes would do."""
    tenant, queues, _ = scope
    return any((tenant is None or tenant == t) and ("*" in queues or q in queues) for t, q in lanes)


def _together(line: list[Waiter]) -> list[Waiter]:
    """As many of them as one statement serves; others want to be served, too."""
    asked = itertools.accumulate(waiter.request.capacity for waiter in line)
    return line[: max(1, sum(so_far <= _MOST_ASKED for so_far in asked))]


_Line = dict[Waiter, None]  # of one scope, in order of arrival


class WaitingRoom:
    """One per process."""

    def __init__(
        self,
        lease: Callable[[WorkerToken, LeaseRequest], Awaitable[list[LeasedJob]]],
        hand_back: Callable[[WorkerToken, list[LeasedJob]], None],
        next_eligible: Callable[[Sequence[Scope]], Awaitable[list[float | None]]],
        standing: Callable[[Sequence[Waiter]], Awaitable[list[Standing]]],
        most: int,
    ) -> None:
        """`hand_back` takes jobs that were leased for somebody who had left; `standing` tells who can be served."""
        self._lease = lease
        self._hand_back = hand_back
        self._next_eligible = next_eligible
        self._standing = standing
        self._most = most
        self._numbers = itertools.count()
        self._count = 0
        self._lines: dict[Scope, _Line] = {}
        self._lanes: set[Lane] = set()  # of hints
        self._called: dict[Scope, _Line | None] = {}  # whose turn is to come; None: the whole line
        self._turns: dict[Scope, asyncio.Task[None]] = {}
        self._rung = asyncio.Event()  # there are lanes, or some are called
        self._sooner = asyncio.Event()  # the next look is due before it was thought to be
        self._look_at = 0.0
        self._is_open = True
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Open the room."""
        self._tasks = [
            asyncio.create_task(self._serve(), name="waiting room: turns"),
            asyncio.create_task(self._watch(), name="waiting room: looks"),
        ]

    def close(self) -> None:
        """Let nobody wait any more: those who do get an empty list now, or what is being leased for them."""
        self._is_open = False
        for waiter in [waiter for line in self._lines.values() for waiter in line]:
            if not waiter.jobs.done() and waiter.trying is None:
                waiter.jobs.set_result([])

    async def stop(self) -> None:
        """Close, and end."""
        self.close()
        tasks = [*self._tasks, *self._turns.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def wait(
        self, token: WorkerToken, request: LeaseRequest, hung_up: Callable[[], Awaitable[None]]
    ) -> list[LeasedJob]:
        """Jobs as soon as there are any; none when the time is up, or the client has gone (`hung_up` returns).

        Raises:
            TooManyRequests: the room is full.
        """
        if self._count >= self._most:
            raise TooManyRequests(f"{self._most} workers are waiting on this server already; wait less, or try another")
        if not self._is_open:
            return []
        waiter = Waiter(token, request, next(self._numbers))
        self._enter(waiter)
        self._call(waiter.scope, {waiter: None})  # what was committed before it came in, no hint tells of
        gone = asyncio.ensure_future(hung_up())
        try:
            waited: set[asyncio.Future[Any]] = {waiter.jobs, gone}
            await asyncio.wait(waited, timeout=request.wait_secs, return_when=asyncio.FIRST_COMPLETED)
            self._leave(waiter)
            while waiter.trying is not None and not gone.done():
                await waiter.trying  # what is leased for it now is its own: its request would be answered with the same
            if not waiter.jobs.done():
                return []
            jobs = waiter.jobs.result()
            if gone.done() and jobs:
                self._hand_back(token, jobs)
                return []
            return jobs
        finally:
            gone.cancel()
            waiter.jobs.cancel()
            self._leave(waiter)

    def __len__(self) -> int:
        return self._count

    def wake(self, lanes: Iterable[Lane]) -> None:
        """Jobs may have become eligible there, now or soon."""
        if self._count:
            self._lanes.update(lanes)
            self._rung.set()

    def wake_all(self) -> None:
        """Hints may have been missed."""
        self._look_within(0)

    def _enter(self, waiter: Waiter) -> None:
        self._lines.setdefault(waiter.scope, {})[waiter] = None
        self._count += 1
        metrics.WAITING.set(self._count)
        self._sooner.set()

    def _leave(self, waiter: Waiter) -> None:
        line = self._lines.get(waiter.scope, {})
        if waiter in line:
            del line[waiter]
            if not line:
                del self._lines[waiter.scope]
            self._count -= 1
            metrics.WAITING.set(self._count)

    def _call(self, scope: Scope, line: _Line | None) -> None:
        called = self._called.setdefault(scope, {})
        if line is None or called is None:
            self._called[scope] = None
        else:
            called.update(line)
        self._rung.set()

    def _look_within(self, seconds: float) -> None:
        if (at := asyncio.get_running_loop().time() + seconds) < self._look_at:
            self._look_at = at
            self._sooner.set()

    async def _serve(self) -> None:
        """Let each line that is called have its turn."""
        while True:
            await self._rung.wait()
            self._rung.clear()
            lanes, self._lanes = self._lanes, set()
            for scope in self._lines:
                if lanes and _wants(scope, lanes):
                    self._called[scope] = None
            for scope in self._called:
                if scope not in self._turns:
                    self._turns[scope] = asyncio.create_task(self._turn(scope))

    async def _turn(self, scope: Scope) -> None:
        """Serve a line for as long as it is called."""
        try:
            while scope in self._called:
                called = self._called.pop(scope)
                line = self._lines.get(scope, {}) if called is None else sorted(called, key=lambda w: w.number)
                await self._offer([waiter for waiter in line if not waiter.is_spent])
            self._look_within(_LEAST_PAUSE_SECS)
        except AtomoError:
            self._look_within(_AWAY_SECS)  # the database is away; those who wait go on waiting
        except Exception:
            log.exception("a turn of those who wait for jobs broke off")
            self._look_within(_LOOK_SECS)
        finally:
            del self._turns[scope]
            if scope in self._called:
                self._rung.set()

    async def _offer(self, line: list[Waiter]) -> None:
        """Serve in order, first one, then twice as many each time, until somebody comes away with nothing who could
        have been served."""
        count = 1
        while line:
            turn = _together(line[:count])
            line = line[len(turn) :]
            got = await asyncio.gather(*map(self._try, turn))
            missed = [waiter for waiter, has_got in zip(turn, got, strict=True) if not has_got]
            if missed and line and await self._could_be_served(missed):
                return
            count *= 2

    async def _could_be_served(self, missed: list[Waiter]) -> bool:
        """Whether one of them could have been. The others are in nobody's way from now on."""
        found = False
        for waiter, standing in zip(missed, await self._standing(missed), strict=True):
            waiter.is_spent = standing.is_spent
            if not standing.lives and not waiter.jobs.done():
                waiter.jobs.set_result([])
            found = found or (standing.lives and not standing.is_spent)
        return found

    async def _try(self, waiter: Waiter) -> bool:
        """Whether it got something, or does not wait any more."""
        if waiter.jobs.done():
            return True
        waiter.trying = asyncio.get_running_loop().create_future()
        try:
            jobs = await self._lease(waiter.token, waiter.request)
            if waiter.jobs.done():  # left while the statement ran
                if jobs:
                    self._hand_back(waiter.token, jobs)
            elif jobs or not self._is_open:
                waiter.jobs.set_result(jobs)
            return waiter.jobs.done()
        finally:
            waiter.trying.set_result(None)
            waiter.trying = None

    async def _watch(self) -> None:
        """Ask the database, in time, what is due for those who wait."""
        loop = asyncio.get_running_loop()
        while True:
            self._sooner.clear()
            pause = max(0.0, self._look_at - loop.time()) if self._count else None
            if pause != 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._sooner.wait()
                continue
            self._look_at = float("inf")
            try:
                self._look_within(await self._look())
            except AtomoError:
                self._look_within(_AWAY_SECS)
            except Exception:
                log.exception("a look at what is due broke off")
                self._look_within(_LOOK_SECS)

    async def _look(self) -> float:
        """Call those for whom something is due; seconds until the next look."""
        scopes = list(self._lines)
        due = await self._next_eligible(scopes)
        for scope, seconds in zip(scopes, due, strict=True):
            if seconds is not None and seconds <= 0:
                self._call(scope, None)
        soonest = min((seconds for seconds in due if seconds is not None), default=_LOOK_SECS)
        return max(_LEAST_PAUSE_SECS, min(_LOOK_SECS, soonest))
