"""Long polls: who waits, who is served, and who is in nobody's way."""

import asyncio
from typing import Any

import pytest

from tests.conftest import Server, until

_SOON = 60.0  # seconds; those who wait here wait far longer
# Holds leases of the token named "held" up, after their statement has begun, once its queue has a job.
_HOLD = """
CREATE OR REPLACE FUNCTION token_lives(t worker_tokens) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF t.name = 'held' AND current_query() LIKE '%take_ready%'
        AND EXISTS (SELECT FROM ready WHERE queue = t.queues[1]) THEN
        PERFORM pg_advisory_xact_lock_shared(7);
    END IF;
    RETURN t.revoked_at IS NULL;
END $$"""
_IS_HELD = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"


async def _are_waiting(server: Server, count: int) -> None:
    async def are() -> bool:
        return len(server.application.services.leases.room) == count

    await until(are)


@pytest.mark.parametrize("why", ["revoked", "expired", "spent"])
async def test_who_can_get_nothing_is_in_nobody_s_way(server: Server, sql: Any, why: str) -> None:
    old, new = await server.mint("q"), await server.mint("q")
    assert await old.lease("q", requestId="spent") == []
    body = {"queues": ["q"], "waitSecs": 300, **({"requestId": "spent"} if why == "spent" else {})}
    polls = [asyncio.create_task(old.call("/jobs/lease", body)) for _ in range(3)]
    await _are_waiting(server, 3)
    if why == "revoked":
        await sql.execute("UPDATE worker_tokens SET revoked_at = now() WHERE id = $1::uuid", old.token_id)
    elif why == "expired":
        await sql.execute("UPDATE worker_tokens SET expires_at = now() WHERE id = $1::uuid", old.token_id)
    waiting = [asyncio.create_task(new.lease("q", waitSecs=300)) for _ in range(3)]

    async def they_wait_too() -> bool:
        others = sum(not poll.done() for poll in polls)
        return len(server.application.services.leases.room) == len(waiting) + others

    await until(they_wait_too)

    jobs = [await server.enqueue() for _ in range(3)]

    got = [job["id"] for leased in await asyncio.wait_for(asyncio.gather(*waiting), _SOON) for job in leased]
    assert sorted(got) == sorted(jobs)
    if why == "spent":
        for poll in polls:
            poll.cancel()
    else:
        assert [status for status, _ in await asyncio.wait_for(asyncio.gather(*polls), _SOON)] == [401] * 3


async def test_what_is_leased_as_the_time_is_up_is_given_and_kept(server: Server, sql: Any) -> None:
    await sql.execute(_HOLD)
    for seconds in (1, 4, 16):  # a busy machine may enqueue only after the time is up
        queue = f"q{seconds}"
        worker = await server.mint(queue, name="held")
        await sql.execute("SELECT pg_advisory_lock(7)")
        leasing = asyncio.create_task(worker.lease(queue, waitSecs=seconds, requestId="r"))
        await until(lambda leasing=leasing: _waits_or_has_ended(server, leasing))  # type: ignore[misc]
        await server.enqueue(queue)
        await until(lambda leasing=leasing: _is_held_or_has_ended(sql, leasing))  # type: ignore[misc]
        if not leasing.done():
            break
        assert await leasing == []
        assert await sql.fetchval("SELECT count(*) FROM leases") == 0
        await sql.execute("SELECT pg_advisory_unlock(7)")
    await _are_waiting(server, 0)  # the time is up
    await sql.execute("SELECT pg_advisory_unlock(7)")

    [job] = await leasing
    assert (await worker.report("complete", job))[0] == 204
    types = await sql.fetch("SELECT type FROM events WHERE stream_id = $1::uuid ORDER BY version", job["id"])
    assert [row["type"] for row in types] == ["enqueued", "leased", "succeeded"]


async def _waits_or_has_ended(server: Server, leasing: "asyncio.Task[Any]") -> bool:
    return leasing.done() or len(server.application.services.leases.room) == 1


async def _is_held_or_has_ended(sql: Any, leasing: "asyncio.Task[Any]") -> bool:
    return leasing.done() or bool(await sql.fetchval(_IS_HELD))


async def test_no_line_waits_for_another(server: Server, sql: Any) -> None:
    held, quick = await server.mint("a", name="held"), await server.mint("b")
    await sql.execute(_HOLD)
    slow = asyncio.create_task(held.lease("a", waitSecs=300))
    waiting = asyncio.create_task(quick.lease("b", waitSecs=300))
    await _are_waiting(server, 2)
    await sql.execute("SELECT pg_advisory_lock(7)")
    await server.enqueue(queue="a")
    await until(lambda: sql.fetchval(_IS_HELD))

    await server.enqueue(queue="b")

    assert len(await asyncio.wait_for(waiting, _SOON)) == 1
    await sql.execute("SELECT pg_advisory_unlock(7)")
    assert len(await slow) == 1
