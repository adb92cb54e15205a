"""uvicorn's protocol, for less.

uvicorn writes an answer's head and its body apart: two system calls, and two packets that wake the client twice. After
each answer it makes a timer, for a connection that stays idle, and cancels it with the next request. On the hot path,
the one is a tenth of what a request costs, the other a twentieth.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Any, cast
from weakref import WeakKeyDictionary, ref

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class LeanProtocol(HttpToolsProtocol):
    """Head and body of an answer leave in one write, and a connection has one timer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        self._idle = _Idle(self.loop)
        turn = _turns.setdefault(self.loop, _Turn(self.loop))
        super().connection_made(cast("asyncio.Transport", _Gathering(transport, turn)))
        self.loop = cast("asyncio.AbstractEventLoop", self._idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        super().connection_lost(exc)
        self._idle.end()

    def handle_websocket_upgrade(self) -> None:
        """Frames go out as they come."""
        self._idle.end()
        self.transport = cast("_Gathering", self.transport).bare()
        super().handle_websocket_upgrade()


class _Idle:
    """Stands in for the event loop where uvicorn sets the timer of an idle connection, the only one it sets.

    That one is left to ring when it is cancelled, and moved on when it rings too early.
    """

    __slots__ = ("_due", "_ended", "_is_over", "_loop", "_timer", "create_task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due = math.inf
        self._ended: Callable[[], None] | None = None
        self._is_over = False
        self._timer: asyncio.TimerHandle | None = None
        self.create_task = loop.create_task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def call_later(self, delay: float, ended: Callable[[], None]) -> "_Idle":
        """Call `ended` after so many seconds, unless it is called off; what is returned can do that."""
        if not self._is_over:
            self._due = self._loop.time() + delay
            self._ended = ended
            if self._timer is None:
                self._timer = self._loop.call_at(self._due, self._ring)
        return self

    def cancel(self) -> None:
        """The connection is in use."""
        self._due = math.inf

    def end(self) -> None:
        """The connection is no more, or is not HTTP's any more."""
        self._is_over = True
        self._ended = None  # it refers back: a cycle, which would wait for the collector
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        if self._ended is not None and self._due <= self._loop.time():
            self._ended()
        elif self._due < math.inf:
            self._timer = self._loop.call_at(self._due, self._ring)


class _Turn:
    """What is held back until the end of a turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)  # which is the key that this is found by
        self._holding: list[_Gathering] = []

    def hold(self, transport: "_Gathering") -> None:
        """Have it let go by then."""
        if not self._holding and (loop := self._loop()):
            loop.call_soon(self._end)
        self._holding.append(transport)

    def _end(self) -> None:
        holding, self._holding = self._holding, []
        for transport in holding:
            transport.let_go()


_turns: "WeakKeyDictionary[asyncio.AbstractEventLoop, _Turn]" = WeakKeyDictionary()


class _Gathering:
    """A transport that holds one write back until the next, or until the end of this turn of the loop."""

    __slots__ = ("_held", "_transport", "_turn", "is_closing", "resume_reading")

    def __init__(self, transport: asyncio.Transport, turn: _Turn) -> None:
        self._transport = transport
        self._turn = turn
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
            self._turn.hold(self)

    def close(self) -> None:
        """Send what is held, and end."""
        self.let_go()
        self._transport.close()

    def bare(self) -> asyncio.Transport:
        """The transport itself, with nothing held."""
        self.let_go()
        return self._transport

    def let_go(self) -> None:
        """Send what is held."""
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)
