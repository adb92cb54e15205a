"""After any sequence of commands, folding a run's events gives its row, and a rebuild gives it back."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atomo_gql.domain.errors import BadUserInput
from atomo_gql.domain.events import BrokenStream
from atomo_gql.store import rebuild
from tests.parts import ALICE, ROOT, Replica, let_time_pass

FLAKY = {"Retry": {"max_attempts": 2}}


def job(name: str, **more: Any) -> dict[str, Any]:
    """A step that enqueues a job and waits for it."""
    outer: dict[str, Any] = {key: more.pop(key) for key in ("on_failure", "condition") if key in more}
    return {"name": name, "action": {"Job": {"queue": "q", "kind": name, "wait": True, **more}}, **outer}


WORKFLOWS: list[dict[str, Any]] = [
    {
        "name": "line",
        "timeout_secs": 86_400,
        "steps": [
            {"name": "set", "action": {"SetVariable": {"key": "n", "value": "{{ n | default(1) }}"}}},
            job("first", payload={"n": "{{ n }}"}, on_failure=FLAKY),
            {"name": "rest", "action": {"Delay": {"seconds": 60}}},
            job("last", wait=False, condition={"field": "n", "operator": "gt", "value": 1}),
        ],
    },
    {
        "name": "group",
        "timeout_secs": 86_400,
        "steps": [
            {
                "name": "both",
                "on_failure": "Continue",
                "parallel": [
                    [job("left"), {"name": "pause", "action": {"Delay": {"seconds": 5}}}, job("left2")],
                    job("right", on_failure=FLAKY),
                    job("shared", idempotency_key="one for all"),
                ],
            },
            {"name": "must", "parallel": [job("a"), job("b", on_failure="Continue")]},
            job("end", payload="{{ job_result }}", on_failure="Stop"),
        ],
    },
    {"name": "broken", "steps": [job("x", payload="{{ nothing }}", on_failure="Continue"), job("y", queue="{{ n }}")]},
]

_start = st.tuples(st.just("start"), st.sampled_from([w["name"] for w in WORKFLOWS]), st.sampled_from([None, 1, 2]))
_turn = st.tuples(st.sampled_from(["turn", "lease", "settle", "time", "time", "timeouts", "rebuild"]))
_report = st.tuples(st.sampled_from(["complete", "complete", "complete", "fail"]), st.integers(0, 9))
_manage = st.tuples(st.sampled_from(["cancel", "retry", "cancel job", "retry job"]), st.integers(0, 9))
_command = st.one_of(_start, _turn, _turn, _turn, _report, _report, _report, _manage)


async def _apply(replica: Replica, sql: Any, command: Any) -> None:
    services = replica.services
    plain: dict[str, Callable[[], Any]] = {
        "turn": services.engine.turn,
        "lease": replica.lease,
        "settle": services.engine.settle,
        "time": lambda: let_time_pass(sql),
        "timeouts": lambda: let_time_pass(sql, timeouts=True),
        "rebuild": lambda: rebuild.rebuild(replica.database),
    }
    match command:
        case ("start", name, n):
            await services.runs.start(ALICE, name, {} if n is None else {"n": n}, key=None if n is None else f"{n}")
        case (("complete" | "fail") as verb, number) if replica.held:
            held = replica.held[number % len(replica.held)]
            if await sql.fetchval("SELECT count(*) FROM leases WHERE lease_id = $1", UUID(held.lease_id)):
                await (
                    replica.complete(held, {"of": held.fields()["kind"]}) if verb == "complete" else replica.fail(held)
                )
            else:
                replica.held.remove(held)
        case (("cancel" | "retry") as verb, number):
            for run_id in (await _ids(sql, "SELECT id FROM workflow_runs ORDER BY id"))[number : number + 1]:
                try:
                    await getattr(services.runs, verb)(ALICE, run_id)
                except BadUserInput:
                    assert await sql.fetchval("SELECT status FROM workflow_runs WHERE id = $1", run_id) == "Completed"
        case ("retry job", number):
            for job_id in (await _ids(sql, "SELECT id FROM dead ORDER BY id"))[number : number + 1]:
                await services.manage.retry(ROOT, job_id)
        case ("cancel job", number):
            for job_id in (await _ids(sql, "SELECT id FROM ready ORDER BY id"))[number : number + 1]:
                await services.manage.cancel(ROOT, job_id)
        case (name,):
            await plain[name]()


async def _ids(sql: Any, query: str) -> list[UUID]:
    return [row["id"] for row in await sql.fetch(query)]


async def _finish(replica: Replica, sql: Any) -> None:
    """Let everything succeed from now on, until every run has ended."""
    for _ in range(60):
        await replica.settle()
        for held in await replica.lease():
            await replica.complete(held, {"of": held.fields()["kind"]})
        await let_time_pass(sql)
        if not await sql.fetchval(
            "SELECT count(*) FROM workflow_runs WHERE status IN ('Running', 'Paused')"
        ) and not await sql.fetchval("SELECT count(*) FROM ready"):
            return
    stuck = await sql.fetch("SELECT id, status, steps FROM workflow_runs WHERE status IN ('Running', 'Paused')")
    raise AssertionError(f"these runs do not end: {stuck}")


@pytest.fixture
async def drive(replica: Replica, sql: Any) -> Callable[[list[Any]], None]:
    """Hypothesis calls plain functions; this one runs its commands on the session's loop."""
    loop = asyncio.get_running_loop()
    for source in WORKFLOWS:
        await replica.services.workflows.register(ROOT, source)

    async def run(commands: list[Any]) -> None:
        await sql.execute(
            "TRUNCATE job_records, ready, leases, dead, idempotency_keys, workflow_runs, run_waits;"
            "DELETE FROM events WHERE stream IN ('Job', 'Workflow')"
        )
        replica.held.clear()
        for command in commands:
            await _apply(replica, sql, command)
            assert await replica.differences() == [], command
        await sql.execute("UPDATE leases SET expires_at = now()")
        await replica.services.housekeeping.sweep()
        await _finish(replica, sql)
        assert await replica.differences() == []
        assert await sql.fetchval("SELECT count(*) FROM run_waits") == 0

    return lambda commands: loop.run_until_complete(run(commands))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(_command, max_size=30))
def test_a_run_is_what_its_events_say_and_comes_to_an_end(drive: Any, commands: list[Any]) -> None:
    drive(commands)


async def _some(replica: Replica) -> dict[str, UUID]:
    """Runs in several states."""
    for source in WORKFLOWS:
        await replica.services.workflows.register(ROOT, source)
    runs = {}
    for name in ("line", "group", "broken"):
        runs[name] = (await replica.services.runs.start(ALICE, name, {"n": 2}, key="k")).id
    await replica.settle()
    for held in await replica.lease():
        if held.fields()["kind"] in ("left", "right"):
            await replica.complete(held, {"of": held.fields()["kind"]})
    await replica.settle()
    return runs


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("status", "'Completed'"),
        ("steps_run", "steps_run + 1"),
        ("version", "version + 1"),
        ("via", "'{}'"),
        ("tenant", "'acme'"),
        ("workflow", "'other'"),
        ("workflow_id", "gen_random_uuid()"),
        ("definition_version", "7"),
        ("context", """context || '{"n": true}'"""),
        ("steps", "steps - 'both'"),
        ("errors", """'["no"]'"""),
        ("trigger", "'{}'"),
        ("key", "'other'"),
        ("actor", "'user:mallory'"),
        ("trace", "'x'"),
        ("started_at", "started_at - interval '1 s'"),
        ("changed_at", "changed_at - interval '1 s'"),
        ("finished_at", "now()"),
        ("timeout_at", "now()"),
        ("wake_at", "now()"),
    ],
)
async def test_a_column_that_was_tampered_with_is_found_and_made_anew(
    replica: Replica, sql: Any, column: str, value: str
) -> None:
    run_id = (await _some(replica))["group"]
    assert await replica.differences() == []
    before = await sql.fetch("SELECT * FROM workflow_runs ORDER BY id")
    await sql.execute(f"UPDATE workflow_runs SET {column} = {value} WHERE id = $1", run_id)

    [found] = await replica.differences()

    assert (found.what, found.id) == ("run", run_id)
    assert column in found.detail
    made = await rebuild.rebuild(replica.database)
    assert (made.jobs, made.runs) == (await sql.fetchval("SELECT count(*) FROM job_records"), 3)
    assert await sql.fetch("SELECT * FROM workflow_runs ORDER BY id") == before
    assert await replica.differences() == []


async def test_a_row_without_events_and_events_without_a_row_are_differences(replica: Replica, sql: Any) -> None:
    runs = await _some(replica)
    await sql.execute("DELETE FROM workflow_runs WHERE id = $1", runs["line"])
    await sql.execute("DELETE FROM events WHERE stream_id = $1", runs["broken"])
    found = {d.id: d.detail for d in await replica.differences()}
    assert found.keys() == {runs["line"], runs["broken"]}
    assert found[runs["line"]] == "it has events, but no row"
    assert "a stream without events" in found[runs["broken"]]


async def test_a_wait_that_is_lost_is_found_and_made_anew(replica: Replica, sql: Any) -> None:
    run_id = (await _some(replica))["line"]
    await sql.execute("DELETE FROM run_waits WHERE run_id = $1", run_id)
    [found] = await replica.differences()
    assert found.id == run_id and found.detail.startswith("waits is {}, should be {'first': UUID(")
    await rebuild.rebuild(replica.database)
    assert await replica.differences() == []


async def test_runs_go_on_after_a_rebuild_also_where_their_jobs_had_ended(replica: Replica, sql: Any) -> None:
    await _some(replica)
    for held in list(replica.held):
        await replica.complete(held, {"of": held.fields()["kind"]})
    ended = await sql.fetchval("SELECT count(*) FROM run_waits WHERE ended_at IS NOT NULL")
    await rebuild.rebuild(replica.database)
    assert ended and await sql.fetchval("SELECT count(*) FROM run_waits WHERE ended_at IS NOT NULL") == ended
    await _finish(replica, sql)
    assert {row["status"] for row in await sql.fetch("SELECT status FROM workflow_runs")} == {"Completed"}
    assert await replica.differences() == []


async def test_a_stream_that_contradicts_itself_stops_a_rebuild_and_changes_nothing(replica: Replica, sql: Any) -> None:
    run_id = (await _some(replica))["line"]
    await sql.execute("DELETE FROM events WHERE stream_id = $1 AND version = 2", run_id)
    before = await sql.fetch("SELECT * FROM workflow_runs ORDER BY id")
    with pytest.raises(BrokenStream, match=f"run {run_id}: version 3 where 2 was expected"):
        await rebuild.rebuild(replica.database)
    assert await sql.fetch("SELECT * FROM workflow_runs ORDER BY id") == before
