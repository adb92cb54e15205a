"""One leased job in hand: its handler, the report of how that ended, or the job's return to the server."""

import asyncio
import enum
import logging
from collections.abc import Callable
from dataclasses import dataclass

from atomo_gql.worker.client import Client
from atomo_gql.worker.context import JobContext
from atomo_gql.worker.delivery import deliver
from atomo_gql.worker.encoding import encode_checked, plain_text
from atomo_gql.worker.errors import LeaseLost, NonRetryableError, Refused
from atomo_gql.worker.failure import describe, one_line
from atomo_gql.worker.handlers import Handler
from atomo_gql.worker.heartbeat import Heartbeat
from atomo_gql.worker.job import Job
from atomo_gql.worker.lease import Lease
from atomo_gql.worker.threads import Threads

logger = logging.getLogger("atomo_gql.worker")
_UNACCEPTABLE = frozenset({400, 413, 422})  # the body is at fault: another body may be taken


class Cut(enum.Enum):
    """Why an attempt ends before its handler does."""

    LOST = "lease lost"
    STOPPING = "the worker stops"
    REJECTED = "the server refuses the worker"


class _Phase(enum.Enum):
    LEASED = enum.auto()  # → RUNNING
    RUNNING = enum.auto()  # → REPORTING, HANDING_BACK
    REPORTING = enum.auto()  # → HANDING_BACK
    HANDING_BACK = enum.auto()


@dataclass(frozen=True, slots=True)
class _Success:
    body: bytes


@dataclass(frozen=True, slots=True)
class _Failure:
    brief: str
    error: str
    retryable: bool


class Attempt:
    """Runs as one task from its creation on; `task` is done when the job is no longer in hand.

    on_refused: told when the server answers one of its calls with a 4xx that the attempt can do nothing about.
    """

    def __init__(
        self,
        job: Job,
        handler: Handler | None,
        *,
        client: Client,
        threads: Threads,
        visibility: int,
        on_refused: Callable[[Refused], None],
    ) -> None:
        self.job = job
        self._handler = handler
        self._client = client
        self._threads = threads
        self._on_refused = on_refused
        self._lease = Lease(job, visibility, client, on_lost=self._lost, on_refused=on_refused)
        self._heartbeat = Heartbeat(self._lease)
        self._loop = self._lease.loop
        self._began = self._took_until = self._loop.time()
        self._phase = _Phase.LEASED
        self._cut: Cut | None = None
        self.task = self._loop.create_task(self._run())

    def cut(self, cause: Cut) -> None:
        """End the attempt: set ctx.cancelled and cancel an async handler. A report on its way goes on."""
        if self._cut is not None:
            return
        self._cut = cause
        if self._phase in (_Phase.LEASED, _Phase.RUNNING):
            self._lease.cancelled.set()
            if asyncio.current_task() is self.task:
                # The handler's own call found it out, and raises LeaseLost: cancel only if it goes on all the same.
                self._loop.call_soon(self._cancel_handler)
            else:
                self._cancel_handler()

    def give_up(self) -> None:
        """After cut: wait no longer for a thread, or for the server to take the report; hand the job back."""
        if self._phase is not _Phase.HANDING_BACK:
            self.task.cancel()

    def _lost(self, error: LeaseLost) -> None:
        """An extension was answered 409. While a report is on its way, its own answer decides."""
        if self._cut is None and self._phase is _Phase.RUNNING:
            self._took_until = self._loop.time()
            self._log(logging.WARNING, f"lease lost ({error}), its result will be dropped")
            self.cut(Cut.LOST)

    def _cancel_handler(self) -> None:
        if self._phase is _Phase.RUNNING and self._handler is not None and self._handler.is_async:
            self.task.cancel()

    async def _run(self) -> None:
        self._heartbeat.start()
        try:
            outcome = await self._handle()
            if outcome is not None:
                await self._report(outcome)
                return
        except asyncio.CancelledError:
            if self._cut is None:  # not the worker's doing: the handler's own, or the event loop is being closed
                self._log(logging.WARNING, "cancelled from outside, its lease will run out")
                raise
        finally:
            self._heartbeat.stop()
        while self.task.cancelling():
            self.task.uncancel()
        if self._cut is Cut.STOPPING:
            await self._hand_back()

    async def _handle(self) -> _Success | _Failure | None:
        """Run the handler. None: the attempt was cut, and how the handler ended does not matter."""
        if self._cut is not None:
            return None
        if self._handler is None:
            error = f"this worker has no handler for the kind {plain_text(self.job.kind)!r}"
            return _Failure(error, error, retryable=False)
        self._phase = _Phase.RUNNING
        failure: BaseException | None = None
        try:
            result = await self._handler.call(JobContext(self._lease), self._threads)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # also SystemExit, and a CancelledError of the handler's own making
            failure = error
        finally:
            self._phase = _Phase.REPORTING
            self._took_until = self._loop.time()
        if self._cut is not None:
            return None
        if failure is not None:
            if isinstance(failure, asyncio.CancelledError) and self.task.cancelling():
                raise failure
            logger.debug("%s raised", self.job.label, exc_info=failure)
            return _Failure(one_line(failure), describe(failure), not isinstance(failure, NonRetryableError))
        try:
            return _Success(encode_checked({"leaseId": self.job.lease_id, "result": result}, "result"))
        except ValueError as error:
            message = plain_text(f"the handler's result cannot be reported: {error}")
            return _Failure(message, message, retryable=False)

    async def _report(self, outcome: _Success | _Failure) -> None:
        self._phase = _Phase.REPORTING
        try:
            failure = await self._report_success(outcome) if isinstance(outcome, _Success) else outcome
            if failure is not None:
                await self._report_failure(failure)
        except LeaseLost as error:
            self._log(logging.WARNING, f"lease lost before its end was reported ({error})")
        except Refused as error:
            self._log(logging.ERROR, f"its end could not be reported: {error}")
            self._on_refused(error)

    async def _report_success(self, success: _Success) -> _Failure | None:
        """Report the result; a failure where the server does not take it, and never will."""
        try:
            await deliver(self.job, "its result", lambda: self._client.complete(self.job, success.body))
        except Refused as error:
            if error.status not in _UNACCEPTABLE:
                raise
            message = plain_text(f"the server refused the handler's result: {error}")
            return _Failure(message, message, retryable=False)
        self._log(logging.INFO, "succeeded")
        return None

    async def _report_failure(self, failure: _Failure) -> None:
        try:
            delay = await self._deliver_failure(failure.error, failure.retryable)
        except Refused as error:
            if error.status not in _UNACCEPTABLE:
                raise
            delay = await self._deliver_failure(f"the server refused the error text: {error}", failure.retryable)
        if delay is None:
            self._log(logging.ERROR, f"dead: {failure.brief}")
        else:
            self._log(logging.WARNING, f"failed, retry in {delay:g} s: {failure.brief}")

    async def _deliver_failure(self, error: str, retryable: bool) -> float | None:
        return await deliver(self.job, "its failure", lambda: self._client.fail(self.job, error, retryable))

    async def _hand_back(self) -> None:
        self._phase = _Phase.HANDING_BACK
        try:
            await deliver(self.job, "its return", lambda: self._client.release(self.job))
        except (LeaseLost, Refused) as error:
            self._log(logging.WARNING, f"could not be handed back: {error}")
        except asyncio.CancelledError:
            self._log(logging.WARNING, "could not be handed back in time, its lease will run out")
            raise
        else:
            self._log(logging.INFO, "handed back")

    def _log(self, level: int, outcome: str) -> None:
        """One line per job end: kind, id, outcome, duration of the handler."""
        if logger.isEnabledFor(level):
            took = self._took_until - self._began
            told = (self.job.label, outcome, took, self.job.attempts, self.job.max_attempts)
            logger.log(level, "%s %s (%.3f s, attempt %d of %d)", *told)
