"""What a worker does about its leases: keeps them, loses them, and outlives the server that gave them."""

import asyncio
import contextlib
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from atomo_gql.cli.host import running
from atomo_gql.settings import Settings
from atomo_gql.worker import JobContext, LeaseLost, Worker, WorkerRejected
from atomo_gql.worker.client import Ask, Client
from tests.conftest import SECRET, MakeServer, Server, admin, until
from tests.ports import free_port
from tests.worker.helpers import reached, working


async def _worker(server: Server, *, visibility: int = 30, concurrency: int = 4) -> Worker:
    minted = await server.mint("q")
    return Worker(
        url=server.url, token=minted.token, queues=["q"], concurrency=concurrency, visibility=visibility, wait=5
    )


async def test_a_result_that_no_request_can_carry_costs_its_job_alone(make_server: MakeServer) -> None:
    server = await make_server(max_body=20_000, max_batch=30_000)
    worker = await _worker(server)

    @worker.on("k")
    async def handler(ctx: JobContext, size: int) -> str:
        return "x" * size

    async with working(worker):
        jobs = [await server.enqueue(payload=size) for size in (10, 40_000, 10, 25_000, 10)]
        ends = [await reached(server, job_id, "dead" if n in (1, 3) else "succeeded") for n, job_id in enumerate(jobs)]
    for end in (ends[1], ends[3]):
        assert end["attempts"] == 1
        assert "the server refused the handler's result: 413 " in end["error"]


async def test_a_thread_that_goes_on_after_its_attempt_is_no_room(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "atomo_gql.worker")
    worker = await _worker(server, concurrency=1)
    go_on = threading.Event()

    @worker.on("hang")
    def hang(ctx: JobContext) -> None:
        go_on.wait(60)

    @worker.on("quick")
    def quick(ctx: JobContext) -> None: ...

    async with working(worker):
        hung = await server.enqueue("q", "hang", timeoutSecs=1, maxAttempts=1)
        await reached(server, hung, "dead")
        waits = await server.enqueue("q", "quick")
        await worker_has_looked(server)
        assert (await server.job(waits))["status"] == "queued", "others may have it"
        go_on.set()
        await reached(server, waits, "succeeded")
    assert any("a thread of hang goes on" in line for line in caplog.messages)


async def test_what_a_handler_raises_in_a_thread_is_its_own_affair(server: Server) -> None:
    worker = await _worker(server)

    @worker.on("k")
    def handler(ctx: JobContext) -> None:
        raise KeyboardInterrupt

    async with working(worker):
        job = await reached(server, await server.enqueue(maxAttempts=1), "dead")
    assert "the handler raised KeyboardInterrupt" in job["error"]


async def worker_has_looked(server: Server) -> None:
    """A lease that a worker with room would have sent long before this one is answered."""
    other = await server.mint("other")
    assert await other.lease("other", waitSecs=1) == []


async def test_a_handler_that_blocks_the_event_loop_is_complained_of(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "atomo_gql.worker")
    worker = await _worker(server, visibility=3)
    blocked = threading.Event()

    @worker.on("k")
    async def handler(ctx: JobContext) -> None:
        await asyncio.sleep(0)  # the first heartbeat is due in a second from now
        threading.Event().wait(2.5)
        await asyncio.sleep(0.1)
        blocked.set()

    async with working(worker):
        await reached(server, await server.enqueue(), "succeeded")
    assert blocked.is_set()
    assert any("a handler blocks the event loop" in line for line in caplog.messages)


async def _lose_leases(server: Server, sql: Any) -> None:
    async def are_lost() -> bool:
        await sql.execute("UPDATE leases SET expires_at = now() - interval '1 s'")
        lost = await server.application.services.housekeeping.sweep()
        assert lost <= 1
        return lost == 1  # not yet, where a heartbeat has come in between

    await until(are_lost)


async def test_a_thread_tells_progress_and_what_it_tells_is_seen(server: Server) -> None:
    worker = await _worker(server)
    told, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    @worker.on("thread")
    def thread(ctx: JobContext) -> bool:
        ctx.progress(percent=0.25, message="a quarter", data={"n": 1})
        loop.call_soon_threadsafe(told.set)
        return go_on.wait(60) and threading.current_thread() is not threading.main_thread()

    async with working(worker):
        job_id = await server.enqueue("q", "thread")
        await asyncio.wait_for(told.wait(), 60)
        progress = await server.graphql(f'{{ job(id: "{job_id}") {{ progress }} }}')
        go_on.set()
        done = await reached(server, job_id, "succeeded")
    assert progress["data"]["job"]["progress"] == {"percent": 0.25, "message": "a quarter", "data": {"n": 1}}
    assert done["result"] is True


async def test_threads_run_side_by_side_up_to_the_concurrency(server: Server) -> None:
    worker = await _worker(server, concurrency=3)
    together = threading.Barrier(3)

    @worker.on("meet")
    def meet(ctx: JobContext) -> None:
        together.wait(60)

    jobs = [await server.enqueue("q", "meet") for _ in range(3)]
    async with working(worker):
        for job_id in jobs:
            await reached(server, job_id, "succeeded")


async def test_heartbeats_keep_a_long_job_leased(server: Server, sql: Any) -> None:
    worker = await _worker(server, visibility=4)
    finish = asyncio.Event()

    @worker.on("long")
    async def long(ctx: JobContext) -> str:
        await finish.wait()
        return "kept"

    async with working(worker):
        job_id = await server.enqueue("q", "long")
        await reached(server, job_id, "leased")
        since = await sql.fetchval("SELECT now()")
        # Longer than the lease lasts by itself.
        await until(lambda: sql.fetchval("SELECT now() > $1::timestamptz + interval '6 s'", since))
        assert await server.application.services.housekeeping.sweep() == 0
        finish.set()
        job = await reached(server, job_id, "succeeded")
    assert (job["result"], job["attempts"]) == ("kept", 1)
    assert [
        r["type"] for r in await sql.fetch("SELECT type::text FROM events WHERE stream = 'Job' ORDER BY version")
    ] == [
        "enqueued",
        "leased",
        "succeeded",
    ]


async def test_a_handler_that_shortens_its_lease_has_it_extended_in_time(server: Server, sql: Any) -> None:
    worker = await _worker(server, visibility=60)
    shortened, finish = asyncio.Event(), asyncio.Event()

    @worker.on("short")
    async def short(ctx: JobContext) -> None:
        await ctx.heartbeat(3)
        shortened.set()
        await finish.wait()

    async with working(worker):
        job_id = await server.enqueue("q", "short")
        await asyncio.wait_for(shortened.wait(), 60)
        since = await sql.fetchval("SELECT now()")
        await until(lambda: sql.fetchval("SELECT now() > $1::timestamptz + interval '4 s'", since))
        assert await server.application.services.housekeeping.sweep() == 0
        finish.set()
        assert (await reached(server, job_id, "succeeded"))["attempts"] == 1


async def test_a_lost_lease_cancels_the_handler_and_drops_its_result(server: Server, sql: Any) -> None:
    worker = await _worker(server, visibility=3)
    running_now, flags = asyncio.Event(), list[bool]()

    @worker.on("stubborn")
    async def stubborn(ctx: JobContext) -> str:
        running_now.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        flags.append(ctx.cancelled.is_set())
        with pytest.raises(LeaseLost):
            await ctx.progress(percent=1)
        return "too late"

    async with working(worker):
        job_id = await server.enqueue("q", "stubborn", maxAttempts=1)
        await asyncio.wait_for(running_now.wait(), 60)
        await _lose_leases(server, sql)
        await until(lambda: _is(flags, [True]))
        # The same worker goes on: what was lost does not take up its room.
        await reached(server, await server.enqueue("q", "unknown"), "dead")
    job = await server.job(job_id)
    assert (job["status"], job["result"], job["attempts"]) == ("dead", None, 1)
    assert "lease" in job["error"]


async def test_a_thread_sees_that_its_lease_is_lost(server: Server, sql: Any) -> None:
    worker = await _worker(server, visibility=3)
    running_now, seen = asyncio.Event(), list[bool]()
    loop = asyncio.get_running_loop()

    @worker.on("thread")
    def thread(ctx: JobContext) -> str:
        loop.call_soon_threadsafe(running_now.set)
        seen.append(ctx.cancelled.wait_in_thread(60))
        return "too late"

    async with working(worker):
        job_id = await server.enqueue("q", "thread", maxAttempts=1)
        await asyncio.wait_for(running_now.wait(), 60)
        await _lose_leases(server, sql)
        await until(lambda: _is(seen, [True]))
    job = await server.job(job_id)
    assert (job["status"], job["result"]) == ("dead", None)


async def test_progress_finds_out_at_once_that_the_lease_is_lost(server: Server, sql: Any) -> None:
    worker = await _worker(server, visibility=3_600)
    running_now, go_on, raised = asyncio.Event(), asyncio.Event(), list[str]()

    @worker.on("tells")
    async def tells(ctx: JobContext) -> None:
        running_now.set()
        await go_on.wait()
        try:
            await ctx.progress(percent=0.5)
        except LeaseLost as error:
            raised.append(type(error).__name__)
            raise

    async with working(worker):
        job_id = await server.enqueue("q", "tells", maxAttempts=1)
        await asyncio.wait_for(running_now.wait(), 60)
        await _lose_leases(server, sql)
        go_on.set()
        await until(lambda: _is(raised, ["LeaseLost"]))
    assert (await server.job(job_id))["status"] == "dead"


async def test_a_token_revoked_in_the_middle_of_a_job_stops_the_worker_and_the_job(server: Server, sql: Any) -> None:
    minted = await server.mint("q")
    worker = Worker(url=server.url, token=minted.token, queues=["q"], visibility=1, wait=5)
    running_now, cancelled = asyncio.Event(), asyncio.Event()

    @worker.on("long")
    async def long(ctx: JobContext) -> None:
        running_now.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    task = asyncio.create_task(worker.run_async())
    job_id = await server.enqueue("q", "long")
    await asyncio.wait_for(running_now.wait(), 60)
    status, _ = await server.call("DELETE", f"/jobs/workers/{minted.token_id}", headers=admin())
    assert status == 204
    with pytest.raises(WorkerRejected, match="the worker's token is wrong or was revoked") as rejected:
        await asyncio.wait_for(task, 60)
    assert rejected.value.status == 401
    assert cancelled.is_set()
    await sql.execute("UPDATE leases SET expires_at = now() - interval '1 s'")
    await server.application.services.housekeeping.sweep()
    assert (await server.job(job_id))["status"] == "queued"


async def test_a_queue_that_the_token_does_not_cover_stops_the_worker(server: Server) -> None:
    minted = await server.mint("other")
    worker = Worker(url=server.url, token=minted.token, queues=["q", "other"])
    with pytest.raises(WorkerRejected, match=r"the worker's token does not cover its queues \(q, other\)") as rejected:
        await asyncio.wait_for(worker.run_async(), 60)
    assert rejected.value.status == 403


async def test_what_ends_while_the_server_is_away_is_reported_when_it_is_back(
    dsn: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "atomo_gql.worker")
    finish, port = asyncio.Event(), free_port()
    async with contextlib.AsyncExitStack() as stack:
        async with _server(dsn, tmp_path, port) as first:
            worker = await _worker(first)

            @worker.on("long")
            async def long(ctx: JobContext) -> str:
                await finish.wait()
                return "finished while you were away"

            await stack.enter_async_context(working(worker))
            job_id = await first.enqueue("q", "long")
            await reached(first, job_id, "leased")
        finish.set()
        await until(_logged(caplog, f"long {job_id}: its result not taken yet"))
        await until(_logged(caplog, "no lease from"))
        async with _server(dsn, tmp_path, port) as second:
            job = await reached(second, job_id, "succeeded")
            assert (job["result"], job["attempts"]) == ("finished while you were away", 1)
            later = await reached(second, await second.enqueue("q", "long"), "succeeded")
            assert later["attempts"] == 1
            await stack.aclose()
    assert "the server answers again" in caplog.text


@contextlib.asynccontextmanager
async def _server(dsn: str, folder: Path, port: int) -> AsyncIterator[Server]:
    """A server that is stopped at the end of the block."""
    settings = Settings(jwt_secret=SECRET, data_dir=folder, port=port, env="test", reclaim_interval=3_600)
    async with running(settings, dsn) as started, aiohttp.ClientSession() as http:
        yield Server(started.url, dsn, started.application, http, started.warming)


def _logged(caplog: pytest.LogCaptureFixture, text: str) -> Callable[[], Awaitable[bool]]:
    async def logged() -> bool:
        return text in caplog.text

    return logged


async def _is(value: object, wanted: object) -> bool:
    return value == wanted


async def test_a_second_request_is_under_way_while_jobs_are_piled_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await _worker(server, concurrency=20)
    seen: Counter[str] = Counter()
    open_at_once: list[int] = []
    open_now = 0
    lease = Client.lease

    async def counted(self: Client, ask: Ask) -> Any:
        nonlocal open_now
        open_now += 1
        open_at_once.append(open_now)
        try:
            return await lease(self, ask)
        finally:
            open_now -= 1

    @worker.on("noop")
    async def noop(ctx: JobContext) -> None:
        seen[ctx.job.id] += 1

    async def resting() -> bool:
        return open_now == 1

    monkeypatch.setattr(Client, "lease", counted)
    job_ids = [await server.enqueue("q", "noop") for _ in range(200)]
    async with working(worker):
        for job_id in job_ids:
            await reached(server, job_id, "succeeded")
        piled_up = max(open_at_once)
        open_at_once.clear()
        await reached(server, await server.enqueue("q", "noop"), "succeeded")
        await until(resting)
    assert piled_up == 2
    assert max(open_at_once) == 1  # one long poll, once nothing waits
    assert set(seen.values()) == {1}
    assert len(seen) == 201
