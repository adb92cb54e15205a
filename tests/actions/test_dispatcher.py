"""Each match fires once, in order, whoever else fails."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson
import pytest

from atomo_gql.domain.actions import MAX_CHAIN, NewEvent
from atomo_gql.domain.errors import Forbidden, NotFound
from atomo_gql.domain.jobs import Json, NewJob
from atomo_gql.domain.principals import Caller
from atomo_gql.service.actions import dispatcher
from atomo_gql.store import actions as store
from tests.actions.conftest import MakeReplica
from tests.conftest import until
from tests.parts import ALICE, ROOT, Replica, of
from tests.workflows.play import job, put


async def record(replica: Replica, n: Json = 1, *, caller: Caller = ALICE, **more: Any) -> str:
    """Something happened to a model; the event's id."""
    fields = {"model": "deal", "event": "updated", "entity_id": "d-1", "data": {"n": n}, **more}
    return (await replica.services.records.record(caller, NewEvent(**fields))).event_id


async def bind(replica: Replica, action: str = "act", *, caller: Caller = ROOT, **more: Any) -> UUID:
    """A binding; its id."""
    source = {"model": "deal", "event": "updated", "action": action, **more}
    return (await replica.services.bindings.register(caller, source)).id


async def fired(sql: Any, *columns: str) -> list[Any]:
    """What the jobs that actions have made are, oldest first: their payloads, or fields of them."""
    rows = await sql.fetch(
        "SELECT data FROM events WHERE stream = 'Job' AND type = 'enqueued' AND data ? 'origin' ORDER BY xid, position"
    )
    payloads = [orjson.loads(row["data"])["payload"] for row in rows]
    return [tuple(payload[column] for column in columns) for payload in payloads] if columns else payloads


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


async def test_an_event_that_an_action_caused_does_not_fire_it_again(replica: Replica, sql: Any) -> None:
    await bind(replica, "a")
    await bind(replica, "b")
    await record(replica, origin="a")
    await replica.settle()
    assert await fired(sql, "action") == [("b",)]


async def test_a_binding_to_new_jobs_does_not_fire_on_its_own_jobs(replica: Replica, sql: Any) -> None:
    await bind(replica, "index", model="Job", event="created")
    await replica.services.jobs.enqueue(ALICE, _new("k"))
    await replica.settle()
    assert await fired(sql, "action") == [("index",)]


async def _chains(sql: Any) -> list[list[str]]:
    """What led to each job, in order; of those that nobody asked for."""
    rows = await sql.fetch("SELECT data FROM events WHERE stream = 'Job' AND type = 'enqueued' AND data ? 'via'")
    told = [orjson.loads(row["data"]) for row in rows]
    assert all(data["origin"] == data["via"][-1] for data in told)
    return sorted(data["via"] for data in told)


async def _work_off(replica: Replica, most: int) -> None:
    """Complete every job, and those that come of it, in so many rounds at most."""
    for _ in range(most):
        await replica.settle()
        held = await replica.lease()
        if not held:
            return
        for one in held:
            await replica.complete(one)
    raise AssertionError(f"jobs still come of jobs after {most} rounds")


async def _chain(replica: Replica, names: Sequence[str]) -> None:
    """Bindings of which each fires on the jobs of the one before it, and the first on jobs of the kind "k"."""
    for kind, name in itertools.pairwise(["k", *names]):
        await bind(replica, name, model="Job", event="created", condition={"fieldEquals": {"kind": kind}})


def _in_every_order(*names: str) -> list[list[str]]:
    """Each of these names, and some of them together, in every order, none twice."""
    return sorted(list(some) for length in range(1, len(names) + 1) for some in itertools.permutations(names, length))


async def test_actions_that_fire_on_every_job_s_end_never_fire_on_what_they_led_to(replica: Replica, sql: Any) -> None:
    for name in ("a", "b", "c"):
        await bind(replica, name, model="Job", event="succeeded")
    await replica.services.jobs.enqueue(ALICE, _new("k"))
    await _work_off(replica, 5)
    assert await _chains(sql) == _in_every_order("a", "b", "c")
    assert len(await _chains(sql)) == 15


async def test_a_workflow_among_actions_never_begins_on_what_it_led_to(replica: Replica, sql: Any) -> None:
    for name in ("a", "b"):
        await bind(replica, name, model="Job", event="succeeded")
    trigger = {"OnEvent": {"model": "Job", "event_type": "succeeded"}}
    await replica.services.workflows.register(ROOT, {"name": "w", "trigger": trigger, "steps": [job("j")]})
    await replica.services.jobs.enqueue(ALICE, _new("k"))
    await _work_off(replica, 5)
    assert await _chains(sql) == _in_every_order("a", "b", "workflow:w")
    led = [orjson.loads(row["via"]) for row in await sql.fetch("SELECT via FROM workflow_runs")]
    assert sorted(led) == [[], *_in_every_order("a", "b")]
    assert await replica.differences() == []


async def test_a_workflow_that_a_person_began_does_not_begin_on_its_own_jobs(replica: Replica, sql: Any) -> None:
    trigger = {"OnEvent": {"model": "Job", "event_type": "updated"}}
    await replica.services.workflows.register(ROOT, {"name": "w", "trigger": trigger, "steps": [job("j")]})
    await bind(replica, "a", model="Job", event="succeeded")
    await replica.services.runs.start(ALICE, "w", {})
    await _work_off(replica, 3)
    assert await _chains(sql) == [["workflow:w"], ["workflow:w", "a"]]
    assert await sql.fetchval("SELECT count(*) FROM workflow_runs") == 1


async def test_what_comes_of_a_recorded_event_never_fires_the_action_that_it_names(replica: Replica, sql: Any) -> None:
    await bind(replica, "b")
    await bind(replica, "a", model="Job", event="created")
    await record(replica, origin="a")
    await record(replica)
    await replica.settle()
    assert await _chains(sql) == [["a", "b"], ["b"], ["b", "a"]]


async def test_a_chain_of_different_actions_comes_to_an_end(replica: Replica, sql: Any) -> None:
    names = [f"a{number:02}" for number in range(MAX_CHAIN + 2)]
    await _chain(replica, names)
    await replica.services.jobs.enqueue(ALICE, _new("k"))
    await replica.settle()
    assert await _chains(sql) == [names[:length] for length in range(1, MAX_CHAIN + 1)]


@pytest.mark.parametrize("before", [MAX_CHAIN - 1, MAX_CHAIN])
async def test_a_chain_that_is_as_long_as_can_be_begins_no_run(replica: Replica, sql: Any, before: int) -> None:
    names = [f"a{number:02}" for number in range(before)]
    await _chain(replica, names)
    # Twice the same but for their names: neither begins the other where the chain cannot be longer.
    for name in ("one", "other"):
        trigger = {"OnEvent": {"model": "Job", "event_type": "cancelled"}}
        await replica.services.workflows.register(
            ROOT, {"name": name, "trigger": trigger, "steps": [job("j", wait=False)]}
        )
    await replica.services.jobs.enqueue(ALICE, _new("k"))
    await replica.settle()
    for kind in (names[-1], "j"):
        for row in await sql.fetch("SELECT id FROM jobs WHERE kind = $1", kind):
            await replica.services.manage.cancel(ROOT, row["id"])
        await replica.settle()
    assert await sql.fetchval("SELECT count(*) FROM workflow_runs") == (2 if before < MAX_CHAIN else 0)
    assert max(map(len, await _chains(sql))) == MAX_CHAIN


async def test_a_binding_fires_on_its_tenant_s_events_and_one_of_the_service_on_everybody_s(
    replica: Replica, sql: Any
) -> None:
    await bind(replica, "all")
    await bind(replica, "acme's", caller=of("acme", is_admin=True))
    for caller in (ALICE, of("acme"), of("other")):
        await record(replica, caller=caller)
    await replica.settle()
    rows = await sql.fetch("SELECT tenant, kind FROM jobs ORDER BY tenant, kind")
    assert [tuple(row) for row in rows] == [("", "all"), ("acme", "acme's"), ("acme", "all"), ("other", "all")]


async def test_bindings_are_an_admin_s_and_those_of_his_tenant(replica: Replica, sql: Any) -> None:
    theirs, of_all = await bind(replica, "x", caller=of("acme", is_admin=True)), await bind(replica, "y")
    before = await sql.fetch("SELECT * FROM bindings ORDER BY id")
    with pytest.raises(Forbidden):
        await bind(replica, "z", caller=of("acme"))
    for somebody, binding_id in ((of("other", is_admin=True), theirs), (of("acme", is_admin=True), of_all)):
        with pytest.raises(NotFound):
            await replica.services.bindings.remove(somebody, binding_id)
    assert await sql.fetch("SELECT * FROM bindings ORDER BY id") == before
    assert [b.id for b in await replica.services.bindings.listed(of("acme"))] == [theirs, of_all]
    assert [b.id for b in await replica.services.bindings.listed(of("other"))] == [of_all]


async def test_nothing_fires_for_what_happened_before_it_was_registered(replica: Replica, sql: Any) -> None:
    await record(replica, 1)
    await bind(replica)
    await record(replica, 2)
    await replica.settle()
    assert await fired(sql, "input") == [({"n": 2},)]


async def test_an_event_between_the_look_at_the_bindings_and_the_look_at_the_log_is_not_missed(
    replica: Replica, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bind(replica, "there")
    await record(replica, 0)
    await replica.settle()
    seen = store.bindings

    async def slow(connection: Any, tenant: str | None) -> Any:
        found = await seen(connection, tenant)
        monkeypatch.undo()
        await bind(replica, "late")
        await record(replica, 1)
        return found

    monkeypatch.setattr(store, "bindings", slow)
    await record(replica, 0)
    await replica.services.dispatcher.turn()
    await replica.settle()
    assert sorted(await fired(sql, "action")) == [("late",), *[("there",)] * 3]


async def test_the_same_event_twice_is_once(replica: Replica, sql: Any) -> None:
    await bind(replica)
    record_ = replica.services.records.record
    new = [
        (await record_(caller, NewEvent(model="deal", event="updated", entity_id="d", data=n, event_id="e"))).is_new
        for n, caller in enumerate((ALICE, ALICE, of("acme")))
    ]
    assert new == [True, False, True], "another tenant's id is another id"
    await replica.settle()
    assert await fired(sql, "input") == [(0,), (2,)]


async def test_the_end_of_a_job_starts_an_action_and_a_workflow(replica: Replica, sql: Any) -> None:
    await bind(replica, "cheer", model="Job", event="succeeded", condition={"fieldEquals": {"kind": "k"}})
    await bind(replica, "mourn", model="Job", event="dead", input=["error", "status"])
    await replica.services.workflows.register(
        ROOT,
        {
            "name": "after",
            "trigger": {"OnEvent": {"model": "Job", "event_type": "succeeded"}},
            "steps": [put("a", "{{ event.data.result.n }}")],
        },
    )
    for tenant in ("acme", "other"):
        await replica.services.jobs.enqueue(of(tenant), _new("k"))
    one, other = await replica.lease()
    await replica.complete(one, {"n": 7})
    await replica.fail(other, "no luck")
    await replica.settle()
    assert await fired(sql, "action", "event", "eventId") == [
        ("cheer", "updated", f"{one.id}:3"),
        ("mourn", "updated", f"{other.id}:3"),
    ]
    assert (await fired(sql, "input"))[1] == ({"error": "no luck", "status": "dead"},)
    [run] = await sql.fetch("SELECT tenant, status, context FROM workflow_runs")
    assert (run["tenant"], run["status"], orjson.loads(run["context"])["a"]) == (one.tenant, "Completed", 7)


async def test_events_of_a_stream_fire_in_their_order(replica: Replica, sql: Any) -> None:
    await bind(replica)
    chosen = random.Random(7)
    written: dict[str, list[int]] = {f"d{n}": [] for n in range(5)}
    for _ in range(10):
        several = [chosen.choice(list(written)) for _ in range(30)]
        for entity in several:
            written[entity].append(len(written[entity]))
        numbers = {entity: iter(range(len(written[entity]) - several.count(entity), 1_000)) for entity in written}
        await asyncio.gather(*(record(replica, next(numbers[entity]), entity_id=entity) for entity in several))
    await replica.settle()
    streams: dict[str, list[int]] = {}
    rows = await sql.fetch("SELECT stream_id, data FROM events WHERE stream = 'Model' ORDER BY xid, position")
    entities = {orjson.loads(row["data"])["eventId"]: orjson.loads(row["data"])["id"] for row in rows}
    for event_id, given in await fired(sql, "eventId", "input"):
        streams.setdefault(entities[event_id], []).append(given["n"])
    assert streams == {entity: numbers for entity, numbers in written.items() if numbers}


async def test_whoever_records_takes_its_place_in_the_stream_before_its_place_in_the_log(
    replica: Replica, sql: Any
) -> None:
    await record(replica, 1)
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute("SELECT pg_advisory_xact_lock(hashtext('model stream'), hashtext(E'\\x1fdeal\\x1fd-1') & 255)")
    waiting = asyncio.create_task(record(replica, 2))
    while not (
        rows := await sql.fetch(
            "SELECT backend_xid FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = current_database()"
        )
    ):
        await sql.execute("SELECT pg_stat_clear_snapshot()")
    assert [row["backend_xid"] for row in rows] == [None]
    await transaction.rollback()
    await waiting


async def test_a_poisoned_binding_is_set_aside_and_the_others_go_on(replica: Replica, sql: Any) -> None:
    await sql.execute("ALTER TABLE ready ADD CHECK (queue <> 'refused')")
    poisoned = await bind(replica, "bad", queue="refused", condition={"fieldEquals": {"n": 3}})
    await bind(replica, "good")
    ids = [await record(replica, n) for n in range(1, 6)]
    await replica.settle()
    assert await fired(sql, "action", "input") == [("good", {"n": n}) for n in range(1, 6)]
    [binding] = [b for b in await replica.services.bindings.listed(ROOT) if b.id == poisoned]
    assert binding.set_aside_at is not None and "CheckViolationError" in (binding.error or "")
    assert await sql.fetchval("SELECT count(*) FROM events WHERE type = 'set_aside'") == 1
    assert len(ids) == len(set(ids))
    await record(replica, 6)
    await replica.settle()
    assert len(await fired(sql)) == 6


async def test_an_event_as_large_as_may_be_has_room_in_its_job(replica: Replica, sql: Any) -> None:
    await bind(replica)
    await bind(replica, "after", model="Job", event="succeeded")
    await record(replica, "x" * (1_048_576 - 200))
    await replica.settle()
    assert len(await fired(sql)) == 1
    assert not [b for b in await replica.services.bindings.listed(ROOT) if b.set_aside_at]


async def _break(replica: Replica, monkeypatch: pytest.MonkeyPatch, broken: Sequence[int]) -> None:
    """The action `bad` cannot make a job of these."""
    theirs = replica.services.dispatcher
    make = theirs._row

    def row(binding: Any, event: Any) -> Any:
        if binding.what.action == "bad" and event.data["n"] in broken:
            raise RuntimeError("no way")
        return make(binding, event)

    monkeypatch.setattr(theirs, "_row", row)


async def test_one_that_was_set_aside_goes_on_from_the_event_it_failed_on_when_it_is_resumed(
    replica: Replica, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = await bind(replica, "bad")
    await bind(replica, "good")
    await _break(replica, monkeypatch, [3, 5])
    for n in range(1, 7):
        await record(replica, n)
        await replica.settle()
    assert [i["n"] for a, i in await fired(sql, "action", "input") if a == "bad"] == [1, 2]
    for fails_at in (5, None):
        await sql.execute("DELETE FROM idempotency_keys")  # as retention does: nothing here leans on the keys
        await replica.services.bindings.resume(ROOT, bad)
        if fails_at is None:
            monkeypatch.undo()
            await replica.settle()
        else:
            monkeypatch.undo()
            await _break(replica, monkeypatch, [5])
            await replica.settle()
            assert [i["n"] for a, i in await fired(sql, "action", "input") if a == "bad"] == [1, 2, 3, 4]
    await record(replica, 7)
    await replica.settle()
    by_action: dict[str, list[int]] = {"bad": [], "good": []}
    for action, given in await fired(sql, "action", "input"):
        by_action[action].append(given["n"])
    assert by_action == {"bad": [1, 2, 3, 4, 5, 6, 7], "good": [1, 2, 3, 4, 5, 6, 7]}
    [binding] = [b for b in await replica.services.bindings.listed(ROOT) if b.id == bad]
    assert (binding.set_aside_at, binding.at, binding.error) == (None, None, None)


async def test_one_that_skips_goes_on_with_what_comes(
    replica: Replica, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = await bind(replica, "bad")
    await _break(replica, monkeypatch, [2])
    for n in range(1, 5):
        await record(replica, n)
    await replica.settle()
    monkeypatch.undo()
    await replica.services.bindings.resume(ROOT, bad, skip=True)
    with pytest.raises(NotFound):
        await replica.services.bindings.resume(ROOT, bad)
    await record(replica, 5)
    await replica.settle()
    assert [given["n"] for (given,) in await fired(sql, "input")] == [1, 5]


async def test_what_is_removed_fires_no_more(replica: Replica, sql: Any) -> None:
    binding_id = await bind(replica)
    await replica.services.bindings.remove(ROOT, binding_id)
    await record(replica)
    await replica.settle()
    assert await fired(sql) == []
    with pytest.raises(NotFound):
        await replica.services.bindings.remove(ROOT, binding_id)


async def test_replicas_that_register_the_same_binding_at_once_make_one(make_replica: MakeReplica, sql: Any) -> None:
    replicas = [await make_replica() for _ in range(3)]
    ids = await asyncio.gather(
        *(bind(replica, condition={"changedAny": ["n"]}) for replica in replicas for _ in range(4))
    )
    assert len(set(ids)) == 1
    assert await sql.fetchval("SELECT count(*) FROM bindings") == 1
    assert await sql.fetchval("SELECT count(*) FROM events WHERE stream = 'Binding'") == 1


async def test_one_replica_at_a_time_reads_the_log_and_each_match_fires_once(
    make_replica: MakeReplica, sql: Any
) -> None:
    replicas = [await make_replica() for _ in range(3)]
    await bind(replicas[0], "a")
    await bind(replicas[0], "b", condition={"fieldEquals": {"n": 1}})

    async def write(replica: Replica) -> None:
        await asyncio.gather(*(record(replica, n % 2, entity_id=f"d{n % 7}") for n in range(100)))

    async def read(replica: Replica) -> None:
        while not writing.done():
            await replica.services.dispatcher.turn()

    writing = asyncio.gather(*map(write, replicas))
    await asyncio.gather(writing, *map(read, replicas))
    await replicas[0].settle()
    happened = await fired(sql, "action", "eventId")
    assert len(happened) == len(set(happened)) == 300 + 150
    assert await replicas[0].services.dispatcher.look() == 0


async def test_a_binding_to_jobs_that_comes_late_need_not_wade_through_all_that_was(
    replica: Replica, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "_FAR", 10)
    await bind(replica)
    before = await sql.fetchval("SELECT xid FROM checkpoints")

    async def has_moved() -> bool:
        await sql.execute("SELECT pg_current_xact_id()")
        await replica.services.dispatcher.turn()
        return bool(await sql.fetchval("SELECT xid > $1 FROM checkpoints", before))

    await until(has_moved)
    assert await sql.fetchval("SELECT xid FROM checkpoints") - before > 10


async def test_a_log_in_which_nothing_happens_is_not_written_to(replica: Replica, sql: Any) -> None:
    await bind(replica)
    await bind(replica, model="Job", event="dead")
    await record(replica)
    await replica.settle()
    before = await sql.fetchval("SELECT changed_at FROM checkpoints")
    for _ in range(3):
        await replica.services.dispatcher.turn()
    assert await sql.fetchval("SELECT changed_at FROM checkpoints") == before


def _new(kind: str) -> NewJob:
    return NewJob("q", kind, {})
