"""A client that is slow, or falls silent in the middle of its body."""

import asyncio
from urllib.parse import urlsplit

import pytest

from atomo_gql.api.rest import endpoint
from tests.conftest import Server, bearer


async def _send(server: Server, *parts: bytes) -> bytes:
    """What comes back for a request that is sent in parts, and never ended."""
    where = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    for part in parts:
        writer.write(part)
        await writer.drain()
    try:
        return await asyncio.wait_for(reader.read(4_096), 60)
    finally:
        writer.close()


@pytest.mark.parametrize("begun", [b"", b'{"queue": "q", '])
@pytest.mark.parametrize("path", ["/jobs", "/graphql"])
async def test_a_body_that_does_not_come_is_400(
    server: Server, monkeypatch: pytest.MonkeyPatch, path: str, begun: bytes
) -> None:
    monkeypatch.setattr(endpoint, "BODY_SECS", 0.2)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n"
    head += f"authorization: {bearer()['Authorization']}\r\n\r\n"
    answer = await _send(server, head.encode(), begun)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"the body must keep coming" in answer


@pytest.mark.parametrize("path", ["/jobs", "/graphql"])
async def test_whoever_is_still_sending_a_body_that_is_too_large_gets_the_answer(server: Server, path: str) -> None:
    where = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    size = 30_000_000
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {size}\r\n"
    writer.write(f"{head}authorization: {bearer()['Authorization']}\r\n\r\n".encode())
    for _ in range(30):  # as a client does that reads only when it has sent
        writer.write(b" " * 1_000_000)
        await writer.drain()
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_a_body_in_small_parts_is_one_body(server: Server) -> None:
    body = b'{"queue": "q", "kind": "k"}'
    head = f"POST /jobs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    head += f"authorization: {bearer()['Authorization']}\r\n\r\n"
    answer = await _send(server, head.encode(), *(body[n : n + 1] for n in range(len(body))))
    assert answer.startswith(b"HTTP/1.1 201 ")
