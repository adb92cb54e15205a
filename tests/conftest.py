"""Real parts for every test: a PostgreSQL, a database of its own, a server that listens, tokens.

The PostgreSQL is the embedded one, or DATABASE_URL's (its role must be allowed to create databases). A template is
migrated once, and each test that asks for `dsn` gets a clone of it.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import aiohttp
import asyncpg
import jwt
import pytest

from atomo_gql.app import Application
from atomo_gql.cli.host import running
from atomo_gql.embedded import EmbeddedPostgres
from atomo_gql.settings import Settings
from atomo_gql.store.database import Database
from atomo_gql.store.migrations import migrate
from tests.openapi import Answer, contract

pytest_plugins = ("tests.hygiene",)

SECRET = "a secret for the tests, long enough for every HMAC there is: sixty-four bytes or more"
_numbers = itertools.count(1)


def token(sub: str = "alice", *, lasts: float = 3_600, secret: str = SECRET, **claims: Any) -> str:
    """A JWT; claims that are None are left out."""
    full = {"sub": sub, "exp": int(time.time() + lasts), **claims}
    return jwt.encode({k: v for k, v in full.items() if v is not None}, secret, algorithm="HS256")


def bearer(sub: str = "alice", **claims: Any) -> dict[str, str]:
    """Headers of a person."""
    return {"Authorization": f"Bearer {token(sub, **claims)}"}


def admin(**claims: Any) -> dict[str, str]:
    """Headers of an operator."""
    return bearer("root", role="admin", **claims)


def with_database(dsn: str, name: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


def database_name(dsn: str) -> str:
    """The database that an address names."""
    return urlsplit(dsn).path.removeprefix("/")


@pytest.fixture(scope="session")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address of a PostgreSQL where databases may be made."""
    if given := os.environ.get("DATABASE_URL"):
        yield given
        return
    # Nothing here outlives the session, so nothing needs to reach the disk.
    settings = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "300"}
    postgres = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), settings=settings)
    yield await postgres.start()
    await postgres.stop()


async def _run(dsn: str, *statements: str) -> None:
    connection: Any = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
async def template(cluster: str) -> AsyncIterator[str]:
    """The name of a migrated database to clone."""
    name = f"atomo_template_{os.getpid()}"
    await _run(cluster, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", f"CREATE DATABASE {name}")
    await migrate(with_database(cluster, name))
    yield name
    await _run(cluster, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def dsn(cluster: str, template: str) -> AsyncIterator[str]:
    """A database of the test's own, empty and migrated."""
    name = f"atomo_test_{os.getpid()}_{next(_numbers)}"
    await _run(cluster, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield with_database(cluster, name)
    await _run(cluster, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    """The store on it."""
    opened = Database(dsn)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def sql(dsn: str) -> AsyncIterator[Any]:
    """A plain connection to it, `search_path` on our schema."""
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "atomo", "timezone": "UTC"})
    yield connection
    await connection.close()


@dataclasses.dataclass
class Server:
    """A server that listens, and a client to it."""

    url: str
    dsn: str
    application: Application
    http: aiohttp.ClientSession
    warming: "asyncio.Task[None]"  # its own statements, beside the first that are asked of it

    async def ask(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None, **more: Any
    ) -> Answer:
        """The whole answer, held against the OpenAPI document."""
        if body is not None:
            more["json"] = body
        async with self.http.request(method, self.url + path, headers=headers, **more) as response:
            answer = Answer(response.status, response.headers, await response.read())
        contract().check(method, unquote(response.url.raw_path), answer)
        return answer

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        """The status and the JSON (or text) of an answer, which `ask` has checked."""
        answer = await self.ask(method, path, body, **more)
        return answer.status, answer.body

    async def graphql(self, query: str, variables: dict[str, Any] | None = None, **more: Any) -> Any:
        """The whole answer of a GraphQL request; as alice when no headers are given."""
        headers = more.pop("headers", bearer())
        status, answer = await self.call(
            "POST", "/graphql", {"query": query, "variables": variables or {}}, headers=headers, **more
        )
        assert status == 200, answer
        return answer

    async def enqueue(
        self, queue: str = "q", kind: str = "k", *, headers: dict[str, str] | None = None, **fields: Any
    ) -> str:
        """A new job's id."""
        body = {"queue": queue, "kind": kind, **fields}
        status, answer = await self.call("POST", "/jobs", body, headers=headers or bearer())
        assert status == 201, answer
        job_id: str = answer["id"]
        return job_id

    async def mint(self, *queues: str, headers: dict[str, str] | None = None, **fields: Any) -> "WorkerClient":
        """A worker with a new token."""
        body = {"name": "test", "queues": list(queues or ("*",)), **fields}
        status, answer = await self.call("POST", "/jobs/workers", body, headers=headers or admin())
        assert status == 201, answer
        return WorkerClient(self, answer["id"], answer["token"])

    async def job(self, job_id: str, *, headers: dict[str, str] | None = None) -> Any:
        """A job as it stands."""
        status, answer = await self.call("GET", f"/jobs/{job_id}", headers=headers or bearer())
        assert status == 200, answer
        return answer


@dataclasses.dataclass
class WorkerClient:
    """The worker protocol, call by call."""

    server: Server
    token_id: str
    token: str

    async def call(self, path: str, body: Any, **more: Any) -> tuple[int, Any]:
        """Any call of the worker plane."""
        return await self.server.call("POST", path, body, headers={"X-Worker-Token": self.token}, **more)

    async def lease(self, *queues: str, **fields: Any) -> list[Any]:
        """Jobs."""
        status, answer = await self.call("/jobs/lease", {"queues": list(queues or ("*",)), **fields})
        assert status == 200, answer
        jobs: list[Any] = answer["jobs"]
        return jobs

    async def report(self, verb: str, job: Any, **fields: Any) -> tuple[int, Any]:
        """heartbeat, progress, complete, fail or release."""
        return await self.call(f"/jobs/{job['id']}/{verb}", {"leaseId": job["leaseId"], **fields})


MakeServer = Callable[..., Awaitable[Server]]


@pytest.fixture
async def make_server(dsn: str, tmp_path: Path) -> AsyncIterator[MakeServer]:
    """Start servers on the test's database; `make_server(reclaim_interval=0.1, …)` takes any setting."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(**settings: Any) -> Server:
            full = Settings(
                **{
                    "jwt_secret": SECRET,
                    "data_dir": tmp_path,
                    "port": 0,
                    "env": "test",
                    "reclaim_interval": 3_600,
                    **settings,
                }
            )
            server = await stack.enter_async_context(running(full, dsn))
            session = await stack.enter_async_context(
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=90))
            )
            return Server(server.url, dsn, server.application, session, server.warming)

        yield make


@pytest.fixture
async def server(make_server: MakeServer) -> Server:
    """A server on the test's database, which sweeps only when told to."""
    return await make_server()


async def until(condition: Callable[[], Awaitable[Any]], *, within: float = 60) -> Any:
    """The first true answer of a condition that another process brings about, looked at again and again.

    For what gives no signal to wait for; where there is one, wait for the signal.
    """
    async with asyncio.timeout(within):
        while not (answer := await condition()):
            await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.02)
        return answer
