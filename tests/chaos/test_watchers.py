"""PostgreSQL is killed under 200 open subscriptions: each ends with its job, and none hangs."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.conftest import bearer, until

from .rig import Rig, a_rig

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

JOBS = 200
PER_SOCKET = 50
WATCH = "subscription ($id: ID!) { jobProgress(id: $id) { jobId status result } }"


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """Real processes."""
    async with a_rig() as made:
        yield made


async def _watch(http: aiohttp.ClientSession, url: str, ids: list[str], watching: asyncio.Semaphore) -> dict[str, str]:
    """The last word about each of these jobs, from one socket."""
    last: dict[str, str] = {}
    ended = 0
    async with http.ws_connect(f"{url}/graphql", protocols=["graphql-transport-ws"]) as socket:
        await socket.send_json({"type": "connection_init", "payload": {"authorization": bearer()["Authorization"]}})
        assert (await socket.receive_json(timeout=60))["type"] == "connection_ack"
        for job_id in ids:
            payload = {"query": WATCH, "variables": {"id": job_id}}
            await socket.send_json({"id": job_id, "type": "subscribe", "payload": payload})
        while ended < len(ids):
            frame = await socket.receive_json(timeout=120)
            assert frame["type"] in ("next", "complete"), frame
            if frame["type"] == "complete":
                ended += 1
                continue
            told = frame["payload"]["data"]["jobProgress"]
            if frame["id"] not in last:
                watching.release()
            last[frame["id"]] = told["status"]
    return last


async def test_postgres_killed_under_subscriptions_on_another_server(rig: Rig) -> None:
    await rig.kill("worker")
    second = await rig.start_server("second")
    ids = await rig.enqueue(JOBS)
    watching = asyncio.Semaphore(0)
    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as group:
        lots = [ids[start : start + PER_SOCKET] for start in range(0, JOBS, PER_SOCKET)]
        watchers = [group.create_task(_watch(http, second, lot, watching)) for lot in lots]
        for _ in range(JOBS):
            await asyncio.wait_for(watching.acquire(), 60)
        await rig.start_worker()

        async def under_way() -> bool:
            return (await rig.progress())[0] >= JOBS // 5

        await until(under_way, within=240)
        await rig.kill("postgres")
    told = {job_id: status for watcher in watchers for job_id, status in watcher.result().items()}
    assert told == dict.fromkeys(ids, "SUCCEEDED")
