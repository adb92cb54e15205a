"""What a binding fires on, and the job that it makes."""

from typing import Any

from atomo_gql.domain.jobs import Json
from tests.actions.acts import bind, fired, record
from tests.parts import Replica, of

CONDITIONS: list[tuple[Json, Json, Json, bool]] = [  # condition, data, what it was before, whether it fires
    (None, {}, None, True),
    ({"changedAny": ["a"]}, {"a": 1}, {"a": 2}, True),
    ({"changedAny": ["a"]}, {"a": 1}, {"a": 1}, False),
    ({"changedAny": ["a"]}, {"a": 1}, {"a": 1.0}, False),
    ({"changedAny": ["a"]}, {"a": True}, {"a": 1}, True),
    ({"changedAny": ["a"]}, {"a": 1}, None, True),
    ({"changedAny": ["a"]}, {"b": 1}, None, False),
    ({"changedAny": ["a"]}, {"a": None}, {}, False),
    ({"changedAny": ["a", "b"]}, {"a": 1, "b": 2}, {"a": 1, "b": 3}, True),
    ({"changedAny": ["a.b"]}, {"a": {"b": 1, "c": 1}}, {"a": {"b": 1, "c": 2}}, False),
    ({"changedAny": ["a.b"]}, {"a": {"b": 1}}, {"a": {"b": 2}}, True),
    ({"changedAny": ["a.0"]}, {"a": [1, 2]}, {"a": [1, 3]}, False),
    ({"changedAny": ["a"]}, [1], {"a": 1}, True),
    ({"fieldEquals": {"a": 1}}, {"a": 1}, None, True),
    ({"fieldEquals": {"a": 1}}, {"a": True}, None, False),
    ({"fieldEquals": {"a": 1}}, {"a": "1"}, None, False),
    ({"fieldEquals": {"a": None}}, {}, None, True),
    ({"fieldEquals": {"a": 1, "b.c": "x"}}, {"a": 1, "b": {"c": "x"}}, None, True),
    ({"fieldEquals": {"a": 1, "b.c": "x"}}, {"a": 1, "b": {"c": "y"}}, None, False),
    ({"fieldEquals": {"a": {"x": [1]}}}, {"a": {"x": [1]}}, None, True),
    ({"changedAny": ["a"], "fieldEquals": {"a": 1}}, {"a": 1}, {"a": 2}, True),
    ({"changedAny": ["a"], "fieldEquals": {"a": 1}}, {"a": 1}, {"a": 1}, False),
    ({"changedAny": ["a"], "fieldEquals": {"a": 1}}, {"a": 3}, {"a": 2}, False),
]


async def test_a_binding_fires_where_all_of_its_condition_holds(replica: Replica, sql: Any) -> None:
    for index, (condition, *_) in enumerate(CONDITIONS):
        more = {} if condition is None else {"condition": condition}
        await bind(replica, f"act {index}", model=f"m{index}", **more)
    for index, (_, data, before, _) in enumerate(CONDITIONS):
        await record(replica, model=f"m{index}", data=data, previous=before)
    await replica.settle()
    happened = {action for (action,) in await fired(sql, "action")}
    wrong = [CONDITIONS[i] for i in range(len(CONDITIONS)) if (f"act {i}" in happened) is not CONDITIONS[i][3]]
    assert wrong == []


async def test_what_was_deleted_is_compared_with_what_it_was(replica: Replica, sql: Any) -> None:
    await bind(replica, "gone", event="deleted", condition={"changedAny": ["a"]})
    await record(replica, event="deleted", data=None, previous={"a": 1})
    await record(replica, event="deleted", data={}, previous={"b": 1})
    await record(replica, event="updated", data=None, previous={"a": 1})
    await replica.settle()
    assert await fired(sql, "event", "input") == [("deleted", None)]


async def test_a_match_makes_the_job_that_the_contract_says(replica: Replica, sql: Any) -> None:
    await bind(replica, "mail", input=["a.b", "nope"], queue="mails")
    event_id = await record(
        replica, caller=of("acme", "bob"), data={"a": {"b": [1]}, "c": 2}, origin="other", event_id="e-1"
    )
    await replica.settle()
    [payload] = await fired(sql)
    at = payload.pop("timestamp")
    assert at.endswith("Z")
    assert payload == {
        "action": "mail",
        "model": "deal",
        "event": "updated",
        "eventId": event_id,
        "input": {"a.b": [1], "nope": None},
        "actor": "user:bob",
        "origin": "other",
    }
    [row] = await sql.fetch("SELECT tenant, queue, kind, idempotency_key, max_attempts, priority FROM jobs")
    assert tuple(row) == ("acme", "mails", "mail", "e-1:mail", 5, 0)
