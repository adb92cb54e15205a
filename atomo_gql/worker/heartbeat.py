"""When a lease is due for a heartbeat.

The event loop's timers do the waiting: a job that ends before its first heartbeat costs one timer and no task.
"""

import asyncio
import logging

from atomo_gql.worker.backoff import Backoff
from atomo_gql.worker.errors import LeaseLost, Refused, Unavailable
from atomo_gql.worker.lease import Lease

logger = logging.getLogger("atomo_gql.worker")

LATE_SECONDS = 1.0
COMPLAIN_SECONDS = 10.0  # between two complaints, of all the jobs of a process
_complained_at = float("-inf")


class Heartbeat:
    """Extends one lease each third of its visibility, from start() until stop() or until the lease is lost.

    Trouble is tried again with back-off. That goes on past the deadline too: until a sweep takes the job back, it
    can still be extended and completed.
    """

    __slots__ = ("_backoff", "_lease", "_loop", "_sending", "_stopped", "_timer")

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._loop = lease.loop
        self._backoff: Backoff | None = None
        self._sending: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def start(self) -> None:
        """The lease is new: the first heartbeat is due in a third of the visibility."""
        self._timer = self._loop.call_at(self._loop.time() + self._lease.visibility / 3, self._due)

    def stop(self) -> None:
        """No heartbeat after this."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._sending is not None:
            self._sending.cancel()

    def _due(self) -> None:
        self._complain()
        next_at = self._lease.extended_at + self._lease.visibility / 3
        if next_at > self._loop.time():  # progress has moved the deadline meanwhile
            self._timer = self._loop.call_at(next_at, self._due)
        else:
            self._sending = self._loop.create_task(self._send())

    def _complain(self) -> None:
        """The loop calls when the time has come; much later, only if something did not let it."""
        global _complained_at
        now = self._loop.time()
        late = now - self._timer.when() if self._timer is not None else 0.0
        if late > max(LATE_SECONDS, self._lease.visibility / 6) and now - _complained_at > COMPLAIN_SECONDS:
            _complained_at = now
            logger.warning(
                "%s: its heartbeat is %.1f s late: a handler blocks the event loop (make it a plain def, or use "
                "ctx.run_in_process)",
                self._lease.job.label,
                late,
            )

    async def _send(self) -> None:
        interval = self._lease.visibility / 3
        try:
            await self._lease.heartbeat()
        except LeaseLost:
            return
        except Refused as error:
            logger.warning("%s: heartbeat refused: %s", self._lease.job.label, error)
            pause = interval
        except Unavailable as error:
            logger.debug("%s: heartbeat not taken: %s", self._lease.job.label, error)
            if self._backoff is None:
                self._backoff = Backoff(longest=interval)
            pause = min(self._backoff.pause(error.retry_after), interval)
        else:
            self._backoff = None
            pause = max(0.0, self._lease.extended_at + interval - self._loop.time())
        if not self._stopped:
            self._timer = self._loop.call_later(pause, self._due)
