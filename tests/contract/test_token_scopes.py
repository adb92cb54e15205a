"""What a worker token reaches: queues, kinds, and for how long; and how it is followed by another."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import Server, admin, bearer


async def test_a_token_of_a_kind_leases_that_kind_alone(server: Server) -> None:
    scoped = await server.mint("q", kinds=["a", "b"])
    other = await server.enqueue(kind="c", priority=9)
    wanted = [await server.enqueue(kind=kind) for kind in ("b", "a")]

    assert [job["id"] for job in await scoped.lease("q", capacity=9)] == wanted
    assert (await server.job(other))["status"] == "queued"
    status, problem = await scoped.call("/jobs/lease", {"queues": ["q"], "kinds": ["c", "d"]})
    assert (status, problem["code"]) == (403, "FORBIDDEN")
    assert "'a', 'b'" in problem["detail"]
    assert await scoped.lease("q", kinds=["c", "a"]) == []


async def test_a_token_of_a_kind_reports_on_that_kind_alone(server: Server) -> None:
    worker, scoped = await server.mint("q"), await server.mint("q", kinds=["a"])
    await server.enqueue(kind="c")
    [job] = await worker.lease("q")
    for verb in ("heartbeat", "progress", "complete", "fail", "release"):
        assert (await scoped.report(verb, job))[0] == 409
    assert (await worker.report("complete", job))[0] == 204


async def test_a_lease_may_ask_for_kinds(server: Server) -> None:
    for tenant in (None, "acme"):
        worker = await server.mint("*", tenantId=tenant)
        headers = bearer(tenant_id=tenant)
        first = await server.enqueue(kind="a", queue="r", headers=headers)
        for queues in (("q", "r"), ("r",), ("*",)):
            assert await worker.lease(*queues, kinds=["b"]) == []
            [job] = await worker.lease(*queues, kinds=["b", "a"])
            assert job["id"] == first
            await worker.report("release", job)


async def test_kinds_follow_priority_and_age_across_tenants_and_queues(server: Server) -> None:
    worker = await server.mint("*")
    made = []
    for queue, kind, tenant, priority in [
        ("q", "a", None, 0),
        ("r", "b", "acme", 0),
        ("q", "b", "zeta", 5),
        ("q", "c", None, 9),
        ("r", "a", "acme", -1),
    ]:
        made.append(await server.enqueue(queue, kind, headers=bearer(tenant_id=tenant), priority=priority))
    jobs = await worker.lease("*", kinds=["a", "b"], capacity=9)
    assert [job["id"] for job in jobs] == [made[n] for n in (2, 0, 1, 4)]


async def test_a_paused_queue_gives_nothing_of_a_kind_either(server: Server) -> None:
    worker = await server.mint("*")
    await server.enqueue(kind="a", headers=bearer(tenant_id="acme"))
    await server.graphql('mutation { pauseQueue(queue: "q") { name } }', headers=admin(tenant_id="acme"))
    assert await worker.lease("*", kinds=["a"]) == []
    await server.graphql('mutation { resumeQueue(queue: "q") { name } }', headers=admin(tenant_id="acme"))
    assert len(await worker.lease("*", kinds=["a"])) == 1


async def test_a_worker_waits_for_its_kinds(server: Server) -> None:
    worker = await server.mint("q")
    await server.enqueue(kind="c")
    assert await worker.lease("q", kinds=["a"], waitSecs=0.3) == []
    job_id = await server.enqueue(kind="a", runAt=(datetime.now(UTC) + timedelta(seconds=0.5)).isoformat())
    [job] = await worker.lease("q", kinds=["a"], waitSecs=10)
    assert job["id"] == job_id


async def test_a_token_ends_when_it_said_it_would(server: Server, sql: Any) -> None:
    ends = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    worker = await server.mint("q", expiresAt=ends)
    await server.enqueue()
    [job] = await worker.lease("q")
    await sql.execute("UPDATE worker_tokens SET expires_at = now() - interval '1 s'")
    assert (await worker.report("complete", job))[0] == 401
    assert (await worker.call("/jobs/lease", {"queues": ["q"]}))[0] == 401
    assert (await server.job(job["id"]))["status"] == "leased"


async def test_its_last_use_is_noted(server: Server, sql: Any) -> None:
    worker = await server.mint("q")
    listed = (await server.call("GET", "/jobs/workers", headers=admin()))[1]["workers"]
    assert listed[0]["lastUsedAt"] is None
    await worker.lease("q")
    await server.application.services.queues.record()
    listed = (await server.call("GET", "/jobs/workers", headers=admin()))[1]["workers"]
    assert datetime.now(UTC) - datetime.fromisoformat(listed[0]["lastUsedAt"]) < timedelta(minutes=1)


async def test_a_token_is_followed_by_another(server: Server, sql: Any) -> None:
    ends = datetime.now(UTC) + timedelta(days=10)
    old = await server.mint("q", kinds=["k"], tenantId="acme", expiresAt=ends.isoformat())
    await sql.execute("UPDATE worker_tokens SET created_at = created_at - interval '1 day'")
    await server.enqueue(headers=bearer(tenant_id="acme"))
    [job] = await old.lease("q")

    status, minted = await server.call("POST", f"/jobs/workers/{old.token_id}/rotate", {}, headers=admin())

    assert status == 201
    assert (minted["name"], minted["queues"], minted["kinds"], minted["tenantId"]) == ("test", ["q"], ["k"], "acme")
    assert abs(datetime.fromisoformat(minted["expiresAt"]) - ends - timedelta(days=1)) < timedelta(minutes=1)
    new = type(old)(server, minted["id"], minted["token"])
    assert (await old.report("heartbeat", job))[0] == 204
    assert (await new.report("complete", job))[0] == 204  # a job in hand outlives the change of tokens
    await server.call("DELETE", f"/jobs/workers/{old.token_id}", headers=admin())
    assert (await old.call("/jobs/lease", {"queues": ["q"]}))[0] == 401
    assert await new.lease("q") == []
    events = [
        (e["type"], e["stream_id"])
        for e in await sql.fetch(
            "SELECT type::text, stream_id::text FROM events WHERE stream = 'WorkerToken' ORDER BY position"
        )
    ]
    assert events == [
        ("minted", old.token_id),
        ("rotated", old.token_id),
        ("minted", new.token_id),
        ("revoked", old.token_id),
    ]


async def test_a_token_is_followed_after_a_grace(server: Server, sql: Any) -> None:
    old = await server.mint("q")
    answer = await server.graphql(
        "mutation($id: ID!) { rotateWorkerToken(id: $id, graceSecs: 60) { id token name queues kinds expiresAt } }",
        {"id": old.token_id},
        headers=admin(),
    )
    assert answer["data"]["rotateWorkerToken"]["expiresAt"] is None
    left = await sql.fetchval(
        "SELECT extract(epoch FROM expires_at - now())::float8 FROM worker_tokens WHERE id = $1", old.token_id
    )
    assert 50 < left <= 60


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"graceSecs": -1}, "graceSecs"),
        ({"graceSecs": 2_592_001}, "graceSecs"),
        ({"graceSecs": "x"}, "graceSecs"),
    ],
)
async def test_a_wrong_grace_changes_nothing(server: Server, sql: Any, body: Any, field: str) -> None:
    old = await server.mint("q")
    status, problem = await server.call("POST", f"/jobs/workers/{old.token_id}/rotate", body, headers=admin())
    assert (status, problem["field"]) == (400, field)
    assert await sql.fetchval("SELECT count(*) FROM worker_tokens") == 1


async def test_nobody_rotates_what_is_not_theirs(server: Server, sql: Any) -> None:
    old = await server.mint("q", tenantId="acme")
    path = f"/jobs/workers/{old.token_id}/rotate"
    assert (await server.call("POST", path, {}, headers=bearer()))[0] == 403
    assert (await server.call("POST", path, {}, headers=admin(tenant_id="zeta")))[0] == 404
    await server.call("DELETE", f"/jobs/workers/{old.token_id}", headers=admin())
    assert (await server.call("POST", path, {}, headers=admin()))[0] == 404
    assert await sql.fetchval("SELECT count(*) FROM worker_tokens") == 1


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"kinds": []}, "kinds"),
        ({"kinds": [""]}, "kinds[0]"),
        ({"kinds": "a"}, "kinds"),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt"),
        ({"expiresAt": "never"}, "expiresAt"),
    ],
)
async def test_wrong_scopes_are_refused(server: Server, sql: Any, fields: Any, field: str) -> None:
    body = {"name": "w", "queues": ["q"], **fields}
    status, problem = await server.call("POST", "/jobs/workers", body, headers=admin())
    assert (status, problem["field"]) == (400, field)
    assert await sql.fetchval("SELECT count(*) FROM worker_tokens") == 0
