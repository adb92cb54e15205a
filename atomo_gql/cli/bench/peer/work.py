"""A worker that counts."""

import asyncio
import json
import resource
import sys
import threading
import time
from typing import Any

import aiohttp

from atomo_gql.cli.bench.peer.kept import PORT, URL, kept, say
from atomo_gql.cli.bench.target import Target
from atomo_gql.worker import JobContext, Worker
from atomo_gql.worker.collector import calm_collector

_CONCURRENCY = {"c1": 1, "c10": 10, "lat": 10, "best": 1_600}
_now = time.monotonic


async def run(dsn: str, asked: dict[str, Any]) -> None:
    """Until standard input ends."""
    await _Drain(dsn, asked).run()


class _Drain:
    """A worker that counts."""

    def __init__(self, dsn: str, asked: dict[str, Any]) -> None:
        known = json.loads(kept(dsn).read_text())
        self._target = Target(PORT, known["pid"])
        self._jwt = known["jwt"]
        self._count = 0
        self._first: float | None = None
        self._last: float | None = None
        self._starts: list[tuple[int, float]] | None = [] if asked["profile"] == "lat" else None
        concurrency = asked.get("concurrency") or _CONCURRENCY[asked["profile"]]
        self._worker = Worker(url=URL, token=known["token"], queues=["bench"], concurrency=concurrency)
        self._worker.on("noop")(self._noop)

    async def run(self) -> None:
        """Until standard input ends."""
        loop = asyncio.get_running_loop()
        requests, server_cpu = await self._requests(), self._target.cpu_seconds()
        threading.Thread(target=self._report, daemon=True).start()
        threading.Thread(target=self._stop_at_end, args=(loop,), daemon=True).start()
        say(ev="ready")
        with calm_collector():  # as Worker.run() does
            await self._worker.run_async()
        used = resource.getrusage(resource.RUSAGE_SELF)
        each = max(self._count, 1)
        cost = {
            "requests": (await self._requests() - requests) / each,
            "workerCpuMicroseconds": (used.ru_utime + used.ru_stime) / each * 1e6,
            "serverCpuMicroseconds": (self._target.cpu_seconds() - server_cpu) / each * 1e6,
        }
        print(json.dumps({"jobs": self._count, **cost}), file=sys.stderr)
        say(ev="end", lat=self._starts, cost=cost, **self._state())

    async def _noop(self, ctx: JobContext) -> None:
        now = _now()
        if self._first is None:
            self._first = now
        self._last = now
        self._count += 1
        if self._starts is not None:
            self._starts.append((ctx.job.payload["i"], now))

    def _state(self) -> dict[str, Any]:
        return {"n": self._count, "first": self._first, "last": self._last}

    def _report(self) -> None:
        told = -1
        while True:
            if self._count != told:
                told = self._count
                say(ev="p", **self._state())
            time.sleep(0.05)

    def _stop_at_end(self, loop: asyncio.AbstractEventLoop) -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(self._worker.stop)

    async def _requests(self) -> float:
        """How many the server has answered to workers so far."""
        async with (
            aiohttp.ClientSession(headers={"authorization": f"Bearer {self._jwt}"}, raise_for_status=True) as http,
            http.get(f"{URL}/metrics") as answer,
        ):
            lines = (await answer.text()).splitlines()
        mine = ('route="/jobs/lease"', 'route="/jobs/reports"')
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith("atomo_http_requests_total{") and any(route in line for route in mine)
        )
