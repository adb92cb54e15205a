"""No action fires on what it led to."""

import itertools
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from atomo_gql.domain.actions import MAX_CHAIN
from atomo_gql.domain.jobs import NewJob
from tests.actions.acts import bind, fired, record
from tests.parts import ALICE, ROOT, Replica
from tests.workflows.play import job


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


def _new(kind: str) -> NewJob:
    return NewJob("q", kind, {})
