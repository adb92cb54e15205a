"""The head of a request: how large it may be, how long it may take, and what is none."""

import asyncio
from urllib.parse import urlsplit

import orjson
import pytest

from atomo_gql.api import heads
from tests.conftest import MakeServer, Server

_GOOD = b"GET /healthz HTTP/1.1\r\nhost: x\r\n"


async def _said(server: Server, *parts: bytes, pause: float = 0.01) -> tuple[bytes, bytes]:
    """The head and the body of the answer, when the connection has ended."""
    parsed = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(parsed.hostname, parsed.port)
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(pause)
        answer = await asyncio.wait_for(reader.read(), 60)
    except ConnectionError:
        return b"", b""
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


@pytest.mark.parametrize("part", [b"x" * 10_000, b"y: z\r\n" * 1_700])
async def test_a_head_without_end_is_refused(server: Server, part: bytes) -> None:
    head, body = await _said(server, _GOOD + b"x: ", *[part] * 7)
    assert head.startswith(b"HTTP/1.1 413 "), head
    assert b"application/problem+json" in head
    assert orjson.loads(body)["code"] == "PAYLOAD_TOO_LARGE"


async def test_a_large_head_in_pieces_is_taken_and_the_next_one_too(server: Server) -> None:
    last = _GOOD + b"connection: close\r\n\r\n"
    head, body = await _said(server, _GOOD + b"x: ", *[b"x" * 10_000] * 5, b"\r\n\r\n", last)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body.count(b"HTTP/1.1 200 ") == 1


async def test_what_is_no_http_is_told_so(server: Server) -> None:
    head, body = await _said(server, b"\x16\x03\x01 hello\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in head
    assert orjson.loads(body)["code"] == "BAD_USER_INPUT"


@pytest.mark.parametrize("parts", [(), (b"GET /heal",), (_GOOD + b"\r\n", b"GET /heal"), (_GOOD + b"\r\n", b"\r\n")])
async def test_a_head_that_takes_too_long_ends_the_connection(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch, parts: tuple[bytes, ...]
) -> None:
    server = await make_server()
    monkeypatch.setattr(heads, "SECS", 0.5)
    head, _ = await _said(server, *parts)
    assert head.startswith(b"HTTP/1.1 200 ") == (len(parts) == 2)


async def test_a_head_in_time_stays_connected(make_server: MakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await make_server()
    monkeypatch.setattr(heads, "SECS", 0.5)
    last = _GOOD + b"connection: close\r\n\r\n"
    head, body = await _said(server, _GOOD + b"\r\n", last, pause=1)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body.count(b"HTTP/1.1 200 ") == 1
