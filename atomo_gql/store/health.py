"""`sql/queries/health.sql`: what a server asks about its database."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import asyncpg

from atomo_gql.domain.errors import Unavailable
from atomo_gql.store.database import Database, fetch_in

_POOLED_SECS, _BESIDE_SECS = 0.8, 0.9  # together less than the two seconds that an orchestrator is promised
_FULL_SECS = 60.0  # that a full disk is tried again before it is believed to have room
# Makes a file grow, and takes it back: a full disk is found by nothing less.
_GROW = """
CREATE TEMPORARY TABLE atomo_gql_room ON COMMIT DROP AS
    SELECT repeat(md5(n::text), 100) AS filler FROM generate_series(1, 50) AS n"""


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the database found."""

    version: int  # of the schema; 0: there is none
    oldest_server: int  # the lowest schema version whose servers can work with it
    made_by: str | None  # the version of atomo-gql that made it
    is_standby: bool
    is_read_only: bool
    has_partition: bool  # for now
    may_write: bool  # by the rights of our role
    is_standby_missing: bool  # commits wait for one


class Holder(NamedTuple):
    """The oldest transaction of the cluster: nothing that was committed after it began can be read in order yet."""

    pid: int | None  # None: it is a prepared one
    prepared: str | None  # its name
    database: str | None
    role: str | None
    application: str | None
    seconds: float | None  # None: it is another role's, and we may not see


async def look(database: Database) -> Look:
    """Look at the database, within two seconds: as a request would, and where that takes too long, from outside.

    Raises:
        Unavailable: it does not answer, or a write would fail.
    """
    try:
        found = await _bounded(_look_pooled(database), _POOLED_SECS)
        if not (found.is_read_only or found.is_standby):
            return found
        await database.expire()  # another server may be the one to write to
    except Unavailable as error:
        if _is_telling(error):
            raise
    return await _bounded(_look_beside(database), _BESIDE_SECS)


async def _look_pooled(database: Database) -> Look:
    async with database.connection() as connection:
        return await _look(database, connection)


async def _look_beside(database: Database) -> Look:
    async with database.beside(_BESIDE_SECS) as connection:
        return await _look(database, connection)


async def _look(database: Database, connection: Any) -> Look:
    try:
        [schema] = await fetch_in(connection, "schema_version")
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return Look(0, 0, None, False, False, False, False, False)
    [found] = await fetch_in(connection, "health_look")
    if database.disk_was_full(_FULL_SECS):
        with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
            async with connection.transaction():
                await connection.execute(_GROW)
    return Look(**schema, **found)


async def _bounded(work: Any, seconds: float) -> Look:
    """Its answer, in so many seconds; what takes longer is given up, and not waited for."""
    task: asyncio.Task[Look] = asyncio.create_task(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.cancel()
        task.add_done_callback(lambda t: t.cancelled() or t.exception())  # nobody asks any more
        raise Unavailable("the database does not answer in time")
    return task.result()


def _is_telling(error: Unavailable) -> bool:
    """Whether another connection would say the same."""
    return isinstance(error.__cause__, asyncpg.DiskFullError)


async def horizon_holder(database: Database) -> Holder | None:
    """Who holds up the end of the log; None: nobody just now."""
    found = await database.fetch("horizon_holder")
    return Holder(*[found[0][name] for name in Holder._fields]) if found else None
