"""When a lease is due for a heartbeat.

The event loop's timers do the waiting, and one looks for all jobs whether their first heartbeat is due: one that ends
before it costs nothing here.
"""

import asyncio
import logging
from collections.abc import Collection
from typing import Protocol

from atomo_gql.worker.backoff import Backoff
from atomo_gql.worker.errors import LeaseLost, Refused, Unavailable
from atomo_gql.worker.lease import Lease

logger = logging.getLogger("atomo_gql.worker")

LATE_SECONDS = 1.0
COMPLAIN_SECONDS = 10.0  # between two complaints, of all the jobs of a process
TOGETHER_SECONDS = 0.05  # apart at most, to have the first heartbeat together
_complained_at = float("-inf")


class Beating(Protocol):
    """A job in hand: since when, by the event loop's time."""

    @property
    def began(self) -> float: ...

    @property
    def is_quiet(self) -> bool:
        """Whether it has no heartbeat of its own yet."""
        ...

    def beat(self) -> object:
        """Have one from now on."""
        ...


class Heartbeats:
    """Sees to it that each job that is long in hand gets a heartbeat. `visibility`: seconds."""

    __slots__ = ("_in_hand", "_third", "_timer")

    def __init__(self, in_hand: Collection[Beating], visibility: int) -> None:
        self._in_hand = in_hand
        self._third = visibility / 3
        self._timer: asyncio.TimerHandle | None = None

    def began(self, now: float) -> None:
        """Jobs were taken in hand."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(now + self._third, self._look)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        quiet = [job for job in self._in_hand if job.is_quiet]
        due = loop.time() + TOGETHER_SECONDS - self._third
        for job in quiet:
            if job.began <= due:
                job.beat()
        if later := [job.began for job in quiet if job.began > due]:
            self._timer = loop.call_at(min(later) + self._third, self._look)


class Heartbeat:
    """Extends one lease each third of its visibility, from the start until stop() or until the lease is lost.

    Trouble is tried again with back-off. That goes on past the deadline too: until a sweep takes the job back, it
    can still be extended and completed.
    """

    __slots__ = ("_backoff", "_due_at", "_sending", "_stopped", "_timer", "lease")

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self._backoff: Backoff | None = None
        self._sending: asyncio.Task[None] | None = None
        self._stopped = False
        self._call_at(lease.extended_at + lease.visibility / 3)
        lease.on_visibility = self._sooner

    def stop(self) -> None:
        """No heartbeat after this."""
        self._stopped = True
        self._timer.cancel()
        if self._sending is not None:
            self._sending.cancel()

    def _due(self) -> None:
        now = self.lease.loop.time()
        self._complain(now)
        next_at = self.lease.extended_at + self.lease.visibility / 3
        if next_at > now + TOGETHER_SECONDS:  # progress has moved the deadline meanwhile
            self._call_at(next_at)
        else:
            self._sending = self.lease.loop.create_task(self._send())

    def _sooner(self) -> None:
        """The lease ends sooner than it did: so does the time until the next heartbeat."""
        next_at = self.lease.extended_at + self.lease.visibility / 3
        if next_at < self._due_at and not self._stopped and (self._sending is None or self._sending.done()):
            self._timer.cancel()
            self._call_at(next_at)

    def _call_at(self, due_at: float) -> None:
        self._due_at = due_at
        self._timer = self.lease.loop.call_at(due_at, self._due)

    def _complain(self, now: float) -> None:
        """The loop calls when the time has come; much later, only if something did not let it."""
        global _complained_at
        late = now - self._due_at
        if late > max(LATE_SECONDS, self.lease.visibility / 6) and now - _complained_at > COMPLAIN_SECONDS:
            _complained_at = now
            logger.warning(
                "%s: its heartbeat is %.1f s late: a handler blocks the event loop (make it a plain def, or use "
                "ctx.run_in_process)",
                self.lease.job.label,
                late,
            )

    async def _send(self) -> None:
        interval = self.lease.visibility / 3
        try:
            await self.lease.heartbeat()
        except LeaseLost:
            return
        except Refused as error:
            logger.warning("%s: heartbeat refused: %s", self.lease.job.label, error)
            pause = interval
        except Unavailable as error:
            logger.debug("%s: heartbeat not taken: %s", self.lease.job.label, error)
            if self._backoff is None:
                self._backoff = Backoff(longest=interval)
            pause = min(self._backoff.pause(error.retry_after), interval)
        else:
            self._backoff = None
            pause = max(0.0, self.lease.extended_at + self.lease.visibility / 3 - self.lease.loop.time())
        if not self._stopped:
            self._call_at(self.lease.loop.time() + pause)
