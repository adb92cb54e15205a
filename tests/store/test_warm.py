"""The first to come does not wait for plans."""

import contextlib

from atomo_gql.store import warm
from atomo_gql.store.database import Database
from atomo_gql.store.statements import statements

_PLANNED = "SELECT statement FROM pg_prepared_statements WHERE generic_plans > 0"


async def test_hot_statements_are_planned_before_the_first_job(database: Database) -> None:
    server = Database(database.dsn)
    await server.open()
    try:
        await warm.up(server)
        async with contextlib.AsyncExitStack() as stack:
            connections = [await stack.enter_async_context(server.connection("dispatch")) for _ in range(3)]
            planned = [{r["statement"] for r in await connection.fetch(_PLANNED)} for connection in connections]
    finally:
        await server.close()

    hot = {statements()[name].text for name in ("job_enqueue", "job_lease", "job_complete")}
    assert all(hot <= found for found in planned)
