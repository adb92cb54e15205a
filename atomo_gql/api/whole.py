"""Answers leave in one piece.

uvicorn writes an answer's head and its body apart: two system calls, and two packets that wake the client twice. On the
hot path the second call is a tenth of what a request costs.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class WholeAnswers(HttpToolsProtocol):
    """uvicorn's protocol, with head and body of an answer in one write."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        super().connection_made(cast("asyncio.Transport", _Gathering(transport, self.loop)))

    def handle_websocket_upgrade(self) -> None:
        """Frames go out as they come."""
        self.transport = cast("_Gathering", self.transport).bare()
        super().handle_websocket_upgrade()


class _Gathering:
    """A transport that holds one write back until the next, or until the end of this turn of the loop."""

    __slots__ = ("_call_soon", "_held", "_transport", "is_closing", "resume_reading")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._call_soon = loop.call_soon
        self._held = b""
        self.is_closing = transport.is_closing  # these two are asked for with every request
        self.resume_reading = transport.resume_reading

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send it soon, in order."""
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held + data)
        else:
            self._held = data
            self._call_soon(self._let_go)

    def close(self) -> None:
        """Send what is held, and end."""
        self._let_go()
        self._transport.close()

    def bare(self) -> asyncio.Transport:
        """The transport itself, with nothing held."""
        self._let_go()
        return self._transport

    def _let_go(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)
