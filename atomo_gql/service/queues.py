"""How queues are: depths, ages, rates, pauses, and the workers that ask for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from atomo_gql.domain.errors import AtomoError
from atomo_gql.domain.jobs import LATELY
from atomo_gql.domain.paging import Page, Window
from atomo_gql.domain.principals import Caller
from atomo_gql.service.access import visible_tenant
from atomo_gql.service.context import Resources
from atomo_gql.store import queues as store
from atomo_gql.store import tokens as store_tokens
from atomo_gql.store.queues import QueueStats, SeenWorker

MOST_COUNTED = 10_000  # jobs of one state in one queue


@dataclass(frozen=True, slots=True)
class QueueView:
    """A queue as a caller sees it: their tenant's part, or all of it."""

    stats: QueueStats
    workers: Sequence[SeenWorker]


class QueueService:
    """Reads queues, and writes down what this process has seen of them."""

    def __init__(self, resources: Resources) -> None:
        self._database = resources.database
        self._seen = resources.seen

    async def page(self, caller: Caller, window: Window[str]) -> Page[QueueView]:
        """The queues that the caller's jobs have been in, by name."""
        tenant = visible_tenant(caller)
        names = await store.names(
            self._database,
            tenant,
            after=window.after,
            before=window.before,
            descending=window.is_backwards,
            most=window.most + 1,
        )
        page = window.page(names)
        return Page(await self.views(caller, page.items), page.has_next, page.has_previous)

    async def views(self, caller: Caller, names: Sequence[str]) -> list[QueueView]:
        """These queues, as the caller sees them; one that is not known is empty."""
        tenant = visible_tenant(caller)
        found = await store.stats(self._database, tenant, names, MOST_COUNTED)
        workers = await store.workers(self._database, tenant, names, datetime.now(UTC) - LATELY)
        return [QueueView(stats, workers[stats.name]) for stats in found]

    async def record(self) -> None:
        """Write down what has been seen since the last time."""
        seen = self._seen.take()
        try:
            await store.record(self._database, seen)
            if seen.used:
                await store_tokens.used(self._database, list(seen.used))
        except AtomoError:
            self._seen.put_back(seen)
            raise

    async def forget(self) -> None:
        """Throw away what is too old to tell anything."""
        await store.forget(self._database)
