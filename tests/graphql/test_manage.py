"""What people do by hand: retry, cancel, pause, tokens; each leaves an event that says who."""

import asyncio
from typing import Any

from tests.conftest import Server, WorkerClient, admin, bearer
from tests.graphql.helpers import as_admin, ask, refused

RETRY = "mutation ($id: ID!) { retryJob(id: $id) { id status attempts error finishedAt } }"
CANCEL = "mutation ($id: ID!, $reason: String) { cancelJob(id: $id, reason: $reason) { id status attempts error } }"
PAUSE = "mutation ($queue: String!) { pauseQueue(queue: $queue) { name isPaused pause { by isForEveryTenant } } }"
RESUME = "mutation ($queue: String!) { resumeQueue(queue: $queue) { isPaused } }"
EVENTS = "query ($id: ID!) { job(id: $id) { events { type actor data } } }"


async def _dead(server: Server, worker: WorkerClient, **fields: Any) -> str:
    job_id = await server.enqueue("q", **fields)
    [job] = await worker.lease("q")
    assert (await worker.report("fail", job, error="boom", retryable=False))[0] == 200
    return job_id


async def test_a_dead_job_is_retried_with_all_its_attempts(server: Server) -> None:
    worker = await server.mint("q")
    job_id = await _dead(server, worker, maxAttempts=2)
    retried = (await ask(server, RETRY, id=job_id))["retryJob"]
    assert retried == {"id": job_id, "status": "QUEUED", "attempts": 0, "error": "boom", "finishedAt": None}
    assert (await ask(server, RETRY, id=job_id))["retryJob"]["status"] == "QUEUED", "a second click changes nothing"
    [job] = await worker.lease("q")
    assert (job["id"], job["attempts"]) == (job_id, 1)
    await worker.report("complete", job)
    assert await refused(server, RETRY, id=job_id) == "BAD_USER_INPUT"
    events = (await ask(server, EVENTS, id=job_id))["job"]["events"]
    assert [e["type"] for e in events] == ["ENQUEUED", "LEASED", "DEAD", "RETRIED", "LEASED", "SUCCEEDED"]
    assert events[3]["actor"] == "user:alice"


async def test_a_cancelled_job_is_dead_and_its_worker_learns_it(server: Server) -> None:
    worker = await server.mint("q")
    job_id = await server.enqueue("q")
    [job] = await worker.lease("q")
    cancelled = (await ask(server, CANCEL, id=job_id, reason="not needed"))["cancelJob"]
    assert (cancelled["status"], cancelled["error"]) == ("DEAD", "cancelled by user:alice: not needed")
    for verb in ("heartbeat", "progress", "complete", "fail"):
        assert (await worker.report(verb, job))[0] == 409
    assert (await ask(server, CANCEL, id=job_id))["cancelJob"] == cancelled, "a second click changes nothing"
    waiting = await server.enqueue("q", runAt="2999-01-01T00:00:00Z")
    assert (await ask(server, CANCEL, id=waiting))["cancelJob"]["attempts"] == 0
    assert await worker.lease("q") == []
    done = await server.enqueue("q")
    [job] = await worker.lease("q")
    await worker.report("complete", job)
    assert await refused(server, CANCEL, id=done) == "BAD_USER_INPUT"


async def test_no_state_at_all_is_no_job_wherever_a_filter_goes(server: Server) -> None:
    await server.enqueue("q")
    assert (await as_admin(server, "{ jobs(filter: {status: []}) { nodes { id } } }"))["jobs"]["nodes"] == []
    for verb in ("cancelJobs", "retryJobs"):
        done = (await as_admin(server, "mutation { %s(filter: {status: []}) { count } }" % verb))[verb]
        assert done == {"count": 0}
    told = await ask(server, "{ events(streams: []) { nodes { position } } }")
    assert told["events"]["nodes"] == []
    assert (await as_admin(server, "{ jobs { nodes { status } } }"))["jobs"]["nodes"] == [{"status": "QUEUED"}]


async def test_a_payload_of_null_is_shown(server: Server) -> None:
    job_id = await ask(server, 'mutation { enqueueJob(queue: "q", kind: "k", payload: null) }')
    shown = await ask(server, "{ jobs { nodes { id payload } } }")
    assert shown["jobs"]["nodes"] == [{"id": job_id["enqueueJob"], "payload": None}]


async def test_many_are_retried_and_cancelled_by_filter_and_dry_runs_change_nothing(server: Server, sql: Any) -> None:
    worker = await server.mint("q")
    dead = [await _dead(server, worker) for _ in range(3)]
    query = """mutation ($dry: Boolean!, $limit: Int!) {
        retryJobs(filter: {queue: "q", error: "BOO"}, limit: $limit, dryRun: $dry) { count ids hasMore isDryRun } }"""
    events = await sql.fetchval("SELECT count(*) FROM events")
    dry = (await as_admin(server, query, dry=True, limit=2))["retryJobs"]
    assert dry == {"count": 2, "ids": dead[:2], "hasMore": True, "isDryRun": True}
    assert await sql.fetchval("SELECT count(*) FROM events") == events
    assert (await as_admin(server, query, dry=False, limit=10))["retryJobs"]["ids"] == dead
    other = await server.enqueue("other")
    cancel = 'mutation { cancelJobs(filter: {queue: "q", status: [QUEUED]}, reason: "flood") { count ids } }'
    assert (await as_admin(server, cancel))["cancelJobs"] == {"count": 3, "ids": dead}
    assert (await server.job(other))["status"] == "queued"
    assert await refused(server, cancel) == "FORBIDDEN"
    wrong = "mutation { cancelJobs(filter: {status: [DEAD]}) { count } }"
    assert await refused(server, wrong, admin()) == "BAD_USER_INPUT"


async def test_a_paused_queue_leases_nothing_until_it_is_resumed(server: Server) -> None:
    narrow, wide = await server.mint("q"), await server.mint("*")
    job_id, other = await server.enqueue("q"), await server.enqueue("r")
    paused = (await as_admin(server, PAUSE, queue="q"))["pauseQueue"]
    assert paused == {"name": "q", "isPaused": True, "pause": {"by": "user:root", "isForEveryTenant": True}}
    assert (await as_admin(server, PAUSE, queue="q"))["pauseQueue"] == paused
    assert await narrow.lease("q", waitSecs=0.2) == []
    assert [job["id"] for job in await wide.lease("*", capacity=5)] == [other]
    assert await refused(server, PAUSE, queue="q") == "FORBIDDEN"
    polling = asyncio.create_task(narrow.lease("q", waitSecs=30))
    assert (await as_admin(server, RESUME, queue="q"))["resumeQueue"] == {"isPaused": False}
    assert [job["id"] for job in await polling] == [job_id]
    query = "{ events(streams: [QUEUE]) { nodes { type actor version data } } }"
    events = (await as_admin(server, query))["events"]["nodes"]
    assert [(e["type"], e["version"], e["data"]["queue"]) for e in events] == [("PAUSED", 1, "q"), ("RESUMED", 2, "q")]


async def test_a_tenant_s_admin_pauses_that_tenant_s_part(server: Server) -> None:
    wide, acme_worker = await server.mint("q"), await server.mint("*", headers=admin(tenant_id="acme"))
    theirs = await server.enqueue("q", headers=bearer(tenant_id="acme"), priority=5)
    other = await server.enqueue("q", headers=bearer(tenant_id="other"))
    paused = (await ask(server, PAUSE, admin(tenant_id="acme"), queue="q"))["pauseQueue"]
    assert paused["pause"] == {"by": "user:root", "isForEveryTenant": False}
    assert await acme_worker.lease("*") == []
    assert await acme_worker.lease("q", waitSecs=0.1) == []
    assert [job["id"] for job in await wide.lease("q", capacity=5)] == [other]
    assert not (await ask(server, '{ queue(name: "q") { isPaused } }', bearer(tenant_id="other")))["queue"]["isPaused"]
    await as_admin(server, RESUME, queue="q")
    assert await acme_worker.lease("q") == [], "an operator's resume ends an operator's pause only"
    await ask(server, RESUME, admin(tenant_id="acme"), queue="q")
    assert [job["id"] for job in await acme_worker.lease("q")] == [theirs]


async def test_tokens_are_minted_listed_and_revoked(server: Server) -> None:
    mint = 'mutation { mintWorkerToken(name: "w", queues: ["q"], tenantId: "acme") { id token queues tenantId } }'
    minted = (await as_admin(server, mint))["mintWorkerToken"]
    assert (minted["token"][:4], minted["queues"], minted["tenantId"]) == ("wkr_", ["q"], "acme")
    worker = WorkerClient(server, minted["id"], minted["token"])
    assert await worker.lease("q") == []
    revoke = "mutation ($id: ID!) { revokeWorkerToken(id: $id) { id isRevoked revokedAt } }"
    assert await refused(server, revoke, id=minted["id"]) == "FORBIDDEN"
    assert await refused(server, revoke, admin(tenant_id="other"), id=minted["id"]) == "NOT_FOUND"
    assert (await as_admin(server, revoke, id=minted["id"]))["revokeWorkerToken"]["isRevoked"]
    assert await refused(server, revoke, admin(), id=minted["id"]) == "NOT_FOUND"
    assert (await worker.call("/jobs/lease", {"queues": ["q"]}))[0] == 401
    listed = await as_admin(server, "{ workerTokens { nodes { id isRevoked } } }")
    assert listed["workerTokens"]["nodes"] == [{"id": minted["id"], "isRevoked": True}]
    events = await as_admin(server, "{ events(streams: [WORKER_TOKEN]) { nodes { type actor } } }")
    assert [(e["type"], e["actor"]) for e in events["events"]["nodes"]] == [
        ("MINTED", "user:root"),
        ("REVOKED", "user:root"),
    ]
    assert minted["token"] not in str(events)


async def test_a_queue_says_how_it_is(server: Server, sql: Any) -> None:
    worker = await server.mint("q")
    for _ in range(3):
        await server.enqueue("q")
    await server.enqueue("q", runAt="2999-01-01T00:00:00Z")
    await _dead(server, worker)
    await worker.lease("q")
    await sql.execute("UPDATE ready SET eligible_at = eligible_at - interval '1 minute' WHERE eligible_at < now()")
    await server.application.services.queues.record()
    query = """{ queues { nodes { name oldestEligibleSecs isPaused workers { id name }
        depth { queued scheduled leased dead isExact } rates { enqueued started failed } } } }"""
    [queue] = (await ask(server, query))["queues"]["nodes"]
    assert queue["depth"] == {"queued": 2, "scheduled": 1, "leased": 1, "dead": 1, "isExact": True}
    assert queue["oldestEligibleSecs"] >= 59
    assert queue["workers"] == [{"id": worker.token_id, "name": "test"}]
    assert queue["rates"] == {"enqueued": 1.0, "started": 0.4, "failed": 0.2}
    assert (await ask(server, query, bearer(tenant_id="acme")))["queues"]["nodes"] == []
    [all_of_it] = (await as_admin(server, query))["queues"]["nodes"]
    assert all_of_it["depth"] == queue["depth"]


async def test_a_job_says_why_it_does_not_run(server: Server) -> None:
    query = "query ($id: ID!) { job(id: $id) { waitingFor { reason message until ahead } } }"

    async def reason(job_id: str) -> Any:
        return (await ask(server, query, id=job_id))["job"]["waitingFor"]

    first, second = await server.enqueue("q", priority=1), await server.enqueue("q")
    assert (await reason(first))["reason"] == "NO_WORKER"
    later = await server.enqueue("q", runAt="2999-01-01T00:00:00Z")
    assert (await reason(later))["until"] == "2999-01-01T00:00:00Z"
    worker = await server.mint("q")
    await server.enqueue("busy")
    assert (await worker.call("/jobs/lease", {"queues": ["q"], "capacity": 1, "visibilitySecs": 600}))[0] == 200
    third = await server.enqueue("q")
    await server.application.services.queues.record()
    assert (await reason(second))["reason"] == "NEXT"
    assert (await reason(first)) is None, "it is leased"
    assert (await reason(third))["message"] == "behind 1 other of its queue"
    await as_admin(server, PAUSE, queue="q")
    assert (await reason(third))["reason"] == "QUEUE_PAUSED"


async def test_attempts_tell_their_story(server: Server, sql: Any) -> None:
    worker = await server.mint("q")
    job_id = await server.enqueue("q", maxAttempts=3)
    [job] = await worker.lease("q")
    await worker.report("release", job)
    [job] = await worker.lease("q")
    await sql.execute("UPDATE leases SET expires_at = now() - interval '1 s'")
    await server.application.services.housekeeping.sweep()
    [job] = await worker.lease("q")
    await worker.report("fail", job, error="boom")
    await sql.execute("UPDATE ready SET eligible_at = now()")
    [job] = await worker.lease("q")
    query = """query ($id: ID!) { job(id: $id) { worker { id name } durationMs
        attemptHistory { number outcome error worker { name } endedAt durationMs } } }"""
    found = (await ask(server, query, id=job_id))["job"]
    assert found["worker"] == {"id": worker.token_id, "name": "test"}
    history = found["attemptHistory"]
    assert [(a["number"], a["outcome"]) for a in history] == [
        (1, "RELEASED"),
        (1, "EXPIRED"),
        (2, "FAILED"),
        (3, "RUNNING"),
    ]
    assert (history[2]["error"], history[3]["endedAt"]) == ("boom", None)
    assert {a["worker"]["name"] for a in history} == {"test"}
    await worker.report("complete", job)
    found = (await ask(server, query, id=job_id))["job"]
    assert (found["worker"]["name"], found["attemptHistory"][-1]["outcome"]) == ("test", "SUCCEEDED")
