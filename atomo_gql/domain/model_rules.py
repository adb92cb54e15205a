"""The rules for what callers say of models: events to record, and bindings."""

from atomo_gql.domain import rules
from atomo_gql.domain.actions import CHANGES, DEFAULT_QUEUE, JOB, TRANSITIONS, NewBinding, NewEvent
from atomo_gql.domain.errors import BadUserInput
from atomo_gql.domain.jobs import Json
from atomo_gql.domain.reading import read_object, read_text
from atomo_gql.domain.rules import MAX_KEY, check_json, check_name, check_queue

MAX_FIELDS = 200
MAX_EVENT_DEPTH = rules.MAX_DEPTH - 10  # levels of nesting: it goes into the payloads of jobs, and the contexts of runs


def check_event(field: str, model: str, event: str) -> str:
    """The name of an event that a model can have.

    Raises:
        BadUserInput: it has no such event.
    """
    known = (*CHANGES, *(type_.value for type_ in TRANSITIONS)) if model == JOB else CHANGES
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
    known, required = ("model", "event", "action", "queue", "condition", "input"), ("model", "event", "action")
    source = read_object("", source, known, required, whole="binding")
    check_json("binding", source)
    model = check_name("model", read_text("model", source["model"]))
    condition = source.get("condition")
    condition = {} if condition is None else read_object("condition", condition, ("changedAny", "fieldEquals"))
    equals = condition.get("fieldEquals")
    if equals is not None and (not isinstance(equals, dict) or not 0 < len(equals) <= MAX_FIELDS):
        place = "condition.fieldEquals"
        raise BadUserInput(f"{place} must be an object of 1 to {MAX_FIELDS} fields", field=place)
    queue = source.get("queue")
    return NewBinding(
        model=model,
        event=check_event("event", model, read_text("event", source["event"])),
        action=check_name("action", read_text("action", source["action"])),
        queue=DEFAULT_QUEUE if queue is None else check_queue("queue", read_text("queue", queue)),
        changed_any=_fields("condition.changedAny", condition.get("changedAny")),
        field_equals=equals,
        input=_fields("input", source.get("input")),
    )


def _fields(place: str, source: Json) -> tuple[str, ...] | None:
    if source is None:
        return None
    if not isinstance(source, list) or not 0 < len(source) <= MAX_FIELDS:
        raise BadUserInput(f"{place} must be a list of 1 to {MAX_FIELDS} names of fields", field=place)
    return tuple(check_name(f"{place}[{i}]", read_text(f"{place}[{i}]", name), 500) for i, name in enumerate(source))
