"""A lease request that is sent again gets what it got, and nothing else."""

import asyncio
from typing import Any

from tests.conftest import MakeServer, Server, bearer


def _leases(jobs: list[Any]) -> list[tuple[str, str]]:
    return [(job["id"], job["leaseId"]) for job in jobs]


async def test_the_same_request_gets_the_same_leases_on_any_replica(make_server: MakeServer) -> None:
    here, there = await make_server(), await make_server()
    worker = await here.mint("q")
    for priority in (0, 3, 1, 2, 3):
        await here.enqueue(priority=priority)

    first = await worker.lease("q", capacity=3, requestId="r1")
    worker.server = there
    again = await worker.lease("q", capacity=3, requestId="r1")

    assert again == first
    assert [job["priority"] for job in again] == [3, 3, 2]
    assert len(await worker.lease("q", capacity=9, requestId="r2")) == 2
    assert [job["attempts"] for job in again] == [1, 1, 1]


async def test_a_request_that_comes_late_takes_no_job(server: Server) -> None:
    """Its jobs have ended meanwhile, and whoever asked does not listen any more."""
    worker = await server.mint("q")
    await server.enqueue()
    [job] = await worker.lease("q", requestId="r1")
    await worker.report("complete", job)
    waiting = await server.enqueue()

    assert await worker.lease("q", requestId="r1") == []
    assert (await server.job(waiting))["status"] == "queued"


async def test_a_request_that_got_nothing_gets_nothing_later(server: Server) -> None:
    worker = await server.mint("q")
    for wait in (0, 0.2):
        assert await worker.lease("q", requestId=f"r{wait}", waitSecs=wait) == []
    await server.enqueue()
    for wait in (0, 0.2):
        assert await worker.lease("q", requestId=f"r{wait}", waitSecs=wait) == []
    assert len(await worker.lease("q", requestId="r2")) == 1


async def test_another_token_s_request_of_that_name_is_another(server: Server) -> None:
    first, second = await server.mint("q"), await server.mint("q")
    for _ in range(2):
        await server.enqueue()
    assert _leases(await first.lease("q", requestId="r")) != _leases(await second.lease("q", requestId="r"))


async def test_doubles_that_race_get_one_answer(make_server: MakeServer) -> None:
    servers = [await make_server() for _ in range(2)]
    worker = await servers[0].mint("q")
    jobs = [{"queue": "q", "kind": "k"}] * 400  # plenty: what one holds for a moment, others pass over
    await servers[0].call("POST", "/jobs/batch", {"jobs": jobs}, headers=bearer())

    async def ask(number: int, double: int) -> list[tuple[str, str]]:
        asking = type(worker)(servers[double % 2], worker.token_id, worker.token)
        return _leases(await asking.lease("q", capacity=2, requestId=f"r{number}"))

    answers = await asyncio.gather(*(ask(number, double) for number in range(20) for double in range(4)))

    for number in range(20):
        doubles = answers[number * 4 : number * 4 + 4]
        assert doubles == [doubles[0]] * 4
        assert len(doubles[0]) == 2
    assert len({lease for answer in answers for lease in answer}) == 40


async def test_doubles_that_wait_get_one_answer(make_server: MakeServer) -> None:
    servers = [await make_server() for _ in range(2)]
    worker = await servers[0].mint("q")
    asking = [type(worker)(server, worker.token_id, worker.token) for server in servers * 2]
    waiting = [asyncio.create_task(w.lease("q", capacity=5, waitSecs=60, requestId="r")) for w in asking]
    while sum(len(s.application.services.leases.room) for s in servers) < 4:
        await asyncio.sleep(0.01)
    for _ in range(3):
        await servers[0].enqueue()

    answers = [_leases(jobs) for jobs in await asyncio.gather(*waiting)]

    assert answers == [answers[0]] * 4
    assert answers[0]


async def test_requests_are_forgotten_when_nobody_can_repeat_them(server: Server, sql: Any) -> None:
    worker = await server.mint("q")
    await server.enqueue()
    await worker.lease("q", requestId="r1")
    await worker.lease("q", requestId="r2")
    await sql.execute("UPDATE lease_requests SET expires_at = now() - interval '1 s' WHERE request_id = 'r1'")
    await server.application.services.housekeeping.sweep()
    assert [r["request_id"] for r in await sql.fetch("SELECT request_id FROM lease_requests")] == ["r2"]
