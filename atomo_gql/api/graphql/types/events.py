"""Events of jobs and of runs, as GraphQL shows them."""

from datetime import datetime
from enum import Enum
from typing import Any, Self

import strawberry
from strawberry.scalars import JSON

from atomo_gql.api.graphql.context import Info
from atomo_gql.domain import events as domain
from atomo_gql.domain.errors import BadUserInput


@strawberry.enum(description="What can happen.")
class EventType(Enum):
    """Upper-case here; the store has them in lower case."""

    ENQUEUED = strawberry.enum_value(domain.EventType.ENQUEUED, description="A job was made.")
    LEASED = strawberry.enum_value(domain.EventType.LEASED, description="A worker has it.")
    RELEASED = strawberry.enum_value(
        domain.EventType.RELEASED, description="Its worker handed it back; the attempt is not counted."
    )
    RECLAIMED = strawberry.enum_value(domain.EventType.RECLAIMED, description="Its lease ran out; it is queued again.")
    FAILED = strawberry.enum_value(domain.EventType.FAILED, description="The attempt failed; it waits for its retry.")
    SUCCEEDED = strawberry.enum_value(domain.EventType.SUCCEEDED, description="Done.")
    DEAD = strawberry.enum_value(
        domain.EventType.DEAD, description="Attempts used up, not retryable, or the last lease ran out."
    )
    RETRIED = strawberry.enum_value(
        domain.EventType.RETRIED, description="Queued again by hand; a run goes on by hand."
    )
    CANCELLED = strawberry.enum_value(domain.EventType.CANCELLED, description="Ended by hand.")
    PAUSED = strawberry.enum_value(domain.EventType.PAUSED, description="A queue, or a workflow, was paused.")
    RESUMED = strawberry.enum_value(
        domain.EventType.RESUMED, description="A pause ended, or a binding that was set aside goes on."
    )
    MINTED = strawberry.enum_value(domain.EventType.MINTED, description="A worker token was made.")
    ROTATED = strawberry.enum_value(domain.EventType.ROTATED, description="A successor of a worker token was minted.")
    REVOKED = strawberry.enum_value(domain.EventType.REVOKED, description="A worker token was revoked.")
    REGISTERED = strawberry.enum_value(
        domain.EventType.REGISTERED, description="A version of a workflow's definition, or a binding, was registered."
    )
    REMOVED = strawberry.enum_value(domain.EventType.REMOVED, description="A workflow or a binding was removed.")
    SET_ASIDE = strawberry.enum_value(
        domain.EventType.SET_ASIDE, description="A binding failed, and fires no more until it is resumed."
    )
    RECORDED = strawberry.enum_value(
        domain.EventType.RECORDED, description="Something happened to a model of an application."
    )
    RUN_STARTED = strawberry.enum_value(domain.EventType.RUN_STARTED, description="A run of a workflow began.")
    STEP_STARTED = strawberry.enum_value(domain.EventType.STEP_STARTED, description="The branches of a group began.")
    STEP_WAITING = strawberry.enum_value(
        domain.EventType.STEP_WAITING, description="A step waits for its job's end, or for a time."
    )
    STEP_COMPLETED = strawberry.enum_value(domain.EventType.STEP_COMPLETED, description="A step is done.")
    STEP_FAILED = strawberry.enum_value(
        domain.EventType.STEP_FAILED, description="A step failed; with the time of its retry, if there is one."
    )
    STEP_SKIPPED = strawberry.enum_value(domain.EventType.STEP_SKIPPED, description="A step's condition was false.")
    RUN_COMPLETED = strawberry.enum_value(domain.EventType.RUN_COMPLETED, description="All steps of a run are done.")
    RUN_FAILED = strawberry.enum_value(domain.EventType.RUN_FAILED, description="A run failed, or ran out of time.")


def position_of(place: domain.Place) -> str:
    """A place in the log, as callers keep it."""
    return f"{place.xid}.{place.position}"


def place_of(field: str, position: str) -> domain.Place:
    """The place that a caller kept.

    Raises:
        BadUserInput: it is none that was given.
    """
    xid, _, number = position.partition(".")
    if not all(part.isascii() and part.isdigit() and len(part) <= 19 for part in (xid, number)) or (
        max(int(xid), int(number)) >= 2**63
    ):
        raise BadUserInput(f"{field} must be a position that an event or a page of events gave", field=field)
    return domain.Place(int(xid), int(number))


@strawberry.type
class Fact:
    """What every event shows, whatever it is a part of."""

    position: str = strawberry.field(description="Its place in the whole log; pass it as `after` to go on from there.")
    version: int = strawberry.field(description="Its place in the life it is a part of: 1, 2, 3 … without gaps.")
    type: EventType = strawberry.field(description="What happened.")
    at: datetime = strawberry.field(description="When, by the database's clock.")
    actor: str = strawberry.field(description="user:<sub>, worker:<token id> or system:<who>.")
    tenant_id: str | None = strawberry.field(description="Whose it is.")
    trace: str | None = strawberry.field(description="W3C traceparent of the request that caused it.")
    fact: strawberry.Private[domain.Event]

    @strawberry.field(description="What was sent, or came back.")
    def data(self, info: Info) -> JSON:
        """It may be large."""
        info.context.budget.spend(self.fact.size)
        return JSON(self.fact.data)

    @classmethod
    def made(cls, event: domain.Event, **more: Any) -> Self:
        """From the domain, with what this type shows besides."""
        return cls(
            position=position_of(event.place),
            version=event.version,
            type=EventType(event.type),
            at=event.at,
            actor=event.actor,
            tenant_id=event.tenant,
            trace=event.trace,
            fact=event,
            **more,
        )


@strawberry.type(description="An immutable fact in a job's life.")
class JobEvent(Fact):
    """One row of the event store."""

    job_id: strawberry.ID = strawberry.field(description="Whose life it is.")

    @classmethod
    def of(cls, event: domain.Event) -> "JobEvent":
        """From the domain."""
        return cls.made(event, job_id=strawberry.ID(str(event.stream_id)))


@strawberry.type(description="An immutable fact in the life of a workflow's run.")
class WorkflowRunEvent(Fact):
    """One row of the event store."""

    run_id: strawberry.ID = strawberry.field(description="Whose life it is.")
    step: str | None = strawberry.field(description="The step that it happened to; null: the run itself.")

    @classmethod
    def of(cls, event: domain.Event) -> "WorkflowRunEvent":
        """From the domain."""
        return cls.made(event, run_id=strawberry.ID(str(event.stream_id)), step=event.data.get("step"))
