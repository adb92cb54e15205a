"""What every service needs."""

import asyncio
import contextlib
from dataclasses import dataclass, field

from atomo_gql.realtime.hub import Hub
from atomo_gql.service.recorder import Recorder
from atomo_gql.store.database import Database


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds an operator sets."""

    max_body: int  # bytes of a request, and of one JSON value in it
    max_waiting: int  # long polls at a time
    max_subscriptions: int  # watchers at a time
    spare_deliveries: int  # leases of a job beyond its attempts


class Bell:
    """Tells a loop of this process that there is something to do; rung before it listens, it is heard all the same."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self.is_for_jobs = True  # whether what happens to jobs is of interest, too

    def ring(self) -> None:
        """There is something to do."""
        self._rung.set()

    def ring_for_jobs(self) -> None:
        """Something has happened to a job."""
        if self.is_for_jobs:
            self._rung.set()

    async def wait(self, seconds: float) -> None:
        """Return when it is rung, or when the time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        self._rung.clear()


@dataclass(frozen=True, slots=True)
class Resources:
    """Shared by the services of one process."""

    database: Database
    hub: Hub
    limits: Limits
    seen: Recorder = field(default_factory=Recorder)
    runs_bell: Bell = field(default_factory=Bell)  # a run has something to do
    log_bell: Bell = field(default_factory=Bell)  # the action dispatcher has something to read
