"""Hints through Redis instead of the database: replicas hear each other, and what Redis loses is made up for."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from atomo_gql.service import waiting
from tests.conftest import MakeServer, Server, token, until
from tests.ports import free_port

REDIS = shutil.which("redis-server")
pytestmark = pytest.mark.skipif(
    REDIS is None and not os.environ.get("CI"), reason="needs Redis: redis-server is missing"
)


class Redis:
    """A server of the test's own, which can be ended and begun again."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Until it listens."""
        self._process = await asyncio.create_subprocess_exec(
            *(REDIS or "redis-server", "--port", str(self.port), "--save", "", "--dir", str(self._folder)),
            stdout=asyncio.subprocess.DEVNULL,
        )
        await until(self._listens)

    async def _listens(self) -> bool:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.close()
            await writer.wait_closed()
            return True
        return False

    async def kill(self) -> None:
        """At once."""
        if self._process and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Redis]:
    """One that listens."""
    made = Redis(tmp_path)
    await made.start()
    yield made
    await made.kill()


async def test_what_sql_enqueues_is_told_beside_redis(
    make_server: MakeServer, redis: Redis, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_LOOK_SECS", 600.0)  # no look finds what no hint tells of
    server = await make_server(broadcast_url=f"redis://127.0.0.1:{redis.port}")
    heard: list[tuple[str, str]] = []

    def note(lanes: Iterable[tuple[str, str]]) -> None:
        heard.extend(lanes)

    server.application.hub.on_wake(note)
    worker = await server.mint("q")
    polling = asyncio.create_task(worker.lease("q", waitSecs=30))
    await until(lambda: _waits(server))
    async with sql.transaction():
        job_id = await sql.fetchval("SELECT atomo.enqueue_job('q', 'k')")
        assert heard == []
    [job] = await polling
    assert job["id"] == str(job_id)
    assert heard == [("", "q")]


async def _waits(server: Server) -> bool:
    return len(server.application.services.leases.room) == 1


async def test_replicas_hear_each_other_and_redis_may_go_away(make_server: MakeServer, redis: Redis) -> None:
    url = f"redis://127.0.0.1:{redis.port}"
    here, there = await make_server(broadcast_url=url), await make_server(broadcast_url=url)
    worker = await here.mint("q")
    there_worker = type(worker)(there, worker.token_id, worker.token)
    polling = asyncio.create_task(there_worker.lease("q", waitSecs=20))
    await until(lambda: _waits(there))
    first = await here.enqueue("q")
    [job] = await polling
    assert job["id"] == first
    async with there.http.ws_connect(f"{there.url}/realtime/ws?token={token()}") as page:
        await page.send_json({"op": "subscribe", "channel": f"job:{first}"})
        assert (await page.receive_json(timeout=60))["status"] == "leased"
        big = {"text": "x" * 50_000}
        await worker.report("progress", job, percent=0.5, data=big)
        assert (await page.receive_json(timeout=60))["data"] == big

        await redis.kill()
        await worker.report("progress", job, percent=0.75)
        second = await here.enqueue("q")
        [other] = await there_worker.lease("q", waitSecs=20)
        assert other["id"] == second, "a look once a second finds what no hint told"
        await redis.start()
        await worker.report("complete", job)
        while (frame := await page.receive_json(timeout=60))["type"] != "end":
            pass
        assert frame["status"] == "succeeded"


async def test_a_start_without_redis_is_said_once_and_so_is_its_coming_back_again_and_again(
    make_server: MakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(waiting, "_LOOK_SECS", 600.0)  # no look finds what no hint tells of
    caplog.set_level("INFO", "atomo_gql.realtime")
    redis = Redis(tmp_path)
    url = f"redis://127.0.0.1:{redis.port}"
    here, there = await make_server(broadcast_url=url), await make_server(broadcast_url=url)
    worker = await here.mint("q")
    there_worker = type(worker)(there, worker.token_id, worker.token)

    async def are_said(words: str, times: int) -> bool:
        return sum(words in record.message for record in caplog.records) == times

    try:
        for times in (2, 4):  # a line of each of the two servers
            await until(lambda times=times: are_said("Redis (ATOMO_BROADCAST_URL) is away", times))  # type: ignore[misc]
            await here.enqueue("elsewhere")  # is no reason to say it again
            await redis.start()
            await until(lambda times=times: are_said("Redis is back", times))  # type: ignore[misc]
            assert await are_said("Redis (ATOMO_BROADCAST_URL) is away", times)
            polling = asyncio.create_task(there_worker.lease("q", waitSecs=30))
            await until(lambda: _waits(there))
            job_id = await here.enqueue("q")
            [job] = await polling
            assert job["id"] == job_id
            await redis.kill()
    finally:
        await redis.kill()


async def test_a_wrong_password_of_redis_is_told_and_borne(
    make_server: MakeServer, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    server = await make_server(broadcast_url=f"redis://nobody:wrong@127.0.0.1:{redis.port}")
    await server.enqueue("q")
    [line] = [record.message for record in caplog.records if "is away" in record.message]
    assert "invalid username-password pair" in line
