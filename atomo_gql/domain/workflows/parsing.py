"""Reading a definition from JSON. Every refusal names the step, the field and the rule."""

import re
from collections.abc import Mapping

from atomo_gql.domain.errors import BadUserInput
from atomo_gql.domain.jobs import Json
from atomo_gql.domain.model_rules import check_event
from atomo_gql.domain.reading import read_object, read_tagged, read_text, read_whole
from atomo_gql.domain.rules import (
    MAX_ATTEMPTS,
    MAX_KEY,
    MAX_NAME,
    MAX_PRIORITY,
    MAX_TIMEOUT_SECS,
    check_json,
    check_name,
    check_queue,
    check_text,
)
from atomo_gql.domain.workflows.condition import Condition, Operator
from atomo_gql.domain.workflows.definition import (
    Action,
    Definition,
    Delay,
    JobAction,
    Manual,
    OnEvent,
    OnFailure,
    Parallel,
    Schedule,
    SetVariable,
    Step,
    Trigger,
)
from atomo_gql.domain.workflows.rendering import Renderer

MAX_STEPS = 200  # those of branches included
MAX_BRANCHES = 50
MAX_DELAY_SECS = 31_536_000  # a year
MAX_RUN_SECS = 31_536_000
RESERVED = ("run", "steps")  # names of the scope that no context may take
NO_NAMES = ("runs", ".", "..")  # that a path of REST could not tell from something else

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TEMPLATE = "{{"
_LIKE_A_KEY = re.compile(r":[0-9]+\Z")
_FIELDS = ("name", "description", "trigger", "timeout_secs", "steps")


def parse_definition(source: Json, renderer: Renderer) -> Definition:
    """Read a definition.

    Raises:
        BadUserInput: names the place, as in `steps[2].action.Job.queue`, and the rule.
    """
    check_json("definition", source)
    body = read_object("", source, _FIELDS, ("name", "steps"), whole="definition")
    name = _identifier("name", body["name"])
    if name in NO_NAMES:
        raise BadUserInput(f"name must not be {', '.join(NO_NAMES)}: it has to stand in a path", field="name")
    trigger = _trigger(body.get("trigger", "Manual"))
    reader = _Reader(renderer)
    steps = reader.sequence("steps", body["steps"])
    timeout, description = body.get("timeout_secs"), body.get("description")
    return Definition(
        name=name,
        trigger=trigger,
        steps=steps,
        timeout_secs=None if timeout is None else read_whole("timeout_secs", timeout, 1, MAX_RUN_SECS),
        description=None
        if description is None
        else check_text("description", read_text("description", description), 2_000),
    )


class _Reader:
    """Reads steps, and keeps the names that were used."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._named: dict[str, str] = {}

    def sequence(self, place: str, source: Json, *, in_branch: bool = False) -> tuple[Step, ...]:
        if not isinstance(source, list) or not source:
            raise BadUserInput(f"{place} must be a list of at least one step", field=place)
        if len(source) > MAX_STEPS:
            raise BadUserInput(f"{place} must hold at most {MAX_STEPS} steps, not {len(source)}", field=place)
        return tuple(self._step(f"{place}[{i}]", step, in_branch) for i, step in enumerate(source))

    def _step(self, place: str, source: Json, in_branch: bool) -> Step:
        known = ("name", "action", "parallel", "condition", "on_failure")
        body = read_object(place, source, known, ("name",))
        name = _identifier(f"{place}.name", body["name"])
        if _LIKE_A_KEY.search(name):
            raise BadUserInput(
                f"{place}.name must not end with a colon and a number, as the keys of further attempts do",
                field=f"{place}.name",
            )
        if name in self._named:
            raise BadUserInput(
                f"{place}.name must be unique; {self._named[name]} is called {name!r}, too", field=f"{place}.name"
            )
        self._named[name] = place
        if len(self._named) > MAX_STEPS:
            raise BadUserInput(f"steps must hold at most {MAX_STEPS} steps, those of branches included", field="steps")
        if ("action" in body) == ("parallel" in body):
            raise BadUserInput(f"{place} must have either action or parallel", field=place)
        if "parallel" in body:
            if in_branch:
                raise BadUserInput(f"{place}.parallel must not stand within another group", field=f"{place}.parallel")
            action: Action = self._parallel(f"{place}.parallel", body["parallel"])
        else:
            action = self._action(f"{place}.action", body["action"])
        condition = body.get("condition")
        return Step(
            name=name,
            action=action,
            condition=None if condition is None else self._condition(f"{place}.condition", condition),
            on_failure=_on_failure(f"{place}.on_failure", body.get("on_failure", "Stop"), action),
        )

    def _parallel(self, place: str, source: Json) -> Parallel:
        if not isinstance(source, list) or not 1 <= len(source) <= MAX_BRANCHES:
            raise BadUserInput(f"{place} must be a list of 1 to {MAX_BRANCHES} branches", field=place)
        branches = [
            self.sequence(f"{place}[{i}]", branch, in_branch=True)
            if isinstance(branch, list)
            else (self._step(f"{place}[{i}]", branch, True),)
            for i, branch in enumerate(source)
        ]
        return Parallel(branches=tuple(branches))

    def _action(self, place: str, source: Json) -> Action:
        actions = {"Job": self._job, "SetVariable": self._set_variable, "Delay": self._delay}
        kind, body = read_tagged(place, source, actions)
        return actions[kind](f"{place}.{kind}", body)

    def _job(self, place: str, source: Json) -> Action:
        body = read_object(
            place,
            source,
            ("queue", "kind", "payload", "idempotency_key", "max_attempts", "priority", "timeout_secs", "wait"),
            ("queue", "kind"),
        )
        self._renderer.check(place, body)
        queue, kind = self._templated(place, body, "queue"), self._templated(place, body, "kind")
        if _TEMPLATE not in queue:
            check_queue(f"{place}.queue", queue)
        if _TEMPLATE not in kind:
            check_name(f"{place}.kind", kind)
        key = None if body.get("idempotency_key") is None else self._templated(place, body, "idempotency_key")
        if key is not None and _TEMPLATE not in key:
            check_name(f"{place}.idempotency_key", key, MAX_KEY)
        timeout = body.get("timeout_secs")
        wait = body.get("wait", False)
        if not isinstance(wait, bool):
            raise BadUserInput(f"{place}.wait must be true or false", field=f"{place}.wait")
        return JobAction(
            queue=queue,
            kind=kind,
            payload=body.get("payload", {}),
            idempotency_key=key,
            max_attempts=read_whole(f"{place}.max_attempts", body.get("max_attempts", 5), 1, MAX_ATTEMPTS),
            priority=read_whole(f"{place}.priority", body.get("priority", 0), -MAX_PRIORITY, MAX_PRIORITY),
            timeout_secs=None if timeout is None else read_whole(f"{place}.timeout_secs", timeout, 1, MAX_TIMEOUT_SECS),
            wait=wait,
        )

    def _templated(self, place: str, body: Mapping[str, Json], name: str) -> str:
        return check_text(f"{place}.{name}", read_text(f"{place}.{name}", body[name]), 10_000)

    def _set_variable(self, place: str, source: Json) -> Action:
        body = read_object(place, source, ("key", "value"), ("key", "value"))
        key = read_text(f"{place}.key", body["key"])
        check_variable(f"{place}.key", key)
        self._renderer.check(f"{place}.value", body["value"])
        return SetVariable(key=key, value=body["value"])

    def _delay(self, place: str, source: Json) -> Action:
        seconds = read_object(place, source, ("seconds",), ("seconds",))["seconds"]
        if isinstance(seconds, str) and _TEMPLATE in seconds:
            self._renderer.check(f"{place}.seconds", seconds)
            return Delay(seconds=seconds)
        return Delay(seconds=check_delay(f"{place}.seconds", seconds))

    def _condition(self, place: str, source: Json) -> Condition:
        body = read_object(place, source, ("field", "operator", "value"), ("field", "operator", "value"))
        path = check_name(f"{place}.field", read_text(f"{place}.field", body["field"]), 500)
        if any(not part for part in path.split(".")):
            raise BadUserInput(f"{place}.field must be names parted by single dots", field=f"{place}.field")
        named = body["operator"]
        if not isinstance(named, str) or named not in set(Operator):
            names = ", ".join(Operator)
            raise BadUserInput(f"{place}.operator must be one of {names}", field=f"{place}.operator")
        self._renderer.check(f"{place}.value", body["value"])
        return Condition(field=path, operator=Operator(named), value=body["value"])


def check_variable(place: str, name: str) -> None:
    """A name that a context's variable may have.

    Raises:
        BadUserInput: it is none that a template could name, or one that is taken.
    """
    if not _VARIABLE.fullmatch(name) or len(name) > 200:
        raise BadUserInput(f"{place} must be letters, digits and underscores, and not begin with a digit", field=place)
    if name in RESERVED:
        raise BadUserInput(f"{place} must not be {' or '.join(RESERVED)}, which stand for the run itself", field=place)


def check_delay(place: str, seconds: Json) -> float:
    """The length of a delay.

    Raises:
        BadUserInput: no number of seconds up to a year.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_DELAY_SECS:
        raise BadUserInput(f"{place} must be a number of seconds from 0 to {MAX_DELAY_SECS}", field=place)
    return seconds


def _trigger(source: Json) -> Trigger:
    if source == "Manual":
        return Manual()
    kinds = ("Manual", "OnEvent", "Schedule")
    if not isinstance(source, dict) or len(source) != 1 or next(iter(source)) not in kinds:
        raise BadUserInput('trigger must be "Manual", {"OnEvent": …} or {"Schedule": …}', field="trigger")
    [(kind, body)] = source.items()
    if kind == "Manual":
        read_object("trigger.Manual", body, ())
        return Manual()
    place = f"trigger.{kind}"
    if kind == "OnEvent":
        body = read_object(place, body, ("model", "event_type"), ("model", "event_type"))
        model = check_name(f"{place}.model", read_text(f"{place}.model", body["model"]))
        event_type = read_text(f"{place}.event_type", body["event_type"])
        check_event(f"{place}.event_type", model, event_type)
        return OnEvent(model=model, event_type=event_type)
    body = read_object(place, body, ("cron", "timezone", "missed"), ("cron",))
    missed = body.get("missed", "latest")
    if missed not in ("latest", "all", "skip"):
        raise BadUserInput(f"{place}.missed must be latest, all or skip", field=f"{place}.missed")
    return Schedule(
        cron=read_text(f"{place}.cron", body["cron"]),
        timezone=read_text(f"{place}.timezone", body.get("timezone", "UTC")),
        missed=missed,
    )


def _on_failure(place: str, source: Json, action: Action) -> OnFailure:
    if source == "Stop":
        return OnFailure()
    if source == "Continue":
        return OnFailure(goes_on=True)
    if isinstance(source, str):
        raise BadUserInput(f'{place} must be "Stop", "Continue" or {{"Retry": {{"max_attempts": …}}}}', field=place)
    _, body = read_tagged(place, source, ("Retry",))
    if isinstance(action, Parallel):
        raise BadUserInput(f"{place} must be Stop or Continue for a group; its steps have their own", field=place)
    body = read_object(f"{place}.Retry", body, ("max_attempts",), ("max_attempts",))
    return OnFailure(max_attempts=read_whole(f"{place}.Retry.max_attempts", body["max_attempts"], 1, 100))


def _identifier(place: str, source: Json) -> str:
    name = check_name(place, read_text(place, source), MAX_NAME)
    if "/" in name or name != name.strip():
        raise BadUserInput(f"{place} must not contain a slash, nor begin or end with a blank", field=place)
    return name
