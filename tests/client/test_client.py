"""The clients, against a real server and a real worker."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from atomo_gql.client import AsyncClient, Client, JobDead, ServiceError, Unreachable
from atomo_gql.worker import JobContext, NonRetryableError, Worker
from tests.chaos.test_wire import Gate
from tests.conftest import Server, token
from tests.worker.helpers import working


@pytest.fixture
async def served(server: Server) -> AsyncIterator[Server]:
    """With a worker on the queue q."""
    minted = await server.mint("q")
    worker = Worker(url=server.url, token=minted.token, queues=["q"], concurrency=10, wait=2)

    @worker.on("double")
    async def double(ctx: JobContext) -> int:
        for percent in (0.25, 0.5):
            await ctx.progress(percent=percent)
        number: int = ctx.job.payload["n"]
        return 2 * number

    @worker.on("slow")
    async def slow(ctx: JobContext) -> str:
        await asyncio.sleep(ctx.job.payload)
        return "at last"

    @worker.on("bad")
    async def bad(ctx: JobContext) -> None:
        raise NonRetryableError("it cannot be done")

    async with working(worker):
        yield server


async def test_a_job_is_enqueued_watched_and_its_result_had(served: Server) -> None:
    async with AsyncClient(served.url, token()) as jobs:
        job_id = await jobs.enqueue("q", "double", {"n": 21}, idempotency_key="once", timeout_secs=30)
        assert await jobs.enqueue("q", "double", {"n": 21}, idempotency_key="once") == job_id
        updates = [update async for update in jobs.watch(job_id)]
        assert updates[-1]["status"] == "succeeded"
        assert await jobs.result(job_id, timeout=60) == 42
        assert (await jobs.get(job_id))["timeoutSecs"] == 30


async def test_many_are_enqueued_all_or_none(served: Server) -> None:
    async with AsyncClient(served.url, token()) as jobs:
        ids = await jobs.enqueue_many([{"queue": "q", "kind": "double", "payload": {"n": n}} for n in range(20)])
        assert await asyncio.gather(*(jobs.result(job_id, 60) for job_id in ids)) == [2 * n for n in range(20)]
        with pytest.raises(ServiceError, match=r"jobs\[1\].kind") as refused:
            await jobs.enqueue_many([{"queue": "q", "kind": "double"}, {"queue": "q", "kind": ""}])
        assert (refused.value.code, refused.value.status) == ("BAD_USER_INPUT", 400)


async def test_many_take_the_arguments_of_one(served: Server) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    async with AsyncClient(served.url, token()) as jobs:
        fields: dict[str, Any] = {"max_attempts": 2, "run_at": later, "idempotency_key": "k", "payload": None}
        [job_id] = await jobs.enqueue_many([{"queue": "of nobody", "kind": "double", **fields}])
        assert await jobs.enqueue("of nobody", "double", **fields) == job_id
        found = await jobs.get(job_id)
        assert (found["maxAttempts"], found["runAt"][:19]) == (2, later.isoformat()[:19])
        await jobs.cancel(job_id, "not needed")
        assert (await jobs.get(job_id))["status"] == "dead"
        await jobs.retry(job_id)
        assert (await jobs.get(job_id))["status"] == "queued"
    payload = await served.graphql(f'{{ job(id: "{job_id}") {{ payload }} }}')
    assert payload["data"]["job"]["payload"] is None


async def test_nobody_waits_for_ever_for_a_service_that_is_not_there(served: Server) -> None:
    async with AsyncClient("http://127.0.0.1:1", token(), timeout=0.5) as jobs:
        with pytest.raises(Unreachable):
            await asyncio.wait_for(jobs.result("0190f3a8-7c1e-7000-8000-0123456789ab"), 60)
    async with AsyncClient(served.url, token()) as jobs:
        with pytest.raises(ValueError, match="must be JSON"):
            await jobs.enqueue("q", "double", {1, 2})
        with pytest.raises(ServiceError) as missing:
            await jobs.get("../healthz?x")
        assert missing.value.code == "NOT_FOUND"


async def test_what_goes_wrong_is_told_apart(served: Server) -> None:
    async with AsyncClient(served.url, token()) as jobs:
        with pytest.raises(JobDead, match="it cannot be done") as dead:
            await jobs.result(await jobs.enqueue("q", "bad"), timeout=60)
        assert dead.value.job["status"] == "dead"
        later = await jobs.enqueue("q", "double", {"n": 1}, run_at=datetime.now(UTC) + timedelta(hours=1))
        with pytest.raises(TimeoutError):
            await jobs.wait(later, timeout=0.2)
        with pytest.raises(ServiceError) as missing:
            await jobs.wait("0190f3a8-7c1e-7000-8000-0123456789ab")
        assert missing.value.code == "NOT_FOUND"
    async with AsyncClient(served.url, "not.a.jwt") as jobs:
        with pytest.raises(ServiceError) as refused:
            await jobs.enqueue("q", "double")
        assert (refused.value.code, refused.value.status) == ("UNAUTHENTICATED", 401)
    async with AsyncClient("http://127.0.0.1:1", token()) as jobs:
        with pytest.raises(Unreachable):
            await jobs.enqueue("q", "double")


async def test_who_waits_outlives_an_outage(served: Server) -> None:
    gate = Gate(served.url)
    async with gate.running() as url, AsyncClient(url, token()) as jobs:
        job_id = await jobs.enqueue("q", "slow", 1.0)
        result = asyncio.create_task(_last(jobs, job_id))
        await asyncio.sleep(0.3)
        gate.shut()
        await asyncio.sleep(1.5)
        gate.open()
        assert (await asyncio.wait_for(result, 60))["status"] == "succeeded"


async def _last(jobs: AsyncClient, job_id: str) -> dict[str, Any]:
    return [update async for update in jobs.watch(job_id)][-1]


async def test_the_blocking_client_does_the_same(served: Server) -> None:
    def use() -> None:
        with Client(served.url, token()) as jobs:
            job_id = jobs.enqueue("q", "double", {"n": 4})
            assert [update["status"] for update in jobs.watch(job_id)][-1] == "succeeded"
            assert jobs.result(job_id, timeout=60) == 8
            assert jobs.get(job_id)["status"] == "succeeded"
            ids = jobs.enqueue_many([{"queue": "q", "kind": "bad"}])
            with pytest.raises(JobDead):
                jobs.result(ids[0], timeout=60)
            assert jobs.wait(ids[0])["status"] == "dead"

    await asyncio.to_thread(use)


def test_a_client_that_is_not_open_says_so() -> None:
    jobs = Client("http://127.0.0.1:1", "t")
    with pytest.raises(RuntimeError, match="use it as a context manager"):
        jobs.enqueue("q", "k")
    with jobs:
        pass
    with pytest.raises(RuntimeError, match="use it as a context manager"):
        jobs.get("x")


@pytest.mark.parametrize("make", [AsyncClient, Client])
def test_wrong_arguments_are_named(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ATOMO_URL", "ATOMO_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="url must be"):
        make("ftp://x", "t")
    with pytest.raises(ValueError, match="token must be"):
        make("http://x")
