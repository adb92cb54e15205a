"""A statement has one view of the data, the functions in it a newer one: what is committed in between."""

import asyncio
from typing import Any

import asyncpg
import pytest

from tests.conftest import Server, until

# Holds a lease up after its statement has begun, and before it looks for jobs.
_HOLD = """
CREATE OR REPLACE FUNCTION token_lives(t worker_tokens) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF current_query() LIKE '%take_ready%' THEN
        PERFORM pg_advisory_xact_lock_shared(7);
    END IF;
    RETURN true;
END $$"""
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
_IS_HELD = f"{_WAITING} AND wait_event = 'advisory'"


async def test_a_job_that_is_committed_while_a_lease_runs_is_given_whole(server: Server, dsn: str, sql: Any) -> None:
    worker = await server.mint("q")
    await sql.execute(_HOLD)
    await sql.execute("SELECT pg_advisory_lock(7)")
    other: Any = await asyncpg.connect(dsn)
    transaction = other.transaction()
    await transaction.start()
    job_id = str(await other.fetchval("SELECT atomo.enqueue_job('q', 'k', '{\"a\": 1}')"))
    leasing = asyncio.create_task(worker.lease("q"))
    await until(lambda: sql.fetchval(_IS_HELD))
    await transaction.commit()
    await other.close()
    await sql.execute("SELECT pg_advisory_unlock(7)")

    [job] = await leasing
    assert (job["id"], job["payload"], job["attempts"]) == (job_id, {"a": 1}, 1)
    assert job["createdAt"] == (await server.job(job_id))["createdAt"]
    assert (await worker.report("complete", job))[0] == 204


@pytest.mark.parametrize("verb", ["complete", "fail", "release", "heartbeat", "progress"])
async def test_a_report_is_accepted_when_a_heartbeat_commits_while_it_waits_for_the_lease(
    server: Server, dsn: str, sql: Any, verb: str
) -> None:
    worker = await server.mint("q")
    await server.enqueue()
    [job] = await worker.lease("q")
    other: Any = await asyncpg.connect(dsn, server_settings={"search_path": "atomo"})
    transaction = other.transaction()
    await transaction.start()
    await other.execute("UPDATE leases SET expires_at = expires_at + interval '1 second'")
    reporting = asyncio.create_task(worker.report(verb, job))
    await until(lambda: sql.fetchval(_WAITING))
    await transaction.commit()
    await other.close()

    assert (await reporting)[0] in (200, 204)


@pytest.mark.parametrize("verb", ["complete", "fail", "release", "heartbeat"])
async def test_a_report_is_accepted_however_often_the_lease_moves_meanwhile(
    server: Server, dsn: str, verb: str
) -> None:
    worker = await server.mint("q")
    for _ in range(10):
        await server.enqueue()
    jobs = await worker.lease("q", capacity=10)
    is_over = False

    async def move() -> None:
        settings = {"search_path": "atomo", "synchronous_commit": "off"}
        connection: Any = await asyncpg.connect(dsn, server_settings=settings)
        while not is_over:
            await connection.execute("UPDATE leases SET expires_at = expires_at + interval '1 millisecond'")
        await connection.close()

    movers = [asyncio.create_task(move()) for _ in range(2)]
    said = [(await worker.report(verb, job))[0] for job in jobs]
    is_over = True
    await asyncio.gather(*movers)
    assert set(said) <= {200, 204}, said
