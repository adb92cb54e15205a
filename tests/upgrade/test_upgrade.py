"""One version replaces the other and is replaced by it, under load of every kind: no client sees an error."""

import os
from pathlib import Path

import aiohttp
import pytest

from tests.chaos.fleet import SEED
from tests.chaos.rig import a_folder
from tests.conftest import bearer

from .previous import NoPreviousVersion, python_of_previous
from .rig import TwoVersions
from .story import a_story

pytestmark = [pytest.mark.upgrade, pytest.mark.timeout(900)]

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
            await story.upgrade(hold=4)
        finally:
            print(f"seed {SEED}\n{story.table()}")
    under_load = story.balancer.steps[2:-2]
    assert min(len(step.calls) for step in under_load) > KINDS, "a kind of load stood still"
    assert max(step.longest_of("enqueue by SQL") for step in under_load) < LONGEST_WAIT


async def test_the_previous_version_serves_a_database_that_this_one_has_made(previous: Path) -> None:
    with a_folder() as folder:
        rig = TwoVersions(folder, previous)
        try:
            await rig.start_database(durable=False)
            assert "made schema atomo" in await rig.run("new", "migrate")
            await rig.serve("old")
            worker = {"X-Worker-Token": await rig.mint("q", server="old")}
            async with aiohttp.ClientSession(rig.url_of("old"), headers=bearer()) as http:
                async with http.post("/jobs", json={"queue": "q", "kind": "k"}) as answer:
                    assert answer.status == 201, await answer.text()
                async with http.post("/jobs/lease", json={"queues": ["q"], "waitSecs": 5}, headers=worker) as answer:
                    [job] = (await answer.json())["jobs"]
                report = {"leaseId": job["leaseId"]}
                async with http.post(f"/jobs/{job['id']}/complete", json=report, headers=worker) as answer:
                    assert answer.status == 204, await answer.text()
            for version in ("old", "new"):
                assert "1 jobs compared" in (told := await rig.run(version, "rebuild", "--verify"))
                assert ": 0 differ" in told
            await rig.drain("old")
            assert rig.troubles() == []
        finally:
            await rig.stop()
