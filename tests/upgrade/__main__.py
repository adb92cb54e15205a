"""`python -m tests.upgrade --jobs 5000000`: the rolling upgrade of a big database, with what each step costs."""

import argparse
import asyncio
import time

from tests.chaos.fleet import SEED

from .previous import NoPreviousVersion, python_of_previous
from .story import MIGRATION, a_story

LONGEST_WAIT = 1.0
"""Seconds that a writer may wait for a migration (§16)."""


async def main(jobs: int, days: int, hold: float) -> None:
    """Print the table; end with 1 if somebody has met an error, or a writer has waited too long."""
    began = time.monotonic()
    async with a_story(python_of_previous(), SEED, jobs=jobs, days=days, durable=True) as story:
        print(f"seed {SEED}: {jobs:,} jobs on {days} days were made in {time.monotonic() - began:.0f} s", flush=True)
        try:
            await story.upgrade(hold)
        finally:
            print(story.table(), flush=True)
    [migration] = (step for step in story.balancer.steps if step.name == MIGRATION)
    if (longest := migration.longest_of("enqueue")) > LONGEST_WAIT:
        raise SystemExit(f"a writer waited {longest:.2f} s for the migration")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=5_000_000, help="jobs that are there before the upgrade")
    parser.add_argument("--days", type=int, default=50, help="the days that they are spread over")
    parser.add_argument("--hold", type=float, default=15, help="seconds that each step lasts at least")
    given = parser.parse_args()
    try:
        asyncio.run(main(given.jobs, given.days, given.hold))
    except NoPreviousVersion as error:
        raise SystemExit(str(error)) from None
