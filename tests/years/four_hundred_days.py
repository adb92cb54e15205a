"""A year and more on one machine: what it holds up, and what it costs in the end."""

import random
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

from tests.conftest import until, with_database

from . import looks
from .account import problems
from .machine import Machine, a_machine
from .table import show
from .year import Year, housekeeping, ready

_EVERY = 8  # days between two rounds of housekeeping
_EARLY = 5  # the day at which the database is copied, to be compared with
_DAY = timedelta(days=1)
# On these days, what happens.
OFF = {50: 4, 100: 10, 150: 40}
ASLEEP = {75: 7, 225: 7}
JUMP = {200: 365}
KILLED = 25


@dataclass(frozen=True)
class Kept:
    """Days that things are kept; None: for ever."""

    succeeded: float | None = None
    dead: float | None = None
    recorded: float | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The settings that say so."""
        named = {"SUCCEEDED": self.succeeded, "DEAD": self.dead, "EVENTS": self.recorded}
        return {f"ATOMO_RETENTION_{name}_DAYS": str(days) for name, days in named.items() if days is not None}


async def four_hundred_days(days: int, kept: Kept, samples: int = 200) -> bool:
    """Live them, and print what came of it; whether all is well."""
    began = time.monotonic()
    offset = -(days + 365 + 61 + 14 + 200 + 400) * _DAY
    partitions: Counter[int] = Counter()
    async with a_machine(offset, ATOMO_JOB_RECLAIM_INTERVAL="1", **kept.environment) as machine:
        try:
            await machine.start_server()
            year = Year(machine, random.Random(400))
            async with year.living():
                await year.found()
                while year.day < days:
                    await year.live(1)
                    await _happenings(year)
                    if year.day % _EVERY == 0:
                        said = await housekeeping(machine)
                        async with machine.sql() as sql:
                            partitions[await sql.fetchval("SELECT count(*) FROM partitions")] += 1
                        print(
                            f"day {year.day}, {machine.clock.now:%Y-%m-%d}, {time.monotonic() - began:.0f} s: {said}",
                            flush=True,
                        )
                unexpected = dict(year.answers)
                await machine.kill("server")
                await _compare(machine, days, samples)
                await machine.start_server()
                await year.settle()
                print(await housekeeping(machine), await housekeeping(machine), sep="\n")
                found = await problems(year, kept.succeeded, kept.dead, kept.recorded)
                verified = (await machine.command("rebuild", "--verify")).strip()
                async with machine.sql() as sql:
                    ticks = await sql.fetch(
                        "SELECT workflow, status, count(*) FROM workflow_runs GROUP BY 1, 2 ORDER BY 1"
                    )
        except BaseException:
            print(machine.logs())
            raise
    show(
        [f"{days} days, kept: {kept}", ""],
        [
            ("jobs accounted for", f"{len(year.jobs):,}"),
            ("events recorded, runs begun", f"{year.events:,}, {year.runs:,}"),
            ("runs that are there", ", ".join(f"{r['workflow']} {r['count']} {r['status']}" for r in ticks)),
            ("answers other than expected", str(unexpected)),
            ("partitions, at each round of housekeeping", str(dict(sorted(partitions.items())))),
            ("rebuild --verify", verified),
            ("lost, wrong or left behind", "\n".join(found) or "nothing"),
            ("took", f"{time.monotonic() - began:.0f} s"),
        ],
    )
    return not found


async def _happenings(year: Year) -> None:
    machine, day = year.machine, year.day
    if day == _EARLY:
        await machine.kill("server")
        await _copy(machine)
        await machine.start_server()
    elif day in OFF:
        await year.restart(lambda: machine.clock.move(OFF[day] * _DAY))
    elif day in ASLEEP:
        await machine.sleep(ASLEEP[day] * _DAY)
        await ready(machine)
    elif day in JUMP:
        machine.clock.move(JUMP[day] * _DAY)
        await year.live(1)
        machine.clock.move(-JUMP[day] * _DAY)
    elif day % KILLED == 0:
        await year.restart()


async def _copy(machine: Machine) -> None:
    async with machine.sql_on("postgres") as sql:

        async def is_alone() -> bool:
            return not await sql.fetchval("SELECT count(*) FROM pg_stat_activity WHERE datname = 'year'")

        await until(is_alone, within=30)
        await sql.execute("CREATE DATABASE early TEMPLATE year")


async def _compare(machine: Machine, days: int, samples: int) -> None:
    early = with_database(machine.dsn, "early")
    for dsn in (early, machine.dsn):
        await looks.vacuum(dsn)
    then, now = await looks.seconds([early, machine.dsn], samples)
    locks_then, locks_now = await looks.locks(early), await looks.locks(machine.dsn)
    show(
        ["look", f"ms at day {_EARLY}", f"ms at day {days}", "ratio", "locks then", "locks now"],
        [
            (n, f"{then[n] * 1e3:.2f}", f"{now[n] * 1e3:.2f}", f"{now[n] / then[n]:.2f}", locks_then[n], locks_now[n])
            for n in then
        ],
        title="the database as it was then, and as it is now, on one cluster; medians of samples in turn",
    )
