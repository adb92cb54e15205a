"""Connections: keyset pages both ways, stable while rows come in, whatever the filter."""

from typing import Any

from tests.conftest import Server, admin, bearer
from tests.graphql.helpers import as_admin, ask, refused, statements_asked

PAGE = """query ($first: Int, $after: String, $last: Int, $before: String, $order: JobOrder! = NEWEST_FIRST,
               $filter: JobFilter) {
  jobs(first: $first, after: $after, last: $last, before: $before, orderBy: $order, filter: $filter) {
    nodes { id } edges { cursor } totalCount { value isExact }
    isPartial pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""


async def _ids(server: Server, **variables: Any) -> list[str]:
    return [node["id"] for node in (await as_admin(server, PAGE, **variables))["jobs"]["nodes"]]


async def test_pages_go_both_ways_and_stay_while_jobs_come_in(server: Server) -> None:
    made = [await server.enqueue("q") for _ in range(7)]
    newest = made[::-1]
    first = (await as_admin(server, PAGE, first=3))["jobs"]
    assert [n["id"] for n in first["nodes"]] == newest[:3]
    assert (first["pageInfo"]["hasNextPage"], first["pageInfo"]["hasPreviousPage"]) == (True, False)
    assert first["totalCount"] == {"value": 7, "isExact": True}
    await server.enqueue("q")
    second = (await as_admin(server, PAGE, first=3, after=first["pageInfo"]["endCursor"]))["jobs"]
    assert [n["id"] for n in second["nodes"]] == newest[3:6]
    back = (await as_admin(server, PAGE, last=2, before=second["pageInfo"]["startCursor"]))["jobs"]
    assert [n["id"] for n in back["nodes"]] == newest[1:3]
    assert (back["pageInfo"]["hasNextPage"], back["pageInfo"]["hasPreviousPage"]) == (True, True)
    assert await _ids(server, first=3, order="OLDEST_FIRST") == made[:3]
    assert await _ids(server, last=3) == made[:3][::-1]
    assert await _ids(server, last=3, order="OLDEST_FIRST", before=first["edges"][0]["cursor"]) == made[3:6]
    end = (await as_admin(server, PAGE, first=3, after=second["pageInfo"]["endCursor"]))["jobs"]
    assert ([n["id"] for n in end["nodes"]], end["pageInfo"]["hasNextPage"]) == ([made[0]], False)


async def test_a_search_in_errors_is_partial_when_its_look_ends(server: Server, monkeypatch: Any) -> None:
    monkeypatch.setattr("atomo_gql.service.jobs.MOST_SEARCHED", 3)
    made = [await server.enqueue("q") for _ in range(10)]
    worker = await server.mint("q")
    for number, job in enumerate(await worker.lease("q", capacity=10)):
        error = "a needle" if number in (0, 5, 9) else "hay"
        assert (await worker.report("fail", job, error=error, retryable=False))[0] == 200
    expected = [made[9], made[5], made[0]]
    for way, back in (("NEWEST_FIRST", False), ("OLDEST_FIRST", False), ("NEWEST_FIRST", True)):
        found: list[str] = []
        partial, cursor, has_more = 0, None, True
        while has_more:
            part = {"last": 2, "before": cursor} if back else {"first": 2, "after": cursor}
            page = (await as_admin(server, PAGE, filter={"error": "NEEDLE"}, order=way, **part))["jobs"]
            ids, info = [node["id"] for node in page["nodes"]], page["pageInfo"]
            found = ids + found if back else found + ids
            partial += page["isPartial"]
            has_more = info["hasPreviousPage" if back else "hasNextPage"]
            cursor = info["startCursor" if back else "endCursor"]
        assert (found, partial) == (expected if way == "NEWEST_FIRST" else expected[::-1], 3), (way, back)
        assert page["totalCount"] == {"value": 1, "isExact": False}
    retry = 'mutation { retryJobs(filter: {error: "needle"}, limit: 2) { count hasMore } }'
    assert (await as_admin(server, retry))["retryJobs"] == {"count": 2, "hasMore": True}


async def test_every_filter_finds_what_it_names_and_nothing_else(server: Server, sql: Any) -> None:
    worker = await server.mint("*")
    dead = await server.enqueue("q", "k1")
    [job] = await worker.lease("q")
    await worker.report("fail", job, error="Disk FULL, 100%", retryable=False)
    done = await server.enqueue("q", "k2")
    [job] = await worker.lease("q")
    await worker.report("complete", job)
    leased = await server.enqueue("r", "k1", idempotencyKey="once")
    await worker.lease("r")
    queued = await server.enqueue("r", "k2", headers=bearer(tenant_id="acme"))
    middle = await sql.fetchval("SELECT created_at FROM job_records WHERE id = $1", leased)
    ended = await sql.fetchval("SELECT finished_at FROM jobs WHERE id = $1", done)
    for wanted, expected in [
        ({"status": ["QUEUED"]}, [queued]),
        ({"status": ["LEASED"]}, [leased]),
        ({"status": ["SUCCEEDED"]}, [done]),
        ({"status": ["DEAD"]}, [dead]),
        ({"status": ["DEAD", "QUEUED", "LEASED"]}, [queued, leased, dead]),
        ({"status": []}, []),
        ({"queue": "r"}, [queued, leased]),
        ({"kind": "k1"}, [leased, dead]),
        ({"kind": "k1", "status": ["DEAD"]}, [dead]),
        ({"tenantId": "acme"}, [queued]),
        ({"idempotencyKey": "once"}, [leased]),
        ({"idempotencyKey": "none"}, []),
        ({"error": "disk full, 100%"}, [dead]),
        ({"error": "disk_full"}, []),
        ({"created": {"from": middle.isoformat()}}, [queued, leased]),
        ({"created": {"to": middle.isoformat()}}, [done, dead]),
        ({"finished": {"from": ended.isoformat()}}, [done]),
        ({"finished": {"to": ended.isoformat()}}, [dead]),
        ({}, [queued, leased, done, dead]),
    ]:
        assert await _ids(server, filter=wanted) == expected, wanted
        assert await _ids(server, filter=wanted, last=9) == expected, wanted


async def test_what_makes_no_page_is_refused_by_name(server: Server) -> None:
    cursor = (await ask(server, "{ queues { pageInfo { endCursor } } }"))["queues"]["pageInfo"]["endCursor"]
    assert cursor is None
    await server.enqueue("q")
    cursor = (await ask(server, "{ queues { pageInfo { endCursor } } }"))["queues"]["pageInfo"]["endCursor"]
    for variables, said in [
        ({"first": 0}, "first must be from 1 to 100"),
        ({"first": 2_147_483_647}, "first must be from 1 to 100"),
        ({"last": -1}, "last must be from 1 to 100"),
        ({"first": 1, "last": 1}, "first and last must not both be given"),
        ({"after": cursor}, "after must be a cursor that this connection gave"),
        ({"before": "nonsense"}, "before must be a cursor"),
        ({"after": "\u2603"}, "after must be a cursor"),
        ({"filter": {"queue": ""}}, "filter.queue must not be blank"),
        ({"filter": {"kind": "x" * 201}}, "filter.kind must have at most 200 characters"),
        ({"filter": {"error": "\u0000"}}, "filter.error must not contain a NUL"),
        ({"filter": {"created": {"from": "2030-01-01T00:00:00"}}}, "filter.created.from must name its offset"),
    ]:
        [error] = (await server.graphql(PAGE, variables, headers=admin()))["errors"]
        assert (error["extensions"]["code"], error["message"].startswith(said)) == ("BAD_USER_INPUT", True), error


async def test_queues_and_tokens_have_pages_too(server: Server) -> None:
    for name in "abcde":
        await server.enqueue(name)
        await server.mint(name)
    queues = "query ($first: Int, $after: String, $last: Int, $before: String) {"
    queues += " queues(first: $first, after: $after, last: $last, before: $before) {"
    queues += " nodes { name } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"
    page = (await ask(server, queues, first=2))["queues"]
    assert [q["name"] for q in page["nodes"]] == ["a", "b"]
    page = (await ask(server, queues, first=2, after=page["pageInfo"]["endCursor"]))["queues"]
    assert [q["name"] for q in page["nodes"]] == ["c", "d"]
    page = (await ask(server, queues, last=1, before=page["pageInfo"]["startCursor"]))["queues"]
    assert ([q["name"] for q in page["nodes"]], page["pageInfo"]["hasPreviousPage"]) == (["b"], True)
    tokens = "query ($first: Int, $after: String) { workerTokens(first: $first, after: $after) {"
    tokens += " nodes { queues } pageInfo { hasNextPage endCursor } } }"
    first = (await as_admin(server, tokens, first=3))["workerTokens"]
    rest = (await as_admin(server, tokens, first=3, after=first["pageInfo"]["endCursor"]))["workerTokens"]
    assert [t["queues"][0] for t in first["nodes"] + rest["nodes"]] == list("edcba")
    assert await refused(server, tokens) == "FORBIDDEN"


async def test_a_page_s_events_are_loaded_at_once(server: Server, monkeypatch: Any) -> None:
    for _ in range(5):
        await server.enqueue("q")
    asked = await statements_asked(server, monkeypatch)
    query = (
        "{ jobs { nodes { payload events { type } attemptHistory { number } waitingFor { reason } worker { id } } } }"
    )
    nodes = (await ask(server, query))["jobs"]["nodes"]
    assert [len(node["events"]) for node in nodes] == [1] * 5
    reads = [s for s in asked if s.startswith(("job_", "event_"))]
    assert sorted(reads) == ["event_attempts", "event_stream", "job_bodies", "job_page_made", "job_rows", "job_waiting"]
