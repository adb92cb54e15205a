"""What a job gets only when it is wanted: its lease, its heartbeat. And what a worker makes of answers."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from atomo_gql.worker import JobContext, Worker
from tests.conftest import Server, until
from tests.worker.helpers import reached, working


async def _worker(server: Server, **arguments: Any) -> Worker:
    minted = await server.mint("q")
    return Worker(**{"url": server.url, "token": minted.token, "queues": ["q"], "wait": 1, **arguments})


async def test_a_thread_of_an_async_handler_is_the_first_to_use_the_context(server: Server) -> None:
    worker = await _worker(server)

    def work(ctx: JobContext) -> str:
        assert not ctx.cancelled.is_set()
        ctx.progress(percent=0.5)
        ctx.heartbeat(5)
        return "from a thread"

    @worker.on("k")
    async def handler(ctx: JobContext) -> str:
        return await asyncio.to_thread(work, ctx)

    async with working(worker):
        job = await reached(server, await server.enqueue(), "succeeded")
    assert job["result"] == "from a thread"


async def test_a_thread_that_waits_for_the_end_of_the_attempt_is_told(server: Server) -> None:
    worker = await _worker(server)
    told: list[bool] = []

    @worker.on("k")
    async def handler(ctx: JobContext) -> None:
        waiting = asyncio.create_task(asyncio.to_thread(ctx.cancelled.wait_in_thread, 60))
        try:
            await asyncio.Event().wait()
        finally:
            told.append(await asyncio.shield(waiting))

    async with working(worker):
        job_id = await server.enqueue(timeoutSecs=1, maxAttempts=1)
        job = await reached(server, job_id, "dead")
    assert (job["error"], told) == ("timed out after 1 s", [True])


@pytest.mark.parametrize("asks", [False, True], ids=["before it is cut", "after it was cut"])
async def test_the_flag_is_set_whenever_it_is_first_asked_for(server: Server, asks: bool) -> None:
    worker = await _worker(server)
    seen: list[bool] = []

    @worker.on("k")
    async def handler(ctx: JobContext) -> None:
        if not asks:
            seen.append(ctx.cancelled.is_set())
        try:
            await asyncio.Event().wait()
        finally:
            seen.append(ctx.cancelled.is_set())

    async with working(worker):
        await reached(server, await server.enqueue(timeoutSecs=1, maxAttempts=1), "dead")
    assert seen == ([True] if asks else [False, True])


async def test_a_job_that_asks_for_nothing_is_kept_for_as_long_as_it_takes(server: Server, sql: Any) -> None:
    worker = await _worker(server, visibility=3)
    finish = asyncio.Event()

    @worker.on("k")
    async def handler(ctx: JobContext) -> None:
        await finish.wait()

    async with working(worker):
        ids = [await server.enqueue()]
        await reached(server, ids[0], "leased")
        since = await sql.fetchval("SELECT now()")
        await until(lambda: sql.fetchval("SELECT now() > $1::timestamptz + interval '1.5 s'", since))
        ids.append(await server.enqueue())  # which begins while the first one's heartbeat is on its way
        await until(lambda: sql.fetchval("SELECT now() > $1::timestamptz + interval '6 s'", since))
        assert await server.application.services.housekeeping.sweep() == 0
        finish.set()
        assert [(await reached(server, job_id, "succeeded"))["attempts"] for job_id in ids] == [1, 1]


@pytest.mark.parametrize("number", [1e20, 1.5, 2**64 - 1, -(2**63)])
async def test_a_number_in_a_payload_can_be_sent_back(server: Server, number: float) -> None:
    worker = await _worker(server)

    @worker.on("k")
    async def handler(ctx: JobContext) -> Any:
        await ctx.progress(data=ctx.job.payload)
        return ctx.job.payload

    async with working(worker):
        job = await reached(server, await server.enqueue(payload={"x": number}), "succeeded")
    assert job["result"] == {"x": number}


async def test_a_server_that_says_no_more_than_it_must_is_understood() -> None:
    job = {"id": "1", "queue": "q", "kind": "k", "payload": None, "attempts": 2, "maxAttempts": 5, "leaseId": "2"}
    jobs, reported, seen = [job], asyncio.Event(), list[Any]()

    async def lease(request: web.Request) -> web.Response:
        asked = await request.json()
        said: dict[str, Any] = {"jobs": [jobs.pop()] if jobs else [], "outcomes": None, "more": {"than": "known"}}
        if "reports" in asked:
            said["outcomes"] = outcomes(asked)
        return web.json_response(said)

    async def reports(request: web.Request) -> web.Response:
        return web.json_response({"outcomes": outcomes(await request.json())})

    def outcomes(body: Any) -> list[Any]:
        reported.set()
        return [{"status": 204, "detail": None, "code": None, "other": 1} for _ in body["reports"]]

    app = web.Application()
    app.add_routes([web.post("/jobs/lease", lease), web.post("/jobs/reports", reports)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    worker = Worker(url=f"http://127.0.0.1:{port}", token="wkr_x", queues=["q"], wait=1)

    @worker.on("k")
    async def handler(ctx: JobContext) -> None:
        seen.append((ctx.job.attempts, ctx.job.deliveries, ctx.job.timeout_secs, ctx.job.payload))

    async with working(worker), asyncio.timeout(60):
        await reported.wait()
    await runner.cleanup()
    assert seen == [(2, None, None, None)]
