"""What keeps a CPU busy runs in a process of its own, which neither outlives its attempt nor becomes a worker."""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

from atomo_gql.worker import JobContext, Worker
from atomo_gql.worker.testing import run_handler
from tests.conftest import Server, until
from tests.worker.helpers import reached


def _worker() -> Worker:
    return Worker(url="http://127.0.0.1:1", token="wkr_x", queues=["q"])


def _square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def _fail(text: str) -> None:
    raise LookupError(text)


class Custom(Exception):
    def __init__(self, code: int, what: str) -> None:
        super().__init__(f"{code}: {what}")


def _fail_oddly() -> None:
    raise Custom(7, "cannot be made again")


def _length(text: str) -> str:
    return text + text


def _spin(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    while True:
        pass


async def test_what_keeps_a_cpu_busy_runs_in_a_process_that_is_kept() -> None:
    worker = _worker()

    @worker.on("k")
    async def handler(ctx: JobContext) -> Any:
        return [await ctx.run_in_process(_square, n) for n in (2, 3)]

    ran = await run_handler(worker, "k")
    (four, first), (nine, second) = ran.result
    assert (four, nine) == (4, 9)
    assert first == second != os.getpid()


async def test_what_a_process_raises_is_raised_here_with_its_traceback() -> None:
    worker = _worker()

    @worker.on("k")
    async def handler(ctx: JobContext) -> None:
        await ctx.run_in_process(_fail, "not there")

    @worker.on("unfit")
    async def unfit(ctx: JobContext) -> None:
        await ctx.run_in_process(lambda: None)

    ran = await run_handler(worker, "k")
    assert ran.error is not None
    assert ran.error.startswith("LookupError: not there")
    assert "in _fail" in ran.error
    ran = await run_handler(worker, "unfit")
    assert ran.error is not None
    assert "run_in_process needs a function of a module" in ran.error


async def test_what_cannot_be_made_again_is_told_by_its_text() -> None:
    worker = _worker()

    @worker.on("k")
    async def handler(ctx: JobContext) -> None:
        await ctx.run_in_process(_fail_oddly)

    ran = await run_handler(worker, "k")
    assert ran.error is not None
    assert ran.error.startswith("RuntimeError: Custom: 7: cannot be made again")


async def test_a_long_argument_does_not_hold_up_the_event_loop() -> None:
    worker, late = _worker(), [0.0]

    async def tick() -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0.01)
            late[0] = max(late[0], loop.time() - before - 0.01)

    @worker.on("k")
    async def handler(ctx: JobContext) -> int:
        return len(await ctx.run_in_process(_length, "x" * 5_000_000))

    ticking = asyncio.create_task(tick())
    began = time.monotonic()
    assert (await run_handler(worker, "k")).result == 10_000_000
    ticking.cancel()
    assert late[0] < (time.monotonic() - began) / 2, "the loop went on meanwhile"


async def test_a_script_without_a_guard_does_not_become_two_workers(server: Server, tmp_path: Any) -> None:
    minted = await server.mint("q")
    script = tmp_path / "script.py"
    script.write_text(
        "from atomo_gql.worker import Worker\n"
        "worker = Worker(queues=['q'], wait=1)\n"
        "def square(n): return n * n\n"
        "@worker.on('k')\n"
        "async def handler(ctx): return await ctx.run_in_process(square, 3)\n"
        "worker.run()\n"
    )
    job_id = await server.enqueue(maxAttempts=1)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(script)),
        env={"ATOMO_URL": server.url, "ATOMO_WORKER_TOKEN": minted.token},
        stderr=asyncio.subprocess.PIPE,
    )
    job = await reached(server, job_id, "dead")
    process.terminate()
    _, err = await process.communicate()
    assert 'put worker.run() behind `if __name__ == "__main__":`' in job["error"]
    assert err.decode().count("started:") == 1


async def test_a_process_dies_with_its_attempt(tmp_path: Any) -> None:
    worker = _worker()
    told = tmp_path / "pid"

    @worker.on("k")
    async def handler(ctx: JobContext) -> None:
        await ctx.run_in_process(_spin, str(told))

    def has_started() -> bool:
        return told.exists() and bool(told.read_text())

    async def ended() -> bool:
        try:
            os.kill(int(told.read_text()), 0)
        except ProcessLookupError:
            return True
        return False

    for seconds in (5, 20, 80):  # a busy machine may take as long to start a process
        ran = await run_handler(worker, "k", timeout_secs=seconds)
        assert (ran.outcome, ran.retryable) == ("fail", True)
        assert ran.error == f"timed out after {seconds} s"
        if has_started():
            break
    await until(ended)
