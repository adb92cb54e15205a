"""A load generator that costs little: raw HTTP/1.1 over kept connections, one request under way on each."""

import asyncio
import time


class _Connection(asyncio.Protocol):
    def __init__(self, requests: "list[bytes]", done: "asyncio.Future[None]") -> None:
        self._requests = requests
        self._done = done
        self.statuses: dict[bytes, int] = {}
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        lower = head.lower()
        length = int(lower.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self._buffer = b""
        status = head[9:12]
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(exc or ConnectionError("the server closed the connection"))

    def _next(self) -> None:
        if self._requests:
            self._transport.write(self._requests.pop())  # type: ignore[attr-defined]
        elif not self._done.done():
            self._done.set_result(None)
            self._transport.close()


async def measure(port: int, request: bytes, count: int, connections: int, expect: bytes) -> float:
    """Requests per second; every answer must have the status that is expected."""
    loop = asyncio.get_running_loop()
    requests = [request] * count
    made, waits = [], []
    began = time.perf_counter()
    for _ in range(connections):
        done: asyncio.Future[None] = loop.create_future()
        connection = _Connection(requests, done)
        await loop.create_connection(lambda connection=connection: connection, "127.0.0.1", port)  # type: ignore[misc]
        made.append(connection)
        waits.append(done)
    await asyncio.gather(*waits)
    took = time.perf_counter() - began
    statuses: dict[bytes, int] = {}
    for connection in made:
        for status, n in connection.statuses.items():
            statuses[status] = statuses.get(status, 0) + n
    if statuses != {expect: count}:
        raise RuntimeError(f"expected {count} × {expect.decode()}, got {statuses}")
    return count / took


def post(path: str, body: bytes, **headers: str) -> bytes:
    """A request's bytes."""
    lines = [
        f"POST {path} HTTP/1.1",
        "host: 127.0.0.1",
        "content-type: application/json",
        f"content-length: {len(body)}",
    ]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
