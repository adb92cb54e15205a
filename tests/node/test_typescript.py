"""The TypeScript worker: its own tests, its package, the protocol's rules, and a real server."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Server, bearer, until
from tests.node.conftest import NEEDS_NODE

pytestmark = NEEDS_NODE
SOURCE = Path(__file__).parents[2] / "clients" / "typescript"

_APPLICATION = """
import { setTimeout as sleep } from "node:timers/promises";
import { createWorker } from "atomo-gql-worker";

await createWorker({ queues: ["q"], concurrency: 50, waitSecs: 5, drainSecs: 1, handleSignals: true })
  .on("double", async (ctx) => {
    await ctx.progress({ percent: 0.5, message: "half" });
    return ctx.job.payload.n * 2;
  })
  .on("text", (ctx) => ({ cut: "\\ud83d\\ude00".slice(0, 1), kept: "\\\\ud800" }))
  .on("thrown", () => { throw new Error("\\ud83d\\ude00".slice(1)); })
  .on("deep", () => JSON.parse("[".repeat(3000) + "]".repeat(3000)))
  .on("big", () => "x".repeat(17_500_000))
  .on("forever", (ctx) => sleep(600_000, undefined, { signal: ctx.signal }))
  .start();
"""


def _npm(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["npm", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, with what its lock names, built."""
    folder = tmp_path_factory.mktemp("typescript") / "client"
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("node_modules", "dist"))
    _npm(folder, "ci", "--silent")
    _npm(folder, "run", "--silent", "build")
    return folder


def test_its_parts(client: Path) -> None:
    assert "fail 0" in _npm(client, "test")


async def test_it_keeps_every_rule(client: Path) -> None:
    kit = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "atomo_gql", "conformance-worker", "--json", "--", "node", "conformance-worker.mjs"),
        cwd=client,
        env={**os.environ, "PYTHONPATH": str(SOURCE.parents[1])},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await kit.communicate()
    assert [f for f in json.loads(out) if f["verdict"] != "kept"] == []


async def test_its_package_works_on_a_real_server(client: Path, server: Server, tmp_path: Path) -> None:
    packed = client / _npm(client, "pack", "--silent").split()[-1]
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "application.mjs").write_text(_APPLICATION)
    _npm(tmp_path, "install", "--silent", "--offline", str(packed))
    minted = await server.mint("q")
    jobs = [{"queue": "q", "kind": "double", "payload": {"n": n}} for n in range(300)]
    _, made = await server.call("POST", "/jobs/batch", {"jobs": jobs}, headers=bearer())
    kept = await server.enqueue(kind="forever")
    odd = await server.enqueue(kind="unheard of")
    hard = {kind: await server.enqueue(kind=kind, maxAttempts=1) for kind in ("text", "thrown", "deep", "big")}
    process = await asyncio.create_subprocess_exec(
        *("node", "application.mjs"),
        cwd=tmp_path,
        env={**os.environ, "ATOMO_URL": server.url, "ATOMO_WORKER_TOKEN": minted.token},
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        last = made["jobs"][-1]["id"]

        async def done() -> bool:
            states = [(await server.job(job_id))["status"] for job_id in (last, kept, odd)]
            return states == ["succeeded", "leased", "dead"]

        await until(done)
        found = [await server.job(job["id"]) for job in made["jobs"]]
        assert [job["result"] for job in found] == [2 * n for n in range(300)]
        assert {job["attempts"] for job in found} == {1}

        async def judged() -> bool:
            return all([(await server.job(job_id))["finishedAt"] for job_id in hard.values()])

        await until(judged)
        text, thrown, deep, big = [await server.job(job_id) for job_id in hard.values()]
        assert text["result"] == {"cut": "\\ud83d", "kept": "\\ud800"}
        assert thrown["error"].startswith("Error: \\ude00")
        assert "the server refused the complete: 400" in deep["error"]
        assert "the server refused the complete: 413" in big["error"]
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0
        handed = await server.job(kept)
        assert (handed["status"], handed["attempts"], handed["deliveries"]) == ("queued", 0, 1)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
