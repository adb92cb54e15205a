"""Servers that are killed in turn, and clients and a worker that ride it out, as those of an operator must.

A test prints its seed; ATOMO_CHAOS_SEED makes the same definitions and events again, killed after the same pauses.
"""

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import aiohttp

from tests.conftest import bearer, until

from .rig import Rig, a_folder

SEED = int(os.environ.get("ATOMO_CHAOS_SEED") or random.SystemRandom().randrange(10**6))

# A request whose server is killed, or whose database is, is said again; each has a key that makes that safe.
_GONE = (aiohttp.ClientError, OSError, TimeoutError)
_AGAIN = (502, 503)
_TIMEOUT = aiohttp.ClientTimeout(total=10)
_VISIBILITY = 2  # seconds; a lease whose answer was lost is taken back after that

Work = Callable[[Any], "tuple[str, dict[str, Any]]"]  # of a leased job: the report's verb, and its body


class Fleet:
    """Servers by name on one database."""

    def __init__(self, rig: Rig, names: Sequence[str], dice: random.Random) -> None:
        """`dice` decides who is killed when."""
        self.rig = rig
        self.names = names
        self.kills = 0
        self.killed_secs = 0.0  # how long the killing took
        self._dice = dice
        self._left = 0

    async def kill_in_turn(self, times: int) -> None:
        """SIGKILL so many times in all, 0.2 to 1 s after a server was ready; each is started again at once."""
        began = time.monotonic()
        self._left = times
        async with asyncio.TaskGroup() as group:
            for name in self.names:
                group.create_task(self._kill(name))
        self.killed_secs = time.monotonic() - began

    async def kill_postgres(self, times: int) -> None:
        """SIGKILL to its postmaster so many times, 0.2 to 1 s after the database could be had.

        Whoever keeps it running waits twice as long each time, so a few kills must do.
        """
        began = time.monotonic()
        for _ in range(times):
            await until(self.rig.has_database, within=60)
            await asyncio.sleep(self._dice.uniform(0.2, 1))  # the moment is the point
            await self.rig.kill("postgres")
            self.kills += 1
        self.killed_secs = time.monotonic() - began

    async def _kill(self, name: str) -> None:
        while self._left > 0:
            self._left -= 1
            await asyncio.sleep(self._dice.uniform(0.2, 1))  # the moment is the point
            await self.rig.kill(name)
            self.kills += 1
            await self.rig.start_server(name)

    async def call(
        self, http: aiohttp.ClientSession, path: str, body: Any, *, accepted: Sequence[int], **more: Any
    ) -> tuple[int, Any]:
        """POST to some server or other until one of them answers so."""
        while True:
            url = self.rig.url_of(self._dice.choice(self.names))
            with contextlib.suppress(*_GONE):
                async with http.post(url + path, json=body, timeout=_TIMEOUT, **more) as answer:
                    text = await answer.text()
                    if answer.status in accepted:
                        return answer.status, (await answer.json() if text else None)
                    assert answer.status in _AGAIN, f"{path}: {answer.status} {text}"
            await asyncio.sleep(0.05)  # as a client backs off

    async def call_each(self, count: int, at_once: int, call: Callable[[aiohttp.ClientSession, int], Any]) -> None:
        """Make calls number 0, 1, …, so many at a time, as somebody without a tenant."""
        numbers = iter(range(count))

        async def one_by_one(http: aiohttp.ClientSession) -> None:
            for number in numbers:
                await call(http, number)

        async with aiohttp.ClientSession(headers=bearer()) as http, asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(one_by_one(http))

    @contextlib.asynccontextmanager
    async def at_work(self, work: Work, *queues: str, loops: int = 4) -> AsyncIterator[None]:
        """A worker that leases and reports for the length of the block."""
        headers = {"X-Worker-Token": await self.rig.mint(*queues, server=self.names[0])}
        async with aiohttp.ClientSession(headers=headers) as http:
            tasks = [asyncio.create_task(self._work(http, work, queues)) for _ in range(loops)]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                ends = await asyncio.gather(*tasks, return_exceptions=True)
            for end in ends:
                assert isinstance(end, asyncio.CancelledError), end

    async def _work(self, http: aiohttp.ClientSession, work: Work, queues: Sequence[str]) -> None:
        wanted = {"queues": list(queues), "capacity": 10, "visibilitySecs": _VISIBILITY, "waitSecs": 1}
        while True:
            _, leased = await self.call(http, "/jobs/lease", wanted, accepted=[200])
            async with asyncio.TaskGroup() as group:
                for job in leased["jobs"]:
                    verb, body = work(job)
                    path, report = f"/jobs/{job['id']}/{verb}", {"leaseId": job["leaseId"], **body}
                    group.create_task(self.call(http, path, report, accepted=[200, 204, 409]))


@contextlib.asynccontextmanager
async def a_fleet(names: Sequence[str], files: Mapping[str, Any], dice: random.Random) -> AsyncIterator[Fleet]:
    """Servers of these names, which read these JSON files (by path) when they start."""
    with a_folder() as folder:
        rig = Rig(folder)
        for path, content in files.items():
            rig.write(path, content)
        try:
            await rig.start_together(names)
            yield Fleet(rig, names, dice)
        finally:
            await rig.stop()


async def all_together(*parts: Awaitable[Any]) -> None:
    """Wait for all; the first error ends the others."""
    async with asyncio.TaskGroup() as group:
        for part in parts:
            group.create_task(_await(part))


async def _await(part: Awaitable[Any]) -> None:
    await part


async def until_true(ready: Callable[[], bool]) -> None:
    """Wait for something that this process brings about."""

    async def asked() -> bool:
        return ready()

    await until(asked, within=300)


async def check_streams(sql: Any) -> None:
    """No stream has a gap, and none begins or ends twice."""
    broken = await sql.fetch(
        """
        SELECT stream, stream_id, array_agg(type ORDER BY version) AS types FROM events GROUP BY stream, stream_id
        HAVING min(version) <> 1 OR count(*) <> max(version) OR count(DISTINCT version) <> count(*)
            OR count(*) FILTER (WHERE type IN ('enqueued', 'run_started')) > 1
            OR count(*) FILTER (WHERE type IN ('succeeded', 'dead', 'run_completed')) > 1
            OR count(*) FILTER (WHERE type = 'run_failed') > 1 + count(*) FILTER (WHERE type = 'retried')"""
    )
    assert broken == []
