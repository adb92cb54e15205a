"""The GraphQL clients of npm, against a server that listens."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server, token
from tests.node.conftest import HERE, NEEDS_NODE

pytestmark = [pytest.mark.node, NEEDS_NODE]


@pytest.mark.parametrize("client", ["graphql-ws", "apollo", "urql", "graphql-sse"])
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
        text = await asyncio.wait_for(process.stdout.readline(), 60)
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


def test_typed_documents_are_generated_from_the_schema(packages: None) -> None:
    for command in (["graphql-codegen", "--config", "typed/codegen.ts"], ["tsc", "-p", "typed/tsconfig.json"]):
        done = subprocess.run(["npx", *command], cwd=HERE, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("folder", [HERE, HERE.parents[1] / "web" / "graphiql"])
def test_a_lock_file_names_no_host(folder: Path) -> None:
    assert '"resolved"' not in (folder / "package-lock.json").read_text()
