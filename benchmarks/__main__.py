"""Rounds of every path and its references, interleaved; medians, and their ratios."""

import asyncio
import contextlib
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from atomo_gql.cli.host import database, migrated
from atomo_gql.cli.token import sign
from atomo_gql.domain.jobs import Lease
from atomo_gql.settings import Settings
from atomo_gql.store import enqueue, lease, report, tokens
from atomo_gql.store.database import Database
from atomo_gql.store.enqueue import EnqueueRow
from atomo_gql.store.lease import LeaseRow
from atomo_gql.store.report import Report
from benchmarks.load import measure, post

SECRET = "the benchmark's own secret, which is long enough"
CONNECTIONS = 32
# Each path, and what it is measured against in the same run.
AGAINST = {
    "REST enqueue, one by one": ("bare Starlette echo", "SQL enqueue in hundreds"),
    "GraphQL enqueueJob": ("bare Starlette echo", "SQL enqueue in hundreds"),
    "SDK lease + complete": ("bare Starlette echo", "SQL lease + complete in hundreds"),
}


def free_port() -> int:
    """A port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def process(*arguments: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python process for the length of the block."""
    made = await asyncio.create_subprocess_exec(sys.executable, *arguments, env={**os.environ, **environment})
    try:
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            made.terminate()
        await made.wait()


async def answering(port: int) -> None:
    """Return when somebody listens there."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(OSError):
                (await asyncio.open_connection("127.0.0.1", port))[1].close()
                return
            await asyncio.sleep(0.05)


class Bench:
    """The measurements, on a server of their own."""

    def __init__(self, db: Database, port: int, echo_port: int, jwt: str, scale: float) -> None:
        self.db, self.port, self.echo_port, self.jwt, self.scale = db, port, echo_port, jwt, scale

    def count(self, full: int) -> int:
        return max(200, int(full * self.scale))

    async def echo(self) -> float:
        body = orjson.dumps({"queue": "load", "kind": "noop", "payload": {"n": 1}})
        return await measure(self.echo_port, post("/jobs", body), self.count(20_000), CONNECTIONS, b"201")

    async def rest(self) -> float:
        body = orjson.dumps({"queue": "load", "kind": "noop", "payload": {"n": 1}})
        request = post("/jobs", body, authorization=f"Bearer {self.jwt}")
        return await measure(self.port, request, self.count(20_000), CONNECTIONS, b"201")

    async def graphql(self) -> float:
        query = 'mutation { enqueueJob(queue: "load", kind: "noop", payload: {n: 1}) }'
        request = post("/graphql", orjson.dumps({"query": query}), authorization=f"Bearer {self.jwt}")
        return await measure(self.port, request, self.count(5_000), CONNECTIONS, b"200")

    async def sql_enqueue(self, queue: str = "load", jobs: int = 20_000) -> float:
        row = EnqueueRow("", queue, "noop", b'{"n":1}', None, 5, 0, None, "user:bench", None)
        count, began = self.count(jobs) // 200 * 200, time.perf_counter()

        async def half() -> None:
            for _ in range(count // 200):
                await enqueue.enqueue(self.db, [row] * 100)

        await asyncio.gather(half(), half())
        return count / (time.perf_counter() - began)

    async def sql_drain(self) -> float:
        await self.sql_enqueue("raw")
        token = await tokens.mint(
            self.db, tenant="", name="raw", queues=["raw"], token_hash=os.urandom(32), created_by="user:bench"
        )
        total, began = 0, time.perf_counter()

        async def drain() -> int:
            done = 0
            while True:
                [jobs] = await lease.lease(self.db, [LeaseRow(token.id, 100, 30, ("raw",))])
                if not jobs:
                    return done
                held = [Report(Lease(j.id, j.lease_id), token.id, body=b"null") for j in jobs]
                done += len([d for d in await report.complete(self.db, held) if d])

        total = sum(await asyncio.gather(drain(), drain()))
        return total / (time.perf_counter() - began)

    async def sdk_drain(self) -> float:
        await self.sql_enqueue("bench", 10_000)
        url = f"http://127.0.0.1:{self.port}"
        headers = {"Authorization": f"Bearer {self.jwt}"}
        body = {"name": "b", "queues": ["bench"]}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.post(f"{url}/jobs/workers", json=body) as answer,
        ):
            token = (await answer.json())["token"]
        environment = {"ATOMO_URL": url, "ATOMO_WORKER_TOKEN": token, "PYTHONPATH": "."}
        async with process("-c", _QUIET_WORKER, **environment):
            while True:  # from the first lease to the last completion, by the database's clock
                async with self.db.connection() as connection:
                    left = await connection.fetchval(
                        "SELECT (SELECT count(*) FROM ready WHERE queue = 'bench') "
                        "+ (SELECT count(*) FROM leases WHERE queue = 'bench')"
                    )
                    if left == 0:
                        rate: float = await connection.fetchval(_DRAIN_RATE)
                        await connection.execute("UPDATE job_records SET queue = 'done' WHERE queue = 'bench'")
                        return rate
                await asyncio.sleep(0.1)


_QUIET_WORKER = "import logging; logging.basicConfig(level=30); from benchmarks.worker import worker; worker.run()"
_DRAIN_RATE = """
SELECT (count(*) FILTER (WHERE type = 'succeeded') / extract(epoch FROM max(e.at) - min(e.at)))::float8
FROM events e JOIN job_records j ON j.id = e.stream_id WHERE j.queue = 'bench' AND e.type IN ('leased', 'succeeded')"""


@click.command()
@click.option("--rounds", default=3, show_default=True, help="Rounds, interleaved; medians are shown.")
@click.option("--quick", is_flag=True, help="One short round, to see that it runs.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Also write the figures there.")
def main(rounds: int, quick: bool, file: Path | None) -> None:
    """Measure this machine: rates, and their ratios to references of the same run."""
    asyncio.run(_main(1 if quick else rounds, 0.05 if quick else 1.0, file))


async def _main(rounds: int, scale: float, file: Path | None) -> None:
    folder = tempfile.TemporaryDirectory(prefix="atomo-bench-", ignore_cleanup_errors=True)
    Path(folder.name).chmod(0o755)
    settings = Settings(
        jwt_secret=SECRET, data_dir=Path(folder.name) / "data", database_url=os.environ.get("DATABASE_URL")
    )
    port, echo_port = free_port(), free_port()
    async with contextlib.AsyncExitStack() as stack:
        dsn = await stack.enter_async_context(database(settings))
        await migrated(dsn)
        environment = {"DATABASE_URL": dsn, "PORT": str(port), "JWT_SECRET": SECRET, "ATOMO_LOG_LEVEL": "error"}
        await stack.enter_async_context(process("-m", "atomo_gql", "serve", **environment))
        await stack.enter_async_context(process("-m", "benchmarks.echo", str(echo_port)))
        await answering(port)
        await answering(echo_port)
        db = Database(dsn)
        await db.open()
        stack.push_async_callback(db.close)
        jwt = sign(settings, "bench", role="admin", tenant=None, lasts=86_400)
        figures = await _rounds(Bench(db, port, echo_port, jwt, scale), rounds)
    folder.cleanup()
    _show(figures)
    if file:
        file.write_text(json.dumps(figures, indent=2))


async def _rounds(bench: Bench, rounds: int) -> dict[str, list[float]]:
    paths: dict[str, Callable[[], Awaitable[float]]] = {
        "bare Starlette echo": bench.echo,
        "REST enqueue, one by one": bench.rest,
        "GraphQL enqueueJob": bench.graphql,
        "SQL enqueue in hundreds": bench.sql_enqueue,
        "SQL lease + complete in hundreds": bench.sql_drain,
        "SDK lease + complete": bench.sdk_drain,
    }
    figures: dict[str, list[float]] = {name: [] for name in paths}
    with Progress(TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), transient=True) as progress:
        bar = progress.add_task("", total=rounds * len(paths))
        for _ in range(rounds):
            for name, path in paths.items():
                progress.update(bar, description=name)
                figures[name].append(await path())
                progress.advance(bar)
    return figures


def _show(figures: dict[str, list[float]]) -> None:
    table = Table("path", "per second", "min–max", "against, in the same round", "ratio", box=None, header_style="dim")
    for column in (1, 2, 4):
        table.columns[column].justify = "right"
    for name, rates in figures.items():
        spread = f"{min(rates):,.0f}–{max(rates):,.0f}"
        table.add_row(name, f"{statistics.median(rates):,.0f}", spread, *_ratio(figures, rates, AGAINST.get(name), 0))
        if name in AGAINST:
            table.add_row("", "", "", *_ratio(figures, rates, AGAINST[name], 1))
    Console().print(table)


def _ratio(figures: dict[str, list[float]], rates: list[float], against: Any, number: int) -> tuple[str, str]:
    if not against:
        return "", ""
    ratios = [a / b for a, b in zip(rates, figures[against[number]], strict=True)]
    return against[number], f"{statistics.median(ratios):.2f}"


if __name__ == "__main__":
    main()
