"""`/readyz` says whether a job could be enqueued and leased now, within two seconds, whatever the database does."""

import asyncio
import logging
import time
from typing import Any

import asyncpg
import pytest

from atomo_gql.store.failures import unavailable
from tests.conftest import MakeServer, Server, until
from tests.contract.table import refused
from tests.parts import replica_on


async def _why(server: Server) -> str:
    detail: str = refused(await server.ask("GET", "/readyz"), 503).body["detail"]
    return detail


async def test_a_server_without_a_partition_for_now_is_not_ready(server: Server, sql: Any) -> None:
    assert (await server.call("GET", "/readyz"))[0] == 200
    for (table,) in await sql.fetch(
        "SELECT relname FROM pg_class WHERE relname ~ '^(events|job_records)_2' AND relkind = 'r'"
    ):
        await sql.execute(f"DROP TABLE {table}")
    assert "no partition for now" in await _why(server)


async def test_a_server_without_a_schema_is_not_ready(server: Server, sql: Any) -> None:
    await sql.execute("ALTER TABLE schema_versions RENAME TO versions_away")
    assert "run atomo-gql migrate" in await _why(server)


async def test_a_database_that_does_not_answer_is_not_ready_within_two_seconds(server: Server, sql: Any) -> None:
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute("LOCK TABLE migrations IN ACCESS EXCLUSIVE MODE")
    began = time.monotonic()
    answers = await asyncio.gather(*(server.call("GET", "/readyz") for _ in range(50)))
    assert time.monotonic() - began < 2.5
    assert {status for status, _ in answers} == {503}
    waiting = await sql.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    assert waiting <= 2  # those who ask share one look, which tries two ways
    await transaction.rollback()

    async def is_ready() -> bool:
        return (await server.call("GET", "/readyz"))[0] == 200

    await until(is_ready)


async def test_the_log_says_who_holds_up_the_action_dispatcher(
    dsn: str, cluster: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A transaction in any database of the cluster holds the end of the log."""
    other: Any = await asyncpg.connect(cluster, server_settings={"application_name": "a forgotten shell"})
    try:
        await other.execute("BEGIN; SELECT pg_current_xact_id()")
        async with replica_on(dsn) as replica:
            health = replica.services.health
            with caplog.at_level(logging.WARNING, logger="atomo_gql.health"):
                await health.explain_lag(59)
                assert caplog.messages == []
                await health.explain_lag(61)
                await health.explain_lag(62)  # once a minute is enough
        [said] = caplog.messages
        assert f"process {other.get_server_pid()} " in said
        assert "application 'a forgotten shell'" in said
    finally:
        await other.execute("ROLLBACK")
        await other.close()


@pytest.mark.parametrize(
    "code", ["58P01", "58030", "53100", "53200", "57014", "57P01", "25006", "08006", "26000", "XX000"]
)
async def test_what_the_database_itself_is_to_blame_for_is_503(sql: Any, code: str) -> None:
    try:
        await sql.execute(f"DO $$ BEGIN RAISE EXCEPTION 'trouble' USING ERRCODE = '{code}'; END $$")
    except Exception as error:
        assert unavailable(error), code
    else:
        raise AssertionError(code)


async def test_the_log_says_when_the_database_is_away_and_when_it_is_back(
    make_server: MakeServer, sql: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = await make_server()
    await server.enqueue()
    with caplog.at_level(logging.INFO, logger="atomo_gql.database"):
        await sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid()"
        )

        async def is_back() -> bool:
            await server.call("GET", "/readyz")
            return any("notifications of the database are heard again" in said for said in caplog.messages)

        await until(is_back)
