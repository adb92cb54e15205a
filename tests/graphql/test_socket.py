"""GraphQL over WebSocket: the protocol is kept, garbage closes with a code, and nothing of it reaches the log."""

import json
import logging
from typing import Any

import aiohttp
import pytest

from tests.conftest import MakeServer, Server, bearer, token, until

NEW, OLD = "graphql-transport-ws", "graphql-ws"
START = {NEW: "subscribe", OLD: "start"}
NEXT = {NEW: "next", OLD: "data"}
WATCH = "subscription ($id: ID!) { jobProgress(id: $id) { status percent } }"
Socket = aiohttp.ClientWebSocketResponse

FRAMES: list[tuple[str | bytes, int, str]] = [
    ("garbage", 4400, "valid JSON"),
    (b"\x00\x01", 4400, "text"),
    ("[]", 4400, "a JSON object"),
    ("5", 4400, "a JSON object"),
    ("[" * 100_000, 4400, "valid JSON"),
    ("{}", 4400, "Unknown message type"),
    ('{"type": "bogus"}', 4400, "Unknown message type: bogus"),
    ('{"type": ["bogus"]}', 4400, "Unknown message type"),
    ('{"type": "$START"}', 4400, "id must be a string"),
    ('{"type": "$START", "id": []}', 4400, "id must be a string"),
    ('{"type": "$START", "id": ""}', 4400, "id must be a string"),
    ('{"type": "connection_init"}', 4429, "Too many"),
]
PAYLOADS: list[tuple[Any, str]] = [
    (None, "must be a JSON object"),
    ([], "not a list"),
    ({}, "query must be"),
    ({"query": 5}, "query must be"),
    ({"query": "{ __typename }", "variables": [1]}, "variables must be"),
    ({"query": "{ __typename }", "operationName": 5}, "operationName must be"),
    ({"query": "{ __typename }", "variables": {"a": "\ud800"}}, "must not contain a lone surrogate"),
    ({"query": "{"}, "Syntax Error"),
    ({"query": "{ nothing }"}, "Cannot query field"),
    ({"query": "query a { __typename } query b { __typename }"}, "operationName must say"),
    ({"query": "query a { __typename }", "operationName": "c"}, "names no operation"),
    ({"query": "{ " + "a { " * 900}, "Syntax Error"),
    ({"query": "{ " + "__typename " * 3_000 + "}"}, "more than 2000 tokens"),
    ({"query": "{ a " * 900}, "nested too deep"),
    ({"query": WATCH}, "to be provided"),
    ({"query": WATCH, "variables": {"id": "x"}}, "id must be an id"),
]

pytestmark = pytest.mark.parametrize("protocol", [NEW, OLD])


async def connect(server: Server, protocol: str, *, authorization: str | None = None) -> Socket:
    """A connection that has been acknowledged."""
    socket = await server.http.ws_connect(f"{server.url}/graphql", protocols=[protocol])
    await socket.send_json(
        {"type": "connection_init", "payload": {"authorization": authorization or f"Bearer {token()}"}}
    )
    assert (await socket.receive_json(timeout=60))["type"] == "connection_ack"
    return socket


async def receive(socket: Socket) -> Any:
    """The next frame that says something."""
    while (frame := await socket.receive_json(timeout=60))["type"] == "ka":
        pass
    return frame


async def closed(socket: Socket) -> tuple[int | None, str]:
    """The code and the reason that it was closed with."""
    while (message := await socket.receive(timeout=60)).type is aiohttp.WSMsgType.TEXT:
        pass
    assert message.type is aiohttp.WSMsgType.CLOSE, message
    return message.data, message.extra or ""


@pytest.fixture(autouse=True)
def clean_log(caplog: pytest.LogCaptureFixture) -> Any:
    """What a client sends is no error of ours."""
    yield
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_a_frame_that_breaks_the_protocol_closes_with_its_reason(server: Server, protocol: str) -> None:
    for frame, code, reason in FRAMES:
        socket = await connect(server, protocol)
        if isinstance(frame, bytes):
            await socket.send_bytes(frame)
        else:
            await socket.send_str(frame.replace("$START", START[protocol]))
        found, said = await closed(socket)
        assert (found, reason in said) == (code, True), (frame[:40], said)


async def test_an_operation_that_cannot_run_ends_alone_in_an_error(server: Server, protocol: str) -> None:
    socket = await connect(server, protocol)
    for payload, said in PAYLOADS:
        await socket.send_json({"type": START[protocol], "id": "1", "payload": payload})
        frame = await receive(socket)
        assert (frame["type"], frame["id"]) == ("error", "1"), payload
        error = frame["payload"][0] if protocol == NEW else frame["payload"]
        assert (error["extensions"]["code"], said in error["message"]) == ("BAD_USER_INPUT", True), error
    await socket.send_json({"type": START[protocol], "id": "1", "payload": {"query": "{ __typename }"}})
    assert (await receive(socket))["payload"] == {"data": {"__typename": "Query"}}
    assert await receive(socket) == {"type": "complete", "id": "1"}


async def test_somebody_else_s_job_is_not_found(server: Server, protocol: str) -> None:
    theirs = await server.enqueue(headers=bearer(tenant_id="acme"))
    socket = await connect(server, protocol)
    await socket.send_json(
        {"type": START[protocol], "id": "1", "payload": {"query": WATCH, "variables": {"id": theirs}}}
    )
    payload = (await receive(socket))["payload"]
    assert (payload[0] if protocol == NEW else payload)["extensions"]["code"] == "NOT_FOUND"


async def test_without_a_good_token_the_connection_is_closed(server: Server, protocol: str) -> None:
    for payload in (None, {}, {"authorization": "Bearer x"}, {"authorization": 5}, {"authorization": ["Bearer x"]}):
        socket = await server.http.ws_connect(f"{server.url}/graphql", protocols=[protocol])
        await socket.send_json({"type": "connection_init", "payload": payload})
        code, reason = await closed(socket)
        assert (code, reason[:9]) == ({NEW: 4403, OLD: 1011}[protocol], "Forbidden")
    socket = await server.http.ws_connect(f"{server.url}/graphql", protocols=[protocol])
    await socket.send_json({"type": START[protocol], "id": "1", "payload": {"query": "{ __typename }"}})
    assert (await closed(socket))[0] == 4401
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers = upgrade | {"Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw==", "Authorization": "Bearer x"}
    status, answer = await server.call("GET", "/graphql", headers=headers)
    assert (status, answer["code"]) == (401, "UNAUTHENTICATED")
    socket = await server.http.ws_connect(f"{server.url}/graphql", protocols=[protocol], headers=bearer())
    await socket.send_json({"type": "connection_init"})
    assert (await receive(socket))["type"] == "connection_ack"


async def test_a_token_that_expires_ends_its_connection(server: Server, protocol: str) -> None:
    job_id = await server.enqueue()
    socket = await connect(server, protocol, authorization=f"Bearer {token(lasts=8)}")
    await socket.send_json(
        {"type": START[protocol], "id": "1", "payload": {"query": WATCH, "variables": {"id": job_id}}}
    )
    assert (await receive(socket))["type"] == NEXT[protocol]
    assert await closed(socket) == (4403, "Forbidden: the token has expired")
    assert server.application.hub.watchers == 0


async def test_a_connection_has_a_bound_and_its_operations_are_given_back(server: Server, protocol: str) -> None:
    job_id = await server.enqueue()
    socket = await connect(server, protocol)
    start = {"type": START[protocol], "payload": {"query": WATCH, "variables": {"id": job_id}}}
    for number in range(5_000):
        await socket.send_json({**start, "id": str(number)})
    frames = [await receive(socket) for _ in range(5_000)]
    refused = [f for f in frames if f["type"] == "error"]
    assert len(refused) == 4_900
    assert "TOO_MANY_REQUESTS" in json.dumps(refused[0])
    assert server.application.hub.watchers == 100
    await socket.send_json({**start, "id": "1"})
    assert (await closed(socket))[0] == 4409


async def test_a_server_has_a_bound(make_server: MakeServer, protocol: str) -> None:
    server = await make_server(max_subscriptions=1)
    job_id = await server.enqueue()
    socket = await connect(server, protocol)
    start = {"type": START[protocol], "payload": {"query": WATCH, "variables": {"id": job_id}}}
    await socket.send_json({**start, "id": "1"})
    assert (await receive(socket))["type"] == NEXT[protocol]
    await socket.send_json({**start, "id": "2"})
    frame = await receive(socket)
    assert (frame["type"], "TOO_MANY_REQUESTS" in json.dumps(frame)) == ("error", True)
    stop = {"type": "complete" if protocol == NEW else "stop", "id": "1"}
    await socket.send_json(stop)
    await until(lambda: _watchers(server, 0))
    await socket.send_json({**start, "id": "3"})
    frame = await receive(socket)
    assert (frame["type"], frame["id"]) == (NEXT[protocol], "3")


async def _watchers(server: Server, count: int) -> bool:
    return server.application.hub.watchers == count
