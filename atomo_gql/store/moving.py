"""Moving an installation from one PostgreSQL to another.

The target gets the schema from our own migrations, not from a dump of the source, so that their versions need not be
the same. Then every table is copied as text, its columns by name, all as of one moment of the source. Writers of the
source are shut out by locks on its tables meanwhile. What there is to copy is read from the source's catalog.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from atomo_gql.address import parse_address
from atomo_gql.store.connecting import SCHEMA, Purpose, connect
from atomo_gql.store.migrations import migrate

_LEAST_SERVER = 150_000  # PostgreSQL 15, as server_version_num
_WAIT = "5s"  # for writers of the source to finish what they are at
_CHUNKS = 16  # in flight between the two servers; each is a few kilobytes
_JOURNAL = ["schema_versions", "schema_functions"]  # what the target's own migrations did

# Texts must mean the same on both sides, whatever the servers' own settings are.
_SETTINGS = {
    "search_path": SCHEMA,
    "timezone": "UTC",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "extra_float_digits": "3",
    "client_encoding": "UTF8",
    "idle_in_transaction_session_timeout": "0",
    "statement_timeout": "0",
}
_PURPOSE = Purpose("move", _SETTINGS)

_TABLES = """
SELECT c.relname AS name, c.relkind = 'p' AS is_parent, c.relispartition AS is_partition,
       p.relname AS parent,
       array(SELECT a.attname::text FROM pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
              ORDER BY a.attnum) AS columns
  FROM pg_class c
  LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
  LEFT JOIN pg_class p ON p.oid = i.inhparent
 WHERE c.relnamespace = to_regnamespace($1) AND c.relkind IN ('r', 'p') AND c.relname <> ALL ($2::text[])
       -- what a rewrite of partitions has replaced, or has not put in place yet
       AND (c.relispartition OR c.relname !~ '^(detached_[0-9]+$|(events|job_records)_[0-9])')
 ORDER BY c.relname
"""
# adopt_cluster (functions/60_order.sql) takes events for restored ones if they are older than this index, as a dump
# makes them: so it is made after the copy.
_ORDER_INDEX = "events_in_commit_order"
_SEQUENCES = "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace($1) AND relkind = 'S' ORDER BY relname"
# The sessions of servers, and of commands, that have this database open.
_OTHERS = """
SELECT application_name, count(*) AS sessions FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'atomo-gql%'
   AND application_name <> 'atomo-gql move'
 GROUP BY application_name ORDER BY application_name
"""


class MoveError(Exception):
    """The installation cannot be moved; the message is one sentence that says why, and what to do."""


@dataclass
class Moved:
    """What was moved, or would be."""

    rows: dict[str, int] = field(default_factory=dict)
    """Rows by table; those of a table's partitions are counted together."""
    partitions: int = 0
    source_version: str = ""
    target_version: str = ""


Progress = Callable[[int, int], None]
"""Called with the number of rows that are copied so far, and of all rows."""


async def move(source_dsn: str, target_dsn: str, *, dry_run: bool = False, progress: Progress | None = None) -> Moved:
    """Copy all data of the schema to another database, and count the rows of each table there.

    With `dry_run` everything is checked and counted, and nothing is written.

    Raises:
        MoveError: one of the databases is not fit for it, or the copy failed; the target is then empty again.
        SchemaError: the source's schema is not one this version can work with.
        Unavailable: a database was lost.
    """
    async with _connected(source_dsn, "source") as source, _connected(target_dsn, "target") as target:
        await _check_target(target)
        await _check_source(source)
        if not dry_run:
            await migrate(source_dsn)
            await source.execute("SELECT abandon_rewrite()")
        names = [row["name"] for row in await source.fetch(_TABLES, SCHEMA, _JOURNAL) if not row["is_partition"]]
        async with source.transaction(isolation="repeatable_read"):
            await _shut_writers_out(source, names)
            await _refuse_servers(source)
            copy = _Copy(source_dsn, target_dsn, source, target, progress or (lambda done, total: None))
            await copy.count()
            if not dry_run:
                await copy.run()
            moved = copy.moved
        moved.source_version = await source.fetchval("SHOW server_version")
        moved.target_version = await target.fetchval("SHOW server_version")
    return moved


class _Copy:
    """One copy, as of one moment of the source, whose tables are locked."""

    def __init__(self, source_dsn: str, target_dsn: str, source: Any, target: Any, progress: Progress) -> None:
        self._source_dsn, self._target_dsn = source_dsn, target_dsn
        self._source, self._target = source, target
        self._progress = progress
        self._tables: list[Any] = []
        self._counts: dict[str, int] = {}
        self._done = 0
        self.moved = Moved()

    async def count(self) -> None:
        """Count the rows of every table."""
        self._tables = await self._source.fetch(_TABLES, SCHEMA, _JOURNAL)
        for table in self._tables:
            if not table["is_parent"]:
                rows = await self._source.fetchval(f"SELECT count(*) FROM {_quoted(table['name'])}")  # noqa: S608
                self._counts[table["name"]] = rows
                whole = table["parent"] or table["name"]
                self.moved.rows[whole] = self.moved.rows.get(whole, 0) + rows
        self.moved.partitions = sum(table["is_partition"] for table in self._tables)

    async def run(self) -> None:
        """Make the target's schema and fill it."""
        was_there = await self._target.fetchval("SELECT to_regnamespace($1) IS NOT NULL", SCHEMA)
        try:
            await migrate(self._target_dsn)
            await make_partitions(self._source, self._target)
            await self._check_columns()
            order_index = await self._target.fetchval("SELECT pg_get_indexdef($1::regclass)", _ORDER_INDEX)
            await self._target.execute(f"DROP INDEX {_ORDER_INDEX}")
            snapshot = await self._source.fetchval("SELECT pg_export_snapshot()")
            async with _connected(self._source_dsn, "source") as reader:
                for table in self._tables:
                    if not table["is_parent"]:
                        await self._copy(reader, snapshot, table)
            for row in await self._source.fetch(_SEQUENCES, SCHEMA):
                name = _quoted(row["relname"])
                state = await self._source.fetchrow(f"SELECT last_value, is_called FROM {name}")  # noqa: S608
                await self._target.execute("SELECT setval($1::regclass, $2, $3)", name, *state)
            await self._target.execute(order_index.replace(" ON ONLY ", " ON "))
            # Positions go on in the target's cluster, and the next days have partitions.
            await migrate(self._target_dsn)
            await self._target.execute(f"ANALYZE {', '.join(_quoted(name) for name in self.moved.rows)}")
        except BaseException as error:
            told = await self._undo(was_there=was_there)
            if isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError | OSError):
                raise MoveError(f"the copy failed ({error}); {told}") from error
            raise

    async def _copy(self, reader: Any, snapshot: str, table: Any) -> None:
        """Stream one table. A transaction for each: the locks of a thousand partitions at once would be too many."""
        name = table["name"]
        columns = ", ".join(map(_quoted, table["columns"]))
        chunks: asyncio.Queue[bytes | None] = asyncio.Queue(_CHUNKS)

        async def take(chunk: bytes) -> None:
            await chunks.put(chunk)

        async def give() -> AsyncIterator[bytes]:
            while (chunk := await chunks.get()) is not None:
                yield chunk
                self._done += chunk.count(b"\n")  # a line break within a text is written as \\n
                self._progress(self._done, sum(self._counts.values()))

        async def read() -> None:
            async with reader.transaction(isolation="repeatable_read", readonly=True):
                await reader.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
                await reader.copy_from_query(f"SELECT {columns} FROM {_quoted(name)}", output=take)  # noqa: S608
            await chunks.put(None)

        async def write() -> None:
            async with self._target.transaction():
                await self._target.execute(f"TRUNCATE {_quoted(name)}")  # what the migrations put there
                await self._target.copy_to_table(
                    name, schema_name=SCHEMA, columns=table["columns"], source=give(), timeout=None
                )

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(read())
                group.create_task(write())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        there = await self._target.fetchval(f"SELECT count(*) FROM {_quoted(name)}")  # noqa: S608
        if there != self._counts[name]:
            raise MoveError(f"{name} has {self._counts[name]:,} rows in the source and {there:,} in the target")

    async def _check_columns(self) -> None:
        """Both sides have the same tables and columns, or a column would be lost without a word."""
        found = {row["name"]: set(row["columns"]) for row in await self._target.fetch(_TABLES, SCHEMA, _JOURNAL)}
        for table in self._tables:
            if set(table["columns"]) != found.pop(table["name"], None):
                raise MoveError(f"the table {table['name']} of the source is not one that this version makes")
        if found:
            raise MoveError(f"the source lacks the tables {', '.join(sorted(found))}")

    async def _undo(self, *, was_there: bool) -> str:
        """Empty the target again, where it can be reached; returns a clause that says what is there now."""
        with contextlib.suppress(MoveError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            async with _connected(self._target_dsn, "target") as target:
                await target.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
                if was_there:
                    await target.execute(f"CREATE SCHEMA {SCHEMA}")
            return "the target is empty again"
        return f"drop the schema {SCHEMA} of the target before you try again"


async def make_partitions(source: Any, target: Any) -> None:
    """Give the target the partitions that the source has, and no others."""
    async with target.transaction():
        for table in await target.fetch(_TABLES, SCHEMA, _JOURNAL):
            if table["is_partition"]:
                await target.execute(f"DROP TABLE {_quoted(table['name'])}")
        await target.execute("DELETE FROM partitions")
    for pair in await source.fetch("SELECT name, first_id, end_id FROM partitions ORDER BY first_id"):
        async with target.transaction():
            await target.execute("SELECT make_pair($1, $2, $3)", *pair)
            await target.execute("SELECT attach_pair($1, $2, $3)", *pair)


@contextlib.asynccontextmanager
async def _connected(dsn: str, side: str) -> AsyncIterator[Any]:
    """A connection for the length of the block, with a client's errors as sentences."""
    try:
        connection: Any = await connect(parse_address(dsn), _PURPOSE, timeout=30, command_timeout=None)
    except asyncpg.ReadOnlySQLTransactionError as error:
        raise MoveError(f"the {side} is read-only; name the primary server") from error
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise MoveError(f"the {side} cannot be reached: {error or type(error).__name__}") from error
    try:
        yield connection
    finally:
        with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close(timeout=5)


async def _check_target(target: Any) -> None:
    if (number := int(await target.fetchval("SHOW server_version_num"))) < _LEAST_SERVER:
        raise MoveError(f"the target is PostgreSQL {number // 10_000}; PostgreSQL 15 or later is needed")
    if (encoding := await target.fetchval("SHOW server_encoding")) != "UTF8":
        raise MoveError(f"the target's encoding is {encoding}; make a database with ENCODING 'UTF8' and name that")
    if (
        await target.fetchval("SELECT pg_is_in_recovery()")
        or await target.fetchval("SHOW transaction_read_only") == "on"
    ):
        raise MoveError("the target is read-only; name the primary server")
    if not await target.fetchval("SELECT to_regnamespace($1) IS NOT NULL", SCHEMA):
        if not await target.fetchval("SELECT has_database_privilege(current_database(), 'CREATE')"):
            raise MoveError(
                f"the target's role {await target.fetchval('SELECT current_user')} may not make the schema {SCHEMA}: "
                f"GRANT CREATE ON DATABASE …, or have an administrator CREATE SCHEMA {SCHEMA} AUTHORIZATION it"
            )
        return
    if await target.fetchval("SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace($1)", SCHEMA):
        raise MoveError(
            f"the target has a schema {SCHEMA} already, and nothing of it is touched; name another database, or drop "
            f"that schema (DROP SCHEMA {SCHEMA} CASCADE) if nobody needs it"
        )
    if not await target.fetchval(
        "SELECT has_schema_privilege($1, 'CREATE') AND has_schema_privilege($1, 'USAGE')", SCHEMA
    ):
        raise MoveError(
            f"the target's role may make nothing in the schema {SCHEMA}: GRANT ALL ON SCHEMA {SCHEMA} to it"
        )


async def _check_source(source: Any) -> None:
    if not await source.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{SCHEMA}.events"):
        raise MoveError(f"the source has no schema {SCHEMA} of this service: there is nothing to move")
    await _refuse_servers(source)


async def _refuse_servers(source: Any) -> None:
    """A server is idle now and then, and would go on with the source after the move."""
    others = await source.fetch(_OTHERS)
    if others:
        told = ", ".join(f"{row['sessions']} of {row['application_name']!r}" for row in others)
        raise MoveError(f"the source is in use (sessions: {told}); stop all servers, and try again")


async def _shut_writers_out(source: Any, names: list[str]) -> None:
    """Lock tables against writers until the transaction ends; readers go on.

    Of a partitioned table the parent alone is locked: writers come through it, and the locks stay few. The snapshot of
    the transaction is taken after this.
    """
    await source.execute(f"SET LOCAL lock_timeout = '{_WAIT}'")
    try:
        await source.execute(f"LOCK TABLE {', '.join(f'ONLY {_quoted(name)}' for name in names)} IN EXCLUSIVE MODE")
    except asyncpg.LockNotAvailableError as error:
        raise MoveError(
            f"somebody is writing to the source (a table was not free within {_WAIT}); stop all servers and all "
            "programs that enqueue by SQL, and try again"
        ) from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise MoveError(f"the source's role may not lock its tables ({error}); use the role that owns them") from error


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
