"""What a handler is given."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any

from atomo_gql.worker.cancelled import Cancelled
from atomo_gql.worker.encoding import encode_checked, plain_text
from atomo_gql.worker.errors import Refused, Unavailable
from atomo_gql.worker.job import Job
from atomo_gql.worker.lease import Lease

logger = logging.getLogger("atomo_gql.worker")


class JobContext:
    """The job of this attempt, and the ways to tell the server that it goes on.

    `progress` and `heartbeat` are the same for both sorts of handler: on the event loop they return an awaitable
    (`await ctx.progress(…)`); in a thread, where plain `def` handlers run, they block until the call is done.
    """

    __slots__ = ("_lease",)

    def __init__(self, lease: Lease) -> None:
        self._lease = lease

    @property
    def job(self) -> Job:
        """The leased job: id, queue, kind, payload, attempts, max_attempts, lease_id."""
        return self._lease.job

    @property
    def cancelled(self) -> Cancelled:
        """Set when the lease is lost or the worker hands the job back; an async handler is cancelled then, too."""
        return self._lease.cancelled

    def progress(self, percent: float | None = None, message: str | None = None, data: Any = None) -> Awaitable[None]:
        """Tell whoever watches how far the job is. What is None is not sent.

        percent: a finite number, passed on as it is. message: text for people. data: any JSON value.
        It extends the lease, too. An update that cannot be delivered is dropped: the job goes on without it.

        Raises ValueError for a percent that is no finite number, a message that is no text, or data that is not
        JSON; LeaseLost when this attempt is over.
        """
        if percent is not None and (
            not isinstance(percent, int | float) or isinstance(percent, bool) or not math.isfinite(percent)
        ):
            raise ValueError(f"percent must be a finite number, not {percent!r}")
        if message is not None and not isinstance(message, str):
            raise ValueError(f"message must be a string, not {message!r}")
        told = {"percent": percent, "message": message and plain_text(message), "data": data}
        update = {name: value for name, value in told.items() if value is not None}
        body = encode_checked({**self._lease.terms(), **update}, "data")
        return self._extend("progress", self._lease.progress(body))

    def heartbeat(self, visibility: int | None = None) -> Awaitable[None]:
        """Extend the lease now. The worker does so by itself, so only code that blocks the event loop needs it.

        visibility: seconds until the new deadline (1–86400), kept for the worker's own heartbeats on this job;
        None: as before. A heartbeat that cannot be delivered is left to the worker's next one.

        Raises ValueError for a visibility out of range; LeaseLost when this attempt is over.
        """
        if visibility is not None and (
            not isinstance(visibility, int) or isinstance(visibility, bool) or not 1 <= visibility <= 86_400
        ):
            raise ValueError(f"visibility must be a whole number of seconds from 1 to 86400, not {visibility!r}")
        return self._extend("heartbeat", self._lease.heartbeat(visibility))

    def _extend(self, what: str, call: Coroutine[Any, Any, None]) -> Awaitable[None]:
        attempt = self._best_effort(what, call)
        if _running_loop() is self._lease.loop:
            return attempt
        asyncio.run_coroutine_threadsafe(attempt, self._lease.loop).result()
        return _DONE

    async def _best_effort(self, what: str, call: Coroutine[Any, Any, None]) -> None:
        try:
            await call
        except Unavailable as error:
            logger.debug("%s: %s not delivered: %s", self.job.label, what, error)
        except Refused as error:
            logger.warning("%s: %s refused: %s", self.job.label, what, error)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class _Done:
    """An awaitable that is done: what the blocking form returns, so that both forms have one type."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


_DONE = _Done()
