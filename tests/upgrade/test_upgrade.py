"""One version replaces the other and is replaced by it, under load of every kind: no client sees an error."""

import os
from pathlib import Path

import pytest

from tests.chaos.fleet import SEED

from .previous import NoPreviousVersion, python_of_previous
from .story import a_story

pytestmark = [pytest.mark.upgrade, pytest.mark.timeout(420)]

LONGEST_WAIT = 5.0  # seconds of a writer; a machine that does something else besides is no fault of a migration
KINDS = 20  # of load, at least


@pytest.fixture(scope="module")
def previous() -> Path:
    """The interpreter that runs the previous version."""
    try:
        return python_of_previous()
    except NoPreviousVersion as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


async def test_two_versions_replace_each_other_and_nobody_notices(previous: Path) -> None:
    async with a_story(previous, SEED, jobs=5_000, days=5, durable=False) as story:
        try:
            await story.upgrade(hold=5)
        finally:
            print(f"seed {SEED}\n{story.table()}")
    under_load = story.balancer.steps[2:-2]
    assert min(len(step.calls) for step in under_load) > KINDS, "a kind of load stood still"
    assert max(step.longest_of("enqueue by SQL") for step in under_load) < LONGEST_WAIT
