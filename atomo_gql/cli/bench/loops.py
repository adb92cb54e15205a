"""Lease loops, a process of their own: each leases ten jobs and reports the ten before in the same request.

    loops PORT QUEUE COUNT LOOPS, with ATOMO_WORKER_TOKEN

Raw HTTP over kept connections, until COUNT jobs are done; the rate goes to standard output as JSON.
"""

import asyncio
import os
import sys
import time

import orjson

from atomo_gql.cli.bench.load import post

CAPACITY = 10


class _Loops:
    def __init__(self, port: int, queue: str, count: int) -> None:
        self._port, self._queue, self._left = port, queue, count
        self._token = os.environ["ATOMO_WORKER_TOKEN"]

    async def run(self, loops: int) -> dict[str, float]:
        count, used = self._left, time.process_time()
        ways = [await asyncio.open_connection("127.0.0.1", self._port) for _ in range(loops)]
        began = time.perf_counter()
        await asyncio.gather(*(self._loop(*way) for way in ways))
        took = time.perf_counter() - began
        return {"rate": count / took, "busy": (time.process_time() - used) / took}

    async def _loop(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held: list[dict[str, str]] = []
        while self._left > 0 or held:
            body = {"queues": [self._queue], "capacity": CAPACITY}
            if held:
                body["reports"] = [{"type": "complete", "id": j["id"], "leaseId": j["leaseId"]} for j in held]
            writer.write(post("/jobs/lease", body, **{"x-worker-token": self._token}))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            answer = orjson.loads(await reader.readexactly(length))
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"a lease was answered {answer}")
            self._left -= sum(outcome["status"] == 204 for outcome in answer.get("outcomes", ()))
            held = answer["jobs"]
        writer.close()


if __name__ == "__main__":
    _port, _queue, _count, _loops = sys.argv[1:]
    sys.stdout.buffer.write(orjson.dumps(asyncio.run(_Loops(int(_port), _queue, int(_count)).run(int(_loops)))))
