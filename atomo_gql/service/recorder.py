"""What this process has seen of queues and workers since it was last written down."""

from collections.abc import Iterable
from uuid import UUID

from atomo_gql.store.queues import Sightings


class Recorder:
    """Counts in memory; `QueueService.record` takes the counts and writes them, every few seconds."""

    def __init__(self) -> None:
        self.now = Sightings()

    def take(self) -> Sightings:
        """What has been seen, and begin anew."""
        seen, self.now = self.now, Sightings()
        return seen

    def put_back(self, seen: Sightings) -> None:
        """What could not be written, beside what has been seen since."""
        self.now.enqueued.update(seen.enqueued)
        self.now.leased.update(seen.leased)
        self.now.succeeded.update(seen.succeeded)
        self.now.failed.update(seen.failed)
        self.now.workers |= seen.workers
        self.now.used |= seen.used

    def token(self, token: UUID) -> None:
        """A worker token has been used."""
        self.now.used.add(token)

    def worker(self, token: UUID, queues: Iterable[str]) -> None:
        """A worker has asked for these queues."""
        self.now.workers.update((token, queue) for queue in queues)
