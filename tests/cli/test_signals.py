"""A signal finds a handler from the start of a command to the end of its process."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cli.signalled import signalled_to_its_end
from tests.conftest import SECRET, Server, until
from tests.embedded.helpers import ended
from tests.worker.helpers import process as worker_process

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")

# Under nohup SIGHUP is ignored, by what is started here, too.
_HANGUP = getattr(signal, "SIGHUP", signal.SIGTERM)
if signal.getsignal(_HANGUP) is signal.SIG_IGN:
    _HANGUP = signal.SIGTERM
_ENDS = (signal.SIGTERM, signal.SIGINT, _HANGUP)
_SERVE = ("serve", "--port", "0")
_SERVE_TOGETHER = (*_SERVE, "--workers", "2")


class _Command:
    """`atomo-gql` with some arguments, and what it wrote."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log

    async def wrote(self, pattern: str) -> re.Match[str]:
        """Wait for a line."""

        async def look() -> re.Match[str] | None:
            found = re.search(pattern, self.log.read_text())
            assert found or self.process.returncode is None, self.log.read_text()
            return found

        found: re.Match[str] = await until(look, within=120)
        return found


@contextlib.asynccontextmanager
async def _command(folder: Path, *arguments: str, **environment: str) -> AsyncIterator[_Command]:
    kept = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    log = folder / "log"
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "atomo_gql", *arguments),
            cwd=folder,
            env={**kept, "JWT_SECRET": SECRET, "ATOMO_DATA_DIR": str(folder / "data"), **environment},
            stdout=out,
            stderr=out,
        )
    try:
        yield _Command(process, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 60)
        except TimeoutError:
            process.kill()
            raise


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (_SERVE, "listening on"),
        (_SERVE_TOGETHER, "listening on"),
        (("dev", "--port", "0"), "The service runs"),
    ],
    ids=["serve", "workers", "dev"],
)
async def test_what_is_told_again_and_again_ends_with_0(
    dsn: str, tmp_path: Path, arguments: tuple[str, ...], line: str
) -> None:
    async with _command(tmp_path, *arguments, DATABASE_URL=dsn) as command:
        await command.wrote(line)
        assert await signalled_to_its_end(command.process, *_ENDS) == 0, command.log.read_text()
    assert "Traceback" not in command.log.read_text()


async def test_a_worker_that_is_told_again_after_its_run_ends_with_0(server: Server, tmp_path: Path) -> None:
    async with worker_process(await server.mint("q"), tmp_path) as worker:
        await server.enqueue("q", "told")
        assert await worker.says() == "told"
        worker.tell("finished")
        worker.process.send_signal(signal.SIGTERM)
        log = b""
        assert worker.process.stderr is not None
        while b"stopped: " not in log:
            line = await asyncio.wait_for(worker.process.stderr.readline(), 60)
            assert line, log
            log += line
        assert await signalled_to_its_end(worker.process, signal.SIGTERM, signal.SIGINT) == 0, log


_TOLD_BEFORE_ITS_PROCESS = """
import os, pathlib, signal, sys
from atomo_gql.cli.reload import Reloader

class Told(Reloader):
    def _stamps(self):
        os.kill(os.getpid(), signal.SIGTERM)
        return super()._stamps()

sys.exit(Told([sys.executable, "-c", "import threading; threading.Event().wait()"], pathlib.Path.cwd()).run())
"""


async def test_a_reloader_that_is_told_before_its_process_is_there_ends_it(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _TOLD_BEFORE_ITS_PROCESS, cwd=tmp_path)
    try:
        assert await asyncio.wait_for(process.wait(), 60) == 128 + signal.SIGTERM
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize(
    ("arguments", "moment", "number"),
    [
        (_SERVE, "making an empty database", signal.SIGTERM),
        (_SERVE, "PostgreSQL is ready", _HANGUP),
        (_SERVE, "made schema", signal.SIGTERM),
        (_SERVE_TOGETHER, "PostgreSQL is ready", signal.SIGINT),
    ],
)
async def test_what_is_told_while_it_starts_ends_what_it_has_started(
    tmp_path: Path, arguments: tuple[str, ...], moment: str, number: signal.Signals
) -> None:
    async with _command(tmp_path, *arguments) as command:
        await command.wrote(moment)
        command.process.send_signal(number)
        status = await asyncio.wait_for(command.process.wait(), 60)
    log = command.log.read_text()
    assert status == (0 if "listening on" in log else 128 + number), log  # it may have listened just before
    assert "Traceback" not in log
    for pid in re.findall(r"PostgreSQL is ready on \S+ \(pid (\d+)\)", log):
        await ended(int(pid))
    assert not list((tmp_path / "data").glob("postgres/**/postmaster.pid"))
