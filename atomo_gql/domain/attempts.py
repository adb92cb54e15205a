"""The attempts of a job, as its events tell them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from atomo_gql.domain.events import EventType


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseEvent:
    """What happened to a job under a lease, without what was sent and what came back."""

    at: datetime
    type: EventType
    attempt: int | None
    error: str | None
    worker_id: UUID | None
    worker_name: str | None


class AttemptOutcome(StrEnum):
    """How an attempt ended."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # retried or not
    EXPIRED = "expired"  # the lease ran out
    RELEASED = "released"  # handed back; not counted
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One lease of a job."""

    number: int
    worker_id: UUID | None
    worker_name: str | None
    began_at: datetime
    ended_at: datetime | None = None
    outcome: AttemptOutcome = AttemptOutcome.RUNNING
    error: str | None = None


_OUTCOMES = {
    EventType.SUCCEEDED: AttemptOutcome.SUCCEEDED,
    EventType.FAILED: AttemptOutcome.FAILED,
    EventType.RECLAIMED: AttemptOutcome.EXPIRED,
    EventType.RELEASED: AttemptOutcome.RELEASED,
    EventType.CANCELLED: AttemptOutcome.CANCELLED,
}


def attempts_of(events: Iterable[LeaseEvent]) -> list[Attempt]:
    """The attempts, oldest first; the last may still be running."""
    attempts: list[Attempt] = []
    for event in events:
        if event.type is EventType.LEASED:
            attempts.append(
                Attempt(
                    number=event.attempt or 0,
                    worker_id=event.worker_id,
                    worker_name=event.worker_name,
                    began_at=event.at,
                )
            )
        elif attempts and attempts[-1].ended_at is None:
            attempts[-1] = replace(attempts[-1], ended_at=event.at, outcome=_outcome(event), error=event.error)
    return attempts


def _outcome(event: LeaseEvent) -> AttemptOutcome:
    if event.type is EventType.DEAD:  # by the worker's word, or because the last lease ran out
        return AttemptOutcome.EXPIRED if event.worker_name is None else AttemptOutcome.FAILED
    return _OUTCOMES[event.type]
