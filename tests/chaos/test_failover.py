"""A primary is killed under load and its standby promoted: nothing that was acknowledged is lost, and the service is
back by itself."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.conftest import bearer

from .fleet import Fleet, Work, check_streams, until_true
from .postgres import Cluster, Wire, needs_postgres
from .rig import Rig, a_folder

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180), needs_postgres]

CLIENTS = 8
BEFORE, AFTER = 80, 80  # jobs acknowledged before the kill, and after the promotion
_BACK_SECS = 10.0  # from the promotion on; about one second where the machine is not busy with something else


@contextlib.asynccontextmanager
async def a_pair() -> AsyncIterator[tuple[Rig, Cluster, Cluster]]:
    """A primary that commits nothing before its standby has it, and the standby."""
    with a_folder() as folder:
        rig, primary, standby = Rig(folder), Cluster(folder / "primary"), Cluster(folder / "standby")
        try:
            await primary.make()
            await primary.start(synchronous_standby_names="'*'", synchronous_commit="local")
            await standby.follow(primary)
            await standby.start()
            async with primary.sql() as sql:
                await sql.execute("ALTER DATABASE postgres SET synchronous_commit = on")
            yield rig, primary, standby
        finally:
            await rig.stop()
            await standby.stop()
            await primary.stop()


class _Clients:
    """Each enqueues one job after the other, and says it again until it is accepted: its key makes that safe."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.ids: dict[str, str] = {}  # of each key that was acknowledged, the job
        self.moments: list[float] = []

    async def enqueue(self, client: int, http: aiohttp.ClientSession) -> None:
        """For ever."""
        number = 0
        while True:
            key = f"{client}-{(number := number + 1)}"
            body = {"queue": "load", "kind": "k", "idempotencyKey": key, "maxAttempts": 50}
            _, job = await self._fleet.call(http, "/jobs", body, accepted=[201])
            self.ids[key] = job["id"]
            self.moments.append(time.monotonic())

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """For the length of the block."""
        async with aiohttp.ClientSession(headers=bearer()) as http:
            tasks = [asyncio.create_task(self.enqueue(client, http)) for client in range(CLIENTS)]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            assert isinstance(end, asyncio.CancelledError), end


_work: Work = lambda job: ("complete", {"result": job["id"]})  # noqa: E731


@pytest.mark.parametrize("address", ["plain, behind a proxy", "of both hosts"])
async def test_a_failover_loses_nothing_that_was_acknowledged(address: str) -> None:
    async with a_pair() as (rig, primary, standby), Wire(primary.port).running() as wire:
        if address == "of both hosts":
            dsn = f"postgresql://atomo@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/postgres"
        else:
            dsn = f"postgresql://atomo@127.0.0.1:{wire.port}/postgres"
        rig.use(dsn)
        await rig.start_server("one")
        fleet = Fleet(rig, ["one"], random.Random(0))
        clients = _Clients(fleet)
        async with fleet.at_work(_work, "load"), clients.running():
            await until_true(lambda: len(clients.ids) >= BEFORE)
            await primary.kill()
            killed = time.monotonic()
            await standby.promote()
            wire.target = standby.port
            promoted = time.monotonic()
            have = len(clients.ids)
            await until_true(lambda: len(clients.ids) >= have + AFTER)
        first = next(moment for moment in clients.moments if moment > promoted)
        gap = max(after - before for before, after in zip(clients.moments, clients.moments[1:], strict=False))
        print(
            f"{address}: {gap:.1f} s without an answer; {first - promoted:.1f} s after the promotion, which took "
            f"{promoted - killed:.1f} s; {len(clients.ids)} jobs were acknowledged"
        )
        assert first - promoted < _BACK_SECS
        async with standby.sql() as sql:
            kept = {str(row["id"]) for row in await sql.fetch("SELECT id FROM jobs")}
            assert set(clients.ids.values()) <= kept
            assert len(set(clients.ids.values())) == len(clients.ids)
            await check_streams(sql)
        rig.use(standby.dsn)
        assert "0 differ" in await rig.command("rebuild", "--verify")
