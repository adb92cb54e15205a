"""What is recorded and bound at the same time: nothing is missed, and a stream keeps its order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson
import pytest

from atomo_gql.app import Application
from atomo_gql.domain.actions import NewEvent
from atomo_gql.domain.principals import Caller
from atomo_gql.settings import Settings
from atomo_gql.store import actions as store
from atomo_gql.store.actions import RecordRow
from atomo_gql.store.database import Database
from tests.conftest import SECRET, until

ROOT = Caller(subject="root", is_admin=True)
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
async def quiet(dsn: str) -> AsyncIterator[Application]:
    """The services on the test's database, without loops."""
    application = Application(Settings(jwt_secret=SECRET, env="test"), dsn)
    await application.database.open()
    yield application
    await application.database.close()


@contextlib.asynccontextmanager
async def transaction(dsn: str) -> AsyncIterator[Any]:
    """One of somebody who is in the way, for the length of the block."""
    connection: Any = await asyncpg.connect(dsn, server_settings={"search_path": "atomo"})
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


def record(entity: str, event_id: str) -> RecordRow:
    """An event of a deal."""
    data = {"model": "Deal", "event": "updated", "id": entity, "eventId": event_id, "data": {}}
    return RecordRow("", "Deal", entity, event_id, "user:root", None, orjson.dumps(data))


async def test_the_log_has_a_streams_events_in_the_order_of_their_versions_whoever_waited_for_whom(
    quiet: Application, database: Database, sql: Any, dsn: str
) -> None:
    await quiet.services.bindings.register(ROOT, {"model": "Deal", "event": "updated", "action": "tell"})
    await store.record(database, [record("a", "a1"), record("b", "b1")])
    async with transaction(dsn) as other:
        # Somebody has deal a; who records of a and b waits, and meanwhile another records of b alone.
        await other.execute("SELECT FROM model_streams WHERE entity_id = 'a' FOR UPDATE")
        both = asyncio.create_task(store.record(database, [record("a", "a2"), record("b", "b2")]))
        await until(lambda: sql.fetchval(WAITING))
        alone = asyncio.create_task(store.record(database, [record("b", "b3")]))
        await asyncio.wait([alone], timeout=1)
    assert (await both, await alone) == ([True, True], [True])

    versions = await sql.fetch(
        "SELECT version FROM events WHERE stream = 'Model' AND data ->> 'id' = 'b' ORDER BY xid, position"
    )
    assert [row["version"] for row in versions] == [1, 2, 3]


async def test_a_binding_that_was_registered_before_an_event_fires_on_it_whatever_the_dispatcher_had_read(
    quiet: Application, sql: Any, dsn: str
) -> None:
    services = quiet.services
    await services.bindings.register(ROOT, {"model": "Deal", "event": "updated", "action": "early"})
    async with transaction(dsn) as other:
        # Held up after it has read the bindings, before it reads the log.
        await other.execute("LOCK TABLE workflows IN ACCESS EXCLUSIVE MODE")
        turn = asyncio.create_task(services.dispatcher.turn())
        await until(lambda: sql.fetchval(WAITING))
        await services.bindings.register(ROOT, {"model": "Deal", "event": "updated", "action": "late"})
        event = NewEvent(model="Deal", event="updated", entity_id="a", data={}, event_id="a1")
        await services.records.record(ROOT, event)
    await turn
    await services.dispatcher.turn()

    fired = await sql.fetch("SELECT kind FROM job_records ORDER BY id")
    assert [row["kind"] for row in fired] == ["early", "late"]


async def test_the_first_binding_misses_no_event_that_was_recorded_after_it(
    quiet: Application, sql: Any, dsn: str
) -> None:
    services = quiet.services
    await services.records.record(ROOT, NewEvent(model="Deal", event="updated", entity_id="a", data={}, event_id="a1"))
    async with transaction(dsn) as other:
        await other.execute("LOCK TABLE workflows IN ACCESS EXCLUSIVE MODE")
        turn = asyncio.create_task(services.dispatcher.turn())  # as far as it knows, nobody listens
        await until(lambda: sql.fetchval(WAITING))
        await services.bindings.register(ROOT, {"model": "Deal", "event": "updated", "action": "late"})
        await services.records.record(
            ROOT, NewEvent(model="Deal", event="updated", entity_id="a", data={}, event_id="a2")
        )
    await turn
    await services.dispatcher.turn()

    fired = await sql.fetch("SELECT idempotency_key FROM job_records")
    assert [row["idempotency_key"] for row in fired] == ["a2:late"]
