"""Events of models, and the bindings that make jobs of them.

Applications record what happens to their models; the transitions of jobs are events of the model `Job`. A binding says
which action fires on which event.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from atomo_gql.domain.events import Event, EventType, Place
from atomo_gql.domain.jobs import JobStatus, Json, NewJob
from atomo_gql.domain.workflows.condition import look_up, same

JOB = "Job"  # the model of our own events
MAX_CHAIN = 16  # actions and workflows that lead one to another; what so many led to fires nothing
DEFAULT_QUEUE = "actions"

CHANGES = ("created", "updated", "deleted")
TRANSITIONS = {  # of a job, and where it is then
    EventType.ENQUEUED: JobStatus.QUEUED,
    EventType.LEASED: JobStatus.LEASED,
    EventType.RELEASED: JobStatus.QUEUED,
    EventType.RECLAIMED: JobStatus.QUEUED,
    EventType.FAILED: JobStatus.QUEUED,
    EventType.SUCCEEDED: JobStatus.SUCCEEDED,
    EventType.DEAD: JobStatus.DEAD,
    EventType.RETRIED: JobStatus.QUEUED,
    EventType.CANCELLED: JobStatus.DEAD,
}
_BEFORE = {
    EventType.LEASED: JobStatus.QUEUED,
    EventType.RETRIED: JobStatus.DEAD,
    EventType.CANCELLED: None,  # queued or leased
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """Something to record, its fields already checked."""

    model: str
    event: str  # created, updated, deleted
    entity_id: str
    data: Json
    previous: Json = None
    origin: str | None = None
    event_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEvent:
    """Something that happened to a model."""

    event_id: str
    model: str
    event: str
    entity_id: str
    data: Json
    previous: Json
    actor: str
    at: datetime
    tenant: str | None
    place: Place
    trace: str | None = None
    via: tuple[str, ...] = ()  # the actions, and `workflow:<name>`s, that led to it, the first of them first
    transition: str | None = None  # of a job

    @property
    def origin(self) -> str | None:
        """Which of them did it."""
        return self.via[-1] if self.via else None

    def may_lead_to(self, name: str) -> bool:
        """Whether that action, or `workflow:<name>`, did not lead to it, and the chain can be longer."""
        return len(self.via) < MAX_CHAIN and name not in self.via


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBinding:
    """A binding to register, its fields already checked."""

    model: str
    event: str
    action: str
    queue: str = DEFAULT_QUEUE
    changed_any: tuple[str, ...] | None = None
    field_equals: dict[str, Json] | None = None
    input: tuple[str, ...] | None = None

    @property
    def condition(self) -> Json:
        """As it is kept and shown; None: there is none."""
        parts: dict[str, Json] = {}
        if self.changed_any is not None:
            parts["changedAny"] = list(self.changed_any)
        if self.field_equals is not None:
            parts["fieldEquals"] = self.field_equals
        return parts or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A binding as it stands."""

    id: UUID
    tenant: str | None  # None: of the service, for every tenant's events
    what: NewBinding
    since_xid: int  # events of older transactions are not its own
    registered_at: datetime
    registered_by: str
    source_file: str | None = None
    set_aside_at: datetime | None = None
    error: str | None = None
    at: Place | None = None  # where it is in the log; None: with the others

    def matches(self, event: ModelEvent) -> bool:
        """Whether it fires on that event."""
        what = self.what
        return (
            what.model == event.model
            and what.event in (event.event, event.transition)
            and (self.tenant is None or self.tenant == event.tenant)
            and event.may_lead_to(what.action)
            and event.place.xid > self.since_xid
            and (what.changed_any is None or any(_has_changed(field, event) for field in what.changed_any))
            and (what.field_equals is None or _equals(what.field_equals, event))
        )


def job_of(binding: NewBinding, event: ModelEvent) -> NewJob:
    """The job that a match makes."""
    data = event.data
    if binding.input is not None:
        data = {field: look_up(field, data if isinstance(data, dict) else {}) for field in binding.input}
    payload = {
        "action": binding.action,
        "model": event.model,
        "event": event.event,
        "eventId": event.event_id,
        "input": data,
        "actor": event.actor,
        "timestamp": moment(event.at),
        "origin": event.origin,
    }
    key = f"{event.event_id}:{binding.action}"
    return NewJob(queue=binding.queue, kind=binding.action, payload=payload, idempotency_key=key)


def moment(at: datetime) -> str:
    """As the wire has it (RFC 3339)."""
    return at.isoformat().replace("+00:00", "Z")


def event_of_job(event: Event, kept: Json, kind: str, queue: str) -> ModelEvent:
    """A transition of a job as an event of the model `Job`. `kept` is the data of its first event, without payload."""
    known = {"id": str(event.stream_id), "queue": queue, "kind": kind}
    if "runId" in kept:
        known["runId"] = kept["runId"]
    said = {name: event.data[name] for name in ("attempt", "error", "result", "reason") if name in event.data}
    data = {**known, "status": TRANSITIONS[event.type].value, **said}
    is_new = event.type is EventType.ENQUEUED
    before = _BEFORE.get(event.type, JobStatus.LEASED)
    if event.type is EventType.DEAD and "leaseId" not in event.data:  # its deadline passed before anybody had it
        before = JobStatus.QUEUED
    return ModelEvent(
        event_id=f"{event.stream_id}:{event.version}",
        model=JOB,
        event="created" if is_new else "updated",
        entity_id=str(event.stream_id),
        data=data,
        previous=None if is_new or before is None else {**known, "status": before.value},
        actor=event.actor,
        at=event.at,
        tenant=event.tenant,
        place=event.place,
        trace=event.trace,
        via=tuple(kept.get("via", ())),
        transition=event.type.value,
    )


def event_of_record(event: Event) -> ModelEvent:
    """A recorded event, as the log has it."""
    data = event.data
    return ModelEvent(
        event_id=data["eventId"],
        model=data["model"],
        event=data["event"],
        entity_id=data["id"],
        data=data["data"],
        previous=data.get("previousData"),
        actor=event.actor,
        at=event.at,
        tenant=event.tenant,
        place=event.place,
        trace=event.trace,
        via=(data["origin"],) if data.get("origin") else (),
    )


def _has_changed(field: str, event: ModelEvent) -> bool:
    old = event.previous if isinstance(event.previous, dict) else {}
    new = event.data if isinstance(event.data, dict) else {}
    return not same(look_up(field, old), look_up(field, new))


def _equals(wanted: dict[str, Json], event: ModelEvent) -> bool:
    data = event.data if isinstance(event.data, dict) else {}
    return all(same(look_up(field, data), value) for field, value in wanted.items())
