"""`atomo-gql worker MODULE:NAME`: signals, targets, and a machine without the server's packages."""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Server, until
from tests.worker.helpers import process, reached

BLOCKED = "asyncpg strawberry starlette jwt broadcaster uvicorn websockets structlog prometheus_client"


async def test_sigterm_lets_what_runs_finish_and_leases_no_more(server: Server, tmp_path: Path) -> None:
    minted = await server.mint("q")
    async with process(minted, tmp_path) as worker:
        job_id = await server.enqueue("q", "told")
        assert await worker.says() == "told"
        worker.process.send_signal(signal.SIGTERM)
        await _has_stopped_asking(server)
        late = await server.enqueue("q", "told")
        worker.tell("finished")
        status, log = await worker.end()
    assert status == 0, log
    done, left = await server.job(job_id), await server.job(late)
    assert (done["status"], done["result"], done["attempts"]) == ("succeeded", "finished", 1)
    assert (left["status"], left["attempts"]) == ("queued", 0)
    assert "SIGTERM: stopping" in log
    assert minted.token not in log


async def test_what_does_not_finish_in_time_is_handed_back_and_costs_no_attempt(server: Server, tmp_path: Path) -> None:
    async with process(await server.mint("q"), tmp_path, drain=0.2) as worker:
        job_id = await server.enqueue("q", "forever")
        assert await worker.says() == "forever"
        assert (await server.job(job_id))["attempts"] == 1
        worker.process.send_signal(signal.SIGTERM)
        status, log = await worker.end()
    assert status == 0, log
    job = await server.job(job_id)
    assert (job["status"], job["attempts"], job["error"]) == ("queued", 0, None)
    assert f"forever {job_id} handed back" in log


async def test_a_handler_that_is_deaf_to_its_cancellation_holds_up_neither_its_job_nor_the_process(
    server: Server, tmp_path: Path
) -> None:
    async with process(await server.mint("q"), tmp_path, drain=0.2) as worker:
        job_id = await server.enqueue("q", "deaf")
        assert await worker.says() == "deaf"
        worker.process.send_signal(signal.SIGTERM)
        status, log = await worker.end()
    assert status == 0, log
    job = await server.job(job_id)
    assert (job["status"], job["attempts"]) == ("queued", 0)
    assert f"deaf {job_id} its handler goes on though it was cancelled" in log


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_hands_back_at_once(server: Server, tmp_path: Path, second: signal.Signals) -> None:
    async with process(await server.mint("q"), tmp_path, drain=3_600) as worker:
        job_id = await server.enqueue("q", "forever")
        assert await worker.says() == "forever"
        worker.process.send_signal(signal.SIGINT if second is signal.SIGTERM else signal.SIGTERM)
        await _has_stopped_asking(server)
        worker.process.send_signal(second)
        status, log = await worker.end()
    assert status == 0, log
    job = await server.job(job_id)
    assert (job["status"], job["attempts"]) == ("queued", 0)


async def test_a_job_is_done_where_the_server_s_packages_are_not_installed(server: Server, tmp_path: Path) -> None:
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({BLOCKED.split()}))\n"
        "from atomo_gql.cli import main\nmain(['worker', 'handlers:worker'])"
    )
    async with process(await server.mint("q"), tmp_path, "-c", code) as worker:
        job_id = await server.enqueue("q", "told")
        assert await worker.says() == "told"
        worker.tell("here")
        assert (await reached(server, job_id, "succeeded"))["result"] == "here"
        worker.process.send_signal(signal.SIGTERM)
        status, log = await worker.end()
    assert status == 0, log


async def test_a_token_that_is_not_good_ends_the_process_with_the_reason(server: Server, tmp_path: Path) -> None:
    minted = await server.mint("q")
    minted.token = f"wkr_{'x' * 43}"
    async with process(minted, tmp_path) as worker:
        status, log = await worker.end()
    assert status == 1
    assert log.splitlines()[-1] == (
        f"Error: the worker's token is wrong or was revoked: {server.url} answered "
        "401 the worker token is unknown, revoked or expired"
    )
    assert minted.token not in log


@pytest.mark.parametrize(
    ("target", "module", "status", "message"),
    [
        ("handlers", "", 2, "write MODULE:NAME, as in pipeline:worker"),
        (":worker", "", 2, "write MODULE:NAME, as in pipeline:worker"),
        ("absent:worker", "", 1, "Error: there is no module absent here or on the Python path"),
        ("handlers.absent:worker", "", 1, "Error: there is no module handlers.absent here or on the Python path"),
        ("handlers:absent", "", 1, "Error: the module handlers has no absent"),
        ("handlers:worker", "worker = 5", 1, "Error: handlers:worker is a int, not a Worker"),
        ("handlers:worker", "import absent_too", 1, "ModuleNotFoundError: No module named 'absent_too'"),
        (
            "handlers:worker",
            "from atomo_gql.worker import Worker\nworker = Worker(queues=[])",
            1,
            "Error: queues must name at least one queue",
        ),
    ],
)
async def test_a_bad_target_is_said_to_be_bad(
    server: Server, tmp_path: Path, target: str, module: str, status: int, message: str
) -> None:
    minted = await server.mint("q")
    async with process(minted, tmp_path, "-m", "atomo_gql", "worker", target, module=module) as worker:
        ended, log = await worker.end()
    assert (ended, message in log) == (status, True), log


async def _has_stopped_asking(server: Server) -> None:
    """The worker has hung up its long poll."""

    async def is_empty() -> Any:
        return len(server.application.services.leases.room) == 0

    await until(is_empty)


_VERSION = """
from atomo_gql.worker import Worker

worker = Worker(queues=["q"], wait=5)

@worker.on("version")
async def version(ctx):
    return {version}
"""


async def test_a_changed_file_is_taken_up(server: Server, tmp_path: Path) -> None:
    arguments = ("-m", "atomo_gql", "worker", "handlers:worker", "--reload")
    first = _VERSION.replace("{version}", "1")
    async with process(await server.mint("q"), tmp_path, *arguments, module=first) as worker:
        assert (await reached(server, await server.enqueue("q", "version"), "succeeded"))["result"] == 1
        (tmp_path / "handlers.py").write_text(_VERSION.replace("{version}", "2  # changed"))

        async def is_new() -> bool:
            job = await reached(server, await server.enqueue("q", "version"), "succeeded")
            return bool(job["result"] == 2)

        await until(is_new)
        worker.process.send_signal(signal.SIGINT)
        status, log = await worker.end()
    assert "handlers.py changed: starting anew" in log
    assert status == 0, log
