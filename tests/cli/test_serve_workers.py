"""`serve --workers`: several processes on one port, which live and end as one."""

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest

from atomo_gql.cli.host import listen
from atomo_gql.settings import Settings
from tests.cli.signalled import signalled_to_its_end
from tests.conftest import SECRET, admin, bearer, until
from tests.embedded.helpers import ended

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches processes as Linux shows them")

_GRACE_IS_OVER = "timeout graceful shutdown exceeded"  # as uvicorn says when it has waited for GRACE_SECS
_OUT_OF_REACH = "redis://127.0.0.1:1"


@dataclasses.dataclass
class Service:
    """`atomo-gql serve --workers 2`, and what it wrote."""

    process: asyncio.subprocess.Process
    log: Path
    url: str = ""

    def children(self) -> list[int]:
        """The server processes, whoever else this one may have started."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        pids = (int(pid) for task in tasks for pid in task.read_text().split())
        return [pid for pid in pids if "supervised" in _command_of(pid)]

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[str, Any]:
        """On a connection of its own: which process answered, and what."""
        async with (
            aiohttp.ClientSession() as http,
            http.request(method, self.url + path, json=body, headers=headers) as answer,
        ):
            assert answer.status < 300, await answer.text()
            is_json = answer.content_type == "application/json"
            return _answerer(answer), await answer.json() if is_json else await answer.text()

    async def both(self, method: str, path: str, body: Any = None, **headers: str) -> dict[str, Any]:
        """Ask until both processes have answered; the last answer of each."""
        answers: dict[str, Any] = {}

        async def have_answered() -> bool:
            answers.update([await self.ask(method, path, body, **headers)])
            return len(answers) == 2

        await until(have_answered)
        return answers

    async def wrote(self, pattern: str) -> re.Match[str]:
        """Wait for a line of the log."""

        async def look() -> re.Match[str] | None:
            found = re.search(pattern, self.log.read_text())
            assert found or self.process.returncode is None, self.log.read_text()
            return found

        found: re.Match[str] = await until(look)
        return found


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:  # it has just ended
        return ""


def _answerer(answer: aiohttp.ClientResponse) -> str:
    return answer.headers["X-Request-Id"].partition("-")[0]


def _metric(text: str, name: str) -> float:
    return float(re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)[0])


@contextlib.asynccontextmanager
async def _service(folder: Path, *arguments: str, **environment: str) -> AsyncIterator[Service]:
    """Started, but not waited for."""
    kept = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    log = folder / "log"
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "atomo_gql", "serve", "--port", "0", *arguments),
            env={**kept, "JWT_SECRET": SECRET, "ATOMO_DATA_DIR": str(folder / "data"), **environment},
            stdout=out,
            stderr=out,
        )
    try:
        yield Service(process, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@pytest.fixture
async def service(dsn: str, tmp_path: Path) -> AsyncIterator[Service]:
    """Two processes that serve the test's database."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    async with _service(tmp_path, "--workers", "2", DATABASE_URL=dsn, TMPDIR=str(temporary)) as service:
        service.url = (await service.wrote(r"listening on (\S+) with 2 processes"))[1]
        yield service


async def _refused(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """The status and the words of a service that does not start."""
    async with _service(folder, *arguments, **environment) as service, asyncio.timeout(240):
        return await service.process.wait(), service.log.read_text()


async def test_jobs_go_through_both_processes_and_each_tells_the_metrics_of_all(service: Service) -> None:
    _, worker = await service.ask("POST", "/jobs/workers", {"name": "w", "queues": ["q"]}, **admin())
    token = {"X-Worker-Token": worker["token"]}
    enqueued: set[str] = set()
    answerers: set[str] = set()
    while len(answerers) < 2 or len(enqueued) < 10:
        answerer, job = await service.ask("POST", "/jobs", {"queue": "q", "kind": "k"}, **bearer())
        enqueued.add(job["id"])
        answerers.add(answerer)
        assert len(enqueued) < 200, "one process gets everything"

    done: set[str] = set()
    while len(done) < len(enqueued):
        _, leased = await service.ask("POST", "/jobs/lease", {"queues": ["q"], "max": 1, "waitSecs": 5}, **token)
        for job in leased["jobs"]:
            await service.ask("POST", f"/jobs/{job['id']}/complete", {"leaseId": job["leaseId"]}, **token)
            done.add(job["id"])

    assert done == enqueued
    for text in (await service.both("GET", "/metrics")).values():
        assert _metric(text, "atomo_jobs_enqueued_total") == len(enqueued)
        assert _metric(text, "atomo_jobs_succeeded_total") == len(enqueued)
        assert _metric(text, "atomo_watchers") == 0
    assert service.log.read_text().count("listening on") == 1


async def test_a_watcher_at_one_process_sees_progress_reported_to_the_other(service: Service) -> None:
    _, worker = await service.ask("POST", "/jobs/workers", {"name": "w", "queues": ["q"]}, **admin())
    token = {"X-Worker-Token": worker["token"]}
    await service.ask("POST", "/jobs", {"queue": "q", "kind": "k"}, **bearer())
    _, leased = await service.ask("POST", "/jobs/lease", {"queues": ["q"]}, **token)
    [job] = leased["jobs"]
    heard: set[str] = set()
    told: set[str] = set()

    async def tell_the_other() -> bool:
        message = f"word {len(told)}"
        body = {"leaseId": job["leaseId"], "message": message}
        if (await service.ask("POST", f"/jobs/{job['id']}/progress", body, **token))[0] != watched_at:
            told.add(message)
        return bool(told & heard)

    async def listen_to(answer: aiohttp.ClientResponse) -> None:
        async for line in answer.content:
            if line.startswith(b"data: {"):
                heard.add(json.loads(line[6:])["data"]["jobProgress"]["message"])

    query = f'subscription {{ jobProgress(id: "{job["id"]}") {{ message }} }}'
    headers = {**bearer(), "Accept": "text/event-stream"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{service.url}/graphql", json={"query": query}, headers=headers) as answer,
    ):
        watched_at = _answerer(answer)
        listening = asyncio.create_task(listen_to(answer))
        await until(tell_the_other)
        listening.cancel()


async def test_a_killed_process_is_followed_by_another_while_the_rest_serves(service: Service) -> None:
    await service.both("POST", "/jobs", {"queue": "q", "kind": "k"}, **bearer())
    _, before = await service.ask("GET", "/metrics")
    victim, survivor = service.children()

    os.kill(victim, signal.SIGKILL)
    await service.wrote(rf"server \d: process {victim} has ended \(signal SIGKILL\); starting it again")
    await service.ask("POST", "/jobs", {"queue": "q", "kind": "k"}, **bearer())

    for text in (await service.both("GET", "/metrics")).values():
        assert _metric(text, "atomo_jobs_enqueued_total") == _metric(before, "atomo_jobs_enqueued_total") + 1
    assert survivor in service.children()
    assert victim not in service.children()


async def test_when_their_parent_is_killed_all_end_and_the_port_is_free(service: Service, tmp_path: Path) -> None:
    children = service.children()
    port = int(service.url.rpartition(":")[2])
    assert len(children) == 2

    service.process.kill()
    await service.process.wait()

    async with asyncio.timeout(60):
        await asyncio.gather(*map(ended, children))
    listen(Settings(port=port)).close()
    assert list((tmp_path / "tmp").iterdir()) == []


async def test_a_parent_that_dies_while_they_start_leaves_nobody_behind(dsn: str, tmp_path: Path) -> None:
    async with _service(tmp_path, "--workers", "2", DATABASE_URL=dsn, TMPDIR=str(tmp_path)) as service:

        async def have_begun() -> list[int]:
            return service.children()

        children = await until(have_begun)
        service.process.kill()
        async with asyncio.timeout(60):
            await asyncio.gather(*map(ended, children))


async def test_sigterm_finishes_what_is_under_way_and_ends_with_0(service: Service, tmp_path: Path) -> None:
    _, worker = await service.ask("POST", "/jobs/workers", {"name": "w", "queues": ["q"]}, **admin())
    polls = [
        asyncio.create_task(
            service.ask("POST", "/jobs/lease", {"queues": ["q"], "waitSecs": 30}, **{"X-Worker-Token": worker["token"]})
        )
        for _ in range(4)
    ]

    async def all_wait() -> bool:
        return _metric((await service.ask("GET", "/metrics"))[1], "atomo_long_polls") == len(polls)

    await until(all_wait)
    children = service.children()
    service.process.terminate()

    assert [answer["jobs"] for _, answer in await asyncio.gather(*polls)] == [[]] * len(polls)
    async with asyncio.timeout(60):
        assert await service.process.wait() == 0
        await asyncio.gather(*map(ended, children))
    assert list((tmp_path / "tmp").iterdir()) == []
    assert "Traceback" not in service.log.read_text()


async def test_a_second_signal_ends_what_the_first_waits_for(service: Service) -> None:
    async with _half_a_request(service):
        await service.both("GET", "/healthz")  # it has been read, for connections are taken in turn
        children = service.children()

        service.process.terminate()
        await until(lambda: _are_at_most(1, service))
        service.process.terminate()

        async with asyncio.timeout(60):
            assert await service.process.wait() == 0
            await asyncio.gather(*map(ended, children))
    assert _GRACE_IS_OVER not in service.log.read_text()


async def test_a_second_signal_ends_a_single_process_in_order(dsn: str, tmp_path: Path) -> None:
    async with _service(tmp_path, DATABASE_URL=dsn) as service:
        service.url = (await service.wrote(r"listening on (\S+)"))[1]
        async with _half_a_request(service) as reader:
            await service.ask("GET", "/healthz")
            assert await signalled_to_its_end(service.process, signal.SIGTERM) == 0
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
    assert "Traceback" not in service.log.read_text()
    assert _GRACE_IS_OVER not in service.log.read_text()


@contextlib.asynccontextmanager
async def _half_a_request(service: Service) -> AsyncIterator[asyncio.StreamReader]:
    """A request whose body the server waits for."""
    host, port = service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = "POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n"
    writer.write(f"{head}Authorization: {bearer()['Authorization']}\r\n\r\n".encode())
    try:
        yield reader
    finally:
        writer.close()


async def _are_at_most(most: int, service: Service) -> bool:
    return len(service.children()) <= most


async def test_the_embedded_postgresql_ends_after_them_at_ctrl_c(tmp_path: Path) -> None:
    async with _service(tmp_path, ATOMO_WORKERS="2") as service:
        await service.wrote("listening on")
        postmaster = int((await service.wrote(r"PostgreSQL is ready on \S+ \(pid (\d+)\)"))[1])
        service.process.send_signal(signal.SIGINT)
        assert await service.process.wait() == 0
        await ended(postmaster)
        assert "Traceback" not in service.log.read_text()


async def test_processes_that_never_come_up_end_the_service_with_1(service: Service, cluster: str, dsn: str) -> None:
    closed = await asyncpg.connect(cluster)
    await closed.execute(f"ALTER DATABASE {urlsplit(dsn).path[1:]} ALLOW_CONNECTIONS false")
    await closed.close()
    for child in service.children():
        os.kill(child, signal.SIGKILL)
    async with asyncio.timeout(60):
        status = await service.process.wait()
    log = service.log.read_text()

    assert status == 1
    assert "starting it again" in log
    assert "is not currently accepting connections" in log
    assert "Error: the server processes do not stay up" in log
    assert "Traceback" not in log


async def test_a_redis_that_is_away_is_no_reason_not_to_start(dsn: str, tmp_path: Path) -> None:
    async with _service(tmp_path, "--workers", "2", DATABASE_URL=dsn, ATOMO_BROADCAST_URL=_OUT_OF_REACH) as service:
        await service.wrote(r"listening on (\S+) with 2 processes")
        assert service.log.read_text().count("Redis (ATOMO_BROADCAST_URL) is away") == 2, "one line each"
        assert "Traceback" not in service.log.read_text()


async def test_settings_that_came_from_files_are_read_once_for_all_processes(dsn: str, tmp_path: Path) -> None:
    (tmp_path / "url").write_text(dsn + "\n")
    pipe = tmp_path / "pipe"  # whoever opens it a second time waits for ever
    os.mkfifo(pipe)
    writing = asyncio.create_task(asyncio.to_thread(pipe.write_text, SECRET))
    environment = {"DATABASE_URL_FILE": str(tmp_path / "url"), "JWT_SECRET_FILE": str(pipe), "JWT_SECRET": ""}
    async with _service(tmp_path, "--workers", "2", **environment) as service:
        await writing
        service.url = (await service.wrote(r"listening on (\S+) with 2 processes"))[1]
        (tmp_path / "url").unlink()
        for child in service.children():
            os.kill(child, signal.SIGKILL)
            await service.wrote(f"process {child} has ended")
        await service.both("POST", "/jobs", {"queue": "q", "kind": "k"}, **bearer())
        for child in service.children():
            assert SECRET not in Path(f"/proc/{child}/environ").read_text()


@pytest.mark.parametrize(
    ("arguments", "environment", "reason"),
    [
        (["--workers", "0"], {}, "Invalid value for '--workers': 0 is not in the range 1<=x<=256"),
        ([], {"ATOMO_WORKERS": "x"}, "ATOMO_WORKERS must be a whole number from 1 to 256"),
        (["--workers", "2"], {"ATOMO_BROADCAST_URL": "memory://"}, "memory:// is for one process alone"),
    ],
)
async def test_what_cannot_be_is_refused_with_the_reason(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], reason: str
) -> None:
    status, log = await _refused(tmp_path, *arguments, **environment)

    assert status in (1, 2)
    assert reason in log


async def test_more_connections_than_the_database_allows_are_warned_of(dsn: str, tmp_path: Path) -> None:
    async with _service(tmp_path, "--workers", "2", DATABASE_URL=dsn, ATOMO_POOL_SIZE="999") as service:
        await service.wrote("2 processes may want 2000 connections")
