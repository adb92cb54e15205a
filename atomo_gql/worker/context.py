"""What a handler is given."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Generator, MutableMapping
from typing import Any, Protocol

from atomo_gql.worker.cancelled import Cancelled
from atomo_gql.worker.encoding import plain_text
from atomo_gql.worker.errors import Refused, Unavailable
from atomo_gql.worker.job import Job
from atomo_gql.worker.lease import Lease

logger = logging.getLogger("atomo_gql.worker")

MOST_CHARACTERS = 2_000  # of a progress message; the server takes no more


class InHand(Protocol):
    """An attempt, as far as it shows here. Its lease is made for the first who asks."""

    job: Job

    @property
    def lease(self) -> Lease:
        """The right to it."""
        ...


class JobContext:
    """The job of this attempt, and the ways to tell the server that it goes on.

    `progress` and `heartbeat` are the same for both sorts of handler: on the event loop they return an awaitable
    (`await ctx.progress(…)`); in a thread, where plain `def` handlers run, they block until the call is done.
    """

    __slots__ = ("_attempt", "_logger")

    def __init__(self, attempt: InHand) -> None:
        self._attempt = attempt
        self._logger: JobLogger | None = None

    @property
    def job(self) -> Job:
        """The leased job: id, queue, kind, payload, attempts, max_attempts, lease_id."""
        return self._attempt.job

    @property
    def cancelled(self) -> Cancelled:
        """Set when the lease is lost or the worker hands the job back; an async handler is cancelled then, too."""
        return self._attempt.lease.cancelled

    @property
    def logger(self) -> "JobLogger":
        """A logger that says which job it is about: in front of the message, and as `job_id`, `job_kind`, `job_queue`
        and `job_attempt` of each record. Its name is that of the worker's own loggers, and of the kind."""
        if self._logger is None:
            self._logger = JobLogger(logging.getLogger(f"atomo_gql.job.{self.job.kind}"), self.job)
        return self._logger

    async def run_in_process(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """`function(*arguments, **named)` in a process of its own, for what keeps a CPU busy. For `async def` handlers.

        The process is killed when the attempt is over.

        Raises ValueError for a function that no module holds and for arguments that cannot be pickled; and whatever the
        function raises.
        """
        return await self._attempt.lease.processes.run(function, *arguments, **named)

    def progress(self, percent: float | None = None, message: str | None = None, data: Any = None) -> Awaitable[None]:
        """Tell whoever watches how far the job is. What is None is not sent.

        percent: a finite number, passed on as it is. message: text for people, cut after 2,000 characters. data: any
        JSON value.
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
        told = {"percent": percent, "message": message and _cut(plain_text(message)), "data": data}
        update = {name: value for name, value in told.items() if value is not None}
        return self._extend("progress", self._attempt.lease.progress(update))

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
        return self._extend("heartbeat", self._attempt.lease.heartbeat(visibility))

    def _extend(self, what: str, call: Coroutine[Any, Any, None]) -> Awaitable[None]:
        attempt = self._best_effort(what, call)
        loop = self._attempt.lease.loop
        if _running_loop() is loop:
            return attempt
        asyncio.run_coroutine_threadsafe(attempt, loop).result()
        return _DONE

    async def _best_effort(self, what: str, call: Coroutine[Any, Any, None]) -> None:
        try:
            await call
        except Unavailable as error:
            logger.debug("%s: %s not delivered: %s", self.job.label, what, error)
        except Refused as error:
            logger.warning("%s: %s refused: %s", self.job.label, what, error)


class JobLogger(logging.LoggerAdapter[logging.Logger]):
    """What `ctx.logger` is."""

    def __init__(self, logger: logging.Logger, job: Job) -> None:
        fields = {"job_id": job.id, "job_kind": job.kind, "job_queue": job.queue, "job_attempt": job.attempts}
        super().__init__(logger, fields)
        self._label = job.label

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """With the job in front, and its fields beside those of the call."""
        return f"{self._label}: {msg}", {**kwargs, "extra": {**(self.extra or {}), **(kwargs.get("extra") or {})}}


def _cut(message: str) -> str:
    return message if len(message) <= MOST_CHARACTERS else f"{message[: MOST_CHARACTERS - 1]}…"


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
