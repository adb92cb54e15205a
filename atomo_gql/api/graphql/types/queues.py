"""Queues, as GraphQL shows them."""

from datetime import datetime

import strawberry

from atomo_gql.api.graphql.types.paging import PageInfo, cursor_of
from atomo_gql.domain.paging import Page
from atomo_gql.service.queues import QueueView

SORT = "queue"
_MINUTES = 5  # that rates are taken over


@strawberry.type(description="How many jobs of a queue are in each state; each counted up to ten thousand.")
class QueueDepth:
    """Of the jobs you may see."""

    queued: int = strawberry.field(description="Due: a worker may have them now.")
    scheduled: int = strawberry.field(description="Waiting for their time, or for their retry.")
    leased: int = strawberry.field(description="With a worker.")
    dead: int = strawberry.field(description="Dead letters.")
    is_exact: bool = strawberry.field(description="Whether no more are queued and scheduled than were counted.")


@strawberry.type(description="What has been going on in a queue in the last five minutes, per minute.")
class QueueRates:
    """As the servers saw it; a few seconds behind."""

    enqueued: float = strawberry.field(description="Jobs enqueued per minute.")
    started: float = strawberry.field(description="Leases given per minute.")
    succeeded: float = strawberry.field(description="Jobs done per minute.")
    failed: float = strawberry.field(description="Attempts that failed per minute.")


@strawberry.type(description="A pause: nothing is leased from the queue; what is leased goes on.")
class QueuePause:
    """Ends with `resumeQueue`."""

    at: datetime = strawberry.field(description="Since when.")
    by: str = strawberry.field(description="Who paused it.")
    is_for_every_tenant: bool = strawberry.field(description="Or only for its own tenant's jobs.")


@strawberry.type(description="A worker that has asked for a queue in the last two minutes.")
class QueueWorker:
    """As its token names it."""

    id: strawberry.ID = strawberry.field(description="Of its token.")
    name: str = strawberry.field(description="Of its token.")
    last_seen_at: datetime = strawberry.field(description="When it last asked.")


@strawberry.type(description="A lane that jobs wait in; your part of it.")
class Queue:
    """Made from what is in it."""

    name: str = strawberry.field(description="As jobs name it.")
    depth: QueueDepth = strawberry.field(description="How many jobs are in it.")
    oldest_eligible_secs: float | None = strawberry.field(
        description="Seconds that the job that has waited longest has been due; null when none is."
    )
    rates: QueueRates = strawberry.field(description="How busy it is.")
    is_paused: bool = strawberry.field(description="Whether nothing is leased from it.")
    pause: QueuePause | None = strawberry.field(description="Since when, and by whom.")
    workers: list[QueueWorker] = strawberry.field(description="Who has asked for it lately, the newest first.")

    @classmethod
    def of(cls, view: QueueView) -> "Queue":
        """From the service."""
        stats = view.stats
        pause = None
        if stats.paused_at is not None:
            pause = QueuePause(
                at=stats.paused_at, by=stats.paused_by or "", is_for_every_tenant=bool(stats.is_paused_for_all)
            )
        return cls(
            name=stats.name,
            depth=QueueDepth(
                queued=stats.queued,
                scheduled=stats.scheduled,
                leased=stats.leased,
                dead=stats.dead,
                is_exact=not stats.is_bounded,
            ),
            oldest_eligible_secs=stats.oldest_secs,
            rates=QueueRates(
                enqueued=stats.enqueued / _MINUTES,
                started=stats.started / _MINUTES,
                succeeded=stats.succeeded / _MINUTES,
                failed=stats.failed / _MINUTES,
            ),
            is_paused=pause is not None,
            pause=pause,
            workers=[
                QueueWorker(id=strawberry.ID(str(w.id)), name=w.name, last_seen_at=w.seen_at) for w in view.workers
            ],
        )


@strawberry.type(description="A queue in a list.")
class QueueEdge:
    """Relay's own shape."""

    cursor: str = strawberry.field(description="Opaque.")
    node: Queue = strawberry.field(description="The queue.")


@strawberry.type(description="A page of queues, by name (Relay).")
class QueueConnection:
    """Relay's own shape."""

    edges: list[QueueEdge] = strawberry.field(description="The queues, each with its cursor.")
    nodes: list[Queue] = strawberry.field(description="The queues.")
    page_info: PageInfo = strawberry.field(description="Where it begins and ends.")

    @classmethod
    def of(cls, page: Page[QueueView]) -> "QueueConnection":
        """From the service."""
        edges = [QueueEdge(cursor=cursor_of(SORT, view.stats.name), node=Queue.of(view)) for view in page.items]
        return cls(
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=PageInfo.of(page, [edge.cursor for edge in edges]),
        )
