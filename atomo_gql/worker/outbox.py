"""Reports on their way: gathered without a timer, and sent until they are answered.

A report goes out at once when nothing is in flight; while requests are in flight the next ones gather, and go together.
Where the lease loop is about to ask anyway, it takes them along, and saves the request.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from atomo_gql.worker.backoff import Backoff
from atomo_gql.worker.client import Client
from atomo_gql.worker.errors import CallError, LeaseLost, Refused, Unavailable
from atomo_gql.worker.report import Outcome, Report

logger = logging.getLogger("atomo_gql.worker")

MOST = 1_000  # reports in a request
MOST_BYTES = 1_000_000  # in a request of more than one
FLIGHTS = 4  # requests at a time: one that hangs must not hold up the heartbeats behind it
_OK = (200, 204)
_NAMES = {"complete": "its result", "fail": "its failure", "release": "its return"}


class Outbox:
    """One per worker.

    is_carried: whether the lease loop will take what waits, in this turn of the event loop. on_answer: told when the
    server has answered.
    """

    def __init__(self, client: Client, is_carried: Callable[[], bool], on_answer: Callable[[], None]) -> None:
        self._client = client
        self._on_answer = on_answer
        self._is_carried = is_carried
        self._waiting: deque[Report] = deque()
        self._flights: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._backoff = Backoff()
        self._resume: asyncio.TimerHandle | None = None

    def post(self, report: Report) -> None:
        """Have it sent: it tells its `on_done` what became of it."""
        self._waiting.append(report)
        self._schedule()

    async def send(self, report: Report) -> Outcome:
        """The outcome, once the server has answered.

        Raises LeaseLost and Refused; Unavailable too, of a report that does not end its lease.
        """
        self.post(report)
        return await report.wait()

    def take(self) -> list[Report]:
        """What is to be sent next, in one request."""
        batch: list[Report] = []
        size = 0
        while self._waiting and len(batch) < MOST:
            report = self._waiting[0]
            size += len(report.body)
            if batch and size > MOST_BYTES:
                break
            self._waiting.popleft()
            if not report.is_done:  # whoever sent it may wait no longer
                report.tries += 1
                batch.append(report)
        return batch

    def settle(self, batch: list[Report], outcomes: list[Outcome]) -> None:
        """The server has said what became of each."""
        for report, outcome in zip(batch, outcomes, strict=True):
            status = outcome.status
            if status in _OK or (status == 409 and report.has_arrived(outcome)):
                report.settle(outcome)
            elif status == 409:
                lost = "; an earlier answer was lost, so it may have arrived" if report.tries > 1 else ""
                report.fail(LeaseLost(f"409 {outcome.detail or ''}{lost}"))
            else:
                report.fail(Refused(f"{status} {outcome.detail or ''}", status, outcome.code or ""))

    def put_back(self, batch: list[Report], error: CallError, *, were_riding: bool = False) -> None:
        """The request was not answered with success: what ends a lease is sent again, unless that is hopeless."""
        refusal = error.status if isinstance(error, Refused) and error.status not in (404, 405) else None
        if (were_riding or len(batch) > 1) and refusal in (400, 413):  # something in it is to blame: each for itself
            for report in batch:
                self._fly([report])
            return
        again: list[Report] = []
        for report in batch:
            if refusal is not None or not report.is_final:
                report.fail(error if refusal is not None or isinstance(error, Unavailable) else Unavailable(str(error)))
            elif not report.is_done:
                if report.tries == 1:
                    what = _NAMES[report.type]
                    logger.warning("%s: %s not taken yet (%s), sending it again", report.job.label, what, error)
                again.append(report)
        self._waiting.extendleft(reversed(again))
        if self._resume is None:
            pause = self._backoff.pause(error.retry_after if isinstance(error, Unavailable) else None)
            self._resume = asyncio.get_running_loop().call_later(pause, self._go_on)

    def answered(self) -> None:
        """The server is there: what waits for it to come back goes out at once."""
        self._backoff.reset()
        if self._resume is not None:
            self._resume.cancel()
            self._go_on()

    def close(self) -> None:
        """Send nothing more."""
        if self._resume is not None:
            self._resume.cancel()
        for flight in self._flights:
            flight.cancel()

    def _schedule(self) -> None:
        if not self._scheduled and self._resume is None and len(self._flights) < FLIGHTS:
            # At the end of this turn of the loop: what ends together goes together.
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._launch)

    def _go_on(self) -> None:
        self._resume = None
        self._schedule()

    def _launch(self) -> None:
        self._scheduled = False
        if self._waiting and self._resume is None and not self._is_carried() and (batch := self.take()):
            self._fly(batch)

    def _fly(self, batch: list[Report]) -> None:
        flight = asyncio.get_running_loop().create_task(self._deliver(batch))
        self._flights.add(flight)
        flight.add_done_callback(self._landed)

    def _landed(self, flight: "asyncio.Task[None]") -> None:
        self._flights.discard(flight)
        if self._waiting:
            self._schedule()

    async def _deliver(self, batch: list[Report]) -> None:
        try:
            outcomes = await self._client.report(batch)
        except (Unavailable, Refused) as error:
            self.put_back(batch, error)
        else:
            self.answered()
            self._on_answer()
            self.settle(batch, outcomes)
