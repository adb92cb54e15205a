"""kill -9 under hundreds of runs: each ends as its definition says, and no step enqueues its job twice."""

import contextlib
import json
import random
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from tests.conftest import bearer, until

from .definitions import QUEUE, definitions, work
from .fleet import SEED, Fleet, a_fleet, all_together, check_streams, until_true
from .flows import Flows
from .rig import DATABASE_IS_AWAY, Rig

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(420)]

WORKFLOWS = 16


async def _until_ended(rig: Rig, count: int) -> None:
    """Wait until so many runs have ended, and the jobs that none of them waited for."""
    left: list[Any] = []

    async def all_ended() -> bool:
        nonlocal left
        with contextlib.suppress(*DATABASE_IS_AWAY):
            async with rig.sql() as sql:
                left = await sql.fetch(
                    """
                    SELECT 'run', id::text, status FROM workflow_runs WHERE status NOT IN ('Completed', 'Failed')
                    UNION ALL SELECT 'job', id::text, 'ready' FROM ready
                    UNION ALL SELECT 'job', id::text, 'leased' FROM leases"""
                )
                return not left and await sql.fetchval("SELECT count(*) FROM workflow_runs") == count
        return False  # the database is not back yet

    try:
        await until(all_ended, within=90)
    except TimeoutError:
        raise AssertionError(f"seed {SEED}: {len(left)} are left, as {left[:5]}\n{rig.logs()}") from None


async def _check_all(sql: Any, flows: Flows) -> None:
    """Beside the runs: there is no other, nothing waits, and no stream is broken."""
    await flows.check(sql)
    assert await sql.fetchval("SELECT count(*) FROM workflow_runs") == len(flows.runs)
    assert await sql.fetchval("SELECT (SELECT count(*) FROM ready) + (SELECT count(*) FROM leases)") == 0
    await check_streams(sql)


async def _check(rig: Rig, flows: Flows) -> None:
    """What is there is right, and it is what the events say."""
    async with rig.sql() as sql:
        await _check_all(sql, flows)
    whole = f"{len(flows.runs):,} runs of workflows"
    assert whole in await rig.command("rebuild", "--verify")
    assert whole in await rig.command("rebuild", "--yes")
    assert whole in await rig.command("rebuild", "--verify")
    async with rig.sql() as sql:
        await _check_all(sql, flows)


@pytest.mark.parametrize(("victim", "kills", "runs"), [("servers", 50, 500), ("postgres", 5, 150)])
async def test_kill_9_loses_no_step_of_a_run_and_takes_none_twice(victim: str, kills: int, runs: int) -> None:
    dice = random.Random(SEED)
    sources = definitions(dice, WORKFLOWS)
    async with a_fleet(["one", "two"], {"workflows/flows.json": sources}, dice) as fleet:
        flows = Flows(fleet, sources)

        async def begin(http: aiohttp.ClientSession, number: int) -> None:
            # In step with the killing, so that each kill finds runs under way.
            await until_true(lambda: fleet.kills >= kills * number // runs - 2)
            await flows.begin(http, number)

        async with fleet.at_work(work, QUEUE):
            await all_together(
                fleet.kill_in_turn(kills) if victim == "servers" else fleet.kill_postgres(kills),
                fleet.call_each(runs, 16, begin),
                flows.retry_most(lambda: fleet.kills == kills),
            )
            await _until_ended(fleet.rig, runs)
        print(f"seed {SEED}: {fleet.kills} kills in {fleet.killed_secs:.0f} s, {flows.retries} runs retried by hand")
        await _check(fleet.rig, flows)


async def test_a_run_whose_server_is_killed_while_it_is_parked_goes_on_at_the_next_step_on_another() -> None:
    job = {"queue": QUEUE, "kind": "work", "payload": {"does": "succeed", "n": "{{ n }}"}}
    source = {
        "name": "parked",
        "steps": [
            {"name": "before", "action": {"Job": job}},
            {"name": "waits", "action": {"Job": {**job, "wait": True}}},
            {"name": "notes", "action": {"SetVariable": {"key": "noted", "value": "{{ job_result.n }}"}}},
            {
                "name": "after",
                "action": {"Job": {**job, "payload": {"does": "succeed", "n": "{{ noted }}"}, "wait": True}},
            },
        ],
    }
    async with a_fleet(["one"], {"workflows/parked.json": source}, random.Random(SEED)) as fleet:
        rig, flows = fleet.rig, Flows(fleet, [source])
        async with aiohttp.ClientSession(headers=bearer()) as http:
            await flows.begin(http, 7)
        [run_id] = flows.runs
        assert await _steps(rig, run_id) == {"before": "completed", "waits": "waiting"}
        await rig.kill("one")
        await rig.start_server("two")
        another = Fleet(rig, ["two"], random.Random(SEED))
        async with another.at_work(work, QUEUE):
            await _until_ended(rig, 1)
        assert await _steps(rig, run_id) == dict.fromkeys(["before", "waits", "notes", "after"], "completed")
        async with rig.sql() as sql:
            payloads = await sql.fetch(
                "SELECT data -> 'payload' -> 'n' AS n FROM events WHERE type = 'enqueued' ORDER BY xid, position"
            )
            assert [int(row["n"]) for row in payloads] == [7, 7, 8]
            await check_streams(sql)


async def _steps(rig: Rig, run_id: str) -> dict[str, str]:
    async with rig.sql() as sql:
        states = json.loads(await sql.fetchval("SELECT steps FROM workflow_runs WHERE id = $1", UUID(run_id)))
    return {name: state["status"] for name, state in states.items()}
