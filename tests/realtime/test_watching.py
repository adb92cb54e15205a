"""Watching a job: its present state first, then each update, then its end, from any replica."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from gql import Client, gql
from gql.transport.aiohttp import AIOHTTPTransport
from gql.transport.websockets import WebsocketsTransport

from tests.conftest import MakeServer, Server, bearer, token

WATCH = "subscription ($id: ID!) { jobProgress(id: $id) { status percent message data result } }"


async def _frames(socket: aiohttp.ClientWebSocketResponse, last: str = "end") -> list[Any]:
    found: list[Any] = []
    while not found or found[-1]["type"] != last:
        found.append(await socket.receive_json(timeout=60))
    return found


async def _first(socket: aiohttp.ClientWebSocketResponse, **wanted: Any) -> Any:
    while True:
        frame = await socket.receive_json(timeout=60)
        if all(frame.get(name) == value for name, value in wanted.items()):
            return frame


async def test_a_page_on_one_server_sees_a_worker_on_the_other(make_server: MakeServer) -> None:
    here, there = await make_server(), await make_server()
    worker = await here.mint("*")
    job_id = await here.enqueue()
    channel = f"job:{job_id}"
    big = {"text": "x" * 20_000}
    async with there.http.ws_connect(f"{there.url}/realtime/ws?token={token()}") as socket:
        await socket.send_json({"op": "subscribe", "channel": channel})
        first = await socket.receive_json(timeout=60)
        assert (first["type"], first["channel"], first["jobId"], first["status"]) == (
            "progress",
            channel,
            job_id,
            "queued",
        )
        [job] = await worker.lease("q")
        await worker.report("progress", job, percent=0.25, message="a quarter", data={"n": 1})
        frame = await _first(socket, percent=0.25)
        assert (frame["message"], frame["data"], frame["attempts"]) == ("a quarter", {"n": 1}, 1)
        await worker.report("progress", job, percent=0.5, data=big)
        assert (await _first(socket, percent=0.5))["data"] == big
        await worker.report("complete", job, result={"ok": True})
        end = (await _frames(socket))[-1]
        assert (end["status"], end["result"]) == ("succeeded", {"ok": True})


async def test_a_slow_page_skips_to_the_newest_and_does_not_miss_the_end(server: Server) -> None:
    worker = await server.mint("*")
    job_id = await server.enqueue()
    [job] = await worker.lease("q")
    async with server.http.ws_connect(f"{server.url}/realtime/ws?token={token()}") as socket:
        await socket.send_json({"op": "subscribe", "channel": f"job:{job_id}"})
        await socket.receive_json(timeout=60)
        await asyncio.gather(*(worker.report("progress", job, percent=n / 500) for n in range(500)))
        await worker.report("complete", job)
        assert (await _frames(socket))[-1]["status"] == "succeeded"


async def test_a_page_that_comes_after_the_end_is_told_the_end(server: Server) -> None:
    worker = await server.mint("*")
    job_id = await server.enqueue()
    [job] = await worker.lease("q")
    await worker.report("fail", job, error="boom", retryable=False)
    async with server.http.ws_connect(f"{server.url}/realtime/ws?token={token()}") as socket:
        await socket.send_json({"op": "subscribe", "channel": f"job:{job_id}"})
        end = await socket.receive_json(timeout=60)
        assert (end["type"], end["status"], end["error"]) == ("end", "dead", "boom")


async def test_what_may_not_be_watched_is_an_error_frame(server: Server) -> None:
    theirs = await server.enqueue(headers=bearer(tenant_id="acme"))
    async with server.http.ws_connect(f"{server.url}/realtime/ws?token={token()}") as socket:
        for text, code in [
            (json.dumps({"op": "subscribe", "channel": f"job:{theirs}"}), "NOT_FOUND"),
            (json.dumps({"op": "subscribe", "channel": "job:x"}), "BAD_USER_INPUT"),
            (json.dumps({"op": "subscribe", "channel": "all"}), "BAD_USER_INPUT"),
            (json.dumps({"op": "publish", "channel": f"job:{theirs}"}), "BAD_USER_INPUT"),
            ("garbage", "BAD_USER_INPUT"),
            ("[]", "BAD_USER_INPUT"),
            ("x" * 5_000, "BAD_USER_INPUT"),
        ]:
            await socket.send_str(text)
            frame = await socket.receive_json(timeout=60)
            assert (frame["type"], frame["code"]) == ("error", code), text[:50]
        await socket.send_bytes(b"\x00")
        assert (await socket.receive_json(timeout=60))["type"] == "error"


@pytest.mark.parametrize("query", ["", "?token=", "?token=nonsense"])
async def test_without_a_valid_token_the_upgrade_is_refused(server: Server, query: str) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await server.http.ws_connect(f"{server.url}/realtime/ws{query}")
    assert refused.value.status == 401


async def test_updates_arrive_again_after_the_listening_connection_was_lost(make_server: MakeServer, sql: Any) -> None:
    here, there = await make_server(), await make_server()
    worker = await here.mint("*")
    job_id = await here.enqueue()
    async with there.http.ws_connect(f"{there.url}/realtime/ws?token={token()}") as socket:
        await socket.send_json({"op": "subscribe", "channel": f"job:{job_id}"})
        await socket.receive_json(timeout=60)
        killed = await sql.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'atomo-gql listener' AND datname = current_database()"
        )
        assert len(killed) == 2
        [job] = await worker.lease("q")
        await worker.report("complete", job)
        assert (await _frames(socket))[-1]["status"] == "succeeded"


async def test_sse_tells_the_present_state_and_the_end(server: Server) -> None:
    worker = await server.mint("*")
    job_id = await server.enqueue()
    body = {"query": WATCH, "variables": {"id": job_id}}
    headers = bearer() | {"Accept": "text/event-stream"}
    async with server.http.post(f"{server.url}/graphql", json=body, headers=headers) as answer:
        assert answer.content_type == "text/event-stream"
        seen: list[Any] = []
        async for line in answer.content:
            if line.startswith(b"data:") and b"jobProgress" in line:
                seen.append(json.loads(line[5:])["data"]["jobProgress"]["status"])
                if len(seen) == 1:
                    [job] = await worker.lease("*")
                    await worker.report("complete", job)
    assert (seen[0], seen[-1]) == ("QUEUED", "SUCCEEDED")


async def test_a_subscription_over_plain_http_is_told_what_it_needs(server: Server) -> None:
    answer = await server.graphql(WATCH, {"id": await server.enqueue()})
    assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
    assert "text/event-stream" in answer["errors"][0]["message"]


async def test_a_socket_that_does_not_say_who_it_is_is_refused(server: Server) -> None:
    for payload in ({}, {"authorization": "Bearer nonsense"}, {"authorization": 5}):
        async with server.http.ws_connect(f"{server.url}/graphql", protocols=["graphql-transport-ws"]) as socket:
            await socket.send_json({"type": "connection_init", "payload": payload})
            assert (await socket.receive(timeout=60)).type is aiohttp.WSMsgType.CLOSE
            assert socket.close_code == 4403


@pytest.mark.parametrize(
    "protocol", [WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL, WebsocketsTransport.APOLLO_SUBPROTOCOL]
)
async def test_gql_enqueues_and_watches_to_the_end(server: Server, protocol: Any) -> None:
    worker = await server.mint("*")
    http = AIOHTTPTransport(f"{server.url}/graphql", headers=bearer(), ssl=False)
    async with Client(transport=http) as session:
        made = await session.execute(gql('mutation { enqueueJob(queue: "media-gen", kind: "video.generate") }'))
    job_id = made["enqueueJob"]
    socket = WebsocketsTransport(
        f"ws{server.url[4:]}/graphql",
        init_payload={"authorization": f"Bearer {token()}"},
        subprotocols=[protocol],
    )
    seen: list[Any] = []
    async with Client(transport=socket) as session:
        request = gql(WATCH)
        request.variable_values = {"id": job_id}
        async for data in session.subscribe(request):
            seen.append(data["jobProgress"])
            if len(seen) == 1:
                [job] = await worker.lease("*")
                await worker.report("progress", job, percent=0.5, message="half")
                await worker.report("complete", job, result=7)
    assert seen[0]["status"] == "QUEUED"
    assert (seen[-1]["status"], seen[-1]["result"]) == ("SUCCEEDED", 7)


async def test_graphql_errors_carry_their_code_and_no_trace(server: Server) -> None:
    theirs = await server.enqueue(headers=bearer(tenant_id="acme"))
    for query, code in [
        ('mutation { enqueueJob(queue: "", kind: "k") }', "BAD_USER_INPUT"),
        ('mutation { enqueueJob(queue: "q", kind: "k", payload: 1e999) }', "BAD_USER_INPUT"),
        ("{ nothing }", "BAD_USER_INPUT"),
        ("{ jobs(first: 2147483647) { nodes { id } } }", "BAD_USER_INPUT"),
        ('{ jobs(after: "nonsense") { nodes { id } } }', "BAD_USER_INPUT"),
        ("{ " + " ".join(f"a{n}: __typename" for n in range(40)) + " }", "BAD_USER_INPUT"),
        ("{ " * 3_000, "BAD_USER_INPUT"),
    ]:
        answer = await server.graphql(query)
        assert answer["errors"][0]["extensions"]["code"] == code, query[:60]
        assert "Traceback" not in str(answer)
    assert (await server.graphql(f'{{ job(id: "{theirs}") {{ id }} }}'))["data"] == {"job": None}
    status, answer = await server.call("POST", "/graphql", {"query": "{ __typename }"})
    assert (status, answer["errors"][0]["extensions"]["code"]) == (401, "UNAUTHENTICATED")


async def test_pages_of_jobs_do_not_shift_while_jobs_come_in(server: Server) -> None:
    made = [await server.enqueue() for _ in range(5)]
    page = (
        "query ($after: String) { jobs(first: 2, after: $after) { nodes { id } pageInfo { hasNextPage endCursor } } }"
    )
    seen: list[str] = []
    after = None
    while True:
        found = (await server.graphql(page, {"after": after}))["data"]["jobs"]
        seen += [node["id"] for node in found["nodes"]]
        await server.enqueue()
        if not found["pageInfo"]["hasNextPage"]:
            break
        after = found["pageInfo"]["endCursor"]
    assert seen == made[::-1]
