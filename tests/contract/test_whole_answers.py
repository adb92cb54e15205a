"""Head and body leave in one write, an idle connection has one timer, and nothing else about an answer changes."""

import asyncio
import gc
import socket
from asyncio import selector_events
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any, cast
from weakref import ref

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from atomo_gql.api.lean import LeanProtocol


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """By its path: an answer, none, one of several parts, one that takes a body, one in pieces over time."""
    path = scope["path"]
    if path == "/body":
        message = await receive()
        while message.get("more_body"):
            message = await receive()
    status = 204 if path == "/none" else 200
    headers = [] if path in ("/none", "/parts") else [(b"content-length", b"5")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if path == "/parts":
        for part in (b"one", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b"end"})
    else:
        await send({"type": "http.response.body", "body": b"" if status == 204 else b"hello"})


@asynccontextmanager
async def serving(protocol: type[HttpToolsProtocol], application: ASGIApp = app, idle: float = 5) -> AsyncIterator[int]:
    """A real uvicorn; its port."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        application, http=protocol, lifespan="off", log_config=None, server_header=False, date_header=False
    )
    config.timeout_keep_alive = cast("int", idle)  # seconds
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # type: ignore[assignment]
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def told(port: int, request: bytes, later: bytes = b"") -> bytes:
    """All that comes back until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    if later:
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 "), "asked to go on before it answers"
        writer.write(later)
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    return answer


def request(path: str, method: str = "GET", close: bool = True, more: str = "") -> bytes:
    """A request; the server closes after the last."""
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{'Connection: close' if close else 'X: y'}\r\n{more}\r\n".encode()


CASES = {
    "an answer": (request("/"), b""),
    "no body": (request("/none"), b""),
    "HEAD": (request("/", "HEAD"), b""),
    "parts": (request("/parts"), b""),
    "two in one": (request("/", close=False) + request("/none"), b""),
    "parts, then another": (request("/parts", close=False) + request("/"), b""),
    "nonsense": (b"nonsense\r\n\r\n", b""),
    "a body when asked": (request("/body", "POST", more="Expect: 100-continue\r\nContent-Length: 2\r\n"), b"{}"),
}


@pytest.mark.parametrize("case", CASES)
async def test_an_answer_has_the_bytes_that_uvicorn_gives_it(case: str) -> None:
    """Of every kind, also those behind one another on a connection."""
    async with serving(LeanProtocol) as whole, serving(HttpToolsProtocol) as apart:
        expected = await told(apart, *CASES[case])
        assert await told(whole, *CASES[case]) == expected
        assert expected


async def test_an_answer_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted at the socket's transport; uvicorn alone makes two of it."""
    transport: Any = selector_events._SelectorSocketTransport  # type: ignore[attr-defined]
    written: list[bytes] = []
    write = transport.write

    def counted(self: Any, data: bytes) -> None:
        if bytes(data).startswith(b"HTTP/1.1 200") or bytes(data) == b"hello":
            written.append(bytes(data))
        write(self, data)

    monkeypatch.setattr(transport, "write", counted)
    for protocol, writes in ((LeanProtocol, 1), (HttpToolsProtocol, 2)):
        written.clear()
        async with serving(protocol) as port:
            await told(port, request("/"))
        assert len(written) == writes


async def test_a_part_is_not_kept_until_the_next() -> None:
    """What is sent before a pause arrives before its end."""
    has_come = asyncio.Event()

    async def pausing(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await has_come.wait()
        await send({"type": "http.response.body", "body": b"two"})

    async with serving(LeanProtocol, pausing) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("/"))
        await asyncio.wait_for(reader.readuntil(b"one"), 60)
        has_come.set()
        await asyncio.wait_for(reader.readuntil(b"two"), 60)
        writer.close()


@pytest.mark.parametrize("path", ["/", "/slow"])
async def test_a_connection_ends_when_it_was_idle_for_long_and_not_before(path: str) -> None:
    """Its timer is moved on by each request, and does not end one that takes longer."""
    loop = asyncio.get_running_loop()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(idle * 1.5 if scope["path"] == "/slow" else 0)
        await app(scope, receive, send)

    async def kept(port: int) -> bool:
        """Whether all requests came in time; then the connection has ended in time."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        began = last = loop.time()
        while last - began < idle * 1.5:
            writer.write(request(path, close=False))
            assert (await asyncio.wait_for(reader.readuntil(b"hello"), 60)).startswith(b"HTTP/1.1 200 ")
            last = loop.time()
            await asyncio.sleep(idle * 0.4)
            if loop.time() - last > idle * 0.8:
                writer.close()
                return False
        assert await asyncio.wait_for(reader.read(), 60) == b""
        assert loop.time() - last > idle * 0.9
        writer.close()
        await writer.wait_closed()
        return True

    for idle in (0.5, 2, 8):  # a busy machine may be too late for the first
        async with serving(LeanProtocol, slow, idle=idle) as port:
            if await kept(port):
                return
    raise AssertionError("the machine is too slow for this test")


async def test_a_connection_has_one_timer_and_leaves_none() -> None:
    loop: Any = asyncio.get_running_loop()

    def timers() -> set[Any]:
        return {timer for timer in loop._scheduled if not timer.cancelled() and "_Idle" in repr(timer)}

    others = timers()
    async with serving(LeanProtocol) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(20):
            writer.write(request("/", close=False))
            await asyncio.wait_for(reader.readuntil(b"hello"), 60)
        assert len(timers() - others) == 1
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(60):
            while timers() - others:
                await asyncio.sleep(0.01)


async def test_closed_connections_leave_nothing_to_the_collector() -> None:
    """It comes rarely in a server."""
    made: list[ref[Any]] = []

    class Remembered(LeanProtocol):
        def connection_made(self, transport: Any) -> None:
            made.append(ref(self))
            super().connection_made(transport)

    gc.disable()
    try:
        async with serving(Remembered) as port:
            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                for _ in range(2):
                    writer.write(request("/", close=False))
                    await asyncio.wait_for(reader.readuntil(b"hello"), 60)
                writer.close()
                await writer.wait_closed()
            async with asyncio.timeout(60):
                while any(protocol() for protocol in made):
                    await asyncio.sleep(0.01)
        assert len(made) == 5
    finally:
        gc.enable()


def test_a_loop_that_has_ended_is_forgotten() -> None:
    async def answer_one() -> "ref[Any]":
        async with serving(LeanProtocol) as port:
            await told(port, request("/"))
        return ref(asyncio.get_running_loop())

    loop = asyncio.run(answer_one())
    gc.collect()
    assert loop() is None


async def test_what_several_send_in_one_turn_arrives() -> None:
    """A first part of each, with nothing after it that would push it out."""
    all_are_there, have_come = asyncio.Barrier(3), asyncio.Event()

    async def together(scope: Scope, receive: Receive, send: Send) -> None:
        await all_are_there.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await have_come.wait()
        await send({"type": "http.response.body", "body": b"end"})

    async with serving(LeanProtocol, together) as port:
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for _, writer in clients:
            writer.write(request("/"))
        heads = [asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60) for reader, _ in clients]
        assert all(head.startswith(b"HTTP/1.1 200 ") for head in await asyncio.gather(*heads))
        have_come.set()
        for reader, writer in clients:
            assert b"end" in await asyncio.wait_for(reader.read(), 60)
            writer.close()
            await writer.wait_closed()
