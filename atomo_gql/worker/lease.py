"""The right to one attempt: what extends it, what it may tell meanwhile, and its end."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from atomo_gql.worker.cancelled import Cancelled
from atomo_gql.worker.encoding import encode_checked
from atomo_gql.worker.errors import LeaseLost, Refused
from atomo_gql.worker.job import Job
from atomo_gql.worker.outbox import Outbox
from atomo_gql.worker.processes import Processes
from atomo_gql.worker.report import Report


class Lease:
    """One job's lease.

    visibility: seconds that an extension lasts. extended_at: the event loop's time of the last extension.
    on_lost: told when an extension finds the lease lost. on_refused: told when one is answered with another 4xx.
    on_visibility: told when it lasts for another time than before.
    """

    __slots__ = (
        "_on_lost",
        "_on_refused",
        "_outbox",
        "cancelled",
        "extended_at",
        "job",
        "loop",
        "on_visibility",
        "processes",
        "visibility",
    )

    def __init__(
        self,
        job: Job,
        visibility: int,
        outbox: Outbox,
        processes: Processes,
        loop: asyncio.AbstractEventLoop,
        extended_at: float,
        *,
        on_lost: Callable[[LeaseLost], None],
        on_refused: Callable[[Refused], None],
        on_visibility: Callable[[], None],
    ) -> None:
        self.job = job
        self.visibility = visibility
        self.cancelled = Cancelled()
        self.loop = loop
        self.extended_at = extended_at
        self._outbox = outbox
        self.processes = processes
        self._on_lost = on_lost
        self._on_refused = on_refused
        self.on_visibility = on_visibility

    async def heartbeat(self, visibility: int | None = None) -> None:
        """Extend the lease; `visibility` seconds, where given, are kept for the heartbeats that follow.

        Raises LeaseLost, Refused, Unavailable.
        """
        if visibility is not None:
            self.visibility = visibility
        await self._extend(Report("heartbeat", self.job, {"visibilitySecs": self.visibility}))
        if visibility is not None:
            self.on_visibility()

    def progress(self, update: dict[str, Any]) -> Coroutine[Any, Any, None]:
        """Send a progress update, which extends the lease as well.

        Raises ValueError at once where the update is not JSON; then LeaseLost, Refused, Unavailable.
        """
        fields = {"visibilitySecs": self.visibility, **update}
        encode_checked(update, "data")
        return self._progress(fields)

    async def _progress(self, fields: dict[str, Any]) -> None:
        await self._extend(Report("progress", self.job, fields, "data"))

    async def _extend(self, report: Report) -> None:
        if self.cancelled.is_set():
            raise LeaseLost("this attempt is over: its lease was lost, or the worker is stopping")
        sent_at = self.loop.time()
        try:
            await self._outbox.send(report)
        except LeaseLost as error:
            self._on_lost(error)
            raise
        except Refused as error:
            self._on_refused(error)
            raise
        self.extended_at = sent_at
