"""When a lease is due for a heartbeat.

The event loop's timers do the waiting. Leases that began together share the timer of their first heartbeat, so that a
job which ends before it costs neither a task nor a timer.
"""

import asyncio
import logging

from atomo_gql.worker.backoff import Backoff
from atomo_gql.worker.errors import LeaseLost, Refused, Unavailable
from atomo_gql.worker.lease import Lease

logger = logging.getLogger("atomo_gql.worker")

LATE_SECONDS = 1.0
COMPLAIN_SECONDS = 10.0  # between two complaints, of all the jobs of a process
TOGETHER_SECONDS = 0.05  # apart at most, to share a first heartbeat's timer
_complained_at = float("-inf")


class Heartbeats:
    """The first heartbeats of a worker's leases."""

    __slots__ = ("_open_until", "_together")

    def __init__(self) -> None:
        self._open_until = float("-inf")
        self._together: set[Heartbeat] = set()

    def first(self, heartbeat: "Heartbeat") -> "set[Heartbeat]":
        """Have it called when its lease is due for the first time, as long as it is in the set that is returned."""
        lease = heartbeat.lease
        if lease.extended_at > self._open_until:
            self._open_until = lease.extended_at + TOGETHER_SECONDS
            self._together = set()
            lease.loop.call_at(lease.extended_at + lease.visibility / 3, self._due, self._together)
        self._together.add(heartbeat)
        return self._together

    @staticmethod
    def _due(together: "set[Heartbeat]") -> None:
        for heartbeat in list(together):
            heartbeat.due()


_NOBODY: "set[Heartbeat]" = set()


class Heartbeat:
    """Extends one lease each third of its visibility, from start() until stop() or until the lease is lost.

    Trouble is tried again with back-off. That goes on past the deadline too: until a sweep takes the job back, it
    can still be extended and completed.
    """

    __slots__ = ("_backoff", "_due_at", "_sending", "_stopped", "_timer", "_together", "lease")

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self._backoff: Backoff | None = None
        self._sending: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._together = _NOBODY

    def start(self, heartbeats: Heartbeats) -> None:
        """The lease is new: the first heartbeat is due in a third of the visibility."""
        self._due_at = self.lease.extended_at + self.lease.visibility / 3
        self._together = heartbeats.first(self)
        self.lease.on_visibility = self._sooner

    def stop(self) -> None:
        """No heartbeat after this."""
        self._stopped = True
        self._together.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._sending is not None:
            self._sending.cancel()

    def due(self) -> None:
        """The event loop's time has come to that of the next heartbeat."""
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
            self._together.discard(self)
            if self._timer is not None:
                self._timer.cancel()
            self._call_at(next_at)

    def _call_at(self, due_at: float) -> None:
        self._due_at = due_at
        self._timer = self.lease.loop.call_at(due_at, self.due)

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
