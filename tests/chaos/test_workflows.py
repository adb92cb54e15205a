"""kill -9 under hundreds of runs: each ends as its definition says, and no step enqueues its job twice."""

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from tests.conftest import bearer, until

from .definitions import QUEUE, definitions, end_of, work
from .fleet import SEED, Fleet, a_fleet, all_together, check_streams, until_true
from .rig import DATABASE_IS_AWAY, Rig

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(420)]

WORKFLOWS = 16


def context_of(number: int) -> dict[str, Any]:
    """Of run number so."""
    return {"n": number % 50, "pause": (number % 7) / 10, "lot": number % 3}


class Flows:
    """Workflows on a fleet, and the runs of them that were begun."""

    def __init__(self, fleet: Fleet, sources: list[dict[str, Any]]) -> None:
        self._fleet = fleet
        self._sources = sources
        self.runs: dict[str, int] = {}  # numbers by id
        self.retries = 0

    async def begin(self, http: aiohttp.ClientSession, number: int) -> None:
        """Run number so, which the key makes one."""
        name = self._source(number)["name"]
        _, run = await self._fleet.call(
            http,
            f"/workflows/{name}/run",
            context_of(number),
            accepted=[200, 201],
            headers={"Idempotency-Key": f"run {number}"},
        )
        self.runs[run["id"]] = number
        if name == "stuck":
            await self._fleet.call(http, f"/workflows/runs/{run['id']}/cancel", {}, accepted=[200])

    async def retry_most(self, until_done: Callable[[], bool]) -> None:
        """Retry most of the runs that have failed, each once, or more often where an answer is lost."""
        done: set[str] = set()
        async with aiohttp.ClientSession(headers=bearer()) as http:
            while not until_done():
                for run_id in await self._failed():
                    if run_id not in done and self.runs.get(run_id, 0) % 4:
                        done.add(run_id)
                        self.retries += 1
                        await self._fleet.call(http, f"/workflows/runs/{run_id}/retry", {}, accepted=[200, 400])
                await asyncio.sleep(0.1)

    async def _failed(self) -> list[str]:
        with contextlib.suppress(*DATABASE_IS_AWAY):
            async with self._fleet.rig.sql() as sql:
                found = await sql.fetch(
                    "SELECT id::text FROM workflow_runs WHERE status = 'Failed' AND workflow LIKE 'flow-%'"
                )
                return [row["id"] for row in found]
        return []  # the database is away

    def _source(self, number: int) -> dict[str, Any]:
        return self._sources[number % len(self._sources)]

    async def check(self, sql: Any) -> None:
        """All has ended as it must, and nothing is left over."""
        rows = await sql.fetch("SELECT id::text, status, steps, steps_run, errors FROM workflow_runs")
        assert sorted(row["id"] for row in rows) == sorted(self.runs)
        retried = Counter(
            row["id"]
            for row in await sql.fetch(
                "SELECT stream_id::text AS id FROM events WHERE type = 'retried' AND stream = 'Workflow'"
            )
        )
        jobs: dict[str, Counter[str]] = {run_id: Counter() for run_id in self.runs}
        common: Counter[str] = Counter()
        for job in await sql.fetch("SELECT run_id::text, idempotency_key AS key FROM job_records"):
            of_run, _, key = job["key"].partition(f"run:{job['run_id']}:")
            if key:
                jobs[job["run_id"]][key] += 1
            else:
                common[of_run] += 1
        assert common == dict.fromkeys(["common 0", "common 1", "common 2"], 1)
        for row in rows:
            number = self.runs[row["id"]]
            expected = end_of(self._source(number), context_of(number)["n"], retried[row["id"]])
            told = f"seed {SEED}, run {row['id']}, number {number} of {self._source(number)}"
            assert row["status"] == ("Failed" if expected.is_failed else "Completed"), told
            assert {name: state["status"] for name, state in json.loads(row["steps"]).items()} == expected.steps, told
            assert row["steps_run"] == expected.steps_run, told
            assert {error.split(":")[0] for error in json.loads(row["errors"])} == expected.errors, told
            assert jobs[row["id"]] == Counter(expected.jobs), told
        assert await sql.fetchval("SELECT count(*) FROM run_waits") == 0
        assert await sql.fetchval("SELECT (SELECT count(*) FROM ready) + (SELECT count(*) FROM leases)") == 0
        assert await sql.fetchval("SELECT max(definition_version) FROM workflows") == 1, "a boot made a version anew"
        await check_streams(sql)


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


async def _check(rig: Rig, flows: Flows) -> None:
    """What is there is right, and it is what the events say."""
    async with rig.sql() as sql:
        await flows.check(sql)
    whole = f"{len(flows.runs):,} runs of workflows"
    assert whole in await rig.command("rebuild", "--verify")
    assert whole in await rig.command("rebuild", "--yes")
    assert whole in await rig.command("rebuild", "--verify")
    async with rig.sql() as sql:
        await flows.check(sql)


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
