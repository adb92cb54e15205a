"""A bad wire between worker and server costs nothing but time."""

import asyncio
import contextlib
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from atomo_gql.worker import JobContext, Worker
from tests.chaos.proxy import Proxy
from tests.conftest import MakeServer, Server, bearer, until
from tests.worker.helpers import process, working

JOBS = 5_000


async def _enqueue(server: Server, count: int, kind: str = "k") -> list[str]:
    ids: list[str] = []
    for _ in range(0, count, 1_000):
        body = {"jobs": [{"queue": "q", "kind": kind, "maxAttempts": 1}] * min(count, 1_000)}
        status, answer = await server.call("POST", "/jobs/batch", body, headers=bearer())
        assert status == 201
        ids += [job["id"] for job in answer["jobs"]]
    return ids


async def test_a_wire_that_loses_delays_and_doubles_burns_no_attempt(make_server: MakeServer, sql: Any) -> None:
    """Each job has one attempt: the first that the wire burnt would be dead."""
    server = await make_server(reclaim_interval=0.2)
    minted = await server.mint("q")
    ids = await _enqueue(server, JOBS)
    ran: Counter[str] = Counter()
    async with Proxy(server.url).running() as proxy:
        worker = Worker(url=proxy.url, token=minted.token, queues=["q"], concurrency=20, visibility=30, wait=1)

        @worker.on("k")
        async def handler(ctx: JobContext) -> str:
            ran[ctx.job.id] += 1
            await asyncio.sleep(0.002)
            return ctx.job.id

        async def all_ended() -> bool:
            return bool(await sql.fetchval("SELECT count(*) = $1 FROM jobs WHERE finished_at IS NOT NULL", JOBS))

        async with working(worker):
            await until(all_ended, within=240)
        assert min(proxy.dropped, proxy.doubled, proxy.delayed) > 10

    assert set(ran) == set(ids)
    assert set(ran.values()) == {1}
    rows = await sql.fetch("SELECT status, attempts, deliveries, count(*) FROM jobs GROUP BY 1, 2, 3")
    assert [tuple(row) for row in rows] == [("succeeded", 1, 1, JOBS)]
    assert await sql.fetchval("SELECT count(*) FROM leases") == 0


_FIFTY = """
import asyncio
from atomo_gql.worker import Worker

worker = Worker(queues=["q"], concurrency=50, visibility=30, wait=5, drain_timeout={drain})

@worker.on("short")
async def short(ctx):
    print("short", flush=True)
    await asyncio.sleep(0.3)
    return "done"

@worker.on("k")
async def long(ctx):
    print("long", flush=True)
    await asyncio.sleep(600)
"""


async def test_sigterm_with_fifty_in_hand_reports_what_finished_and_the_rest_runs_elsewhere_at_once(
    server: Server, tmp_path: Path, sql: Any
) -> None:
    short, long = await _enqueue(server, 10, "short"), await _enqueue(server, 40)
    minted = await server.mint("q")
    began: dict[str, float] = {}
    other = Worker(url=server.url, token=minted.token, queues=["q"], concurrency=50, wait=5)

    @other.on("k")
    async def handler(ctx: JobContext) -> None:
        began[ctx.job.id] = time.monotonic()

    async with process(minted, tmp_path, drain=3, module=_FIFTY) as first:
        for _ in range(50):
            await first.says()
        async with working(other):
            first.process.send_signal(signal.SIGTERM)
            status, log = await first.end()
            ended = time.monotonic()

            async def all_ended() -> bool:
                return bool(await sql.fetchval("SELECT count(*) = 50 FROM jobs WHERE finished_at IS NOT NULL"))

            await until(all_ended)

    assert status == 0, log
    assert "stopped: 10 succeeded, 40 handed back in " in log
    assert set(began) == set(long)
    assert max(began.values()) - ended < 15, "long before the leases run out by themselves"
    rows = await sql.fetch("SELECT id::text, status, attempts, deliveries FROM jobs WHERE id::text = ANY ($1)", long)
    assert {tuple(row)[1:] for row in rows} == {("succeeded", 1, 2)}
    results = [(await server.job(job_id))["result"] for job_id in short]
    assert results == ["done"] * 10


async def test_a_server_that_is_away_for_twenty_seconds_loses_no_result(make_server: MakeServer, sql: Any) -> None:
    async with contextlib.AsyncExitStack() as stack:
        server = await make_server()
        minted = await server.mint("q")
        ids = await _enqueue(server, 60)
        ran: Counter[str] = Counter()
        gate = Gate(server.url)
        url = await stack.enter_async_context(gate.running())
        worker = Worker(url=url, token=minted.token, queues=["q"], concurrency=10, visibility=60, wait=2)

        @worker.on("k")
        async def handler(ctx: JobContext) -> str:
            ran[ctx.job.id] += 1
            if len(ran) == 20:
                gate.shut()
            await asyncio.sleep(0.05)
            return ctx.job.id

        await stack.enter_async_context(working(worker))
        await until(_shut(gate))
        await asyncio.sleep(20)
        assert await sql.fetchval("SELECT count(*) FROM leases") >= 1
        gate.open()

        async def all_ended() -> bool:
            return bool(await sql.fetchval("SELECT count(*) = 60 FROM jobs WHERE status = 'succeeded'"))

        await until(all_ended, within=120)
    assert set(ran) == set(ids)
    assert set(ran.values()) == {1}


def _shut(gate: "Gate") -> Any:
    async def is_shut() -> bool:
        return gate.is_shut

    return is_shut


class Gate:
    """TCP to a server, that can be shut: then every connection is cut, and none is taken."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.removeprefix("http://").partition(":")
        self._port = int(port)
        self._writers: set[asyncio.StreamWriter] = set()
        self.is_shut = False

    def shut(self) -> None:
        """Cut."""
        self.is_shut = True
        for writer in list(self._writers):
            writer.transport.abort()

    def open(self) -> None:
        """Take connections again."""
        self.is_shut = False

    @contextlib.asynccontextmanager
    async def running(self) -> Any:
        """Its address, for the length of the block."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            self.shut()
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_shut:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(self._host, self._port)
        self._writers |= {writer, back}
        try:
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        finally:
            self._writers -= {writer, back}
            for end in (writer, back):
                end.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()
