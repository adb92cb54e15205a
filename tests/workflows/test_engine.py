"""Runs go on whatever one of them is, however many replicas carry them on."""

import asyncio
from typing import Any
from uuid import UUID

import orjson
import pytest

from atomo_gql.domain.actions import NewEvent
from atomo_gql.domain.errors import BadUserInput, NotFound, Unavailable
from atomo_gql.service.workflows import engine
from tests.parts import ALICE, ROOT, Replica, history, let_time_pass, of
from tests.workflows.conftest import MakeReplica
from tests.workflows.play import delay, group, job, put


async def define(replica: Replica, *steps: Any, name: str = "w", caller: Any = ROOT, **more: Any) -> None:
    """Register a workflow."""
    await replica.services.workflows.register(caller, {"name": name, "steps": list(steps), **more})


_REFUSE = "ALTER TABLE ready ADD CHECK (queue <> 'refused')"


async def test_replicas_that_register_the_same_at_once_make_one_version(make_replica: MakeReplica, sql: Any) -> None:
    replicas = [await make_replica() for _ in range(3)]
    await asyncio.gather(*(define(replica, put("a", 1)) for replica in replicas for _ in range(4)))
    assert await sql.fetchval("SELECT definition_version FROM workflows") == 1
    assert await sql.fetchval("SELECT count(*) FROM events WHERE stream = 'Definition'") == 1


async def test_many_replicas_carry_runs_on_and_each_step_enqueues_once(make_replica: MakeReplica, sql: Any) -> None:
    replicas = [await make_replica() for _ in range(3)]
    await define(replicas[0], group("g", job("a"), job("b"), [delay("d"), job("c")]), job("z", wait=False))
    ids = [(await replicas[n % 3].services.runs.start(ALICE, "w", {}, key=f"{n // 2}")).id for n in range(60)]
    assert len(set(ids)) == 30

    async def carry_on(replica: Replica) -> None:
        while not done.is_set():
            await replica.services.engine.turn()
            await replica.services.engine.settle()

    async def work() -> None:
        while await sql.fetchval("SELECT count(*) FROM workflow_runs WHERE status <> 'Completed'"):
            jobs = [(replica, held) for replica in replicas for held in await replica.lease()]
            await asyncio.gather(*(replica.complete(held, held.fields()["kind"]) for replica, held in jobs))
            await let_time_pass(sql)
        done.set()

    done = asyncio.Event()
    async with asyncio.timeout(60):
        await asyncio.gather(work(), *map(carry_on, replicas))
    assert await sql.fetchval("SELECT count(*) FROM job_records") == 4 * 30
    assert await sql.fetchval("SELECT count(DISTINCT (run_id, kind)) FROM job_records") == 4 * 30
    assert await replicas[0].differences() == []


async def test_a_run_that_postgresql_refuses_fails_and_the_others_go_on(replica: Replica, sql: Any) -> None:
    await sql.execute(_REFUSE)
    await define(replica, delay("d", 10), job("j", queue="{{ q }}"))
    bad, good = [await replica.services.runs.start(ALICE, "w", {"q": queue}) for queue in ("refused", "q")]
    await let_time_pass(sql)
    await replica.settle()
    bad, good = [await replica.services.runs.get(ALICE, run.id) for run in (bad, good)]
    assert (bad.status, good.status) == ("Failed", "Paused")
    assert "the engine failed: CheckViolationError" in bad.errors[0]
    assert (await history(sql, bad.id))[-1] == ("run_failed", None)
    assert await replica.differences() == []


async def test_a_run_that_postgresql_refuses_at_its_beginning_fails_too(replica: Replica, sql: Any) -> None:
    await sql.execute(_REFUSE)
    await define(replica, job("j", queue="{{ q }}"))
    starts = (replica.services.runs.start(ALICE, "w", {"q": queue}) for queue in ("refused", "q"))
    bad, good = await asyncio.gather(*starts)
    assert (bad.status, good.status) == ("Failed", "Paused")


async def test_a_run_whose_row_cannot_be_read_does_not_stop_the_others(replica: Replica, sql: Any) -> None:
    await define(replica, delay("d", 10), put("a", 1))
    bad, good = [await replica.services.runs.start(ALICE, "w") for _ in range(2)]
    await let_time_pass(sql)
    await sql.execute("""UPDATE workflow_runs SET steps = '{"d": {"status": "odd"}}' WHERE id = $1""", bad.id)
    await replica.settle()
    assert (await replica.services.runs.get(ALICE, good.id)).status == "Completed"
    assert await replica.services.engine.turn() == 0, "it is not looked at again and again"
    [found] = await replica.differences()
    assert found.id == bad.id and "its row cannot be read" in found.detail


async def test_a_run_whose_row_cannot_be_read_is_let_alone_also_when_its_job_ends(replica: Replica, sql: Any) -> None:
    await define(replica, job("j"))
    bad, good = [await replica.services.runs.start(ALICE, "w") for _ in range(2)]
    await sql.execute("""UPDATE workflow_runs SET steps = '{"j": {"status": "odd"}}' WHERE id = $1""", bad.id)
    for held in await replica.lease():
        await replica.complete(held)
    await replica.settle()
    assert (await replica.services.runs.get(ALICE, good.id)).status == "Completed"
    assert await replica.services.engine.turn() == 0
    assert await sql.fetchval("SELECT ended_at > now() FROM run_waits"), "until somebody has looked at it"


async def test_a_database_that_is_not_as_it_should_be_fails_no_run(replica: Replica, sql: Any) -> None:
    await define(replica, delay("d", 10), job("j"))
    run = await replica.services.runs.start(ALICE, "w")
    await let_time_pass(sql)
    await sql.execute("ALTER TABLE job_records RENAME TO elsewhere")
    with pytest.raises(Unavailable, match="schema is not the one"):
        await replica.services.engine.turn()
    await sql.execute("ALTER TABLE elsewhere RENAME TO job_records")
    await replica.settle()
    run = await replica.services.runs.get(ALICE, run.id)
    assert (run.status, run.errors) == ("Paused", [])


async def test_due_runs_that_another_replica_holds_do_not_hide_those_behind_them(
    replica: Replica, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_LOT", 3)
    await define(replica, delay("d", 10), put("a", 1))
    ids = [(await replica.services.runs.start(ALICE, "w")).id for _ in range(6)]
    await let_time_pass(sql)
    transaction = sql.transaction()
    await transaction.start()
    held = [
        row["id"] for row in await sql.fetch("SELECT id FROM workflow_runs ORDER BY wake_at, id LIMIT 3 FOR UPDATE")
    ]
    assert await replica.services.engine.turn() == 3
    await transaction.rollback()
    runs = await replica.services.runs.get_many(ALICE, ids)
    assert {run_id for run_id, run in runs.items() if run.status == "Paused"} == set(held)


async def test_a_job_that_another_run_waits_for_outlives_the_run_that_made_it(replica: Replica, sql: Any) -> None:
    await define(replica, job("j", idempotency_key="one"))
    first, second = [await replica.services.runs.start(ALICE, "w") for _ in range(2)]
    await replica.services.runs.cancel(ALICE, first.id)
    assert await sql.fetchval("SELECT count(*) FROM dead") == 0
    [held] = await replica.lease()
    await replica.complete(held, "done")
    await replica.settle()
    assert (await replica.services.runs.get(ALICE, second.id)).context["job_result"] == "done"

    await define(replica, job("j"), name="alone")
    alone = await replica.services.runs.start(ALICE, "alone")
    await replica.services.runs.cancel(ALICE, alone.id, "no more")
    [error] = [row["error"] for row in await sql.fetch("SELECT error FROM dead")]
    assert error == "cancelled: the run of a workflow that waited for it has ended"


async def test_a_job_that_had_ended_before_anybody_waited_for_it_is_noticed(replica: Replica) -> None:
    await define(replica, job("j", idempotency_key="one"))
    await replica.services.runs.start(ALICE, "w")
    [held] = await replica.lease()
    await replica.complete(held, 7)
    late = await replica.services.runs.start(ALICE, "w")
    assert late.status == "Paused"
    await replica.settle()
    assert (await replica.services.runs.get(ALICE, late.id)).context["job_result"] == 7


async def test_a_dead_job_that_is_retried_by_hand_before_its_run_saw_it_is_waited_for_on(
    replica: Replica, sql: Any
) -> None:
    await define(replica, job("j"))
    run = await replica.services.runs.start(ALICE, "w")
    [held] = await replica.lease()
    await replica.fail(held)
    await replica.services.manage.retry(ROOT, UUID(held.id))
    await replica.settle()
    assert (await replica.services.runs.get(ALICE, run.id)).status == "Paused"
    [held] = await replica.lease()
    await replica.complete(held, 1)
    await replica.settle()
    assert (await replica.services.runs.get(ALICE, run.id)).status == "Completed"
    assert await sql.fetchval("SELECT count(*) FROM run_waits") == 0


async def test_a_run_keeps_the_definition_it_began_with(replica: Replica) -> None:
    await define(replica, delay("d", 0), job("j"), put("a", "old"))
    run = await replica.services.runs.start(ALICE, "w")
    await define(replica, put("a", "new"))
    [held] = await replica.lease()
    await replica.complete(held)
    await replica.settle()
    old, new = await replica.services.runs.get(ALICE, run.id), await replica.services.runs.start(ALICE, "w")
    assert (old.context["a"], old.definition_version) == ("old", 1)
    assert (new.context["a"], new.definition_version) == ("new", 2)


async def test_runs_are_seen_and_changed_by_their_tenant_alone(replica: Replica, sql: Any) -> None:
    await define(replica, job("j"))
    run = await replica.services.runs.start(of("acme"), "w", {"n": 1})
    before = await sql.fetch("SELECT * FROM workflow_runs")
    for somebody in (ALICE, of("other"), of("other", is_admin=True)):
        for verb in ("get", "cancel", "retry"):
            with pytest.raises(NotFound):
                await getattr(replica.services.runs, verb)(somebody, run.id)
    assert await sql.fetch("SELECT * FROM workflow_runs") == before
    assert {row["tenant"] for row in await sql.fetch("SELECT tenant FROM jobs")} == {"acme"}
    assert (await replica.services.runs.get(ROOT, run.id)).tenant == "acme"


async def test_a_tenant_s_own_workflow_goes_before_the_service_s(replica: Replica) -> None:
    await define(replica, put("a", "service"))
    await define(replica, put("a", "acme"), caller=of("acme", is_admin=True))
    found = [(await replica.services.runs.start(caller, "w")).context["a"] for caller in (of("acme"), of("x"), ALICE)]
    assert found == ["acme", "service", "service"]


async def test_the_same_key_is_the_same_run_and_a_tenant_s_key_is_its_own(replica: Replica, sql: Any) -> None:
    await define(replica, job("j"))
    start = replica.services.runs.start
    runs = await asyncio.gather(*(start(of(tenant), "w", {}, key="k") for tenant in ("a", "b") for _ in range(5)))
    assert len({run.id for run in runs}) == 2
    assert await sql.fetchval("SELECT count(*) FROM job_records") == 2
    assert await sql.fetchval("SELECT count(*) FROM events WHERE type = 'run_started'") == 2


@pytest.mark.parametrize(
    ("context", "field"),
    [
        ([], "context"),
        ("x", "context"),
        ({"run": 1}, "context.run"),
        ({"steps": 1}, "context.steps"),
        ({"a": "\0"}, "context"),
    ],
)
async def test_a_context_that_breaks_a_rule_begins_nothing(
    replica: Replica, sql: Any, context: Any, field: str
) -> None:
    await define(replica, job("j"))
    with pytest.raises(BadUserInput) as refused:
        await replica.services.runs.start(ALICE, "w", context)
    assert (refused.value.field or "").startswith(field)
    assert await sql.fetchval("SELECT count(*) FROM workflow_runs") == 0


async def test_what_has_completed_can_be_neither_cancelled_nor_retried(replica: Replica, sql: Any) -> None:
    await define(replica, put("a", 1))
    run = await replica.services.runs.start(ALICE, "w")
    before = await sql.fetch("SELECT * FROM events ORDER BY position")
    for verb in ("cancel", "retry"):
        with pytest.raises(BadUserInput, match="has completed"):
            await getattr(replica.services.runs, verb)(ALICE, run.id)
    assert await sql.fetch("SELECT * FROM events ORDER BY position") == before


async def test_retention_takes_runs_and_recorded_events_whose_time_is_over(make_replica: MakeReplica, sql: Any) -> None:
    replica = await make_replica(retention_succeeded_days=1, retention_dead_days=3, retention_events_days=2)
    await define(replica, put("a", 1))
    await define(replica, job("j", kind="{{ nope }}"), name="fails")
    await define(replica, job("j"), name="waits")
    for name in ("w", "fails", "waits"):
        await replica.services.runs.start(ALICE, name)
    await replica.services.records.record(
        ALICE, NewEvent(model="m", event="created", entity_id="1", data={}, event_id="e")
    )

    async def left(days: float) -> tuple[set[str], int, int]:
        now = await sql.fetchval("SELECT now() + make_interval(secs => $1)", days * 86_400)
        await replica.services.housekeeping.retain_runs(now)
        names = {row["workflow"] for row in await sql.fetch("SELECT workflow FROM workflow_runs")}
        events = await sql.fetchval("SELECT count(*) FROM events WHERE stream = 'Model'")
        return names, events, await sql.fetchval("SELECT count(*) FROM recorded_ids")

    assert await left(0.9) == ({"w", "fails", "waits"}, 1, 1)
    assert await left(1.1) == ({"fails", "waits"}, 1, 1)
    assert await left(2.1) == ({"fails", "waits"}, 0, 0)
    assert await left(3.1) == ({"waits"}, 0, 0)
    assert await replica.differences() == []
    assert orjson.loads(await sql.fetchval("SELECT steps FROM workflow_runs"))["j"]["status"] == "waiting"
