"""The log: pages of it, and following it without a gap and without a double."""

from typing import Any

from tests.conftest import MakeServer, Server, admin, bearer, token, until
from tests.graphql.helpers import as_admin, ask, refused, subscribed

FOLLOW = "subscription ($filter: JobEventFilter, $after: String) {"
FOLLOW += " jobEvents(filter: $filter, after: $after) { jobId position version type tenantId } }"
PAGE = """query ($after: String, $first: Int! = 100, $types: [EventType!], $stream: ID) {
  events(after: $after, first: $first, types: $types, streamId: $stream) {
    nodes { position streamId version type job { id status } } pageInfo { hasNextPage endCursor } } }"""


async def _whole_log(server: Server, first: int, **variables: Any) -> list[Any]:
    found: list[Any] = []
    after = None
    while True:
        page = (await as_admin(server, PAGE, first=first, after=after, **variables))["events"]
        found += page["nodes"]
        assert len(page["nodes"]) <= first
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            return found


async def test_pages_of_the_log_hold_every_event_once(server: Server) -> None:
    worker = await server.mint("q")
    ids = [await server.enqueue("q") for _ in range(5)]
    for job in await worker.lease("q", capacity=3):
        await worker.report("complete", job)

    async def all_told() -> Any:
        log = await _whole_log(server, 100)
        return log if len(log) == 11 else None

    log = await until(all_told)
    assert await _whole_log(server, 2) == log
    assert {(e["streamId"], e["version"]) for e in log} == {(j, 1) for j in ids} | {
        (j, v) for j in ids[:3] for v in (2, 3)
    }
    succeeded = await _whole_log(server, 2, types=["SUCCEEDED"])
    assert [e["job"] for e in succeeded] == [{"id": j, "status": "SUCCEEDED"} for j in ids[:3]]
    assert len(await _whole_log(server, 100, stream=ids[0])) == 3
    for wrong in ("x", "1", "1.2.3", "-1.2", "99999999999999999999.1", "\u0661.1"):
        assert await refused(server, PAGE, after=wrong) == "BAD_USER_INPUT"
    assert await refused(server, "{ events(streams: [QUEUE]) { nodes { type } } }") == "FORBIDDEN"


async def test_following_begins_with_history_and_resumes_after_a_break(make_server: MakeServer) -> None:
    here, there = await make_server(), await make_server()
    worker = await here.mint("q")
    told: list[tuple[str, int]] = []
    position = "0.0"
    for _ in range(3):
        ids = [await here.enqueue("q") for _ in range(4)]
        async with subscribed(there, FOLLOW, filter={"queue": "q"}, after=position) as following:
            for job in await worker.lease("q", capacity=2):
                await worker.report("complete", job)
            for _ in range(4 if not told else 6):  # and breaks off in the middle
                event = (await following.next())["jobEvents"]
                told.append((event["jobId"], event["version"]))
                position = event["position"]
        assert ids
    expected = 12 + 3 * 2 * 2
    async with subscribed(there, FOLLOW, after=position) as following:
        while len(told) < expected:
            event = (await following.next())["jobEvents"]
            told.append((event["jobId"], event["version"]))
    assert len(set(told)) == len(told) == expected


async def test_following_from_now_on_tells_what_comes_and_only_what_is_wanted(server: Server) -> None:
    worker = await server.mint("*")
    await server.enqueue("q")
    async with subscribed(server, FOLLOW, filter={"types": ["SUCCEEDED"], "kind": "wanted"}) as following:
        await until(lambda: _following(server))
        await server.enqueue("q", "other")
        job_id = await server.enqueue("q", "wanted")
        for job in await worker.lease("q", capacity=5):
            await worker.report("complete", job)
        event = (await following.next())["jobEvents"]
        assert (event["jobId"], event["type"], event["version"]) == (job_id, "SUCCEEDED", 3)


async def _following(server: Server) -> bool:
    return server.application.services.history.following == 1


async def test_following_is_for_one_s_own_tenant(server: Server) -> None:
    acme = f"Bearer {token(tenant_id='acme')}"
    async with subscribed(server, FOLLOW, authorization=acme, after="0.0") as following:
        await server.enqueue("q", headers=bearer(tenant_id="other"))
        await server.enqueue("q")
        mine = await server.enqueue("q", headers=bearer(tenant_id="acme"))
        event = (await following.next())["jobEvents"]
        assert (event["jobId"], event["tenantId"]) == (mine, "acme")


async def test_following_goes_on_when_the_database_was_away(server: Server, sql: Any) -> None:
    async with subscribed(server, FOLLOW, after="0.0") as following:
        first = await server.enqueue("q")
        assert (await following.next())["jobEvents"]["jobId"] == first
        await sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

        async def enqueued() -> Any:
            status, answer = await server.call("POST", "/jobs", {"queue": "q", "kind": "k"}, headers=bearer())
            return answer["id"] if status == 201 else None

        second = await until(enqueued)
        assert (await following.next())["jobEvents"]["jobId"] == second


async def test_queue_stats_come_at_once_and_when_they_change(server: Server) -> None:
    query = 'subscription { queueStats(queues: ["q"], every: 0.5) { name depth { queued } } }'
    async with subscribed(server, query) as following:
        assert (await following.next())["queueStats"] == [{"name": "q", "depth": {"queued": 0}}]
        await server.enqueue("q")
        assert (await following.next())["queueStats"] == [{"name": "q", "depth": {"queued": 1}}]
    for arguments in ("every: 0.1", 'queues: ["*"]', "queues: []"):
        async with subscribed(server, f"subscription {{ queueStats({arguments}) {{ name }} }}") as following:
            assert await following.next() == {"error": "BAD_USER_INPUT"}


async def test_a_pass_watches_its_job_and_opens_nothing_else(server: Server) -> None:
    job_id, other = await server.enqueue("q", headers=bearer(tenant_id="acme")), await server.enqueue("q")
    make = "mutation ($id: ID!, $secs: Int! = 60) { jobToken(id: $id, expiresIn: $secs) { token expiresAt } }"
    made = (await ask(server, make, admin(), id=job_id))["jobToken"]
    watch = "subscription ($id: ID!) { jobProgress(id: $id) { jobId status } }"
    authorization = f"Bearer {made['token']}"
    async with subscribed(server, watch, authorization=authorization, id=job_id) as following:
        assert (await following.next())["jobProgress"] == {"jobId": job_id, "status": "QUEUED"}
    async with subscribed(server, watch, authorization=authorization, id=other) as following:
        assert await following.next() == {"error": "NOT_FOUND"}
    async with server.http.ws_connect(f"{server.url}/realtime/ws?token={made['token']}") as socket:
        await socket.send_json({"op": "subscribe", "channel": f"job:{job_id}"})
        assert (await socket.receive_json(timeout=60))["status"] == "queued"
    headers = {"Authorization": authorization}
    for query in (
        f'{{ job(id: "{job_id}") {{ id }} }}',
        "{ jobs { nodes { id } } }",
        "{ queues { nodes { name } } }",
        "{ events { nodes { type } } }",
        "{ workerTokens { nodes { id } } }",
        'mutation { enqueueJob(queue: "q", kind: "k") }',
        f'mutation {{ cancelJob(id: "{job_id}") {{ id }} }}',
        f'mutation {{ retryJob(id: "{job_id}") {{ id }} }}',
        f'mutation {{ jobToken(id: "{job_id}") {{ token }} }}',
        'mutation { pauseQueue(queue: "q") { name } }',
    ):
        assert await refused(server, query, headers) == "FORBIDDEN", query
    for method, path, body in (
        ("POST", "/jobs", {"queue": "q", "kind": "k"}),
        ("GET", f"/jobs/{job_id}", None),
        ("GET", "/jobs/workers", None),
    ):
        assert (await server.call(method, path, body, headers=headers))[0] == 403
    assert (await server.call("GET", f"/jobs/{job_id}", headers=headers | {"X-Tenant-ID": "acme"}))[0] == 403
    assert (await server.job(job_id, headers=admin()))["status"] == "queued"
    assert await refused(server, make, id=job_id, secs=60) == "NOT_FOUND"
    for seconds in (0, 86_401):
        assert await refused(server, make, admin(), id=job_id, secs=seconds) == "BAD_USER_INPUT"
    brief = (await ask(server, make, admin(), id=job_id, secs=1))["jobToken"]
    async with subscribed(server, watch, authorization=f"Bearer {brief['token']}", id=job_id) as following:
        assert (await following.next())["jobProgress"]["status"] == "QUEUED"
