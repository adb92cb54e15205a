"""A few days of a machine that is killed, off, asleep, and whose clock jumps: afterwards all is as it must be."""

import random
from datetime import timedelta

import pytest

from .account import problems
from .clock import library
from .four_hundred_days import Kept
from .machine import a_machine
from .year import Year, housekeeping, ready

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(library() is None, reason="libfaketime is not installed (apt-get install libfaketime)"),
]


async def test_days_off_asleep_and_astray_lose_nothing() -> None:
    kept = Kept(30, 60, 60)
    async with a_machine(timedelta(days=-1_000), ATOMO_JOB_RECLAIM_INTERVAL="0.2", **kept.environment) as machine:
        try:
            await machine.start_server()
            year = Year(machine, random.Random(5))
            async with year.living():
                await year.found()
                await year.live(2)
                await year.restart(lambda: machine.clock.move(timedelta(days=40)))
                await year.live(1)
                await machine.sleep(timedelta(days=7))
                await ready(machine)
                await year.live(1)
                machine.clock.move(timedelta(days=-2))
                await year.live(1)
                machine.clock.move(timedelta(days=90))
                await year.live(1)
                await year.settle(days=10)
                await housekeeping(machine)
                assert "0 differ" in await machine.command("rebuild", "--verify")
                assert await problems(year, 30, 60, 60) == []
        except BaseException:
            print(machine.logs())
            raise
