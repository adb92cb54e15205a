"""A role or a database may have defaults of its own: on our connections, those that would break something are ours."""

import asyncio
from typing import Any
from urllib.parse import urlsplit

import pytest

from atomo_gql.domain.errors import Unavailable
from atomo_gql.store.database import Database
from atomo_gql.store.enqueue import EnqueueRow, enqueue
from tests.conftest import MakeServer, bearer
from tests.parts import replica_on

ODD = {
    "default_transaction_isolation": ("serializable", "read committed"),
    "default_transaction_deferrable": ("on", "off"),
    "statement_timeout": ("'29s'", "0"),
    "lock_timeout": ("'28s'", "10s"),
    "idle_session_timeout": ("'27s'", "0"),
    "idle_in_transaction_session_timeout": ("'26s'", "1min"),
    "datestyle": ("'SQL, DMY'", "ISO, MDY"),
    "intervalstyle": ("sql_standard", "postgres"),
    "timezone": ("'Asia/Kolkata'", "UTC"),
    "bytea_output": ("escape", "hex"),
    "extra_float_digits": ("-10", "1"),
    "standard_conforming_strings": ("off", "on"),
    "search_path": ("public", "atomo"),
    "jit": ("on", "off"),
}
"""Of each setting the database's default, and what it is on our connections."""


async def _alter(sql: Any, dsn: str, name: str, value: str) -> None:
    await sql.execute(f"ALTER DATABASE {urlsplit(dsn).path[1:]} SET {name} = {value}")


async def test_odd_defaults_of_the_database_change_nothing(make_server: MakeServer, dsn: str, sql: Any) -> None:
    for name, (odd, _) in ODD.items():
        await _alter(sql, dsn, name, odd)
    server = await make_server()
    worker = await server.mint("*")
    payload = {"n": 0.1 + 0.2, "text": "a\\'b"}
    for key in ("a", "a", "b"):
        await server.enqueue(payload=payload, idempotencyKey=key)
    jobs = await worker.lease("*", capacity=3)
    assert [job["payload"] for job in jobs] == [payload, payload]
    for job in jobs:
        assert await worker.report("complete", job, result={"at": 1 / 3}) == (204, "")
        found = await server.job(job["id"])
        assert (found["status"], found["result"]) == ("succeeded", {"at": 1 / 3})
        assert found["createdAt"].endswith("Z")
    assert (await server.call("GET", "/readyz"))[0] == 200


async def test_our_connections_have_our_settings(dsn: str, sql: Any) -> None:
    for name, (odd, _) in ODD.items():
        await _alter(sql, dsn, name, odd)
    async with replica_on(dsn) as replica:
        for pool in ("query", "dispatch"):
            async with replica.database.connection(pool) as connection:
                shown = {name: await connection.fetchval(f"SHOW {name}") for name in ODD}
            assert shown == {name: ours for name, (_, ours) in ODD.items()}


async def test_a_database_that_is_made_read_only_is_left_at_once_and_found_again(
    make_server: MakeServer, dsn: str, sql: Any
) -> None:
    server = await make_server()
    await server.enqueue()
    await _alter(sql, dsn, "default_transaction_read_only", "on")
    await sql.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid()"
    )
    status, answer = await server.call("GET", "/readyz")
    assert (status, "read-only" in answer["detail"]) == (503, True), answer
    status, answer = await server.call("POST", "/jobs", {"queue": "q", "kind": "k"}, headers=bearer())
    assert (status, "read-only" in answer["detail"]) == (503, True), answer

    await _alter(sql, dsn, "default_transaction_read_only", "off")
    async with asyncio.timeout(10):
        while (await server.call("GET", "/readyz"))[0] != 200:
            await asyncio.sleep(0.02)
    await server.enqueue()


async def test_a_connection_that_has_become_read_only_is_not_used_twice(database: Database, dsn: str, sql: Any) -> None:
    """As after a switch-over that leaves sessions open: the server's default is changed under them."""
    async with database.connection("dispatch") as connection:
        await connection.execute("SET default_transaction_read_only = on")
    row = EnqueueRow("", "q", "k", b"{}", None, 5, 0, None, "user:x", None)
    with pytest.raises(Unavailable, match="read-only"):
        await enqueue(database, [row])
    [made] = await enqueue(database, [row])
    assert await sql.fetchval("SELECT array_agg(id) FROM job_records") == [made.id]
