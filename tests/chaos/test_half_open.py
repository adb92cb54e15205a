"""Connections to the database that take everything and answer nothing: the server is back within five seconds."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conftest import Server, bearer

from .postgres import Wire, served

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(90)]

BACK_SECS = 5.0
READY_SECS = 2.0
_MARGIN = 0.5  # for a machine that is busy with something else


@contextlib.asynccontextmanager
async def a_wired_server(dsn: str, folder: Path) -> AsyncIterator[tuple[Server, Wire]]:
    """A server whose connections to the database all go through a wire."""
    parts = urlsplit(dsn)
    async with Wire(parts.port or 5432).running() as wire:
        user = parts.netloc.rpartition("@")[0]
        through = parts._replace(netloc=f"{user}@127.0.0.1:{wire.port}").geturl()
        async with served(through, dsn, folder) as server:
            yield server, wire


class _Load:
    """Clients that enqueue one job after the other, and somebody who asks whether the server is ready."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.accepted: list[float] = []  # when
        self.ready_secs: list[float] = []  # how long each took
        self.statuses: set[int] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """For the length of the block."""
        tasks = [asyncio.create_task(self._enqueue()) for _ in range(8)]
        tasks.append(asyncio.create_task(self._look()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            assert isinstance(end, asyncio.CancelledError), end

    async def first_after(self, moment: float) -> float:
        """Seconds from that moment until a job was accepted that was sent after it."""
        async with asyncio.timeout(60):
            while not (found := [at for at in self.accepted if at > moment]):
                await asyncio.sleep(0.02)
        return found[0] - moment

    async def _enqueue(self) -> None:
        while True:
            began = time.monotonic()
            status, _ = await self._server.call("POST", "/jobs", {"queue": "q", "kind": "k"}, headers=bearer())
            self.statuses.add(status)
            if status == 201 and began > self._since:
                self.accepted.append(time.monotonic())

    _since = 0.0

    def only_after(self, moment: float) -> None:
        """Count what is sent from then on."""
        self._since = moment
        self.accepted.clear()

    async def _look(self) -> None:
        while True:
            began = time.monotonic()
            await self._server.call("GET", "/readyz")
            self.ready_secs.append(time.monotonic() - began)
            await asyncio.sleep(0.05)


async def test_a_server_whose_connections_fall_silent_is_back_within_five_seconds(dsn: str, tmp_path: Path) -> None:
    async with a_wired_server(dsn, tmp_path) as (server, wire):
        load = _Load(server)
        async with load.running():
            assert await load.first_after(0) > 0
            wire.fall_silent()
            silent_at = time.monotonic()
            load.only_after(silent_at)
            away = await load.first_after(silent_at)
        print(
            f"silent connections: {away:.1f} s until a job was accepted; slowest /readyz {max(load.ready_secs):.2f} s"
        )
        assert away < BACK_SECS
        assert max(load.ready_secs) < READY_SECS + _MARGIN
        assert load.statuses <= {201, 503}


async def test_a_database_behind_a_black_hole_is_not_ready_and_comes_back(dsn: str, tmp_path: Path) -> None:
    async with a_wired_server(dsn, tmp_path) as (server, wire):
        load = _Load(server)
        async with load.running():
            assert await load.first_after(0) > 0
            wire.fall_silent(also_new=True)
            await asyncio.sleep(0.2)  # what is under way at that moment may still be answered
            answers = [await server.call("GET", "/readyz") for _ in range(3)]
            assert {status for status, _ in answers} == {503}
            wire.mend()
            mended_at = time.monotonic()
            load.only_after(mended_at)
            back = await load.first_after(mended_at)
        print(f"black hole: {back:.1f} s from its end until a job was accepted; /readyz {max(load.ready_secs):.2f} s")
        assert back < 2 * BACK_SECS  # a connection that is being made when it ends has its time to be given up
        assert max(load.ready_secs) < READY_SECS + _MARGIN


async def test_a_statement_that_takes_long_is_left_to_it(dsn: str, tmp_path: Path, sql: Any) -> None:
    """What waits for a lock is answered when it has it: a late answer alone is no sign of a dead connection."""
    async with a_wired_server(dsn, tmp_path) as (server, _):
        transaction = sql.transaction()
        await transaction.start()
        await sql.execute("LOCK TABLE job_records IN ACCESS EXCLUSIVE MODE")
        asked = asyncio.create_task(server.call("POST", "/jobs", {"queue": "q", "kind": "k"}, headers=bearer()))
        await asyncio.sleep(4)  # longer than a silent connection lives
        assert not asked.done()
        await transaction.rollback()
        status, _ = await asked
        assert status == 201
