"""A rolling upgrade, and back, and again, under load of every kind; and whether anybody noticed."""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

from tests.chaos.definitions import definitions
from tests.chaos.fleet import check_streams
from tests.chaos.flows import Flows
from tests.chaos.rig import a_folder
from tests.conftest import bearer, until

from . import fill
from .balancer import Balancer, Step
from .enqueuing import Enqueuing
from .managing import Managing
from .recording import FILES, Recording
from .rig import TwoVersions
from .turns import Turn, Turns
from .watching import Watching
from .working import QUEUES, Working

MIGRATION = "new schema, old servers"
"""The step in which the schema changes."""
WORKERS = {"ATOMO_WORKERS": "2"}
_FEW = 100_000  # jobs, which are proved on the side
_WORKFLOWS = 8
_END_SECS = 240  # for all that was begun to end, once the load has
_LEFT = """
SELECT 'ready ' || kind AS what FROM ready WHERE queue = ANY ($1)
UNION ALL SELECT 'leased ' || kind FROM leases WHERE queue = ANY ($1)
UNION ALL SELECT status || ' ' || workflow FROM workflow_runs WHERE finished_at IS NULL
UNION ALL SELECT 'not dispatched' FROM events AS e, checkpoints AS c
    WHERE (e.xid, e.position) > (c.xid::text::xid8, c.position)"""


@dataclass(frozen=True)
class Filled:
    """What was in the database before anything began."""

    jobs: int
    days: int
    today: date


class Story:
    """The database, its servers, and the load on them."""

    def __init__(
        self, rig: TwoVersions, balancer: Balancer, dice: Random, sources: list[dict[str, Any]], filled: Filled
    ) -> None:
        self.rig = rig
        self.balancer = balancer
        self._enqueuing = Enqueuing(balancer, dice)
        self._working = Working(balancer)
        self._watching = Watching(balancer, self._enqueuing)
        self._recording = Recording(balancer, dice)
        self._managing = Managing(balancer, self._enqueuing)
        self._flows = Flows(balancer, sources)
        self._filled = filled
        self._runs_begun = 0
        self._has_ended = False

    def errors(self) -> list[str]:
        """What clients must not have seen, and what the servers' logs tell of things that failed."""
        return [*self.balancer.errors(), *self.rig.troubles()]

    def table(self) -> str:
        """A line for each step, how often each kind of load was met, and the errors."""
        return "\n".join([_table(self.balancer.steps), *self.errors()])

    @contextlib.asynccontextmanager
    async def step(self, name: str, hold: float = 0) -> AsyncIterator[None]:
        """One that ends so many seconds after the block: that long all kinds of load meet what it has brought."""
        began = time.monotonic()
        self.balancer.steps.append(Step(name))
        yield
        await asyncio.sleep(hold)  # how long the load runs is the point
        self.balancer.step.secs = time.monotonic() - began

    async def join(self, name: str, **settings: str) -> None:
        """A server that starts, and takes part once it is ready."""
        await self.rig.serve(name, **settings)
        self.balancer.rotation.append(name)

    async def leave(self, *names: str) -> None:
        """Servers that are told to end while clients still call them."""
        await self.rig.drain(*names)
        for name in names:
            self.balancer.rotation.remove(name)

    @property
    def retention(self) -> dict[str, str]:
        """Settings for which the first two days of jobs are too old. All of the first has ended: it goes as a whole."""
        days = str(self._filled.days - 2)
        return {"ATOMO_RETENTION_SUCCEEDED_DAYS": days, "ATOMO_RETENTION_DEAD_DAYS": days}

    async def upgrade(self, hold: float) -> None:
        """The whole of it, each step for so many seconds and with what it needs."""
        async with self.step("old alone"):
            await self.join("old-1", **WORKERS)
            await self._working.mint()
            await self._watching.begin()
            self._recording.begin()
        async with self._load():
            async with self.step("old alone, under load", hold):
                pass
            async with self.step(MIGRATION, hold):
                print((await self.rig.run("new", "migrate")).strip())
            async with self.step("an old server starts on it", hold):
                await self.join("old-2", **self.retention)
            async with self.step("old and new", hold):
                await self.join("new-1", **WORKERS, **self.retention)
            async with self.step("old ones drained", hold):
                await self.leave("old-1", "old-2")
            async with self.step("back: old beside new", hold):
                await self.join("old-3", **self.retention)
            async with self.step("back: new drained", hold):
                await self.leave("new-1")
                if self._filled.jobs <= _FEW:
                    assert ": 0 differ" in await self.rig.run("old", "rebuild", "--verify")
            async with self.step("forth again", hold):
                await self.join("new-2", **self.retention)
                await self.leave("old-3")
        await self._check()

    @contextlib.asynccontextmanager
    async def _load(self) -> AsyncIterator[None]:
        """Everything at once; at the end no more is begun, and all that was begun comes to its end."""
        tail = asyncio.create_task(self._watching.tail())
        retries = asyncio.create_task(self._flows.retry_most(lambda: self._has_ended))
        others = Turns(self.balancer, [*self._working.turns(), *self._managing.reading()])
        async with aiohttp.ClientSession(headers=bearer()) as http:

            async def begin_a_run() -> None:
                self._runs_begun += 1
                await self._flows.begin(http, self._runs_begun - 1)

            turns = [*self._enqueuing.turns(), *self._watching.turns(), *self._recording.turns()]
            sources = Turns(
                self.balancer, [*turns, *self._managing.turns(), Turn("workflows", begin_a_run, 0.15, loops=2)]
            )
            try:
                yield
                async with self.step("all comes to its end"):
                    await sources.stop()
                    self._has_ended = True
                    await retries
                    await self._until_ended()
            finally:
                await sources.stop()
                await others.stop()
                tail.cancel()
                retries.cancel()
                await asyncio.gather(tail, retries, return_exceptions=True)
                await self._enqueuing.close()

    async def _until_ended(self) -> None:
        left: list[Any] = []

        async def all_ended() -> bool:
            nonlocal left
            async with self.rig.sql() as sql:
                left = await sql.fetch(f"SELECT what, count(*) FROM ({_LEFT}) AS t GROUP BY what", list(QUEUES))
                missed = await self._watching.missed(sql)
            if missed:
                left.append(("events that the reader of the log waits for", missed))
            await asyncio.sleep(0.3 if left else 0)  # a look reads all events, and shall not hold up what it waits for
            return not left

        try:
            await until(all_ended, within=_END_SECS)
        except TimeoutError:
            self.balancer.failed("end", f"after {_END_SECS} s there are left {[tuple(row) for row in left]}")

    async def _check(self) -> None:
        """What is there is right, and no server, client or worker has met an error."""
        wrong = self.errors()
        async with self.rig.sql() as sql:
            for check in (
                self._enqueuing.check(sql),
                self._watching.check(sql),
                self._recording.check(sql, self._enqueuing.fates, datetime.now(UTC)),
                self._managing.check(sql),
                self._flows.check(sql),
                fill.check(sql, self._filled.jobs, self._filled.days, self._filled.today),
                check_streams(sql),
            ):
                try:
                    await check
                except AssertionError as error:
                    wrong.append(str(error)[:2_000])
        async with self.step("rebuild --verify"):
            told = await self.rig.run("new", "rebuild", "--verify")
            print(told.strip())
        if ": 0 differ" not in told:
            wrong.append(told)
        assert wrong == [], "\n".join(["what clients, operators or the database say:", *wrong])


@contextlib.asynccontextmanager
async def a_story(python_of_previous: Path, seed: int, *, jobs: int, days: int, durable: bool) -> AsyncIterator[Story]:
    """On a database of the previous version with so many jobs on so many days."""
    dice = Random(seed)
    sources = definitions(dice, _WORKFLOWS)
    with a_folder() as folder:
        for path, content in {**FILES, "workflows/flows.json": sources}.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(json.dumps(content))
        rig = TwoVersions(folder, python_of_previous)
        balancer = Balancer(rig, dice)
        try:
            await rig.start_database(durable=durable)
            await rig.run("old", "migrate")
            async with rig.sql() as sql:
                today = await fill.fill(sql, jobs, days)
            yield Story(rig, balancer, dice, sources, Filled(jobs, days, today))
        finally:
            await balancer.http.close()
            await rig.stop()


def _table(steps: list[Step]) -> str:
    """A line for each step: how long it took, and the longest wait of a writer and of a reader."""
    lines = [f"{'step':30} {'secs':>7} {'calls':>7} {'errors':>7} {'longest write':>14} {'by SQL':>7} {'read':>7}"]
    lines += [
        f"{step.name:30} {step.secs:7.1f} {step.calls.total():7,} {step.errors.total():7,} "
        f"{step.longest_of('enqueue'):12.2f} s {step.longest_of('enqueue by SQL'):5.2f} s "
        f"{step.longest_of('read'):5.2f} s"
        for step in steps
    ]
    calls = sum((step.calls for step in steps), Counter[str]())
    lines.append("calls: " + ", ".join(f"{kind} {count:,}" for kind, count in sorted(calls.items())))
    return "\n".join(lines)
