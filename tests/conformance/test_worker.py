"""The kit passes on good workers, and finds what is wrong with broken ones."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from atomo_gql.conformance.worker import WORKER

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

BROKEN = {
    "token in the URL": "W1",
    "drops results": "W2",
    "never retryable": "W3",
    "retries the unknown": "W4",
    "no limit": "W5",
    "no heartbeat": "W6",
    "deaf to 409": "W7",
    "new request id": "W8",
    "tries once": "W9",
    "fails after 409": "W10",
    "stops at 413": "W11",
    "hot loop": "W12",
    "leaves its jobs": "W18",
}


async def _findings(*command: str, only: str | None = None, **environment: str) -> tuple[int | None, list[Any]]:
    chosen = () if only is None else ("--only", only)
    kit = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "atomo_gql", "conformance-worker", "--json", *chosen, "--", *command),
        env={**os.environ, **environment},
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await kit.communicate()
    return kit.returncode, json.loads(out)


@pytest.mark.parametrize(
    "command",
    [("-m", "tests.conformance.sdk_worker"), ("-m", "tests.conformance.simple_worker")],
    ids=["the SDK", "a simple one"],
)
async def test_a_good_worker_keeps_every_rule(command: tuple[str, ...]) -> None:
    status, found = await _findings(sys.executable, *command)
    assert [f for f in found if f["verdict"] != "kept"] == []
    assert len(found) == len(WORKER.rules)
    assert status == 0


@pytest.mark.parametrize("bug", BROKEN)
async def test_a_broken_worker_is_found_out(bug: str) -> None:
    status, found = await _findings(sys.executable, "-m", "tests.conformance.simple_worker", only=BROKEN[bug], BUG=bug)
    [finding] = found
    assert finding["verdict"] == "broken", finding
    assert finding["detail"]
    assert status == 1
