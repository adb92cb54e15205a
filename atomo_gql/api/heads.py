"""The head of a request has its limits, and what is no HTTP is told so as everything else is.

uvicorn bounds neither how large a head is, nor how long it takes to come: anybody, without a token, could have the
server keep what they send. Bodies are bounded where they are read.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from atomo_gql.api.errors import problem
from atomo_gql.api.lean import LeanProtocol
from atomo_gql.domain.errors import AtomoError, BadUserInput, PayloadTooLarge

MOST = 65_536  # bytes, and what comes with the last of them
SECS = 60.0  # that it may take; a connection to begin with one, too


class BoundedHeads(LeanProtocol):
    """uvicorn's protocol, with limits."""

    _size = 0  # of a head that is not there yet
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        self._call_later = self.loop.call_later  # of the loop itself: see LeanProtocol
        super().connection_made(transport)
        self._timer = self._call_later(SECS, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._head_ended()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Something came."""
        super().data_received(data)
        if self.cycle is None or self.cycle.scope is not self.scope:
            self._head_goes_on(len(data))
        elif self.cycle.response_complete:  # what is left of a body, or a stray byte: uvicorn thinks it is in use again
            self._timer = self._timer or self._call_later(SECS, self.transport.close)
        elif self._timer is not None:
            self._head_ended()

    def handle_websocket_upgrade(self) -> None:
        """From here it is another's."""
        super().handle_websocket_upgrade()
        self._head_ended()
        self._size = -(1 << 62)

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        self._refuse(BadUserInput(msg))

    def _head_goes_on(self, size: int) -> None:
        self._size += size
        if self._size > MOST:
            self._refuse(PayloadTooLarge(f"the head of a request must have at most {MOST} bytes"))
        elif self._size > 0 and self._timer is None:
            self._timer = self._call_later(SECS, self.transport.close)

    def _head_ended(self) -> None:
        self._size = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, error: AtomoError) -> None:
        if self.transport.is_closing():
            return
        status, body = problem(error)
        head = b"content-type: application/problem+json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head % len(body) + body)
        self.transport.close()
