"""A job enqueued in a caller's transaction is part of it: seen, told and kept at its commit, and not before."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from typing import Any

import asyncpg
import pytest

from atomo_gql.domain.errors import PayloadTooLarge, Unavailable
from atomo_gql.service import waiting
from atomo_gql.store import JobStore
from tests.conftest import Server, until

Heard = list[tuple[str, str]]


async def _counts(sql: Any) -> dict[str, int]:
    tables = await sql.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'atomo'")
    return {row[0]: await sql.fetchval(f"SELECT count(*) FROM {row[0]}") for row in tables}


@pytest.fixture
async def app(dsn: str) -> AsyncIterator[Any]:
    """An application's connection: another search_path, and codecs of its own."""
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "public", "timezone": "Asia/Tokyo"})
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=lambda v: f"<{v}>", decoder=lambda v: 1 / 0)
    await connection.set_type_codec("uuid", schema="pg_catalog", encoder=str, decoder=lambda v: f"uuid {v}")
    yield connection
    await connection.close()


def _heard(server: Server) -> Heard:
    """The lanes that others tell this server of, from now on."""
    heard: Heard = []

    def note(lanes: Iterable[tuple[str, str]]) -> None:
        heard.extend(lanes)

    server.application.hub.on_wake(note)
    return heard


async def test_what_is_rolled_back_leaves_nothing(sql: Any, app: Any) -> None:
    before = await _counts(sql)

    transaction = app.transaction()
    await transaction.start()
    job_id = await JobStore().enqueue("q", "k", idempotency_key="a", tenant_id="t", connection=app)
    assert await app.fetchval("SELECT count(*) FROM atomo.ready") == 1
    assert await _counts(sql) == before
    await transaction.rollback()

    assert await _counts(sql) == before
    again = await JobStore().enqueue("q", "k", idempotency_key="a", tenant_id="t", connection=app)
    assert again != job_id
    assert await sql.fetchval("SELECT id FROM jobs WHERE tenant = 't'") == again


async def test_a_savepoint_takes_its_jobs_alone(sql: Any, app: Any) -> None:
    async with app.transaction():
        kept = await JobStore().enqueue("q", "k", connection=app)
        with pytest.raises(PayloadTooLarge):
            async with app.transaction():
                await JobStore().enqueue("q", "k", connection=app)
                await app.execute("SET LOCAL atomo.max_body = 10")
                await JobStore().enqueue("q", "k", {"n": 12345678}, connection=app)
    assert [row["id"] for row in await sql.fetch("SELECT id FROM jobs")] == [kept]


async def test_the_commit_wakes_a_long_poll(server: Server, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_LOOK_SECS", 600.0)  # no look finds what no hint tells of
    heard = _heard(server)
    worker = await server.mint("q")
    polling = asyncio.create_task(worker.lease("q", waitSecs=30))
    await until(lambda: _waits(server))
    async with app.transaction():
        job_id = await JobStore().enqueue("q", "k", {"n": 1}, connection=app)
        await app.fetchval("SELECT 1")
        assert heard == []
        assert not polling.done()
    [job] = await polling
    assert (job["id"], job["payload"]) == (str(job_id), {"n": 1})
    assert heard == [("", "q")]
    assert (await worker.report("complete", job))[0] == 204
    assert (await server.job(job["id"]))["status"] == "succeeded"


async def _waits(server: Server) -> bool:
    return len(server.application.services.leases.room) == 1


async def test_names_of_any_length_are_told(server: Server, app: Any) -> None:
    heard = _heard(server)
    lane = "😀" * 200, '"' * 200
    await JobStore().enqueue(lane[1], "k", tenant_id=lane[0], connection=app)
    await until(lambda: _is_there(heard))
    assert heard == [lane]


async def _is_there(heard: Heard) -> bool:
    return bool(heard)


async def test_whoever_loads_many_jobs_can_leave_the_hint_out(server: Server, app: Any) -> None:
    heard = _heard(server)
    async with app.transaction():
        await app.execute("SET LOCAL atomo.wake = off")
        await app.execute("SELECT atomo.enqueue_job('bulk', 'k') FROM generate_series(1, 3)")
    async with app.transaction():
        await app.execute("SELECT atomo.enqueue_job('told', 'k') FROM generate_series(1, 3)")
    await until(lambda: _is_there(heard))
    assert heard == [("", "told")], "once for a lane, and the setting ended with its transaction"


async def test_a_key_is_one_job_through_every_door(server: Server, sql: Any) -> None:
    async def by_sql() -> str:
        async with JobStore(server.dsn) as jobs:
            return str(await jobs.enqueue("q", "k", idempotency_key="a"))

    ids = await asyncio.gather(
        *itertools.chain.from_iterable((server.enqueue("q", idempotencyKey="a"), by_sql()) for _ in range(10))
    )

    assert len(set(ids)) == 1
    assert await sql.fetchval("SELECT count(*) FROM events") == 1


@pytest.mark.parametrize("commits", [True, False])
async def test_the_same_key_waits_for_the_transaction_that_made_it(server: Server, app: Any, commits: bool) -> None:
    transaction = app.transaction()
    await transaction.start()
    job_id = str(await JobStore().enqueue("q", "k", idempotency_key="a", connection=app))
    same = asyncio.create_task(server.enqueue("q", idempotencyKey="a"))
    assert await server.enqueue("q", idempotencyKey="b") != job_id, "another does not"

    async def is_waiting() -> bool:
        async with server.application.database.connection() as own:
            waits = (
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            return bool(await own.fetchval(waits))

    await until(is_waiting)
    await (transaction.commit() if commits else transaction.rollback())
    assert (await same == job_id) is commits


async def test_a_key_that_is_there_keeps_nobody_waiting(server: Server, app: Any) -> None:
    job_id = await server.enqueue("q", idempotencyKey="a")
    async with app.transaction():
        assert str(await JobStore().enqueue("q", "k", idempotency_key="a", connection=app)) == job_id
        assert await server.enqueue("q", idempotencyKey="a") == job_id


async def test_a_new_queue_in_an_open_transaction_holds_nobody_up(server: Server, app: Any, sql: Any) -> None:
    async with app.transaction():
        await JobStore().enqueue("q", "k", connection=app)
        other = await server.enqueue("q")
        await server.application.services.queues.record()
        worker = await server.mint("q")
        assert [job["id"] for job in await worker.lease("q", capacity=9)] == [other]
        assert await sql.fetchval("SELECT sum(enqueued) FROM lane_activity") == 1
    assert await sql.fetchval("SELECT count(*) FROM lanes") == 1


async def test_a_role_with_two_rights_enqueues_and_does_nothing_else(sql: Any) -> None:
    role = f"app_{await sql.fetchval('SELECT pg_backend_pid()')}"
    await sql.execute(f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA atomo TO {role}")
    try:
        await sql.execute(f"SET SESSION AUTHORIZATION {role}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await sql.fetchval("SELECT atomo.enqueue_job('q', 'k')")
        await sql.execute("RESET SESSION AUTHORIZATION")
        await sql.execute(f"GRANT EXECUTE ON FUNCTION atomo.enqueue_job TO {role}")
        relations = await sql.fetch(
            "SELECT relname, relkind = 'v'::\"char\" AS is_view FROM pg_class "
            "WHERE relkind IN ('r', 'p', 'v') AND relnamespace = 'atomo'::regnamespace"
        )
        await sql.execute(f"SET SESSION AUTHORIZATION {role}")
        job_id = await sql.fetchval("SELECT atomo.enqueue_job('q', 'k', tenant_id => 'acme')")
        refused = [
            *(f"SELECT * FROM {name}" for name, _ in relations),
            *(f"DELETE FROM {name}" for name, is_view in relations if not is_view),
            "SELECT atomo.take_ready(NULL, NULL, NULL, 1, NULL, NULL)",
            "SELECT atomo.make_partitions(9)",
            "SELECT atomo.rewrite_partitions(atomo.new_id(), atomo.new_id(), NULL)",
        ]
        for statement in refused:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await sql.execute(statement)
        await sql.execute("RESET SESSION AUTHORIZATION")
        row = await sql.fetchrow("SELECT stream_id, tenant, actor FROM events")
        assert tuple(row) == (job_id, "acme", f"system:sql {role}")
    finally:
        await sql.execute(f"RESET SESSION AUTHORIZATION; DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_stranger_s_temporary_table_is_not_taken_for_ours(sql: Any) -> None:
    await sql.execute("SET search_path = pg_temp, public; CREATE TEMPORARY TABLE events (stream_id uuid)")
    await sql.fetchval("SELECT atomo.enqueue_job('q', 'k')")
    assert await sql.fetchval("SELECT count(*) FROM pg_temp.events") == 0
    assert await sql.fetchval("SELECT count(*) FROM atomo.events") == 1


async def test_a_store_enqueues_with_a_pool_and_with_an_address(dsn: str, sql: Any) -> None:
    async with asyncpg.create_pool(dsn, min_size=1) as pool:
        async with JobStore(pool=pool) as jobs:
            first = await jobs.enqueue("q", "k")
        assert await pool.fetchval("SELECT 1") == 1, "the application's own stays open"
    async with JobStore(dsn) as jobs:
        second = await jobs.enqueue("q", "k", actor="user:alice")
    assert [row[0] for row in await sql.fetch("SELECT id FROM jobs ORDER BY id")] == [first, second]


async def test_a_database_that_is_away_is_said_to_be_so(app: Any) -> None:
    with pytest.raises(Unavailable):
        await JobStore("postgresql://nobody:x@127.0.0.1:1/none").open()
    await app.close()
    with pytest.raises(Unavailable):
        await JobStore().enqueue("q", "k", connection=app)
