"""A database and a server that many cases share; each has a queue of its own, or leaves everything as it was."""

import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote

import aiohttp
import asyncpg
import pytest

from atomo_gql.cli.host import running
from atomo_gql.settings import Settings
from tests.conftest import SECRET, Server, admin, bearer, with_database
from tests.contract.table import World

_queues = (f"table-{n}" for n in itertools.count(1))
MakeShared = Callable[..., Awaitable[Server]]
MakeWorld = Callable[[], Awaitable[World]]
Kept = list[tuple[World, list[tuple[Any, ...]]]]


@pytest.fixture(scope="package")
async def make_shared(
    cluster: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[MakeShared]:
    """Start servers on the shared database; takes settings as `make_server` does."""
    name = f"atomo_table_{os.getpid()}"
    dsn = with_database(cluster, name)
    owner: Any = await asyncpg.connect(cluster)
    await owner.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    data_dir = tmp_path_factory.mktemp("table")
    async with AsyncExitStack() as stack:

        async def make(**settings: Any) -> Server:
            fixed = {"jwt_secret": SECRET, "data_dir": data_dir, "port": 0, "env": "test", "reclaim_interval": 3_600}
            server = await stack.enter_async_context(running(Settings(**{**fixed, **settings}), dsn))
            session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=90)))
            return Server(server.url, dsn, server.application, session, server.warming)

        yield make
    await owner.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await owner.close()


@pytest.fixture(scope="package")
async def shared(make_shared: MakeShared) -> Server:
    """A server on the shared database."""
    return await make_shared()


@pytest.fixture(scope="package")
async def shared_sql(shared: Server) -> AsyncIterator[Any]:
    """A plain connection to the shared database."""
    connection: Any = await asyncpg.connect(shared.dsn, server_settings={"search_path": "atomo", "timezone": "UTC"})
    yield connection
    await connection.close()


@pytest.fixture(scope="package")
async def make_world(shared: Server, shared_sql: Any) -> MakeWorld:
    """Make a queue with a job under way and one that waits."""
    worker = await shared.mint("*")

    async def make() -> World:
        queue = next(_queues)
        waiting = [await shared.enqueue(queue) for _ in range(2)]
        [job] = await worker.lease(queue, visibilitySecs=86_400)  # no sweep of a server that starts takes it back
        assert job["id"] == waiting.pop(0)
        workflow, run, binding = await make_more(shared, shared_sql, f"flow of {queue}")
        return World(
            shared, shared_sql, worker, await shared.mint(queue), queue, job, waiting[0], workflow, run, binding
        )

    return make


async def waits_for_locks(sql: Any, count: int) -> bool:
    """Whether so many connections to that database wait for a lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(await sql.fetchval(waiting) == count)


async def make_more(server: Server, sql: Any, name: str) -> tuple[str, str, str]:
    """A workflow, a run of it that is parked, and a binding that was set aside; nothing that happens concerns them."""
    trigger = {"OnEvent": {"model": f"Nothing in {name}", "event_type": "created"}}
    steps = [{"name": "wait", "action": {"Delay": {"seconds": 86_400}}}]
    definition = {"name": name, "trigger": trigger, "steps": steps}
    assert (await server.call("POST", "/workflows", definition, headers=admin()))[0] == 201
    _, run = await server.call("POST", f"/workflows/{quote(name)}/run", headers=bearer())
    body = {"model": f"Nothing in {name}", "event": "created", "action": "a"}
    _, binding = await server.call("POST", "/actions", body, headers=admin())
    await sql.execute("UPDATE bindings SET set_aside_at = now(), error = 'e' WHERE id = $1", binding["id"])
    return name, run["id"], binding["id"]


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    """One that the test may change."""
    return await make_world()


@pytest.fixture(scope="package")
def kept() -> Kept:
    """The world that nobody changes, and its state."""
    return []


@pytest.fixture
async def steady(make_world: MakeWorld, kept: Kept) -> World:
    """The same one again for every call that is refused; a new one when somebody has changed it."""
    if not kept or await kept[0][0].state() != kept[0][1]:
        world = await make_world()
        kept[:] = [(world, await world.state())]
    return kept[0][0]
