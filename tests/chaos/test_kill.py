"""kill -9 in the middle of 2,000 jobs: all end, none is lost, none is completed twice, and the log is whole."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.conftest import until

from .rig import Rig, a_rig

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

JOBS = 2_000
KILL_AT = 300  # jobs that have succeeded


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """A server on its own durable PostgreSQL, and a worker; both are real processes."""
    async with a_rig() as made:
        yield made


@pytest.mark.parametrize("victim", ["worker", "server", "postgres"])
async def test_kill_9_loses_no_job_and_completes_none_twice(rig: Rig, victim: str) -> None:
    enqueueing = asyncio.create_task(rig.enqueue(JOBS))
    assert await _until_succeeded(rig, KILL_AT, in_hand=5) < JOBS
    await rig.kill(victim)
    match victim:  # what an operator, or their supervisor, does; a PostgreSQL of the server's own comes back by itself
        case "worker":
            await rig.start_worker()
        case "server":
            await rig.start_server()
    ids = await enqueueing
    await _until_succeeded(rig, JOBS)

    await _check_jobs(rig, ids)
    if victim == "worker":
        await _check_that_leases_were_taken_back(rig)
    assert f"{JOBS:,} jobs compared" in await rig.command("rebuild", "--verify")
    assert f"{JOBS:,} jobs made anew" in await rig.command("rebuild", "--yes")
    assert f"{JOBS:,} jobs compared" in await rig.command("rebuild", "--verify")
    await _check_jobs(rig, ids)


async def _until_succeeded(rig: Rig, least: int, *, in_hand: int = 0) -> int:
    """Wait until so many have, while the worker has so many in hand; how many it was."""
    seen = (0, 0)

    async def enough() -> bool:
        nonlocal seen
        seen = await rig.progress()
        return seen[0] >= least and seen[1] >= in_hand

    try:
        await until(enough, within=240)
    except TimeoutError:
        raise AssertionError(f"{seen[0]} of {least} have succeeded, {seen[1]} are leased\n{rig.logs()}") from None
    return seen[0]


async def _check_jobs(rig: Rig, ids: list[str]) -> None:
    """Each job that was accepted is there, once, and has succeeded once, with its own result."""
    assert len(set(ids)) == JOBS
    async with rig.sql() as sql:
        found = await sql.fetch("SELECT id::text, status FROM jobs")
        assert sorted((row["id"], row["status"]) for row in found) == sorted((job_id, "succeeded") for job_id in ids)
        assert await sql.fetchval("SELECT (SELECT count(*) FROM ready) + (SELECT count(*) FROM leases)") == 0

        streams = await sql.fetch(
            """
            SELECT array_agg(version ORDER BY version) AS versions,
                count(*) FILTER (WHERE type = 'enqueued') AS enqueued,
                count(*) FILTER (WHERE type = 'succeeded') AS succeeded,
                max((data -> 'payload' ->> 'n')::integer) AS sent, max((data -> 'result' ->> 'n')::integer) AS got
            FROM events WHERE stream = 'Job' GROUP BY stream_id"""
        )
        assert len(streams) == JOBS
        for stream in streams:
            assert stream["versions"] == list(range(1, len(stream["versions"]) + 1))
            assert (stream["enqueued"], stream["succeeded"]) == (1, 1)
            assert stream["got"] == 2 * stream["sent"]
        assert sorted(stream["sent"] for stream in streams) == list(range(JOBS))


async def _check_that_leases_were_taken_back(rig: Rig) -> None:
    """The kill hit a worker that had work in hand, and the sweep gave it to another attempt."""
    async with rig.sql() as sql:
        assert await sql.fetchval("SELECT count(*) FROM events WHERE type = 'reclaimed'") > 0
