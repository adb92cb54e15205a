"""Counting what a database does: bytes of the write-ahead log, buffers touched, statements run."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import asyncpg

from atomo_gql.store.database import Database

_SO_FAR = """
SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint, blks_hit + blks_read, xact_commit
FROM pg_stat_database WHERE datname = $1"""
# What a connection has counted is told at the end of a transaction that has looked at a table.
_TELL = "SELECT pg_stat_force_next_flush() FROM schema_versions LIMIT 1"
_QUIET = """
DO $$ DECLARE t regclass; BEGIN
    FOR t IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = 'atomo'::regnamespace LOOP
        EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off)', t);
    END LOOP;
END $$"""


class Spent(NamedTuple):
    """By some work; each statement is a transaction of its own."""

    wal: int
    buffers: int
    statements: int


class Meter:
    """Of one database, read from beside it: what the reading costs is not in it."""

    def __init__(self, database: Database, beside: Any) -> None:
        self._database, self._beside = database, beside
        self._name = urlsplit(database.dsn).path[1:]

    @classmethod
    async def on(cls, database: Database, beside: str) -> "Meter":
        """A meter for it, in which nothing is vacuumed any more at a moment of PostgreSQL's own choice."""
        async with database.connection() as connection:
            await connection.execute(_QUIET)
        return cls(database, await asyncpg.connect(beside))

    async def close(self) -> None:
        """Leave."""
        await self._beside.close()

    async def version(self) -> str:
        """The major one of PostgreSQL, and whether its log depends on when the last checkpoint was."""
        images = await self._beside.fetchval("SHOW full_page_writes")
        return f"{self._beside.get_server_version().major}, full_page_writes {images}"

    async def spent(self, work: Callable[[], Awaitable[object]]) -> Spent:
        """By that work, without what it takes to have the counts told."""
        start = await self._so_far()
        begin = await self._so_far()
        await work()
        end = await self._so_far()
        return Spent(*(e - b - (b - s) for s, b, e in zip(start, begin, end, strict=True)))

    async def _so_far(self) -> tuple[int, ...]:
        for pool in ("dispatch", "query"):
            async with self._database.connection(pool) as connection:
                await connection.execute(_TELL)
        return tuple(await self._beside.fetchrow(_SO_FAR, self._name))
