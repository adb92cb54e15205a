"""Events of models, and the bindings that make jobs of them.

Applications record what happens to their models; the transitions of jobs are events of the model `Job`. A binding says
which action fires on which event.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from atomo_gql.domain import rules
from atomo_gql.domain.errors import BadUserInput
from atomo_gql.domain.events import Event, EventType, Place
from atomo_gql.domain.jobs import JobStatus, Json, NewJob
from atomo_gql.domain.rules import MAX_KEY, check_json, check_name, check_queue
from atomo_gql.domain.workflows.condition import look_up, same

JOB = "Job"  # the model of our own events
MAX_DEPTH = 16  # events and runs that lead one to another; what is deeper fires nothing
MAX_EVENT_DEPTH = rules.MAX_DEPTH - 10  # levels of nesting: it goes into the payloads of jobs, and the contexts of runs
MAX_FIELDS = 200
DEFAULT_QUEUE = "actions"

CHANGES = ("created", "updated", "deleted")
_STATUS = {
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
    origin: str | None  # the action, or `workflow:<name>`, that did it
    actor: str
    at: datetime
    tenant: str | None
    place: Place
    trace: str | None = None
    depth: int = 0
    transition: str | None = None  # of a job


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
            and event.origin != what.action
            and event.place.xid > self.since_xid
            and event.depth < MAX_DEPTH
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


def check_event(field: str, model: str, event: str) -> str:
    """The name of an event that a model can have.

    Raises:
        BadUserInput: it has no such event.
    """
    known = (*CHANGES, *(type_.value for type_ in _STATUS)) if model == JOB else CHANGES
    if event not in known:
        raise BadUserInput(f"{field} must be one of {', '.join(known)}", field=field)
    return event


def check_new_event(event: NewEvent) -> NewEvent:
    """Every rule of recording but that of the size.

    Raises:
        BadUserInput: names the field and the rule.
    """
    check_name("model", event.model)
    if event.model == JOB:
        raise BadUserInput("model must not be Job: what happens to jobs is recorded by the service", field="model")
    check_event("event", event.model, event.event)
    check_name("id", event.entity_id, MAX_KEY)
    check_json("data", event.data, MAX_EVENT_DEPTH)
    if event.previous is not None and not isinstance(event.previous, dict):
        raise BadUserInput("previousData must be an object", field="previousData")
    check_json("previousData", event.previous, MAX_EVENT_DEPTH)
    if event.origin is not None:
        check_name("origin", event.origin, MAX_KEY)
    if event.event_id is not None:
        check_name("eventId", event.event_id, MAX_KEY - 201)  # with an action it makes an idempotency key
    return event


def parse_binding(source: Json) -> NewBinding:
    """A binding from JSON.

    Raises:
        BadUserInput: names the field and the rule.
    """
    if not isinstance(source, dict):
        raise BadUserInput("a binding must be an object")
    check_json("binding", source)
    known = ("model", "event", "action", "queue", "condition", "input")
    _only(source, known, "")
    for name in ("model", "event", "action"):
        if name not in source:
            raise BadUserInput(f"{name} is required", field=name)
    model = check_name("model", _text("model", source["model"]))
    condition = source.get("condition")
    if condition is not None and not isinstance(condition, dict):
        raise BadUserInput("condition must be an object", field="condition")
    condition = condition or {}
    _only(condition, ("changedAny", "fieldEquals"), "condition.")
    equals = condition.get("fieldEquals")
    if equals is not None and (not isinstance(equals, dict) or not 0 < len(equals) <= MAX_FIELDS):
        place = "condition.fieldEquals"
        raise BadUserInput(f"{place} must be an object of 1 to {MAX_FIELDS} fields", field=place)
    queue = source.get("queue")
    return NewBinding(
        model=model,
        event=check_event("event", model, _text("event", source["event"])),
        action=check_name("action", _text("action", source["action"])),
        queue=DEFAULT_QUEUE if queue is None else check_queue("queue", _text("queue", queue)),
        changed_any=_fields("condition.changedAny", condition.get("changedAny")),
        field_equals=equals,
        input=_fields("input", source.get("input")),
    )


def event_of_job(event: Event, kept: Json, kind: str, queue: str) -> ModelEvent:
    """A transition of a job as an event of the model `Job`. `kept` is the data of its first event, without payload."""
    data = {"id": str(event.stream_id), "queue": queue, "kind": kind, "status": _STATUS[event.type].value}
    for name in ("attempt", "error", "result", "reason"):
        if name in event.data:
            data[name] = event.data[name]
    if "runId" in kept:
        data["runId"] = kept["runId"]
    is_new = event.type is EventType.ENQUEUED
    before = _BEFORE.get(event.type, JobStatus.LEASED)
    return ModelEvent(
        event_id=f"{event.stream_id}:{event.version}",
        model=JOB,
        event="created" if is_new else "updated",
        entity_id=str(event.stream_id),
        data=data,
        previous=None if is_new or before is None else {**data, "status": before.value},
        origin=kept.get("origin"),
        actor=event.actor,
        at=event.at,
        tenant=event.tenant,
        place=event.place,
        trace=event.trace,
        depth=kept.get("depth", 0),
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
        origin=data.get("origin"),
        actor=event.actor,
        at=event.at,
        tenant=event.tenant,
        place=event.place,
        trace=event.trace,
    )


def _has_changed(field: str, event: ModelEvent) -> bool:
    old = event.previous if isinstance(event.previous, dict) else {}
    new = event.data if isinstance(event.data, dict) else {}
    return not same(look_up(field, old), look_up(field, new))


def _equals(wanted: dict[str, Json], event: ModelEvent) -> bool:
    data = event.data if isinstance(event.data, dict) else {}
    return all(same(look_up(field, data), value) for field, value in wanted.items())


def _fields(place: str, source: Json) -> tuple[str, ...] | None:
    if source is None:
        return None
    if not isinstance(source, list) or not 0 < len(source) <= MAX_FIELDS:
        raise BadUserInput(f"{place} must be a list of 1 to {MAX_FIELDS} names of fields", field=place)
    return tuple(check_name(f"{place}[{i}]", _text(f"{place}[{i}]", name), 500) for i, name in enumerate(source))


def _only(source: Json, known: tuple[str, ...], at: str) -> None:
    for name in source:
        if name not in known:
            raise BadUserInput(
                f"{at}{name[:100]} is not a field here; there may be: {', '.join(known)}", field=f"{at}{name[:100]}"
            )


def _text(place: str, source: Json) -> str:
    if not isinstance(source, str):
        raise BadUserInput(f"{place} must be a string", field=place)
    return source
