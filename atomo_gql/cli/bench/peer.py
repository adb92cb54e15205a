"""atomo_gql behind the driver of a benchmark that runs many queues in turn, so that one run compares them.

    python -m atomo_gql.cli.bench.peer setup|enqueue|work '{"…": …}'

BENCH_DSN names an empty database. `setup` makes the schema and starts a server on it, which stays until the next
`setup`; `enqueue` and `work` speak to that server over HTTP, as everybody does. Each prints JSON objects, a line each:

    setup                                             {"ev": "ok"}
    enqueue {"mode": "one"|"batch"|"lat", "n": jobs, "c": at a time, "batch": per request, "start": first number,
             "every": seconds}                        {"ev": "enqueued", "n", "t0", "t1", "lat"}
    work    {"profile": "c1"|"c10"|"best"|"lat", "concurrency": jobs}
             {"ev": "ready"}, then {"ev": "p", "n", "first", "last"} each 50 ms, and at the end of standard input
             {"ev": "end", "n", "first", "last", "lat", "cost"}

Times are of the monotonic clock. `cost` is what a job took: requests, and µs of CPU in the worker and in the server.
"""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from atomo_gql.cli.bench.rig import Target, listening
from atomo_gql.cli.host import migrated
from atomo_gql.cli.token import sign
from atomo_gql.client import AsyncClient
from atomo_gql.settings import Settings
from atomo_gql.worker import JobContext, Worker
from atomo_gql.worker.collector import calm_collector

_SECRET = "the benchmark's own secret, which is long enough"
_PORT = int(os.environ.get("BENCH_ATOMO_PORT", "54400"))
_URL = f"http://127.0.0.1:{_PORT}"
_PADDING = "x" * 80
_CONCURRENCY = {"c1": 1, "c10": 10, "lat": 10, "best": 800}
_now = time.monotonic


async def setup(dsn: str) -> None:
    """Start anew on an empty database."""
    kept = _kept(dsn)
    if kept.exists():
        _stop(json.loads(kept.read_text())["pid"])
    await migrated(dsn)
    environment = {**os.environ, "DATABASE_URL": dsn, "JWT_SECRET": _SECRET, "ATOMO_LOG_LEVEL": "error"}
    server = subprocess.Popen(
        [sys.executable, "-m", "atomo_gql", "serve", "--port", str(_PORT)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # it outlives its database, which is dropped before the next setup
        start_new_session=True,
    )
    await listening(_PORT, lambda: server.poll() is None)
    jwt = sign(Settings(jwt_secret=_SECRET), "bench", role="admin", tenant=None, lasts=86_400)
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {jwt}"}, raise_for_status=True) as http,
        http.post(f"{_URL}/jobs/workers", json={"name": "bench", "queues": ["bench"]}) as answer,
    ):
        token = (await answer.json())["token"]
    kept.write_text(json.dumps({"pid": server.pid, "jwt": jwt, "token": token}))
    _print(ev="ok")


async def enqueue(dsn: str, asked: dict[str, Any]) -> None:
    """Over HTTP, `c` requests at a time."""
    count, first, flights = asked["n"], asked.get("start", 0), asked.get("c", 1)
    times: list[tuple[int, float, float]] = []
    async with AsyncClient(_URL, json.loads(_kept(dsn).read_text())["jwt"]) as client:

        async def one(numbers: Iterator[int]) -> None:
            for number in numbers:
                await client.enqueue("bench", "noop", _payload(number))

        async def many(batches: Iterator[range]) -> None:
            for batch in batches:
                await client.enqueue_many(
                    [{"queue": "bench", "kind": "noop", "payload": _payload(number)} for number in batch]
                )

        async def paced() -> None:
            began = _now()
            for index in range(count):
                await asyncio.sleep(max(0.0, began + index * asked.get("every", 0.05) - _now()))
                called = _now()
                await client.enqueue("bench", "noop", _payload(first + index))
                times.append((first + index, called, _now()))

        numbers = range(first, first + count)
        work: list[Awaitable[None]]
        if asked["mode"] == "lat":
            work = [paced()]
        elif asked["mode"] == "batch":
            size = asked.get("batch", 1_000)
            batches = iter([numbers[at : at + size] for at in range(0, count, size)])
            work = [many(batches) for _ in range(flights)]
        else:
            each = iter(numbers)
            work = [one(each) for _ in range(flights)]
        began = _now()
        await asyncio.gather(*work)
        _print(ev="enqueued", n=count, t0=began, t1=_now(), lat=times or None)


class Drain:
    """A worker that counts."""

    def __init__(self, dsn: str, asked: dict[str, Any]) -> None:
        kept = json.loads(_kept(dsn).read_text())
        self._target = Target(_PORT, kept["pid"])
        self._jwt = kept["jwt"]
        self._count = 0
        self._first: float | None = None
        self._last: float | None = None
        self._starts: list[tuple[int, float]] | None = [] if asked["profile"] == "lat" else None
        concurrency = asked.get("concurrency") or _CONCURRENCY[asked["profile"]]
        self._worker = Worker(url=_URL, token=kept["token"], queues=["bench"], concurrency=concurrency)
        self._worker.on("noop")(self._noop)

    async def run(self) -> None:
        """Until standard input ends."""
        loop = asyncio.get_running_loop()
        requests, server_cpu = await self._requests(), self._target.cpu_seconds()
        threading.Thread(target=self._report, daemon=True).start()
        threading.Thread(target=self._stop_at_end, args=(loop,), daemon=True).start()
        _print(ev="ready")
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
        _print(ev="end", lat=self._starts, cost=cost, **self._state())

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
                _print(ev="p", **self._state())
            time.sleep(0.05)

    def _stop_at_end(self, loop: asyncio.AbstractEventLoop) -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(self._worker.stop)

    async def _requests(self) -> float:
        """How many the server has answered to workers so far."""
        async with (
            aiohttp.ClientSession(headers={"authorization": f"Bearer {self._jwt}"}, raise_for_status=True) as http,
            http.get(f"{_URL}/metrics") as answer,
        ):
            lines = (await answer.text()).splitlines()
        mine = ('route="/jobs/lease"', 'route="/jobs/reports"')
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith("atomo_http_requests_total{") and any(route in line for route in mine)
        )


def _payload(number: int) -> dict[str, Any]:
    return {"i": number, "pad": _PADDING}


def _kept(dsn: str) -> Path:
    """What `setup` leaves for the other commands."""
    return Path(tempfile.gettempdir()) / f"atomo-peer-{urlsplit(dsn).path.strip('/')}.json"


def _stop(pid: int) -> None:
    """The server of the setup before; its database is gone already."""
    try:
        os.kill(pid, signal.SIGKILL)
        while True:
            os.kill(pid, 0)
            time.sleep(0.05)
    except ProcessLookupError:
        pass


def _print(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


async def _main(command: str, asked: dict[str, Any]) -> None:
    dsn = os.environ["BENCH_DSN"]
    if command == "setup":
        await setup(dsn)
    elif command == "enqueue":
        await enqueue(dsn, asked)
    elif command == "work":
        await Drain(dsn, asked).run()
    else:
        raise SystemExit(f"unknown command {command}")


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}))
