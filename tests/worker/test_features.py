"""What a handler can ask for: its payload as a type, middleware, a logger, a trace, a limit of its own."""

import asyncio
import logging
from dataclasses import dataclass
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
        await until(lambda: drained("many"))
        assert now["few"] == 2
        go.set()
        await until(lambda: drained("few"))
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


async def test_the_limit_of_one_kind_holds_and_is_not_waited_out(server: Server) -> None:
    """Its next job is leased when the one before has ended, though the worker waits, for 30 s, for the other kinds."""
    minted = await server.mint("q")
    worker = _worker(url=server.url, token=minted.token, wait=30, concurrency=20)
    now = most = done = 0

    @worker.on("one", concurrency=1)
    async def one(ctx: JobContext) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1

    @worker.on("k")
    async def handler(ctx: JobContext) -> None:
        nonlocal done
        done += 1

    kinds = (["one"] + ["k"] * 10 + ["unheard of"]) * 20
    body = {"jobs": [{"queue": "q", "kind": kind} for kind in kinds]}
    _, made = await server.call("POST", "/jobs/batch", body, headers=bearer())
    async with working(worker):
        ends = [
            await reached(server, job["id"], "dead" if kind == "unheard of" else "succeeded")
            for job, kind in zip(made["jobs"], kinds, strict=True)
        ]
    assert (most, done) == (1, 200)
    assert {end["attempts"] for end in ends} == {1}


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

        await until(refused)
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

        await until(drained)
    assert 5 < await _requests(server) - before < 60


async def _requests(server: Server) -> float:
    _, text = await server.call("GET", "/metrics")
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith("atomo_http_requests_total") and "/jobs" in line
    )
