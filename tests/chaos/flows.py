"""Runs of the workflows of `definitions`, and whether each of them has ended as its definition says."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import aiohttp

from tests.conftest import bearer

from .definitions import SHARED, end_of
from .fleet import SEED, Fleet
from .rig import DATABASE_IS_AWAY

_JOBS = "SELECT run_id::text, idempotency_key AS key FROM job_records WHERE run_id::text = ANY ($1)"


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
        """All of these runs have ended as they must, and nothing of them is left over."""
        rows = await sql.fetch(
            "SELECT id::text, status, steps, steps_run, errors FROM workflow_runs WHERE workflow = ANY ($1)",
            [source["name"] for source in self._sources],
        )
        assert sorted(row["id"] for row in rows) == sorted(self.runs)
        retried = Counter(
            row["id"]
            for row in await sql.fetch(
                "SELECT stream_id::text AS id FROM events WHERE type = 'retried' AND stream = 'Workflow'"
            )
        )
        jobs: dict[str, Counter[str]] = {run_id: Counter() for run_id in self.runs}
        common: Counter[str] = Counter()
        for job in await sql.fetch(_JOBS, list(self.runs)):
            of_run, _, key = job["key"].partition(f"run:{job['run_id']}:")
            if key:
                jobs[job["run_id"]][key] += 1
            else:
                common[of_run] += 1
        lots = {context_of(number)["lot"] for number in self.runs.values() if self._source(number) == SHARED}
        assert common == {f"common {lot}": 1 for lot in lots}
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
        assert await sql.fetchval("SELECT max(definition_version) FROM workflows") == 1, "a boot made a version anew"
