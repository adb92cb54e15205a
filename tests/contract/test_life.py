"""What happens to a job."""

import asyncio
import time
from typing import Any

import pytest

from atomo_gql.service import waiting
from tests.conftest import MakeServer, Server, bearer, until


async def test_retries_wait_5_10_20_seconds_and_end_dead(server: Server, sql: Any) -> None:
    worker = await server.mint("q")
    job_id = await server.enqueue(maxAttempts=4)
    for attempt, delay in enumerate((5, 10, 20), 1):
        [job] = await worker.lease("q")
        assert job["attempts"] == attempt
        assert await worker.report("fail", job, error="boom") == (200, {"outcome": "retry", "delaySecs": delay})
        wait = await sql.fetchval("SELECT extract(epoch FROM eligible_at - now())::float8 FROM ready")
        assert delay - 1 < wait <= delay * 1.1
        assert await worker.lease("q") == []
        await sql.execute("UPDATE ready SET eligible_at = now()")
    [job] = await worker.lease("q")
    assert await worker.report("fail", job, error="boom") == (200, {"outcome": "dead"})
    found = await server.job(job_id)
    assert (found["status"], found["error"], found["attempts"]) == ("dead", "boom", 4)


async def test_a_failure_that_is_not_retryable_is_dead_at_once(server: Server) -> None:
    worker = await server.mint("q")
    job_id = await server.enqueue()
    [job] = await worker.lease("q")
    assert await worker.report("fail", job, error="no", retryable=False) == (200, {"outcome": "dead"})
    assert (await server.job(job_id))["status"] == "dead"


async def test_an_expired_lease_is_taken_back_and_its_attempt_counts(server: Server, sql: Any) -> None:
    sweep = server.application.services.housekeeping.sweep
    worker = await server.mint("q")
    job_id = await server.enqueue(maxAttempts=2)
    for expected in ("queued", "dead"):
        [job] = await worker.lease("q")
        assert await sweep() == 0
        await sql.execute("UPDATE leases SET expires_at = now() - interval '1 s'")
        assert await sweep() == 1
        assert (await worker.report("complete", job))[0] == 409
        assert (await server.job(job_id))["status"] == expected
    types = [r["type"] for r in await sql.fetch("SELECT type::text FROM events WHERE stream = 'Job' ORDER BY version")]
    assert types == ["enqueued", "leased", "reclaimed", "leased", "dead"]


async def test_an_expired_lease_that_no_sweep_took_can_still_complete(server: Server, sql: Any) -> None:
    worker = await server.mint("q")
    job_id = await server.enqueue()
    [job] = await worker.lease("q")
    await sql.execute("UPDATE leases SET expires_at = now() - interval '1 s'")
    assert (await worker.report("complete", job))[0] == 204
    assert (await server.job(job_id))["status"] == "succeeded"


async def test_twenty_racing_enqueues_of_one_key_make_one_job(make_server: MakeServer, sql: Any) -> None:
    servers = [await make_server(), await make_server()]
    ids = await asyncio.gather(*(servers[n % 2].enqueue(idempotencyKey="once") for n in range(20)))
    other = await servers[0].enqueue(idempotencyKey="once", headers=bearer(tenant_id="acme"))
    assert len(set(ids)) == 1
    assert other not in ids
    assert await sql.fetchval("SELECT count(*) FROM events") == 2


async def test_numbers_are_clamped(server: Server, sql: Any) -> None:
    worker = await server.mint("q")
    for _ in range(3):
        await server.enqueue()
    assert len(await worker.lease("q", capacity=-5, visibilitySecs=10**12, waitSecs=-1)) == 1
    assert len(await worker.lease("q", capacity=10**30, visibilitySecs=-1)) == 2
    assert sorted(r[0] for r in await sql.fetch("SELECT visibility_secs FROM leases")) == [1, 1, 86_400]


async def test_a_job_waits_for_its_time(server: Server) -> None:
    worker = await server.mint("q")
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    job_id = await server.enqueue(runAt=moment)
    assert await worker.lease("q") == []
    assert (await server.job(job_id))["status"] == "queued"
    [job] = await worker.lease("q", waitSecs=10)
    assert job["id"] == job_id


async def test_a_long_poll_on_one_server_wakes_for_an_enqueue_on_the_other(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_LOOK_SECS", 40.0)
    here, there = await make_server(), await make_server()
    worker = await here.mint("q")
    there_worker = type(worker)(there, worker.token_id, worker.token)
    took = []
    for _ in range(10):
        polling = asyncio.create_task(there_worker.lease("q", waitSecs=60))
        await until(lambda: _waiting(there, 1))
        began = time.perf_counter()
        job_id = await here.enqueue()
        [job] = await polling
        took.append(time.perf_counter() - began)
        assert job["id"] == job_id
        await there_worker.report("complete", job)
    print(f"\nlong poll across servers, enqueue call to lease: {', '.join(f'{t * 1000:.0f}' for t in took)} ms")
    assert sorted(took)[5] < 20, "woken by the hint, and not by the look every forty seconds"


async def _waiting(server: Server, count: int) -> bool:
    return len(server.application.services.leases.room) == count


async def test_a_long_poll_ends_empty_when_its_time_is_up(server: Server) -> None:
    worker = await server.mint("q")
    began = time.perf_counter()
    assert await worker.lease("q", waitSecs=0.3) == []
    assert 0.25 < time.perf_counter() - began < 30


async def test_a_client_that_hangs_up_while_it_waits_takes_no_job(server: Server, sql: Any) -> None:
    worker = await server.mint("q")
    polling = asyncio.create_task(worker.lease("q", waitSecs=30))
    await until(lambda: _waiting(server, 1))
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)
    await until(lambda: _waiting(server, 0))
    job_id = await server.enqueue()
    job = await server.job(job_id)
    assert (job["status"], job["attempts"]) == ("queued", 0)
    assert await sql.fetchval("SELECT count(*) FROM leases") == 0


async def test_a_job_handed_back_keeps_its_attempt_and_its_place(server: Server) -> None:
    worker = await server.mint("q")
    first, _ = await server.enqueue(), await server.enqueue()
    [job] = await worker.lease("q")
    assert (await worker.report("release", job))[0] == 204
    [again] = await worker.lease("q")
    assert (again["id"], again["attempts"]) == (first, 1)
    assert again["leaseId"] != job["leaseId"]


async def test_history_says_what_was_sent_and_what_came_back(server: Server) -> None:
    worker = await server.mint("q")
    job_id = await server.enqueue(payload={"a": 1})
    [job] = await worker.lease("q")
    await worker.report("complete", job, result=[2])
    query = "query ($id: ID!) { job(id: $id) { status payload result events { version type actor data } } }"
    found = (await server.graphql(query, {"id": job_id}))["data"]["job"]
    assert (found["status"], found["payload"], found["result"]) == ("SUCCEEDED", {"a": 1}, [2])
    events = found["events"]
    assert [(e["version"], e["type"]) for e in events] == [(1, "ENQUEUED"), (2, "LEASED"), (3, "SUCCEEDED")]
    assert [e["actor"] for e in events] == ["user:alice", *[f"worker:{worker.token_id}"] * 2]
    assert events[0]["data"]["payload"] == {"a": 1}
    assert events[2]["data"]["result"] == [2]
