"""GraphQL over HTTP and SSE: every input has a clear answer in GraphQL's own shape."""

import io
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from atomo_gql.cli.host import running
from atomo_gql.settings import Settings
from tests.conftest import SECRET, Server, admin, bearer, until

WATCH = "subscription ($id: ID!) { jobProgress(id: $id) { status percent } }"
RESPONSE = "application/graphql-response+json"
REFUSED: list[tuple[bytes, dict[str, str], int, str, str]] = [
    (b"garbage", {}, 400, "BAD_USER_INPUT", "must be JSON"),
    (b"", {}, 400, "BAD_USER_INPUT", "must be JSON"),
    (b"5", {}, 400, "BAD_USER_INPUT", "must be a JSON object"),
    (b"[]", {}, 400, "BAD_USER_INPUT", "batches are not taken"),
    (b"{}", {}, 400, "BAD_USER_INPUT", "query must be"),
    (b'{"query": 5}', {}, 400, "BAD_USER_INPUT", "query must be"),
    (b'{"query": "\\ud800"}', {}, 400, "BAD_USER_INPUT", "query must not contain a lone surrogate"),
    (b'{"query": "\xff"}', {}, 400, "BAD_USER_INPUT", "must be JSON: it is not UTF-8"),
    (b'{"query": "{a}", "variables": [1]}', {}, 400, "BAD_USER_INPUT", "variables must be"),
    (b'{"query": "{a}", "operationName": 5}', {}, 400, "BAD_USER_INPUT", "operationName must be"),
    (b"[" * 100_000, {}, 400, "BAD_USER_INPUT", "must be JSON"),
    (b'{"query": "{a}"}', {"Content-Type": "text/plain"}, 415, "UNSUPPORTED_MEDIA_TYPE", "application/json"),
    (b'{"query": "{a}"}', {"Authorization": "Bearer x"}, 401, "UNAUTHENTICATED", "not valid"),
    (b'{"query": "{a}"}', {"X-Tenant-ID": "acme"}, 403, "FORBIDDEN", "for admins"),
    (b'{"query": "%b"}' % (b"a" * 100_001), {}, 413, "PAYLOAD_TOO_LARGE", "query must have at most 100000"),
    (b'"' + b"a" * 17_000_000 + b'"', {}, 413, "PAYLOAD_TOO_LARGE", "the body must have at most"),
    (b'{"query": "{ nothing }"}', {}, 200, "BAD_USER_INPUT", "Cannot query field"),
    (b'{"query": "{ nothing }"}', {"Accept": RESPONSE}, 400, "BAD_USER_INPUT", "Cannot query field"),
    (
        b'{"query": "subscription { jobProgress(id: 1) { status } }"}',
        {},
        200,
        "BAD_USER_INPUT",
        "needs a WebSocket",
    ),
]
ABUSIVE = [
    "{ " + "a { " * 900 + "} " * 901,
    "{ jobs { nodes { " + "events { job { " * 9 + "id" + " } }" * 9 + " } } }",
    "{ " + " ".join(f"a{n}: __typename" for n in range(40)) + " }",
    "{ __schema { types { fields { type { fields { type { fields { type { fields { name } } } } } } } } } }",
    "{ ...a } fragment a on Query { ...a }",
    "query (" + " ".join(f"$v{n}: Int" for n in range(900)) + ") { __typename }",
    'mutation { enqueueJob(queue: "q", kind: "k", payload: ' + "[" * 600 + "]" * 600 + ") }",
    'mutation { enqueueJob(queue: "q", kind: "k", runAt: "2030-01-01T00:00:00") }',
    'mutation { enqueueJob(queue: "q", kind: "k", priority: 99999999999999999999) }',
    "mutation { enqueueJobs(jobs: []) }",
    'mutation { enqueueJobs(jobs: [{queue: "q", kind: "k"}, {queue: " ", kind: "k"}]) }',
]


async def post(server: Server, body: bytes, **headers: str) -> tuple[int, str, Any]:
    """Status, media type and JSON of an answer."""
    sent = bearer() | {"Content-Type": "application/json"} | headers
    async with server.http.post(f"{server.url}/graphql", data=io.BytesIO(body), headers=sent) as response:
        return response.status, response.content_type, json.loads(await response.text())


async def test_what_cannot_be_run_says_why(server: Server) -> None:
    for body, headers, status, code, said in REFUSED:
        found, media_type, answer = await post(server, body, **headers)
        [error] = answer["errors"]
        assert (found, error["extensions"]["code"], said in error["message"]) == (status, code, True), str(answer)[:500]
        assert media_type == headers.get("Accept", "application/json")


async def test_an_abusive_document_changes_nothing(server: Server, sql: Any) -> None:
    for query in ABUSIVE:
        answer = await server.graphql(query)
        assert {e["extensions"]["code"] for e in answer["errors"]} == {"BAD_USER_INPUT"}, query[:60]
        assert len(json.dumps(answer)) < 30_000
    assert await sql.fetchval("SELECT count(*) FROM events") == 0


async def test_a_batch_names_the_index_of_what_is_wrong(server: Server) -> None:
    query = "mutation ($jobs: [EnqueueJobInput!]!) { enqueueJobs(jobs: $jobs) }"
    jobs: list[dict[str, Any]] = [{"queue": "q", "kind": "k", "payload": n} for n in range(1_000)]
    made = (await server.graphql(query, {"jobs": jobs}))["data"]["enqueueJobs"]
    assert (len(made), made) == (1_000, sorted(made))
    jobs[3]["maxAttempts"] = 0
    [error] = (await server.graphql(query, {"jobs": jobs}))["errors"]
    assert (error["extensions"]["field"], error["path"]) == ("jobs[3].maxAttempts", ["enqueueJobs"])
    [error] = (await server.graphql(query, {"jobs": [jobs[0]] * 1_001}))["errors"]
    assert "from 1 to 1000 jobs" in error["message"]


async def test_get_runs_queries_only(server: Server, sql: Any) -> None:
    async def get(**params: str) -> tuple[int, Any]:
        async with server.http.get(f"{server.url}/graphql", params=params, headers=bearer()) as response:
            return response.status, await response.json()

    assert await get(query="query ($a: Boolean!) { __typename @include(if: $a) }", variables='{"a": true}') == (
        200,
        {"data": {"__typename": "Query"}},
    )
    assert (await get(query='mutation { enqueueJob(queue: "q", kind: "k") }'))[0] == 405
    assert (await get(query="{ __typename }", variables="nonsense"))[0] == 400
    for method in ("PUT", "DELETE", "PATCH"):
        async with server.http.request(method, f"{server.url}/graphql", headers=bearer()) as response:
            assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD, POST")
    assert await sql.fetchval("SELECT count(*) FROM events") == 0


async def test_a_fault_of_ours_is_not_told(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the password is hunter2")

    server.application.services.jobs.page = broken  # type: ignore[assignment, method-assign]
    answer = await server.graphql("{ jobs { nodes { id } } }")
    [error] = answer["errors"]
    assert (error["extensions"]["code"], "hunter2" in json.dumps(answer)) == ("INTERNAL", False)
    assert "hunter2" in caplog.text


async def test_a_client_that_reads_both_is_sent_json_for_what_answers_once(server: Server) -> None:
    for accept, media_type in (
        ("application/json, text/event-stream", "application/json"),
        ("application/graphql-response+json, application/json, text/event-stream", RESPONSE),
        ("text/event-stream", "text/event-stream"),
        ("*/*", "application/json"),
    ):
        headers = bearer() | {"Accept": accept}
        async with server.http.post(
            f"{server.url}/graphql", json={"query": "{ __typename }"}, headers=headers
        ) as answer:
            assert (answer.content_type, "Query" in await answer.text()) == (media_type, True)


async def test_events_stream_to_the_end_and_a_client_that_goes_is_forgotten(server: Server) -> None:
    worker = await server.mint("*")
    job_id = await server.enqueue()
    body = {"query": WATCH, "variables": {"id": job_id}}
    headers = bearer() | {"Accept": "text/event-stream"}
    async with server.http.post(f"{server.url}/graphql", json=body, headers=headers) as stream:
        assert (stream.status, stream.content_type) == (200, "text/event-stream")
        assert await stream.content.readline() == b"event: next\n"
        assert b'"QUEUED"' in await stream.content.readline()
        async with server.http.post(f"{server.url}/graphql", json=body, headers=headers) as other:
            await other.content.readline()
            assert server.application.hub.watchers == 2
            other.close()
            await until(lambda: _watchers(server, 1))
        [job] = await worker.lease("q")
        await worker.report("complete", job)
        rest = (await stream.content.read()).decode()
    assert rest.rstrip().endswith("event: complete\ndata:")
    assert '"SUCCEEDED"' in rest
    await until(lambda: _watchers(server, 0))
    theirs = await server.enqueue(headers=admin(tenant_id="acme"))
    for variables in ({"id": theirs}, {"id": "x"}, {}):
        asked = {"query": WATCH, "variables": variables}
        async with server.http.post(f"{server.url}/graphql", json=asked, headers=headers) as stream:
            told = (await stream.content.read()).decode()
        assert "extensions" in told
        assert told.rstrip().endswith("event: complete\ndata:")


async def _watchers(server: Server, count: int) -> bool:
    return server.application.hub.watchers == count


async def test_a_server_that_ends_is_not_held_up_by_streams(
    dsn: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(jwt_secret=SECRET, data_dir=tmp_path, port=0, env="test")
    async with aiohttp.ClientSession(headers=bearer() | {"Accept": "text/event-stream"}) as http:
        async with running(settings, dsn) as server:
            job = {"queue": "nobody's", "kind": "k"}
            async with http.post(f"{server.url}/jobs", json=job) as answer:
                job_id = (await answer.json())["id"]
            body = {"query": WATCH, "variables": {"id": job_id}}
            stream = await http.post(f"{server.url}/graphql", json=body)
            assert await stream.content.readline() == b"event: next\n"
            server.stop()
            await server.task
        rest = (await stream.content.read()).decode()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
    assert '"QUEUED"' in rest
    assert "complete" not in rest, "the client must subscribe anew"
