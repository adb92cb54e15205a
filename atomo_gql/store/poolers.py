"""Finding out whether a pooler such as PgBouncer is in between, and in which mode.

A pooler tells its clients a made-up process id of the server. In transaction mode the true one changes, or two clients
that are connected at the same time have the same.
"""

import contextlib
import secrets
from collections.abc import AsyncIterator

from atomo_gql.address import Address
from atomo_gql.store.connecting import Connection, Purpose, Way, connect

_ROUNDS = 4
_PURPOSE = Purpose("look", {"search_path": "atomo"})


async def find_way(address: Address, *, timeout: float = 10) -> Way:
    """How connections to this address come to their PostgreSQL.

    Raises:
        What `connect` raises.
    """
    async with _looking(address, timeout) as first:
        if await first.fetchval("SELECT pg_backend_pid()") == first.get_server_pid():
            return Way.DIRECT
        async with _looking(address, timeout) as second:
            if not await _is_shared(first, second):
                return Way.SESSION
        return Way.TRANSACTION_PREPARED if await _keeps_statements(first) else Way.TRANSACTION


@contextlib.asynccontextmanager
async def _looking(address: Address, timeout: float) -> AsyncIterator[Connection]:
    """A connection that is careful: as if the worst were the case."""
    connection = await connect(address, _PURPOSE, Way.TRANSACTION, timeout=timeout, command_timeout=timeout)
    try:
        yield connection
    finally:
        connection.terminate()


async def is_same_database(one: Address, other: Address) -> bool:
    """Whether two addresses lead to one database of one server.

    Raises:
        What `connect` raises.
    """
    found = []
    for address in (one, other):
        async with _looking(address, 10) as connection:
            found += await connection.fetch(
                "SELECT oid, pg_postmaster_start_time() FROM pg_database WHERE datname = current_database()"
            )
    return bool(found[0] == found[1])


async def _is_shared(first: Connection, second: Connection) -> bool:
    """Whether one of them has had two servers, or both of them one."""
    firsts: set[int] = set()
    seconds: set[int] = set()
    for _ in range(_ROUNDS):
        firsts |= {await _pid(first), await _pid(first)}
        async with second.transaction():  # holds one server, so that the other client may get another
            seconds.add(await _pid(second))
            firsts.add(await _pid(first))
        if len(firsts) > 1 or len(seconds) > 1 or firsts & seconds:
            return True
    return False


async def _pid(connection: Connection) -> int:
    pid: int = await connection.fetchval("SELECT pg_backend_pid()")
    return pid


async def _keeps_statements(connection: Connection) -> bool:
    """Whether the pooler takes a prepared statement to whichever server it is run on: it renames it, then."""
    mark = f"atomo_{secrets.token_hex(6)}"
    async with connection.transaction():
        await connection.prepare(f"SELECT '{mark}'::text", name=mark)
        rows = await connection.fetch(
            "SELECT name FROM pg_prepared_statements WHERE statement LIKE '%' || $1 || '%'", mark
        )
        names = {row["name"] for row in rows} - {""}
        if mark in names:
            await connection.execute(f"DEALLOCATE {mark}")
        return bool(names) and mark not in names
