"""What a definition says is what happens."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomo_gql.domain.events import BrokenStream, EventType
from atomo_gql.domain.jobs import Json
from atomo_gql.domain.workflows.deciding import MAX_ERROR
from atomo_gql.domain.workflows.runs import fold
from tests.workflows.play import START, Play, define, delay, group, job, put

TWICE = {"Retry": {"max_attempts": 2}}
BOOM = ValueError("boom")


def test_steps_follow_one_another_in_their_order() -> None:
    play = Play(define(put("a", 1), job("b", payload="{{ a }}"), delay("c"), job("d", wait=False))).go()
    assert play.told == ["completed a", "waiting b"] and play.status == "Paused" and play.run.wake_at is None
    play.go(b={"ok": True})
    assert play.told[2:] == ["completed b", "waiting c"] and play.run.wake_at == START + timedelta(seconds=60)
    assert play.run.context["job_result"] == {"ok": True}
    play.wait(60).go()
    assert play.told[4:] == ["completed c", "completed d", "run_completed"] and play.status == "Completed"
    assert (play.run.steps_run, play.run.errors, play.run.wake_at) == (4, [], None)
    assert [made.payload for _, made in play.jobs.values()] == [1, {}]
    assert play.run.context["job_id"] == str(play.run.steps["d"].job_id)


@pytest.mark.parametrize(
    ("field", "operator", "value", "is_true"),
    [
        ("n", "eq", 1, True),
        ("n", "eq", 1.0, True),
        ("n", "eq", True, False),
        ("n", "eq", "1", False),
        ("yes", "eq", True, True),
        ("yes", "eq", 1, False),
        ("yes", "gt", 0, False),
        ("nope", "eq", None, True),
        ("nope.deeper", "eq", None, True),
        ("none", "eq", None, True),
        ("nope", "neq", 1, True),
        ("nope", "gt", 0, False),
        ("nope", "lt", 0, False),
        ("nope", "contains", "x", False),
        ("n", "gt", 0, True),
        ("n", "gt", 1, False),
        ("n", "lt", 1.5, True),
        ("n", "gt", "0", False),
        ("text", "gt", "abc", True),
        ("text", "contains", "b", True),
        ("text", "contains", 1, False),
        ("list", "contains", 2, True),
        ("list", "contains", True, False),
        ("list", "contains", [3], True),
        ("list.0", "eq", 1, True),
        ("list.9", "eq", None, True),
        ("list.99999999999999999999", "eq", None, True),
        ("list.-1", "eq", None, True),
        ("map", "contains", "key", True),
        ("map", "contains", "value", False),
        ("map.key", "eq", "value", True),
        ("map", "eq", {"key": "value"}, True),
        ("n", "eq", "{{ list[0] }}", True),
        ("steps.before.status", "eq", "completed", True),
        ("run.workflow", "eq", "w", True),
    ],
)
def test_a_step_whose_condition_is_false_is_skipped(field: str, operator: str, value: Json, is_true: bool) -> None:
    context = {"n": 1, "yes": True, "none": None, "text": "abcd", "list": [1, 2, [3]], "map": {"key": "value"}}
    condition = {"field": field, "operator": operator, "value": value}
    play = Play(define(put("before", 0), put("a", 9, condition=condition), put("b", 9)), context).go()
    assert play.states == {"before": "completed", "a": "completed" if is_true else "skipped", "b": "completed"}
    assert ("a" in play.run.context) is is_true
    assert (play.status, play.run.steps_run) == ("Completed", 3 if is_true else 2)


@pytest.mark.parametrize(
    "step",
    [
        job("a", payload={"deep": ["{{ deal.id }}"]}),
        job("a", queue="{{ deal.id }}"),
        job("a", idempotency_key="x-{{ deal.id }}"),
        put("a", "{{ deal.id }}"),
        delay("a", "{{ deal.id }}"),
        put("a", 1, condition={"field": "n", "operator": "eq", "value": "{{ deal.id }}"}),
    ],
    ids=["payload", "queue", "key", "variable", "delay", "condition"],
)
@pytest.mark.parametrize(("context", "named"), [({}, "deal"), ({"deal": {}}, "deal.id")])
def test_a_template_that_names_what_is_not_there_fails_its_step_with_that_name(
    step: Any, context: Any, named: str
) -> None:
    play = Play(define(step), context).go()
    assert (play.status, play.states, play.jobs) == ("Failed", {"a": "failed"}, {})
    [error] = play.run.errors
    assert error.startswith("a: ") and named in error


@pytest.mark.parametrize(
    ("step", "context", "rule"),
    [
        (job("a", queue="{{ n }}"), {"n": "*"}, "queue must name one queue"),
        (job("a", queue="{{ n }}"), {"n": " "}, "queue must not be blank"),
        (job("a", queue="{{ n }}"), {"n": [1]}, "queue must be a text, not a list"),
        (job("a", queue="{{ n }}"), {"n": None}, "queue must be a text, not null"),
        (job("a", kind="{{ n }}"), {"n": True}, "kind must be a text, not true"),
        (job("a", idempotency_key="{{ n }}"), {"n": {}}, "idempotency_key must be a text, not an object"),
        (job("a", kind="{{ n }}"), {"n": "x" * 201}, "kind must have at most 200 characters"),
        (job("a", idempotency_key="{{ n }}"), {"n": "x" * 513}, "idempotencyKey must have at most 512 characters"),
        (delay("a", "{{ n }}"), {"n": -1}, "seconds must be a number of seconds from 0"),
        (delay("a", "{{ n }}"), {"n": "soon"}, "seconds must be a number of seconds from 0"),
        (delay("a", "{{ n }}"), {"n": "nan"}, "seconds must be a number of seconds from 0"),
        (delay("a", "{{ n }}"), {"n": True}, "seconds must be a number of seconds from 0"),
        (delay("a", "{{ n }}"), {"n": None}, "seconds must be a number of seconds from 0"),
        (delay("a", "{{ n }}"), {"n": [1]}, "seconds must be a number of seconds from 0"),
    ],
)
def test_a_template_that_makes_what_is_not_allowed_fails_its_step_with_the_rule(
    step: Any, context: Any, rule: str
) -> None:
    play = Play(define(step), context).go()
    assert play.status == "Failed" and rule in play.run.errors[0]


def test_a_failed_step_stops_the_run() -> None:
    play = Play(define(job("a"), put("b", 1))).go().go(a=BOOM)
    assert play.told == ["waiting a", "failed a", "run_failed"] and play.status == "Failed"
    assert play.run.errors == [f"a: job {play.run.steps['a'].job_id} is dead: boom"]


def test_a_failed_step_may_be_passed_over() -> None:
    play = Play(define(job("a", on_failure="Continue"), put("b", "{{ steps.a.error }}"))).go().go(a=BOOM)
    assert play.told[1:] == ["failed a", "completed b", "run_completed"]
    assert (play.status, play.states["a"], len(play.run.errors)) == ("Completed", "passed", 1)
    assert "boom" in str(play.run.context["b"])


def test_a_step_is_tried_again_after_a_back_off_with_another_job() -> None:
    play = Play(define(job("a", on_failure={"Retry": {"max_attempts": 4}}), put("b", 1))).go()
    for attempt, wait in ((1, 5), (2, 10), (3, 20)):
        play.go(a=BOOM)
        state = play.run.steps["a"]
        assert (play.status, state.status, state.attempt, state.error) == ("Paused", "retrying", attempt, state.error)
        assert play.run.wake_at == play.now + timedelta(seconds=wait)
        assert len(play.wait(wait - 1).go().jobs) == attempt
        assert len(play.wait(1).go().jobs) == attempt + 1
    play.go(a=BOOM)
    assert (play.status, len(play.run.errors), play.run.steps_run) == ("Failed", 1, 1)
    run_id = play.run.id
    assert list(play.jobs) == [f"q run:{run_id}:a{end}" for end in ("", ":2", ":3", ":4")]


def test_a_back_off_ends_at_an_hour() -> None:
    play = Play(define(job("a", on_failure={"Retry": {"max_attempts": 100}}))).go()
    for _ in range(98):
        play.go(a=BOOM)
        wake = play.run.wake_at
        assert wake is not None and wake - play.now <= timedelta(hours=1)
        play.now = wake
        play.go()
    play.go(a=BOOM)
    assert play.run.wake_at == play.now + timedelta(hours=1)


def test_a_condition_that_cannot_be_judged_is_judged_again_when_it_is_tried_again() -> None:
    condition = {"field": "n", "operator": "eq", "value": "{{ later }}"}
    step = put("a", 1, condition=condition, on_failure=TWICE)
    play = Play(define(group("g", step, job("b"), put("c", 0)), put("z", 0)), {"n": 1}).go()
    assert play.states == {"g": "open", "a": "retrying", "b": "waiting", "c": "completed"}
    play.run.context["later"] = play.events[0].data["context"]["later"] = 2  # as if another branch had set it
    play.go(b=None).wait(5).go()
    assert (play.states["a"], play.status) == ("skipped", "Completed")


def test_all_branches_end_before_their_group_does() -> None:
    definition = define(group("g", [job("a"), job("b")], job("c"), put("d", 1)), put("e", 1))
    play = Play(definition).go()
    assert play.told == ["started g", "completed d", "waiting a", "waiting c"]
    play.go(c=1)
    assert play.told[4:] == ["completed c"] and play.states["g"] == "open"
    play.go(a=1).go(b=1)
    assert play.told[5:] == ["completed a", "waiting b", "completed b", "completed g", "completed e", "run_completed"]


def test_a_failed_branch_fails_its_group_after_the_others_are_done() -> None:
    play = Play(define(group("g", [job("a"), put("never", 1)], [job("b"), put("c", 1)]), put("e", 1))).go().go(a=BOOM)
    assert (play.states["g"], play.status, "never" in play.states) == ("open", "Paused", False)
    play.go(b=1)
    assert play.told[-4:] == ["completed b", "completed c", "failed g", "run_failed"]
    assert play.run.errors[1] == "g: failed in a"


def test_a_group_may_be_passed_over_and_what_failed_in_it_is_not_tried_again_by_hand() -> None:
    play = Play(define(group("g", job("a"), job("b"), on_failure="Continue"), job("z"))).go().go(a=BOOM).go(b=1)
    assert play.states == {"g": "passed", "a": "passed", "b": "completed", "z": "waiting"}
    play.go(z=BOOM).retry()
    assert (play.states["a"], play.states["z"], play.status) == ("passed", "waiting", "Paused")
    assert play.go(z=1).status == "Completed"


def test_a_step_of_a_group_that_is_passed_over_does_not_fail_the_group() -> None:
    play = Play(define(group("g", job("a", on_failure="Continue"), job("b")))).go().go(a=BOOM).go(b=1)
    assert play.status == "Completed" and play.states["g"] == "completed"


def test_a_group_whose_condition_is_false_is_skipped_with_all_its_branches() -> None:
    never = {"field": "n", "operator": "eq", "value": 1}
    play = Play(define(group("g", job("a"), condition=never), put("z", 1))).go()
    assert play.states == {"g": "skipped", "z": "completed"} and play.jobs == {}


def test_a_delay_ends_when_its_time_has_come_and_not_before() -> None:
    play = Play(define(delay("a", "{{ n }}"), delay("b", 0)), {"n": "1.5"}).go()
    assert play.run.wake_at == START + timedelta(seconds=1.5)
    assert play.wait(1.4).go().told == ["waiting a"]
    assert play.wait(0.1).go().told[1:] == ["completed a", "waiting b", "completed b", "run_completed"]


def test_a_run_that_takes_too_long_fails_and_what_it_waits_for_is_given_up() -> None:
    play = Play(define(group("g", job("a"), delay("b", 10_000)), timeout_secs=100)).go()
    assert play.run.wake_at == START + timedelta(seconds=100)
    assert play.wait(99).go().status == "Paused"
    assert play.wait(1).go().status == "Failed"
    assert play.states == {"g": "cancelled", "a": "cancelled", "b": "cancelled"}
    assert play.run.errors == ["timed out after 100 s"]


def test_at_its_time_limit_a_run_does_nothing_more_whatever_has_become_due() -> None:
    play = Play(define(delay("a", 50), job("b"), timeout_secs=100)).go().wait(200).go()
    assert (play.status, play.run.errors, list(play.jobs)) == ("Failed", ["timed out after 100 s"], [])


def test_a_retry_by_hand_goes_on_from_the_failed_step() -> None:
    play = Play(define(put("n", 1), job("a", on_failure=TWICE), put("z", 1))).go().go(a=BOOM).wait(5).go().go(a=BOOM)
    assert play.status == "Failed" and play.run.steps["a"].attempt == 2
    play.wait(1_000).retry()
    assert (play.states["a"], play.run.steps["a"].attempt, play.run.errors) == ("waiting", 3, [])
    play.go(a=BOOM)
    assert play.states["a"] == "retrying" and play.run.wake_at == play.now + timedelta(seconds=5)
    play.wait(5).go().go(a=BOOM)
    assert play.status == "Failed" and play.run.steps["a"].attempt == 4
    play.retry().go(a="at last")
    assert play.status == "Completed" and play.run.context["job_result"] == "at last"
    assert list(play.jobs) == [f"q run:{play.run.id}:a{end}" for end in ("", ":2", ":3", ":4", ":5")]
    assert play.told.count("completed n") == 1


def test_a_retry_by_hand_goes_on_within_a_group_and_lets_alone_what_is_done() -> None:
    play = Play(define(group("g", [job("a"), job("b")], job("c"), job("d")), put("z", 1))).go()
    play.go(a=BOOM, d=1).go(c=BOOM)
    assert play.status == "Failed"
    play.retry()
    assert play.states == {"g": "open", "a": "waiting", "c": "waiting", "d": "completed"}
    assert play.run.steps["g"].error is None
    play.go(a=1).go(b=1, c=1)
    assert play.status == "Completed"
    assert [key.split(":", 2)[2] for key in play.jobs] == ["a", "c", "d", "a:2", "c:2", "b"]


def test_a_run_that_was_cancelled_goes_on_with_what_it_waited_for() -> None:
    play = Play(define(group("g", job("a"), delay("b", 60), job("c", on_failure=TWICE)), put("z", 1))).go()
    play.go(c=BOOM).cancel()
    assert play.states == {"g": "cancelled", "a": "cancelled", "b": "cancelled", "c": "cancelled"}
    assert play.run.errors == ["cancelled by user:x"] and play.run.awaited() == {}
    play.retry()
    assert play.states == {"g": "open", "a": "waiting", "b": "delayed", "c": "waiting"}
    assert play.run.wake_at == play.now + timedelta(seconds=60)


def test_each_retry_by_hand_gives_the_run_its_time_anew_and_no_more() -> None:
    play = Play(define(job("a"), timeout_secs=100)).go()
    for _ in range(4):
        play.wait(1_000).go()
        assert play.status == "Failed"
        play.retry()
        assert play.run.timeout_at == play.now + timedelta(seconds=100)


def test_a_key_of_one_s_own_may_share_a_job_and_is_another_when_it_is_tried_again() -> None:
    steps = [job("a", idempotency_key="k-{{ n }}"), job("b", idempotency_key="k-{{ n }}", on_failure=TWICE)]
    play = Play(define(group("g", *steps)), {"n": 1}).go()
    assert list(play.jobs) == ["q k-1"]
    assert [play.run.steps[name].is_shared for name in "ab"] == [False, True]
    play.go(a=BOOM).wait(5).go()
    assert list(play.jobs) == ["q k-1", "q k-1 (attempt 2)"] and play.states == {
        "g": "open",
        "a": "failed",
        "b": "waiting",
    }


def test_a_result_that_has_no_room_fails_its_step() -> None:
    play = Play(define(job("a"), job("b"), put("c", "{{ job_result }}{{ job_result }}"))).go()
    play.most_bytes = 1_000
    play.go(a="x" * 300).go(b="y" * 300)
    assert play.status == "Failed" and "must have at most 1000 bytes" in play.run.errors[0]


def test_an_error_is_kept_as_long_as_it_may_be() -> None:
    play = Play(define(job("a", on_failure="Continue"))).go().go(a=ValueError("x" * 10_000))
    assert len(play.run.steps["a"].error or "") == MAX_ERROR


def test_a_definition_that_cannot_be_read_fails_the_run_and_a_retry_does_not_complete_it() -> None:
    play = Play("its definition is gone").go()
    assert (play.status, play.run.errors) == ("Failed", ["its definition is gone"])
    assert (play.retry().status, play.run.errors) == ("Failed", ["its definition is gone"])
    play = Play("its definition is gone")
    assert play.cancel().run.errors == ["cancelled by user:x"]


def test_what_cannot_follow_is_refused() -> None:
    play = Play(define(put("a", 1))).go()
    for type_ in (EventType.STEP_STARTED, EventType.RUN_COMPLETED, EventType.CANCELLED):
        with pytest.raises(BrokenStream):
            play.run.apply(type_, {"step": "a", "error": "x"}, play.now)
    play = Play(define(job("a"))).go()
    with pytest.raises(BrokenStream):
        play.run.apply(EventType.RETRIED, {}, play.now)
    with pytest.raises(BrokenStream, match="version 3 where 2 was expected"):
        fold([play.events[0], replace(play.events[1], version=3)])


# Random definitions, and whatever may come of their jobs.
_value = st.sampled_from(
    [1, "{{ n }}", "{{ m | default(2) }}", "{{ job_result | default(null) }}", {"a": ["{{ run.id }}"]}]
)
_condition = st.none() | st.builds(
    lambda field, operator, value: {"field": field, "operator": operator, "value": value},
    st.sampled_from(["n", "m", "job_result", "steps.s0.status"]),
    st.sampled_from(["eq", "neq", "gt", "lt", "contains"]),
    st.sampled_from([1, None, "x", "{{ m }}"]),
)
_failure = st.sampled_from(["Stop", "Continue", {"Retry": {"max_attempts": 2}}, {"Retry": {"max_attempts": 3}}])
_action = st.one_of(
    st.builds(
        lambda wait, payload: {"Job": {"queue": "q", "kind": "k", "wait": wait, "payload": payload}},
        st.booleans(),
        _value,
    ),
    st.just({"Job": {"queue": "q", "kind": "k", "wait": True, "idempotency_key": "shared"}}),
    st.builds(lambda value: {"SetVariable": {"key": "m", "value": value}}, _value),
    st.builds(lambda seconds: {"Delay": {"seconds": seconds}}, st.sampled_from([0, 3, "{{ n }}", "{{ nope }}"])),
)
_leaf = st.builds(lambda a, c, f: {"action": a, "condition": c, "on_failure": f}, _action, _condition, _failure)
_group = st.builds(
    lambda branches, c, f: {"parallel": branches, "condition": c, "on_failure": f},
    st.lists(st.lists(_leaf, min_size=1, max_size=3), min_size=1, max_size=3),
    _condition,
    st.sampled_from(["Stop", "Continue"]),
)
_steps = st.lists(st.one_of(_leaf, _leaf, _group), min_size=1, max_size=4)
_happening = st.one_of(
    st.tuples(st.sampled_from(["end", "end", "die"]), st.integers(0, 3)),
    st.tuples(st.sampled_from(["wait", "wait", "cancel", "retry", "go"]), st.integers(0, 30)),
)


def _named(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    number = 0

    def name(step: dict[str, Any]) -> dict[str, Any]:
        nonlocal number
        named = {"name": f"s{number}", **step}
        number += 1
        if "parallel" in step:
            named["parallel"] = [[name(inner) for inner in branch] for branch in step["parallel"]]
        return named

    return [name(step) for step in steps]


@settings(max_examples=300)
@given(_steps, st.lists(_happening, max_size=25), st.sampled_from([None, 20]))
def test_a_run_is_what_its_events_say_and_nothing_is_decided_twice(
    steps: list[dict[str, Any]], happenings: list[tuple[str, int]], timeout: int | None
) -> None:
    play = Play(define(*_named(steps), timeout_secs=timeout), {"n": 1}).go()
    for what, number in happenings:
        waiting = list(play.run.awaited())
        if what in ("end", "die") and waiting:
            play.go(**{waiting[number % len(waiting)]: BOOM if what == "die" else {"r": number}})
        elif what == "wait":
            play.wait(number).go()
        elif what == "cancel" and not play.run.status.is_final:
            play.cancel()
        elif what == "retry" and play.status == "Failed":
            play.retry()
        _is_sound(play)
    for _ in range(200):  # and then all goes well
        if play.run.status.is_final:
            break
        play.go(**{name: {"r": 0} for name in play.run.awaited()})
        if play.run.wake_at:
            play.now = max(play.now, play.run.wake_at)
        play.go()
        _is_sound(play)
    assert play.run.status.is_final


def _is_sound(play: Play) -> None:
    before = len(play.events)
    play.go()
    assert len(play.events) == before, "decided twice at one moment"
    if not play.run.status.is_final:
        assert play.run.awaited() or (play.run.wake_at is not None and play.run.wake_at > play.now), (
            "it would never go on"
        )
    keys = [job_.idempotency_key for _, job_ in play.jobs.values()]
    assert len(keys) == len(set(keys))
