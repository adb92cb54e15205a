"""The right to one attempt: what extends it, what it may tell meanwhile, and its end."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from atomo_gql.worker.cancelled import Cancelled
from atomo_gql.worker.client import Client
from atomo_gql.worker.errors import LeaseLost, Refused
from atomo_gql.worker.job import Job


class Lease:
    """One job's lease.

    visibility: seconds that an extension lasts. extended_at: the event loop's time of the last extension.
    on_lost: told when an extension finds the lease lost. on_refused: told when one is answered with another 4xx.
    """

    __slots__ = ("_client", "_on_lost", "_on_refused", "cancelled", "extended_at", "job", "loop", "visibility")

    def __init__(
        self,
        job: Job,
        visibility: int,
        client: Client,
        *,
        on_lost: Callable[[LeaseLost], None],
        on_refused: Callable[[Refused], None],
    ) -> None:
        self.job = job
        self.visibility = visibility
        self.cancelled = Cancelled()
        self.loop = asyncio.get_running_loop()
        self.extended_at = self.loop.time()
        self._client = client
        self._on_lost = on_lost
        self._on_refused = on_refused

    async def heartbeat(self, visibility: int | None = None) -> None:
        """Extend the lease; `visibility` seconds, where given, are kept for the heartbeats that follow.

        Raises LeaseLost, Refused, Unavailable.
        """
        if visibility is not None:
            self.visibility = visibility
        await self._extend(self._client.heartbeat(self.job, self.visibility))

    def terms(self) -> dict[str, Any]:
        """The fields of a progress body that name the lease and extend it."""
        return {"leaseId": self.job.lease_id, "visibilitySecs": self.visibility}

    async def progress(self, body: bytes) -> None:
        """Send a progress update, which extends the lease as well. `body`: terms() and the update, encoded.

        Raises LeaseLost, Refused, Unavailable.
        """
        await self._extend(self._client.progress(self.job, body))

    async def _extend(self, call: Coroutine[Any, Any, None]) -> None:
        if self.cancelled.is_set():
            call.close()
            raise LeaseLost("this attempt is over: its lease was lost, or the worker is stopping")
        sent_at = self.loop.time()
        try:
            await call
        except LeaseLost as error:
            self._on_lost(error)
            raise
        except Refused as error:
            self._on_refused(error)
            raise
        self.extended_at = sent_at
