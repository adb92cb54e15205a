"""Each match fires once, in order, whoever else fails."""

import asyncio
import random
from typing import Any

import orjson
import pytest

from atomo_gql.domain.actions import NewEvent
from atomo_gql.domain.errors import Forbidden, NotFound
from atomo_gql.domain.jobs import NewJob
from atomo_gql.service.actions import dispatcher
from atomo_gql.store import actions as store
from tests.actions.acts import bind, fired, record
from tests.actions.conftest import MakeReplica
from tests.conftest import until
from tests.parts import ALICE, ROOT, Replica, of
from tests.workflows.play import put


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
