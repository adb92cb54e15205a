"""What is no workflow is refused with the exact place and the rule, at once, and changes nothing."""

import copy
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomo_gql.domain.errors import AtomoError, BadUserInput, PayloadTooLarge
from atomo_gql.domain.jobs import Json
from atomo_gql.domain.workflows.definition import Definition, JobAction, OnEvent, Parallel, Schedule
from atomo_gql.domain.workflows.parsing import MAX_BRANCHES, MAX_STEPS, parse_definition
from atomo_gql.service.workflows.templates import Templates
from tests.parts import ALICE, ROOT, Replica
from tests.workflows.play import TEMPLATES, delay, group, job, put

GOOD: dict[str, Any] = {
    "name": "deal won",
    "description": "what it is for",
    "trigger": {"OnEvent": {"model": "deal", "event_type": "updated"}},
    "timeout_secs": 60,
    "steps": [
        {
            "name": "first",
            "action": {
                "Job": {
                    "queue": "q",
                    "kind": "k",
                    "payload": {"id": "{{ event.id }}"},
                    "idempotency_key": "{{ event.id }}",
                    "max_attempts": 3,
                    "priority": 1,
                    "timeout_secs": 5,
                    "wait": True,
                }
            },
            "condition": {"field": "event.data.stage", "operator": "eq", "value": "won"},
            "on_failure": {"Retry": {"max_attempts": 3}},
        },
        {"name": "set", "action": {"SetVariable": {"key": "a", "value": [1, {"b": "{{ event.id }}"}]}}},
        {"name": "rest", "action": {"Delay": {"seconds": "{{ a[0] }}"}}, "on_failure": "Continue"},
        {"name": "both", "parallel": [[job("x"), delay("y")], put("z", 1)], "on_failure": "Stop"},
    ],
}


def read(source: Json) -> Definition:
    """The definition."""
    return parse_definition(source, TEMPLATES)


def test_a_definition_is_what_it_says() -> None:
    definition = read(GOOD)
    assert definition.trigger == OnEvent(model="deal", event_type="updated")
    assert [step.name for step in definition.every_step()] == ["first", "set", "rest", "both", "x", "y", "z"]
    first, _, rest, both = definition.steps
    assert isinstance(first.action, JobAction) and first.action.wait and first.action.timeout_secs == 5
    assert first.on_failure.max_attempts == 3 and rest.on_failure.goes_on
    assert isinstance(both.action, Parallel) and [len(branch) for branch in both.action.branches] == [2, 1]


def test_what_is_left_out_is_as_the_contract_says() -> None:
    definition = read({"name": "w", "steps": [{"name": "s", "action": {"Job": {"queue": "q", "kind": "k"}}}]})
    action = definition.steps[0].action
    assert isinstance(action, JobAction)
    assert (action.payload, action.max_attempts, action.priority, action.wait) == ({}, 5, 0, False)
    assert definition.steps[0].on_failure.max_attempts == 1 and not definition.steps[0].on_failure.goes_on
    scheduled = read({"name": "w", "trigger": {"Schedule": {"cron": "* * * * *"}}, "steps": [put("a", 1)]})
    assert scheduled.trigger == Schedule(cron="* * * * *", timezone="UTC", missed="latest")


JOB, LONG = "steps[0].action.Job", "x" * 201
WRONG: list[tuple[str, Json, str]] = [  # the place to change, what to put there, the place that is named
    ("name", "", "name"),
    ("name", " ", "name"),
    ("name", "a/b", "name"),
    ("name", " a", "name"),
    ("name", LONG, "name"),
    ("name", 7, "name"),
    ("name", "a\n", "name"),
    ("name", "\ud800", "definition"),
    ("description", 7, "description"),
    ("description", "x" * 2_001, "description"),
    ("timeout_secs", 0, "timeout_secs"),
    ("timeout_secs", 1.5, "timeout_secs"),
    ("timeout_secs", True, "timeout_secs"),
    ("timeout_secs", 31_536_001, "timeout_secs"),
    ("other", 1, "other"),
    ("x" * 1_000_000, 1, "x" * 100),
    ("trigger", "Other", "trigger"),
    ("trigger", {}, "trigger"),
    ("trigger", {"Manual": {}, "OnEvent": {}}, "trigger"),
    ("trigger", {"Manual": {"a": 1}}, "trigger.Manual.a"),
    ("trigger", {"OnEvent": []}, "trigger.OnEvent"),
    ("trigger.OnEvent.model", "", "trigger.OnEvent.model"),
    ("trigger.OnEvent.model", 1, "trigger.OnEvent.model"),
    ("trigger.OnEvent.event_type", "renamed", "trigger.OnEvent.event_type"),
    ("trigger.OnEvent.event_type", "succeeded", "trigger.OnEvent.event_type"),
    ("trigger.OnEvent.event_type", None, "trigger.OnEvent.event_type"),
    ("trigger.OnEvent.more", 1, "trigger.OnEvent.more"),
    ("trigger", {"Schedule": {}}, "trigger.Schedule.cron"),
    ("trigger", {"Schedule": {"cron": 5}}, "trigger.Schedule.cron"),
    ("trigger", {"Schedule": {"cron": "* * * * *", "timezone": 5}}, "trigger.Schedule.timezone"),
    ("trigger", {"Schedule": {"cron": "* * * * *", "missed": "some"}}, "trigger.Schedule.missed"),
    ("trigger", {"Schedule": {"cron": "* * * * *", "missed": ["all"]}}, "trigger.Schedule.missed"),
    ("steps", [], "steps"),
    ("steps", {}, "steps"),
    ("steps", None, "steps"),
    ("steps[1]", [], "steps[1]"),
    ("steps[1]", "x", "steps[1]"),
    ("steps[1].name", "first", "steps[1].name"),
    ("steps[1].name", "first:2", "steps[1].name"),
    ("steps[1].name", None, "steps[1].name"),
    ("steps[1].more", 1, "steps[1].more"),
    ("steps[1].parallel", [put("u", 1)], "steps[1]"),
    ("steps[1].action", None, "steps[1].action"),
    ("steps[1].action", {"Shell": {}}, "steps[1].action"),
    ("steps[1].action", {"Delay": {"seconds": 1}, "Job": {}}, "steps[1].action"),
    ("steps[1].action.SetVariable", 1, "steps[1].action.SetVariable"),
    ("steps[1].action.SetVariable.key", "run", "steps[1].action.SetVariable.key"),
    ("steps[1].action.SetVariable.key", "steps", "steps[1].action.SetVariable.key"),
    ("steps[1].action.SetVariable.key", "1a", "steps[1].action.SetVariable.key"),
    ("steps[1].action.SetVariable.key", "a.b", "steps[1].action.SetVariable.key"),
    ("steps[1].action.SetVariable.key", "a\n", "steps[1].action.SetVariable.key"),
    ("steps[1].action.SetVariable.key", "a" * 201, "steps[1].action.SetVariable.key"),
    ("steps[1].action.SetVariable.value[1].b", "{{ a( }}", "steps[1].action.SetVariable.value[1].b"),
    ("steps[2].action.Delay.seconds", -1, "steps[2].action.Delay.seconds"),
    ("steps[2].action.Delay.seconds", True, "steps[2].action.Delay.seconds"),
    ("steps[2].action.Delay.seconds", "soon", "steps[2].action.Delay.seconds"),
    ("steps[2].action.Delay.seconds", 31_536_001, "steps[2].action.Delay.seconds"),
    ("steps[2].action.Delay.seconds", "{{ a.b() }}", "steps[2].action.Delay.seconds"),
    ("steps[2].on_failure", "Ignore", "steps[2].on_failure"),
    ("steps[2].on_failure", {"Retry": {}}, "steps[2].on_failure.Retry.max_attempts"),
    ("steps[2].on_failure", {"Retry": {"max_attempts": 0}}, "steps[2].on_failure.Retry.max_attempts"),
    ("steps[2].on_failure", {"Retry": {"max_attempts": 101}}, "steps[2].on_failure.Retry.max_attempts"),
    ("steps[2].on_failure", {"Retry": {"max_attempts": 2, "x": 1}}, "steps[2].on_failure.Retry.x"),
    ("steps[2].on_failure", 7, "steps[2].on_failure"),
    ("steps[3].on_failure", {"Retry": {"max_attempts": 2}}, "steps[3].on_failure"),
    ("steps[3].parallel", [], "steps[3].parallel"),
    ("steps[3].parallel", {}, "steps[3].parallel"),
    ("steps[3].parallel[0]", [], "steps[3].parallel[0]"),
    ("steps[3].parallel[1]", 7, "steps[3].parallel[1]"),
    ("steps[3].parallel[0][1].name", "set", "steps[3].parallel[0][1].name"),
    ("steps[3].parallel[1]", group("g", put("u", 1)), "steps[3].parallel[1].parallel"),
    ("steps[3].parallel[0][0].action.Job.queue", "*", "steps[3].parallel[0][0].action.Job.queue"),
    ("steps[0].condition", [], "steps[0].condition"),
    ("steps[0].condition.field", "a..b", "steps[0].condition.field"),
    ("steps[0].condition.field", ".a", "steps[0].condition.field"),
    ("steps[0].condition.field", "", "steps[0].condition.field"),
    ("steps[0].condition.field", "a" * 501, "steps[0].condition.field"),
    ("steps[0].condition.operator", "like", "steps[0].condition.operator"),
    ("steps[0].condition.operator", ["eq"], "steps[0].condition.operator"),
    ("steps[0].condition.value", "{{ a", "steps[0].condition.value"),
    ("steps[0].condition.more", 1, "steps[0].condition.more"),
    (f"{JOB}.queue", "*", f"{JOB}.queue"),
    (f"{JOB}.queue", "", f"{JOB}.queue"),
    (f"{JOB}.queue", 7, f"{JOB}.queue"),
    (f"{JOB}.queue", LONG, f"{JOB}.queue"),
    (f"{JOB}.queue", "{{ q", f"{JOB}.queue"),
    (f"{JOB}.queue", "{{ q }}" + "x" * 10_000, f"{JOB}.queue"),
    (f"{JOB}.kind", "a\0", "definition"),
    (f"{JOB}.kind", LONG, f"{JOB}.kind"),
    (f"{JOB}.idempotency_key", "x" * 513, f"{JOB}.idempotency_key"),
    (f"{JOB}.idempotency_key", 7, f"{JOB}.idempotency_key"),
    (f"{JOB}.max_attempts", 0, f"{JOB}.max_attempts"),
    (f"{JOB}.max_attempts", 1_001, f"{JOB}.max_attempts"),
    (f"{JOB}.max_attempts", "5", f"{JOB}.max_attempts"),
    (f"{JOB}.priority", 32_768, f"{JOB}.priority"),
    (f"{JOB}.priority", None, f"{JOB}.priority"),
    (f"{JOB}.timeout_secs", 0, f"{JOB}.timeout_secs"),
    (f"{JOB}.wait", "yes", f"{JOB}.wait"),
    (f"{JOB}.run_at", "now", f"{JOB}.run_at"),
    (f"{JOB}.payload.id", "{{ event.id.__class__() }}", f"{JOB}.payload.id"),
    (f"{JOB}.payload.id", "{% for a in b %}{% endfor %}", f"{JOB}.payload.id"),
    (f"{JOB}.payload.id", "{{ a | attr('b') }}", f"{JOB}.payload.id"),
    (f"{JOB}.payload.id", "{{ a ~ b }}", f"{JOB}.payload.id"),
    (f"{JOB}.payload.id", "{{ a * 1000000000 }}", f"{JOB}.payload.id"),
    (f"{JOB}.payload.id", "{{ range(1000000000) }}", f"{JOB}.payload.id"),
    (f"{JOB}.payload.id", "{{ " + "(" * 500 + "a" + ")" * 500 + " }}", f"{JOB}.payload.id"),
    (f"{JOB}.payload.id", "{{ " + "[" * 500 + "a" + "]" * 500 + " }}", f"{JOB}.payload.id"),
]  # fmt: skip


def change(source: Any, place: str, value: Json) -> Any:
    """A copy in which something else stands there."""
    changed = copy.deepcopy(source)
    parts = [int(part) if part.isdigit() else part for part in place.replace("[", ".").replace("]", "").split(".")]
    inner = changed
    for part in parts[:-1]:
        inner = inner[part]
    inner[parts[-1]] = value
    return changed


@pytest.mark.parametrize(
    ("place", "value", "named"), WRONG, ids=[f"{place[:60]}={str(value)[:20]!a}" for place, value, _ in WRONG]
)
def test_every_rule_names_the_place_that_breaks_it(place: str, value: Json, named: str) -> None:
    source = change(GOOD, place, value)
    began = time.process_time()
    with pytest.raises(BadUserInput) as refused:
        read(source)
    assert time.process_time() - began < 1
    field = refused.value.field or ""
    assert field == named or (named == "definition" and field.startswith("definition")), refused.value.detail
    assert field.removesuffix("]") in refused.value.detail or field in refused.value.detail
    assert len(refused.value.detail) < 2_000


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("name", "name"),
        ("steps", "steps"),
        ("steps[0].name", "steps[0].name"),
        (f"{JOB}.queue", f"{JOB}.queue"),
        (f"{JOB}.kind", f"{JOB}.kind"),
        ("steps[0].action", "steps[0]"),
        ("steps[0].condition.field", "steps[0].condition.field"),
        ("steps[0].condition.value", "steps[0].condition.value"),
        ("steps[1].action.SetVariable.key", "steps[1].action.SetVariable.key"),
        ("steps[2].action.Delay.seconds", "steps[2].action.Delay.seconds"),
        ("trigger.OnEvent.model", "trigger.OnEvent.model"),
    ],
)
def test_what_is_missing_is_named(place: str, named: str) -> None:
    source = copy.deepcopy(GOOD)
    inner: Any = source
    parts = [int(part) if part.isdigit() else part for part in place.replace("[", ".").replace("]", "").split(".")]
    for part in parts[:-1]:
        inner = inner[part]
    del inner[parts[-1]]
    with pytest.raises(BadUserInput) as refused:
        read(source)
    assert refused.value.field == named


def _nested(depth: int) -> Json:
    value: Json = 1
    for _ in range(depth):
        value = [value]
    return value


def _groups(depth: int) -> Any:
    step: Any = put("leaf", 1)
    for number in range(depth):
        step = group(f"g{number}", step)
    return step


HOSTILE: dict[str, Any] = {
    "10,000 steps": {"name": "w", "steps": [put(f"s{n}", n) for n in range(10_000)]},
    "10,000 steps in branches": {
        "name": "w",
        "steps": [group("g", *[[put(f"s{n}x{i}", n) for i in range(200)] for n in range(50)])],
    },
    "10,000 branches": {"name": "w", "steps": [group("g", *[put(f"s{n}", n) for n in range(10_000)])]},
    "groups 100 deep": {"name": "w", "steps": [_groups(100)]},
    "groups 1,000 deep": {"name": "w", "steps": [_groups(1_000)]},
    "a payload 1,000 deep": {"name": "w", "steps": [job("j", payload=_nested(1_000))]},
    "a payload 100,000 deep": {"name": "w", "steps": [job("j", payload=_nested(100_000))]},
    "steps 1,000 deep": {"name": "w", "steps": _nested(1_000)},
    "a name of a million": {"name": "x" * 1_000_000, "steps": [put("a", 1)]},
    "a step's name of a million": {"name": "w", "steps": [put("x" * 1_000_000, 1)]},
    "100,000 fields": {"name": "w", "steps": [put("a", 1)], **{f"f{n}": n for n in range(100_000)}},
    "a template of a million": {"name": "w", "steps": [put("a", "{{ " + "a." * 500_000 + "b }}")]},
    "100,000 templates": {"name": "w", "steps": [put("a", [f"{{{{ a{n} }}}}" for n in range(100_000)])]},
    "a template of many filters": {"name": "w", "steps": [put("a", "{{ a" + " | string" * 50_000 + " }}")]},
    "a cron of a million": {
        "name": "w",
        "trigger": {"Schedule": {"cron": "1," * 500_000 + "1 * * * *"}},
        "steps": [put("a", 1)],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_definition_is_refused_at_once_and_registers_nothing(
    replica: Replica, sql: Any, name: str
) -> None:
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises((BadUserInput, PayloadTooLarge)) as refused:
            await replica.services.workflows.register(ROOT, HOSTILE[name])
        spent, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert spent < 5, "tracing makes it several times slower than it is"
    assert peak < 100_000_000
    assert len(refused.value.detail) < 2_000
    for table in ("workflows", "workflow_definitions", "events WHERE stream = 'Definition'"):
        assert await sql.fetchval(f"SELECT count(*) FROM {table}") == 0


def test_as_many_steps_and_branches_as_may_be_are_read() -> None:
    assert len(read({"name": "w", "steps": [put(f"s{n}", n) for n in range(MAX_STEPS)]}).steps) == MAX_STEPS
    read({"name": "w", "steps": [group("g", *[put(f"s{n}", n) for n in range(MAX_BRANCHES)])]})
    with pytest.raises(BadUserInput, match="steps must hold at most 200 steps, not 201"):
        read({"name": "w", "steps": [put(f"s{n}", n) for n in range(MAX_STEPS + 1)]})
    with pytest.raises(BadUserInput, match="steps must hold at most 200 steps, those of branches included"):
        read({"name": "w", "steps": [group("g", put("a", 1)), *[put(f"s{n}", n) for n in range(MAX_STEPS - 1)]]})


async def test_a_template_that_expands_hugely_fails_its_step_and_costs_what_it_may(replica: Replica, sql: Any) -> None:
    await replica.services.workflows.register(
        ROOT, {"name": "once", "steps": [put("b", "{{ a }}" * 1_000), put("never", 1)]}
    )
    doubling = [put(f"s{n}", ["{{ x }}", "{{ x }}"], key="x") for n in range(60)]
    await replica.services.workflows.register(ROOT, {"name": "doubling", "steps": doubling})
    job_of_all = [job("j", payload=["{{ x }}"] * 1_000, wait=False)]
    await replica.services.workflows.register(ROOT, {"name": "payload", "steps": job_of_all})
    tracemalloc.start()
    try:
        once = await replica.services.runs.start(ALICE, "once", {"a": "x" * 100_000})
        twice = await replica.services.runs.start(ALICE, "doubling", {"x": "x" * 1_000})
        many = await replica.services.runs.start(ALICE, "payload", {"x": "x" * 100_000})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50_000_000
    assert (once.status, twice.status, many.status) == ("Failed",) * 3
    assert "bytes" in once.errors[0] or "characters" in once.errors[0], once.errors
    assert once.errors[0].startswith("b: ") and "never" not in once.steps
    assert twice.errors[0].startswith("s") and len(twice.steps) < 20
    assert many.errors[0].startswith("j: ")
    assert await sql.fetchval("SELECT count(*) FROM job_records") == 0
    assert await sql.fetchval("SELECT max(pg_column_size(data)) FROM events") < 2_100_000


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
_places = ["name", "trigger", "steps", "steps[0]", "steps[0].action", JOB, f"{JOB}.payload", f"{JOB}.queue", "steps[3]"]
_places += ["steps[3].parallel", "steps[3].parallel[0]", "steps[0].condition", "steps[2].on_failure", "timeout_secs"]


@settings(max_examples=300)
@given(st.sampled_from(_places), _json)
def test_whatever_stands_anywhere_is_read_or_refused_with_a_place(place: str, value: Json) -> None:
    try:
        parse_definition(change(GOOD, place, value), Templates())
    except AtomoError as error:
        assert isinstance(error, BadUserInput) and error.field


@pytest.mark.parametrize("trigger", ["OnEvent", None, [], {}, {"Other": {}}, {"OnEvent": {}, "Schedule": {}}])
def test_a_trigger_that_is_none_is_refused_with_those_that_there_are(trigger: Any) -> None:
    with pytest.raises(BadUserInput) as error:
        read({"name": "w", "trigger": trigger, "steps": [put("a", 1)]})
    assert error.value.detail == 'trigger must be "Manual", {"OnEvent": …} or {"Schedule": …}'
