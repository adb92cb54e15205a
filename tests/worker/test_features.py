"""What a handler can ask for: its payload as a type, middleware, a logger, a process, a trace, a limit of its own."""

import asyncio
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import pydantic
import pytest

from atomo_gql.worker import JobContext, NonRetryableError, RetryAfter, Worker, current_traceparent
from atomo_gql.worker.testing import run_handler
from tests.conftest import Server, bearer, until
from tests.worker.helpers import reached, working

URL, TOKEN = "http://127.0.0.1:1", "wkr_x"


@dataclass
class Video:
    seconds: int
    title: str = "untitled"


class Model(pydantic.BaseModel):
    seconds: int


class Typed(TypedDict):
    seconds: int


def _worker(**arguments: Any) -> Worker:
    return Worker(**{"url": URL, "token": TOKEN, "queues": ["q"], **arguments})


@pytest.mark.parametrize("wanted", [Video, Model, Typed, dict[str, int], Any])
async def test_a_payload_comes_as_the_type_that_the_handler_names(wanted: Any) -> None:
    worker, seen = _worker(), []

    async def handler(ctx: JobContext, payload: Any) -> None:
        seen.append(payload)

    handler.__annotations__["payload"] = wanted
    worker.on("k")(handler)
    ran = await run_handler(worker, "k", {"seconds": 5})

    assert ran.outcome == "complete"
    expected: Any = {Video: Video(5), Model: Model(seconds=5)}.get(wanted, {"seconds": 5})
    assert seen == [expected]


async def test_a_payload_parameter_with_a_default_gets_the_payload_too() -> None:
    worker, seen = _worker(), []

    async def handler(ctx: JobContext, payload: Video | None = None) -> None:
        seen.append(payload)

    worker.on("k")(handler)
    assert (await run_handler(worker, "k", {"seconds": 5})).outcome == "complete"
    assert seen == [Video(5)]


@pytest.mark.parametrize("wanted", [Video, Model, Typed])
async def test_a_payload_that_does_not_fit_is_dead_with_the_place(wanted: Any) -> None:
    worker = _worker()

    def handler(ctx: JobContext, payload: Any) -> None:
        raise AssertionError("it must not run")

    handler.__annotations__["payload"] = wanted
    worker.on("k")(handler)
    ran = await run_handler(worker, "k", {"seconds": "five"})

    assert (ran.outcome, ran.retryable) == ("fail", False)
    assert ran.error is not None
    assert f"the payload is no {wanted.__name__}: " in ran.error
    assert "seconds" in ran.error


def test_a_handler_of_the_wrong_shape_is_refused_at_once() -> None:
    worker = _worker()
    for wrong, rule in ((lambda: None, "takes the context"), (lambda a, b, c: None, "takes the context")):
        with pytest.raises(ValueError, match=rule):
            worker.on("k")(wrong)

    async def odd(ctx: JobContext, payload: JobContext) -> None: ...

    with pytest.raises(ValueError, match="cannot be"):
        worker.on("k")(odd)
    for limit in (0, -1, 1.5, "2"):
        with pytest.raises(ValueError, match="concurrency must be a whole number"):
            worker.on("k", concurrency=limit)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="middleware must be an async def"):
        worker.middleware(lambda ctx, call_next: call_next())


async def test_middleware_is_around_every_handler_the_first_outermost() -> None:
    worker, told = _worker(), []

    @worker.on("k")
    def handler(ctx: JobContext) -> str:
        told.append("handler")
        return "result"

    for name in ("outer", "inner"):

        async def around(ctx: JobContext, call_next: Any, name: str = name) -> Any:
            told.append(f"{name} {ctx.job.kind}")
            return [await call_next(), name]

        worker.middleware(around)

    ran = await run_handler(worker, "k")
    assert told == ["outer k", "inner k", "handler"]
    assert ran.result == [["result", "inner"], "outer"]


async def test_the_logger_says_which_job_it_is_about(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    worker = _worker()

    @worker.on("k")
    async def handler(ctx: JobContext) -> None:
        ctx.logger.info("half of %d", 10, extra={"mine": 1})

    await run_handler(worker, "k", attempts=3)
    [record] = [r for r in caplog.records if r.name == "atomo_gql.job.k"]
    assert record.getMessage().endswith(": half of 10")
    fields = vars(record)
    assert (fields["job_kind"], fields["job_attempt"], fields["job_queue"], fields["mine"]) == ("k", 3, "test", 1)
    assert fields["job_id"] in record.getMessage()


def _square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def _fail(text: str) -> None:
    raise LookupError(text)


class Custom(Exception):
    def __init__(self, code: int, what: str) -> None:
        super().__init__(f"{code}: {what}")


def _fail_oddly() -> None:
    raise Custom(7, "cannot be made again")


def _length(text: str) -> str:
    return text + text


def _spin(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    while True:
        pass


async def test_what_keeps_a_cpu_busy_runs_in_a_process_that_is_kept() -> None:
    worker = _worker()

    @worker.on("k")
    async def handler(ctx: JobContext) -> Any:
        return [await ctx.run_in_process(_square, n) for n in (2, 3)]

    ran = await run_handler(worker, "k")
    (four, first), (nine, second) = ran.result
    assert (four, nine) == (4, 9)
    assert first == second != os.getpid()


async def test_what_a_process_raises_is_raised_here_with_its_traceback() -> None:
    worker = _worker()

    @worker.on("k")
    async def handler(ctx: JobContext) -> None:
        await ctx.run_in_process(_fail, "not there")

    @worker.on("unfit")
    async def unfit(ctx: JobContext) -> None:
        await ctx.run_in_process(lambda: None)

    ran = await run_handler(worker, "k")
    assert ran.error is not None
    assert ran.error.startswith("LookupError: not there")
    assert "in _fail" in ran.error
    ran = await run_handler(worker, "unfit")
    assert ran.error is not None
    assert "run_in_process needs a function of a module" in ran.error


async def test_what_cannot_be_made_again_is_told_by_its_text() -> None:
    worker = _worker()

    @worker.on("k")
    async def handler(ctx: JobContext) -> None:
        await ctx.run_in_process(_fail_oddly)

    ran = await run_handler(worker, "k")
    assert ran.error is not None
    assert ran.error.startswith("RuntimeError: Custom: 7: cannot be made again")


async def test_a_long_argument_does_not_hold_up_the_event_loop() -> None:
    worker, late = _worker(), [0.0]

    async def tick() -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0.01)
            late[0] = max(late[0], loop.time() - before - 0.01)

    @worker.on("k")
    async def handler(ctx: JobContext) -> int:
        return len(await ctx.run_in_process(_length, "x" * 5_000_000))

    ticking = asyncio.create_task(tick())
    assert (await run_handler(worker, "k")).result == 10_000_000
    ticking.cancel()
    assert late[0] < 0.3, "starting the process alone takes longer"


async def test_a_script_without_a_guard_does_not_become_two_workers(server: Server, tmp_path: Any) -> None:
    minted = await server.mint("q")
    script = tmp_path / "script.py"
    script.write_text(
        "from atomo_gql.worker import Worker\n"
        "worker = Worker(queues=['q'], wait=1)\n"
        "def square(n): return n * n\n"
        "@worker.on('k')\n"
        "async def handler(ctx): return await ctx.run_in_process(square, 3)\n"
        "worker.run()\n"
    )
    job_id = await server.enqueue(maxAttempts=1)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(script)),
        env={"ATOMO_URL": server.url, "ATOMO_WORKER_TOKEN": minted.token},
        stderr=asyncio.subprocess.PIPE,
    )
    job = await reached(server, job_id, "dead")
    process.terminate()
    _, err = await process.communicate()
    assert 'put worker.run() behind `if __name__ == "__main__":`' in job["error"]
    assert err.decode().count("started:") == 1


async def test_a_process_dies_with_its_attempt(tmp_path: Any) -> None:
    worker = _worker()
    told = tmp_path / "pid"

    @worker.on("k")
    async def handler(ctx: JobContext) -> None:
        await ctx.run_in_process(_spin, str(told))

    async def started() -> bool:
        return told.exists() and bool(told.read_text())

    async def ended() -> bool:
        try:
            os.kill(int(told.read_text()), 0)
        except ProcessLookupError:
            return True
        return False

    running = asyncio.create_task(run_handler(worker, "k", timeout_secs=5))
    await until(started, within=20)
    ran = await running
    assert (ran.outcome, ran.retryable) == ("fail", True)
    assert ran.error == "timed out after 5 s"
    await until(ended)


async def test_a_handler_may_say_when_to_try_again(server: Server) -> None:
    minted = await server.mint("q")
    worker = _worker(url=server.url, token=minted.token, wait=1)

    @worker.on("k")
    async def handler(ctx: JobContext) -> None:
        raise RetryAfter(77.2, "429 from the provider")

    async with working(worker):
        job_id = await server.enqueue()

        async def failed() -> Any:
            job = await server.job(job_id)
            return job if job["error"] else None

        job = await until(failed)
    assert job["error"].startswith("RetryAfter: 429 from the provider")
    events = await server.graphql("query($id: ID!) { job(id: $id) { events { type data } } }", {"id": job_id})
    [fail] = [e for e in events["data"]["job"]["events"] if e["type"] == "FAILED"]
    assert fail["data"]["delaySecs"] == 78


@pytest.mark.parametrize("is_thread", [False, True])
async def test_a_timeout_ends_the_attempt_and_is_retried(server: Server, is_thread: bool) -> None:
    minted = await server.mint("q")
    worker = _worker(url=server.url, token=minted.token, wait=1)

    def plain(ctx: JobContext) -> bool:
        return ctx.cancelled.wait_in_thread(20)

    async def on_loop(ctx: JobContext) -> None:
        await asyncio.sleep(20)

    worker.on("k")(plain if is_thread else on_loop)
    async with working(worker):
        job_id = await server.enqueue(timeoutSecs=1)

        async def failed() -> Any:
            job = await server.job(job_id)
            return job if job["error"] else None

        job = await until(failed)
    assert (job["error"], job["status"], job["attempts"]) == ("timed out after 1 s", "queued", 1)


async def test_a_kind_has_a_limit_of_its_own(server: Server) -> None:
    minted = await server.mint("q")
    worker = _worker(url=server.url, token=minted.token, wait=1, concurrency=8)
    now: dict[str, int] = {"few": 0, "many": 0}
    most = dict(now)
    go = asyncio.Event()

    async def handler(ctx: JobContext) -> None:
        kind = ctx.job.kind
        now[kind] += 1
        most[kind] = max(most[kind], now[kind])
        await go.wait() if kind == "few" else await asyncio.sleep(0.02)
        now[kind] -= 1

    worker.on("few", concurrency=2)(handler)
    worker.on("many")(handler)
    for kind in ("few", "many"):
        body = {"jobs": [{"queue": "q", "kind": kind}] * 20}
        assert (await server.call("POST", "/jobs/batch", body, headers=bearer()))[0] == 201

    async def drained(kind: str) -> bool:
        found = await server.graphql(
            "query($kind: String) { jobs(filter: {kind: $kind, status: SUCCEEDED}, first: 50) { nodes { id } } }",
            {"kind": kind},
        )
        return len(found["data"]["jobs"]["nodes"]) == 20

    async with working(worker):
        await until(lambda: drained("many"), within=20)
        assert now["few"] == 2
        go.set()
        await until(lambda: drained("few"), within=20)
    assert most["few"] == 2
    assert most["many"] > 2


async def test_the_trace_of_whoever_enqueued_goes_on(server: Server) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    minted = await server.mint("q")
    worker = _worker(url=server.url, token=minted.token, wait=1)
    seen: list[str | None] = []

    @worker.on("k")
    async def handler(ctx: JobContext) -> None:
        seen.append(current_traceparent())
        seen.append(ctx.job.traceparent)

    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with working(worker):
        job_id = await server.enqueue(headers={**bearer(), "traceparent": parent})
        await reached(server, job_id, "succeeded")

    [span] = [s for s in spans.get_finished_spans() if s.name == "process k"]
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert span.attributes is not None
    assert span.attributes["messaging.message.id"] == job_id
    here, enqueued = seen
    assert enqueued == parent
    assert here is not None
    assert here.split("-")[1] == parent.split("-")[1]
    assert here != parent


async def test_the_end_says_what_was_done(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "atomo_gql.worker")
    minted = await server.mint("q")
    worker = _worker(url=server.url, token=minted.token, wait=1)

    @worker.on("good")
    async def good(ctx: JobContext) -> None: ...

    @worker.on("bad")
    async def bad(ctx: JobContext) -> None:
        raise NonRetryableError("no")

    async with working(worker):
        for kind, status in (("good", "succeeded"), ("bad", "dead")):
            await reached(server, await server.enqueue(kind=kind), status)
    assert "stopped: 1 succeeded, 1 dead in " in caplog.text


async def test_a_token_of_some_kinds_is_enough_while_a_limited_one_is_full(server: Server) -> None:
    minted = await server.mint("q", kinds=["few"])
    worker = _worker(url=server.url, token=minted.token, wait=1, concurrency=4)
    go = asyncio.Event()

    @worker.on("few", concurrency=1)
    async def few(ctx: JobContext) -> None:
        await go.wait()

    @worker.on("other")
    async def other(ctx: JobContext) -> None: ...

    first, second = await server.enqueue(kind="few"), await server.enqueue(kind="few")
    async with working(worker):
        await reached(server, first, "leased")
        before = await _requests(server)

        async def refused() -> bool:
            return await _requests(server) > before + 2

        await until(refused, within=20)
        go.set()
        await reached(server, second, "succeeded")


@pytest.mark.parametrize("is_limited", [False, True])
async def test_many_jobs_cost_few_requests(server: Server, is_limited: bool) -> None:
    """A no-op job costs a small part of a request: its report rides on the request that brings the next ones. The limit
    of another kind changes little."""
    minted = await server.mint("q")
    body = {"jobs": [{"queue": "q", "kind": "k"}] * 1_000}
    await server.call("POST", "/jobs/batch", body, headers=bearer())
    worker = _worker(url=server.url, token=minted.token, wait=1, concurrency=100)
    done = 0

    @worker.on("k")
    async def handler(ctx: JobContext) -> None:
        nonlocal done
        done += 1

    if is_limited:
        worker.on("rare", concurrency=1)(handler)
    before = await _requests(server)
    async with working(worker):

        async def drained() -> bool:
            return done == 1_000

        await until(drained, within=20)
    assert 5 < await _requests(server) - before < 60


async def _requests(server: Server) -> float:
    _, text = await server.call("GET", "/metrics")
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith("atomo_http_requests_total") and "/jobs" in line
    )
