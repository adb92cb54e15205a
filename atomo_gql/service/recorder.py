"""What this process has seen of queues and workers since it was last written down."""

from collections.abc import Iterable
from uuid import UUID

from atomo_gql.store.queues import Activity, Lane, Sightings


class Recorder:
    """Counts in memory; `QueueService.record` takes the counts and writes them, every few seconds."""

    def __init__(self) -> None:
        self._seen = Sightings()

    def take(self) -> Sightings:
        """What has been seen, and begin anew."""
        seen, self._seen = self._seen, Sightings()
        return seen

    def put_back(self, seen: Sightings) -> None:
        """What could not be written; the newer counts are added to it."""
        for lane, activity in self._seen.lanes.items():
            known = seen.lanes.setdefault(lane, Activity())
            known.enqueued += activity.enqueued
            known.leased += activity.leased
            known.succeeded += activity.succeeded
            known.failed += activity.failed
        seen.workers |= self._seen.workers
        seen.used |= self._seen.used
        self._seen = seen

    def lane(self, tenant: str | None, queue: str) -> Activity:
        """The counters of a lane."""
        lane: Lane = (tenant or "", queue)
        found = self._seen.lanes.get(lane)
        if found is None:
            found = self._seen.lanes[lane] = Activity()
        return found

    def token(self, token: UUID) -> None:
        """A worker token has been used."""
        self._seen.used.add(token)

    def worker(self, token: UUID, queues: Iterable[str]) -> None:
        """A worker has asked for these queues."""
        self._seen.workers.update((token, queue) for queue in queues)
