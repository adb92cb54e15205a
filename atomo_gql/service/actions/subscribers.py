"""Whom events are for: bindings, and the workflows that events start."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from atomo_gql.domain.actions import (
    JOB,
    TRANSITIONS,
    Binding,
    ModelEvent,
    event_of_job,
    event_of_record,
    moment,
)
from atomo_gql.domain.events import Event, EventType, Stream
from atomo_gql.service.workflows.starting import as_trigger
from atomo_gql.store.actions import TriggerRow
from atomo_gql.store.runs import RunRow

ACTOR = "system:actions"


@dataclass(frozen=True, slots=True)
class Subscribers:
    """Whom events are for."""

    bindings: Sequence[Binding]
    triggers: Sequence[TriggerRow]

    @property
    def is_nobody(self) -> bool:
        """Whether there is none."""
        return not self.bindings and not self.triggers

    @property
    def types(self) -> list[EventType] | None:
        """The transitions of jobs that somebody wants; None: there are none."""
        named = [b.what.event for b in self.bindings if b.what.model == JOB]
        named += [t.event_type for t in self.triggers if t.model == JOB]
        if not named:
            return None
        if "updated" in named:
            return [type_ for type_ in TRANSITIONS if type_ is not EventType.ENQUEUED or "created" in named]
        return sorted(
            {EventType.ENQUEUED if name == "created" else EventType(name) for name in named if name != "deleted"}
        )


def run_of(trigger: TriggerRow, event: ModelEvent) -> RunRow:
    """The run that an event begins."""
    shown = {
        "model": event.model,
        "event": event.event,
        "id": event.entity_id,
        "eventId": event.event_id,
        "data": event.data,
        "previousData": event.previous,
        "actor": event.actor,
        "timestamp": moment(event.at),
        "origin": event.origin,
    }
    return RunRow(
        workflow_id=trigger.id,
        workflow=trigger.name,
        definition_version=trigger.definition_version,
        tenant=event.tenant or "",
        actor=ACTOR,
        trace=event.trace,
        key=f"event:{event.event_id}",
        via=orjson.dumps(event.via),
        timeout_secs=trigger.timeout_secs,
        trigger=as_trigger("event", model=event.model, event=event.event, eventId=event.event_id),
        context=orjson.dumps({"event": shown}),
    )


def starts(trigger: TriggerRow, event: ModelEvent) -> bool:
    """Whether it begins on that event."""
    row = trigger
    return (
        row.model == event.model
        and row.event_type in (event.event, event.transition)
        and row.tenant in ("", event.tenant or "")
        and event.may_lead_to(f"workflow:{row.name}")
        and event.place.xid > row.since_xid
    )


def read_event(event: Event, kept: dict[UUID, Any]) -> ModelEvent | None:
    """An event of the log as one of a model; None: retention took its job's story. `kept`: the beginnings of jobs."""
    if event.stream is Stream.MODEL:
        return event_of_record(event)
    beginning = kept.get(event.stream_id)
    if beginning is None:
        return None
    return event_of_job(event, beginning, event.kind or "", event.queue or "")
