"""While the database is away, every call says so; when it is back, so is the service."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import asyncpg
import pytest

from atomo_gql.cli.host import running
from atomo_gql.settings import Settings
from tests.conftest import SECRET, Server, until
from tests.contract.conftest import make_more
from tests.contract.table import CLOSED, World, line, refused
from tests.graphql.helpers import subscribed


class Wire:
    """A way to PostgreSQL that can be cut."""

    def __init__(self, dsn: str) -> None:
        parts = urlsplit(dsn)
        self._to = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._dsn = parts
        self._port = 0
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    async def mend(self) -> str:
        """Let through; the address of this end."""
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        user, _, _ = self._dsn.netloc.rpartition("@")
        return urlunsplit(self._dsn._replace(netloc=f"{user}@127.0.0.1:{self._port}"))

    async def cut(self) -> None:
        """Break what is open, and refuse what is new."""
        assert self._server
        self._server.close()
        for end in self._ends:
            end.transport.abort()
        await self._server.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._to)
        self._ends |= {writer, back}
        await asyncio.gather(_carry(reader, back), _carry(there, writer))
        self._ends -= {writer, back}


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    writer.close()


@pytest.fixture
async def wired(dsn: str, tmp_path: Path) -> AsyncIterator[tuple[Server, Wire]]:
    """A server whose database can be taken away."""
    wire = Wire(dsn)
    settings = Settings(jwt_secret=SECRET, data_dir=tmp_path, port=0, env="test", reclaim_interval=3_600)
    async with running(settings, await wire.mend()) as server, aiohttp.ClientSession() as session:
        yield Server(server.url, dsn, server.application, session, server.warming), wire
        await wire.cut()


async def test_every_call_says_that_the_database_is_away(wired: tuple[Server, Wire], sql: Any) -> None:
    server, wire = wired
    worker, spare = await server.mint("*"), await server.mint("*")
    ids = [await server.enqueue(), await server.enqueue()]
    [job] = await worker.lease("q")
    world = World(server, sql, worker, spare, "q", job, ids[1], *await make_more(server, sql, "flow"))
    ready = line("GET", "/readyz")
    before = await world.state()

    await wire.cut()
    for row in [*CLOSED, ready]:
        answer = refused(await world.ask(row), 503)
        assert int(answer.headers["Retry-After"]) > 0
    assert (await world.ask(line("POST", "/jobs/lease"), waitSecs=1)).status == 503
    for path in ("/healthz", "/metrics", "/openapi.json"):
        assert (await server.call("GET", path))[0] == 200

    await wire.mend()
    await until(lambda: _is_ready(server))
    assert await world.state() == before
    for row in CLOSED:
        if row.path.rpartition("/")[2] not in ("fail", "release"):  # the job has been completed
            assert (await world.ask(row)).status == row.status, row


async def test_who_watches_queues_goes_on_when_the_database_is_back(wired: tuple[Server, Wire]) -> None:
    server, wire = wired
    await server.enqueue()
    stats = "subscription { queueStats(every: 0.5) { name depth { queued } } }"
    async with subscribed(server, stats) as watching:
        assert await watching.next() == {"queueStats": [{"name": "q", "depth": {"queued": 1}}]}
        await wire.cut()

        async def is_away() -> bool:
            return not await _is_ready(server)

        await until(is_away)
        await asyncio.sleep(1)  # two looks, which find nothing
        await wire.mend()
        await until(lambda: _is_ready(server))
        await server.enqueue()
        assert await watching.next() == {"queueStats": [{"name": "q", "depth": {"queued": 2}}]}


async def _is_ready(server: Server) -> bool:
    return (await server.call("GET", "/readyz"))[0] == 200


async def test_a_server_without_the_right_schema_is_not_ready(server: Server, sql: Any) -> None:
    assert await _is_ready(server)
    for change, advice in (("version = version - 1", "run atomo-gql migrate"), ("oldest_server = 99", "start a newer")):
        await sql.execute(f"UPDATE schema_versions SET {change}")
        answer = refused(await server.ask("GET", "/readyz"), 503)
        assert advice in answer.body["detail"]
        await sql.execute("UPDATE schema_versions SET version = version + 1")
    assert (await server.call("GET", "/healthz"))[0] == 200


async def test_a_database_that_takes_no_connections_is_away_too(server: Server, cluster: str) -> None:
    name = urlsplit(server.dsn).path[1:]
    owner: Any = await asyncpg.connect(cluster)
    await owner.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    await owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
    await owner.close()
    refused(await server.ask("GET", "/readyz"), 503)
