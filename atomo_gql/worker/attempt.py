"""One leased job in hand: its handler, the report of how that ended, or the job's return to the server."""

import asyncio
import enum
import logging
import threading
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from atomo_gql.worker.context import JobContext
from atomo_gql.worker.encoding import plain_text
from atomo_gql.worker.errors import LeaseLost, Refused
from atomo_gql.worker.failure import Failure
from atomo_gql.worker.handlers import Handler
from atomo_gql.worker.heartbeat import Heartbeat
from atomo_gql.worker.job import Job
from atomo_gql.worker.lease import Lease
from atomo_gql.worker.report import Report
from atomo_gql.worker.surroundings import Surroundings
from atomo_gql.worker.tracing import in_trace

logger = logging.getLogger("atomo_gql.worker")
_UNACCEPTABLE = frozenset({400, 413, 422})  # the body is at fault: another body may be taken


_making = threading.Lock()  # of leases; seldom asked for, so that one does for all


class Cut(enum.Enum):
    """Why an attempt ends before its handler does."""

    LOST = "lease lost"
    TIMED_OUT = "the job's timeout"
    STOPPING = "the worker stops"
    REJECTED = "the server refuses the worker"


class _Phase(enum.Enum):
    LEASED = enum.auto()  # → RUNNING
    RUNNING = enum.auto()  # → REPORTING, HANDING_BACK
    REPORTING = enum.auto()  # → HANDING_BACK
    HANDING_BACK = enum.auto()
    OVER = enum.auto()  # from any of them


class Attempt:
    """Runs as one task from its creation on; `began`: that moment, by the event loop's time.

    Many more jobs end soon, with a result, than need anything else. So a result is reported without the task: that the
    server has it, or will not have it, is told by a callback. And a lease and its heartbeat are made when they are
    wanted."""

    __slots__ = (
        "_around",
        "_cut",
        "_handler",
        "_heartbeat",
        "_is_cancelled",
        "_lease",
        "_loop",
        "_phase",
        "_posted",
        "_timeout",
        "_took_until",
        "began",
        "is_running",
        "job",
        "task",
    )

    def __init__(self, job: Job, handler: Handler | None, around: Surroundings, began: float) -> None:
        self.job = job
        self.is_running = True
        self.began = self._took_until = began
        self._handler = handler
        self._around = around
        self._lease: Lease | None = None
        self._heartbeat: Heartbeat | None = None
        self._loop = asyncio.get_running_loop()
        self._phase = _Phase.LEASED
        self._cut: Cut | None = None
        self._is_cancelled = False  # cut before its handler had ended
        self._posted: Report | None = None  # a result on its way
        self._timeout = None if job.timeout_secs is None else self._loop.call_later(job.timeout_secs, self._time_out)
        self.task = self._loop.create_task(self._run())

    @property
    def lease(self) -> Lease:
        """What extends the right to this attempt; made for the first who asks, on whichever thread."""
        if self._lease is None:
            with _making:
                if self._lease is None:
                    self._lease = self._make_lease()
        return self._lease

    def _make_lease(self) -> Lease:
        around = self._around
        lease = Lease(
            self.job,
            around.visibility,
            around.outbox,
            around.processes,
            self._loop,
            self.began,
            on_lost=self._lost,
            on_refused=around.on_refused,
            on_visibility=self.beat,
        )
        if self._is_cancelled:
            lease.cancelled.set()
        return lease

    @property
    def is_quiet(self) -> bool:
        """Whether it has no heartbeat yet."""
        return self._heartbeat is None

    def beat(self) -> None:
        """Have a heartbeat from now on, if there is still something to keep alive."""
        is_ending = self._is_cancelled or self._phase in (_Phase.HANDING_BACK, _Phase.OVER)
        if self._heartbeat is None and not is_ending:
            self._heartbeat = Heartbeat(self.lease)

    def cut(self, cause: Cut) -> None:
        """End the attempt: set ctx.cancelled and cancel an async handler. A report on its way goes on."""
        if self._cut is not None:
            return
        self._cut = cause
        if self._phase in (_Phase.LEASED, _Phase.RUNNING):
            with _making:
                self._is_cancelled = True
            if self._lease is not None:
                self._lease.cancelled.set()
            if asyncio.current_task() is self.task:
                # The handler's own call found it out, and raises LeaseLost: cancel only if it goes on all the same.
                self._loop.call_soon(self._cancel_handler)
            else:
                self._cancel_handler()

    def give_up(self) -> None:
        """After cut: wait no longer for a thread, or for the server to take the report; hand the job back."""
        if self._posted is not None:
            self._posted.drop()
            self._go_on(self._leave())
        elif self._phase is not _Phase.HANDING_BACK:
            self.task.cancel()

    async def abandon(self) -> None:
        """After give_up: the handler is deaf to being cancelled. Hand the job back without it, and wait no more."""
        self._log(logging.WARNING, "its handler goes on though it was cancelled: given up")
        self._be_quiet()
        asyncio.tasks._unregister_task(self.task)  # or asyncio.run() would wait for it as well
        if self._cut is Cut.STOPPING:
            await self._hand_back()

    def _lost(self, error: LeaseLost) -> None:
        """An extension was answered 409. While a report is on its way, its own answer decides."""
        if self._cut is None and self._phase is _Phase.RUNNING:
            self._took_until = self._loop.time()
            self._around.tally.lost += 1
            self._log(logging.WARNING, f"lease lost ({error}), its result will be dropped")
            self.cut(Cut.LOST)

    def _time_out(self) -> None:
        if self._phase is _Phase.RUNNING:
            self.cut(Cut.TIMED_OUT)

    def _cancel_handler(self) -> None:
        # A thread cannot be stopped; but what has timed out is reported, whatever the thread does.
        is_async = self._handler is not None and self._handler.is_async
        if self._phase is _Phase.RUNNING and (is_async or self._cut is Cut.TIMED_OUT):
            self.task.cancel()

    async def _run(self) -> None:
        is_left = False
        try:
            try:
                if self._cut is not None:
                    is_left = True
                elif self._handler is None:
                    self._handler_ended()
                    said = f"this worker has no handler for the kind {plain_text(self.job.kind)!r}"
                    await self._deliver(Failure(said, said, retryable=False))
                else:
                    ended = await self._handle(self._handler)
                    if isinstance(ended, Report):
                        self._posted, ended.on_done = ended, self._reported
                        self._around.outbox.post(ended)
                    elif ended is not None:
                        await self._deliver(ended)
                    else:
                        is_left = True
            except asyncio.CancelledError:
                if self._cut is None:  # not the worker's doing: the handler's own, or the event loop is being closed
                    self._log(logging.WARNING, "cancelled from outside, its lease will run out")
                    raise
                is_left = True
            if is_left:
                await self._leave()
        except Exception:
            logger.exception("%s: the worker itself failed", self.job.label)
        finally:
            if self._posted is None:
                self._close()

    async def _leave(self) -> None:
        """The attempt was cut, and its handler has ended."""
        self._be_quiet()
        while self.task.cancelling():
            self.task.uncancel()
        if self._cut is Cut.STOPPING:
            await self._hand_back()

    def _be_quiet(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop()

    def _close(self) -> None:
        self._phase = _Phase.OVER
        self._be_quiet()
        if self._timeout is not None:
            self._timeout.cancel()
        self._around.on_end(self)

    def _reported(self, report: Report) -> None:
        """The server has taken the result; or it has not, and never will."""
        error = report.error
        if error is None:
            self._around.tally.succeeded += 1
            self._log(logging.INFO, "succeeded")
        elif isinstance(error, Refused) and error.status in _UNACCEPTABLE:
            message = plain_text(f"the server refused the handler's result: {error}")
            self._go_on(self._deliver(Failure(message, message, retryable=False)))
            return
        else:
            self._undelivered(error)
        self._posted = None
        self._close()

    def _go_on(self, what: Coroutine[Any, Any, None]) -> None:
        """After a result was posted: in a new task."""
        self._posted = None

        async def go_on() -> None:
            try:
                await what
            finally:
                self._close()

        self.task = self._loop.create_task(go_on())

    async def _handle(self, handler: Handler) -> Report | Failure | None:
        """Run the handler. None: the attempt was cut, and how the handler ended does not matter."""
        self._phase = _Phase.RUNNING
        failure: BaseException | None = None
        try:
            with in_trace(self.job):
                result = await handler.call(JobContext(self), self._around.threads)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # also SystemExit, and a CancelledError of the handler's own making
            failure = error
        finally:
            self._handler_ended()
        if self._cut is Cut.TIMED_OUT:
            while self.task.cancelling():
                self.task.uncancel()
            said = f"timed out after {self.job.timeout_secs:g} s"
            return Failure(said, said)
        if self._cut is not None:
            return None
        if failure is not None:
            if isinstance(failure, asyncio.CancelledError) and self.task.cancelling():
                raise failure
            logger.debug("%s raised", self.job.label, exc_info=failure)
            return Failure.of(failure)
        try:
            return Report("complete", self.job, {"result": result}, "result")
        except ValueError as error:
            message = plain_text(f"the handler's result cannot be reported: {error}")
            return Failure(message, message, retryable=False)

    def _handler_ended(self) -> None:
        self._phase = _Phase.REPORTING
        self._took_until = self._loop.time()
        self.is_running = False
        self._around.on_room(self)

    async def _deliver(self, failure: Failure) -> None:
        try:
            await self._deliver_failure(failure)
        except (LeaseLost, Refused) as error:
            self._undelivered(error)

    def _undelivered(self, error: BaseException) -> None:
        if isinstance(error, LeaseLost):
            self._around.tally.lost += 1
            self._log(logging.WARNING, f"lease lost before its end was reported ({error})")
        else:
            self._log(logging.ERROR, f"its end could not be reported: {error}")
        if isinstance(error, Refused):
            self._around.on_refused(error)

    async def _deliver_failure(self, failure: Failure) -> None:
        try:
            outcome = await self._around.outbox.send(failure.report(self.job))
        except Refused as error:
            if error.status not in _UNACCEPTABLE:
                raise
            failure = replace(failure, error=f"the server refused the error text: {error}")
            outcome = await self._around.outbox.send(failure.report(self.job))
        if outcome.is_retried():
            self._around.tally.failed += 1
            wait = "" if outcome.delay_secs is None else f" in {outcome.delay_secs:g} s"
            self._log(logging.WARNING, f"failed, retry{wait}: {failure.brief}")
        else:
            self._around.tally.dead += 1
            self._log(logging.ERROR, f"dead: {failure.brief}")

    async def _hand_back(self) -> None:
        self._phase = _Phase.HANDING_BACK
        try:
            await self._around.outbox.send(Report("release", self.job, {}))
        except (LeaseLost, Refused) as error:
            self._log(logging.WARNING, f"could not be handed back: {error}")
        except asyncio.CancelledError:
            self._log(logging.WARNING, "could not be handed back in time, its lease will run out")
            raise
        else:
            self._around.tally.handed_back += 1
            self._log(logging.INFO, "handed back")

    def _log(self, level: int, outcome: str) -> None:
        """One line per job end: kind, id, outcome, duration of the handler."""
        if logger.isEnabledFor(level):
            took = self._took_until - self.began
            told = (self.job.label, outcome, took, self.job.attempts, self.job.max_attempts)
            logger.log(level, "%s %s (%.3f s, attempt %d of %d)", *told)
