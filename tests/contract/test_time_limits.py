"""Timeouts, deadlines, and how often a job is delivered."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import MakeServer, Server, admin, bearer

LONG_AGO, FAR = "2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z"


def _left(text: str) -> float:
    return (datetime.fromisoformat(text) - datetime.now(UTC)).total_seconds()


async def test_no_heartbeat_extends_a_lease_beyond_the_timeout(server: Server, sql: Any) -> None:
    worker = await server.mint("q")
    job_id = await server.enqueue(timeoutSecs=20)
    [job] = await worker.lease("q", visibilitySecs=60)
    assert job["timeoutSecs"] == 20
    assert 15 < _left(job["leaseExpiresAt"]) <= 20

    for verb in ("heartbeat", "progress"):
        assert (await worker.report(verb, job, visibilitySecs=600))[0] == 204
        assert _left((await server.job(job_id))["leaseExpiresAt"]) <= 20

    await sql.execute("UPDATE leases SET leased_at = now() - interval '21 s', expires_at = now() - interval '1 s'")
    for verb in ("heartbeat", "progress"):
        assert (await worker.report(verb, job, visibilitySecs=600))[0] == 409
    await server.application.services.housekeeping.sweep()
    found = await server.job(job_id)
    assert (found["status"], found["attempts"]) == ("queued", 1)
    assert found["error"] == "timed out: attempt 1 was not reported within the 20 s it may take"


async def test_a_timed_out_attempt_that_no_sweep_took_can_still_complete(server: Server, sql: Any) -> None:
    worker = await server.mint("q")
    job_id = await server.enqueue(timeoutSecs=20)
    [job] = await worker.lease("q")
    await sql.execute("UPDATE leases SET leased_at = now() - interval '21 s', expires_at = now() - interval '1 s'")
    assert (await worker.report("complete", job))[0] == 204
    assert (await server.job(job_id))["status"] == "succeeded"


async def test_a_job_past_its_deadline_is_not_leased_and_is_dead(server: Server, sql: Any) -> None:
    worker = await server.mint("*")
    late = await server.enqueue(deadline=LONG_AGO)
    due = await server.enqueue(deadline=FAR)
    for queues in (("q",), ("q", "r"), ("*",)):
        assert late not in [job["id"] for job in await worker.lease(*queues, capacity=5)]
    await server.application.services.housekeeping.sweep()
    found = await server.job(late)
    assert (found["status"], found["error"]) == ("dead", "deadline passed: the job was not done by then")
    assert (await server.job(due))["status"] == "leased"
    event = await sql.fetchrow("SELECT actor, data FROM events WHERE stream_id = $1 AND type = 'dead'", late)
    assert event["actor"] == "system:sweeper"
    assert "deadline_passed" in event["data"]


async def test_a_failure_that_would_wait_past_the_deadline_is_dead(server: Server) -> None:
    worker = await server.mint("q")
    soon = (datetime.now(UTC) + timedelta(seconds=60)).isoformat()
    await server.enqueue(deadline=soon)
    [job] = await worker.lease("q", visibilitySecs=3_600)
    assert _left(job["leaseExpiresAt"]) <= 60
    assert await worker.report("fail", job, error="x", retryAfterSecs=120) == (200, {"outcome": "dead"})


async def test_a_job_that_is_retried_by_hand_has_no_passed_deadline(server: Server) -> None:
    worker = await server.mint("q")
    job_id = await server.enqueue(deadline=LONG_AGO)
    await server.application.services.housekeeping.sweep()
    answer = await server.graphql(
        "mutation($id: ID!) { retryJob(id: $id) { status deadline } }", {"id": job_id}, headers=admin()
    )
    assert answer["data"]["retryJob"] == {"status": "QUEUED", "deadline": None}
    assert [job["id"] for job in await worker.lease("q")] == [job_id]


@pytest.mark.parametrize(
    ("fields", "field", "rule"),
    [
        ({"timeoutSecs": 0}, "timeoutSecs", "from 1 to 604800"),
        ({"timeoutSecs": 604_801}, "timeoutSecs", "from 1 to 604800"),
        ({"timeoutSecs": 1.5}, "timeoutSecs", "expected int"),
        ({"deadline": "soon"}, "deadline", "RFC 3339"),
        ({"deadline": "2030-01-01T00:00:00"}, "deadline", "offset"),
        ({"deadline": LONG_AGO, "runAt": FAR}, "deadline", "after runAt"),
    ],
)
async def test_wrong_limits_are_refused(server: Server, sql: Any, fields: Any, field: str, rule: str) -> None:
    status, problem = await server.call("POST", "/jobs", {"queue": "q", "kind": "k", **fields}, headers=bearer())
    assert (status, problem["field"]) == (400, field)
    assert rule in problem["detail"]
    assert await sql.fetchval("SELECT count(*) FROM job_records") == 0


async def test_what_is_handed_back_too_often_is_poison(make_server: MakeServer) -> None:
    server = await make_server(spare_deliveries=2)
    worker = await server.mint("q")
    job_id = await server.enqueue(maxAttempts=1)
    for delivery in (1, 2, 3):
        [job] = await worker.lease("q")
        assert (job["attempts"], job["deliveries"]) == (1, delivery)
        assert (await worker.report("release", job))[0] == 204
    found = await server.job(job_id)
    assert (found["status"], found["deliveries"]) == ("dead", 3)
    assert found["error"] == "poison: leased 3 times and handed back again"
    assert await worker.lease("q") == []


async def test_handing_back_costs_a_delivery_and_no_attempt(server: Server) -> None:
    worker = await server.mint("q")
    job_id = await server.enqueue(maxAttempts=2)
    for _ in range(4):
        [job] = await worker.lease("q")
        await worker.report("release", job)
    found = await server.job(job_id)
    assert (found["status"], found["attempts"], found["deliveries"]) == ("queued", 0, 4)
