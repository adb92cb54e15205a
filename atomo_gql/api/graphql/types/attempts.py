"""Attempts, and why a job waits, as GraphQL shows them."""

from datetime import UTC, datetime, timedelta
from enum import Enum

import strawberry

from atomo_gql.domain import attempts as domain
from atomo_gql.domain.jobs import LATELY, Waiting
from atomo_gql.service.jobs import MOST_AHEAD


@strawberry.enum(description="How an attempt ended.")
class AttemptOutcome(Enum):
    """Upper-case here."""

    RUNNING = strawberry.enum_value(domain.AttemptOutcome.RUNNING, description="It has not: a worker has the job.")
    SUCCEEDED = strawberry.enum_value(domain.AttemptOutcome.SUCCEEDED, description="The work is done.")
    FAILED = strawberry.enum_value(domain.AttemptOutcome.FAILED, description="The worker said so.")
    EXPIRED = strawberry.enum_value(domain.AttemptOutcome.EXPIRED, description="Its lease ran out.")
    RELEASED = strawberry.enum_value(
        domain.AttemptOutcome.RELEASED, description="The worker handed the job back; not counted."
    )
    CANCELLED = strawberry.enum_value(domain.AttemptOutcome.CANCELLED, description="Somebody cancelled the job.")


@strawberry.type(description="A worker, as its token names it.")
class Worker:
    """A token's id and name."""

    id: strawberry.ID = strawberry.field(description="Of its token.")
    name: str | None = strawberry.field(description="Of its token.")


@strawberry.type(description="One lease of a job.")
class Attempt:
    """Made from the events."""

    number: int = strawberry.field(description="1, 2, 3 …; one that was handed back is counted again.")
    worker: Worker | None = strawberry.field(description="Who had the job.")
    began_at: datetime = strawberry.field(description="When it was leased.")
    ended_at: datetime | None = strawberry.field(description="When it ended; null while it runs.")
    duration_ms: float = strawberry.field(description="Milliseconds from its begin to its end, or to now.")
    outcome: AttemptOutcome = strawberry.field(description="How it ended.")
    error: str | None = strawberry.field(description="Why it failed.")

    @classmethod
    def of(cls, attempt: domain.Attempt) -> "Attempt":
        """From the domain."""
        return cls(
            number=attempt.number,
            worker=worker_of(attempt),
            began_at=attempt.began_at,
            ended_at=attempt.ended_at,
            duration_ms=milliseconds(attempt.began_at, attempt.ended_at),
            outcome=AttemptOutcome(attempt.outcome),
            error=attempt.error,
        )


def worker_of(attempt: domain.Attempt) -> Worker | None:
    """Who had the job in this attempt."""
    if attempt.worker_id is None:
        return None
    return Worker(id=strawberry.ID(str(attempt.worker_id)), name=attempt.worker_name)


def milliseconds(began: datetime, ended: datetime | None) -> float:
    """From one moment to the other, or to now."""
    return max(0.0, ((ended or datetime.now(UTC)) - began) / timedelta(milliseconds=1))


@strawberry.enum(description="Why a job that is queued is not running.")
class WaitingReason(Enum):
    """The first of these that is true."""

    QUEUE_PAUSED = strawberry.enum_value("queue_paused", description="Somebody paused its queue.")
    NOT_DUE = strawberry.enum_value("not_due", description="Its time, or that of its retry, has not come.")
    NO_WORKER = strawberry.enum_value("no_worker", description="No worker has asked for its queue lately.")
    BEHIND_OTHERS = strawberry.enum_value("behind_others", description="Other jobs of its queue go first.")
    NEXT = strawberry.enum_value("next", description="It is the next; no worker has had room for it yet.")


@strawberry.type(description="Why a job that is queued is not running.")
class WaitingFor:
    """For people, and for programs."""

    reason: WaitingReason = strawberry.field(description="The first reason that holds.")
    message: str = strawberry.field(description="For people.")
    until: datetime | None = strawberry.field(description="From when it may run; with NOT_DUE.")
    ahead: int | None = strawberry.field(
        description="Jobs of its queue that go first, counted up to a thousand; null when it is not due."
    )
    worker_seen_at: datetime | None = strawberry.field(description="When a worker last asked for its queue.")

    @classmethod
    def of(cls, waiting: Waiting) -> "WaitingFor":
        """From the domain."""
        reason, message = _explain(waiting)
        return cls(
            reason=reason,
            message=message,
            until=None if waiting.is_due else waiting.eligible_at,
            ahead=waiting.ahead and min(waiting.ahead, MOST_AHEAD),
            worker_seen_at=waiting.worker_seen_at,
        )


def _explain(waiting: Waiting) -> tuple[WaitingReason, str]:
    seen = waiting.worker_seen_at
    if waiting.paused_at is not None:
        return (
            WaitingReason.QUEUE_PAUSED,
            f"{waiting.paused_by} paused its queue at {_shown(waiting.paused_at)}",
        )
    if not waiting.is_due:
        return WaitingReason.NOT_DUE, f"not due until {_shown(waiting.eligible_at)}"
    if seen is None or datetime.now(UTC) - seen > LATELY:
        when = "" if seen is None else f"; the last one did at {_shown(seen)}"
        return WaitingReason.NO_WORKER, f"no worker has asked for its queue lately{when}"
    if waiting.ahead:
        many = f"{MOST_AHEAD} or more" if waiting.ahead >= MOST_AHEAD else str(waiting.ahead)
        return WaitingReason.BEHIND_OTHERS, f"behind {many} other{'s' if waiting.ahead > 1 else ''} of its queue"
    return WaitingReason.NEXT, "the next of its queue; no worker has had room for it yet"


def _shown(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
