"""A load generator that costs little: raw HTTP/1.1 over kept connections, one request under way on each.

    python -m atomo_gql.cli.bench.load PORT COUNT CONNECTIONS STATUS <request

The request's bytes come on standard input, the outcome goes to standard output as JSON. Every answer must have the
status. It is a process of its own, so that nothing else of the benchmark takes its time; `busy` is the part of the
time in which it ran: near 1 it, and not the server, was the limit.
"""

import asyncio
import sys
import time
from collections import Counter

import orjson


class _Connection(asyncio.Protocol):
    def __init__(self, load: "_Load") -> None:
        self._load = load
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if len(body) < int(length or 0):
            return
        self._buffer = b""
        self._load.statuses[head[9:12].decode()] += 1
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._load.done.done():
            self._load.done.set_exception(exc or ConnectionError("the server closed the connection"))

    def send(self) -> None:
        load = self._load
        if load.unsent:
            load.unsent -= 1
            self._transport.write(load.request)
        elif load.statuses.total() == load.count and not load.done.done():
            load.done.set_result(None)


class _Load:
    def __init__(self, request: bytes, count: int) -> None:
        self.request = request
        self.count = self.unsent = count
        self.statuses: Counter[str] = Counter()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


async def _run(port: int, count: int, connections: int, status: str) -> dict[str, float]:
    load = _Load(sys.stdin.buffer.read(), count)
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: _Connection(load), "127.0.0.1", port) for _ in range(connections)]
    began, used = time.perf_counter(), time.process_time()
    for _, connection in made:
        connection.send()
    await load.done
    took, used = time.perf_counter() - began, time.process_time() - used
    if set(load.statuses) != {status}:
        raise SystemExit(f"every answer should have been {status}, but they were {dict(load.statuses)}")
    return {"rate": count / took, "busy": used / took}


def post(path: str, body: object, **headers: str) -> bytes:
    """A request's bytes."""
    encoded = orjson.dumps(body)
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json"]
    lines += [f"content-length: {len(encoded)}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + encoded


if __name__ == "__main__":
    _port, _count, _connections, _status = sys.argv[1:]
    sys.stdout.buffer.write(orjson.dumps(asyncio.run(_run(int(_port), int(_count), int(_connections), _status))))
