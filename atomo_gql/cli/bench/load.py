"""A load generator that costs little: raw HTTP/1.1 over kept connections, one request under way on each.

    python -m atomo_gql.cli.bench.load PORT COUNT CONNECTIONS STATUS <request

The request's bytes come on standard input, the outcome goes to standard output as JSON. Every answer must have the
status. It is a process of its own, so that nothing else of the benchmark takes its time, and has no event loop: what it
costs, the server's database goes without. (wrk finds rates within 5 % of it.) `busy` is the part of the time in which
it ran: near 1 it, and not the server, was the limit.
"""

import re
import selectors
import socket
import sys
import time
from collections import Counter

import orjson

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class _Connection:
    """With a request under way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def status(self) -> str | None:
        """Of the answer, once it is whole.

        Raises:
            ConnectionError: the server closed the connection.
        """
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the server closed the connection")
        if self._received:
            data = self._received + data
        head = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, head)
        if head < 0 or len(data) < head + 4 + int(length[1] if length else 0):
            self._received = data
            return None
        self._received = b""
        return data[9:12].decode()


def _run(request: bytes, port: int, count: int, connections: int, status: str) -> dict[str, float]:
    statuses: Counter[str] = Counter()
    selector = selectors.DefaultSelector()
    made = [_Connection(port) for _ in range(connections)]
    for connection in made:
        selector.register(connection.socket, selectors.EVENT_READ, connection)
    began, used = time.perf_counter(), time.process_time()
    for connection in made[:count]:
        connection.socket.sendall(request)
    unsent = count - len(made[:count])
    while statuses.total() < count:
        for key, _ in selector.select():
            if told := key.data.status():
                statuses[told] += 1
                if unsent:
                    unsent -= 1
                    key.data.socket.sendall(request)
    took, used = time.perf_counter() - began, time.process_time() - used
    if set(statuses) != {status}:
        raise SystemExit(f"every answer should have been {status}, but they were {dict(statuses)}")
    return {"rate": count / took, "busy": used / took}


def post(path: str, body: object, **headers: str) -> bytes:
    """A request's bytes."""
    encoded = orjson.dumps(body)
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json"]
    lines += [f"content-length: {len(encoded)}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + encoded


if __name__ == "__main__":
    _port, _count, _connections, _status = sys.argv[1:]
    _found = _run(sys.stdin.buffer.read(), int(_port), int(_count), int(_connections), _status)
    sys.stdout.buffer.write(orjson.dumps(_found))
