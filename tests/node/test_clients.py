"""The GraphQL clients of npm, against a server that listens."""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server, token

HERE = Path(__file__).parent
MISSING = [name for name in ("node", "npm") if shutil.which(name) is None]

pytestmark = [
    pytest.mark.node,
    # CI installs what is missing, and skips nothing.
    pytest.mark.skipif(
        bool(MISSING) and not os.environ.get("CI"), reason=f"needs Node.js: {' and '.join(MISSING)} missing"
    ),
]


@pytest.fixture(scope="session")
def packages() -> None:
    """What package-lock.json names."""
    stamp = HERE / "node_modules" / ".package-lock.json"
    if not stamp.exists() or stamp.stat().st_mtime < (HERE / "package-lock.json").stat().st_mtime:
        done = subprocess.run(["npm", "ci", "--silent"], cwd=HERE, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("client", ["graphql-ws", "apollo"])
async def test_a_client_enqueues_and_watches_to_the_end(server: Server, packages: None, client: str) -> None:
    worker = await server.mint("media-gen")
    process = await asyncio.create_subprocess_exec(
        "node",
        f"{client}.mjs",
        server.url,
        token(),
        cwd=HERE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None

    async def line() -> Any:
        assert process.stdout is not None
        text = await asyncio.wait_for(process.stdout.readline(), 30)
        assert text, (await process.communicate())[1].decode()
        return json.loads(text)

    job_id = (await line())["id"]
    assert (await line())["status"] == "QUEUED"
    [job] = await worker.lease("media-gen")
    assert job["id"] == job_id
    await worker.report("progress", job, percent=0.5, message="half")
    while (update := await line())["percent"] != 0.5:
        assert update["status"] == "LEASED"
    assert update["message"] == "half"
    await worker.report("complete", job, result={"ok": True})
    end = await line()
    assert (end["status"], end["result"]) == ("SUCCEEDED", {"ok": True})
    _, err = await process.communicate()
    assert process.returncode == 0, err.decode()


def test_the_lock_file_names_no_host() -> None:
    assert '"resolved"' not in (HERE / "package-lock.json").read_text()
