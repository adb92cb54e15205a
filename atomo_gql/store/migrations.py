"""Bringing a database to the schema this version speaks.

- `sql/schema` holds tables, types and triggers in their present shape, `sql/functions` the functions and views. A fresh
  database gets both, in the order of the files' numbers.
- `sql/functions` is applied again whenever a file of it has changed, so a function is never part of a step.
- `sql/migrations/NNNN_name.sql` are the steps for databases of an earlier version. `-- oldest server: N` in a step
  names the lowest schema version whose servers can work with what the step makes. The part behind the line
  `-- with the functions` runs after the functions have been applied.
- A step is one transaction. A step that begins with `-- online` is a list of statements. Each statement commits by
  itself, can be repeated, and runs again while it answers `true`. An interrupted step goes on at the next start.

docs/adr/0014 has the rules for who writes a step.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg

from atomo_gql import __version__
from atomo_gql.address import parse_address
from atomo_gql.store.connecting import COMMON_SETTINGS, SCHEMA, Purpose, connect
from atomo_gql.store.database import translated
from atomo_gql.store.poolers import find_way
from atomo_gql.store.statements import sql_root
from atomo_gql.store.steps import (
    BASELINE,
    Migration,
    SchemaError,
    checksum_of,
    known_migrations,
    misfit,
    newest_version,
)

log = logging.getLogger("atomo_gql.migrations")

_LOCK = "SELECT pg_advisory_lock(hashtextextended('atomo.migrate', 0))"
_TRY_LOCK = _LOCK.replace("pg_advisory_lock", "pg_try_advisory_lock")
_PURPOSE = Purpose("migrate", {**COMMON_SETTINGS, "lock_timeout": "0", "idle_in_transaction_session_timeout": "0"})
_LEAST_SERVER = 150_000  # PostgreSQL 15, as server_version_num
_LOCK_TIMEOUT = "500ms"  # all others wait behind a step that waits for a table
_PATIENCE_SECS = 1_200.0  # that a step goes on trying to get its locks
_SOON_SECS = 5.0  # that a start waits for what the servers would do later, too
_WITH_FUNCTIONS = "\n-- with the functions\n"


async def migrate(dsn: str, *, folder: Path | None = None, partition_days: int | None = None) -> list[str]:
    """Bring the database up to date under a lock; what was done, a line each (nothing: it was).

    Partitions for the next days are there afterwards, and a schema that was restored from another cluster goes on in
    this one. A later schema that says that this version can work with it is left as it is.

    Args:
        dsn: the address of the database.
        folder: the steps; None: those of `sql/migrations`.
        partition_days: how many days new partitions span; None: as many as before.

    Raises:
        SchemaError: the schema is too new or too old for this version, or not ours; or the server is too old.
        Unavailable: the database cannot be reached.
    """
    steps = known_migrations(folder)
    address = parse_address(dsn)
    with translated():
        way = await find_way(address, timeout=30)
        connection: Any = await connect(address, _PURPOSE, way, timeout=30, command_timeout=None)
        try:
            migrator = _Migrator(connection, steps, partition_days)
            return await (migrator.run_shared() if way.is_shared else migrator.run())
        finally:
            await connection.close(timeout=5)


class _Migrator:
    """One run, on a connection of its own."""

    def __init__(self, connection: Any, steps: list[Migration], partition_days: int | None = None) -> None:
        self._connection = connection
        self._steps = steps
        self._newest = newest_version(steps)
        self._partition_days = partition_days
        self._done: list[str] = []

    async def run(self) -> list[str]:
        """Do what there is to do."""
        number = int(await self._connection.fetchval("SHOW server_version_num"))
        if number < _LEAST_SERVER:
            raise SchemaError(f"PostgreSQL 15 or later is needed; this one is {number // 10_000}")
        if not await self._connection.fetchval(_TRY_LOCK):
            log.info("another atomo-gql is bringing the schema up to date; waiting for it")
            await self._connection.execute(_LOCK)
        version = await self.version()
        if version == 0:
            await self._make()
        elif version <= self._newest:
            for step in self._steps[max(0, version - BASELINE - 1) :]:
                await self._apply(step)
            await self._with_locks(self._replace_functions)
        await self._settle()
        return self._done

    async def run_shared(self) -> list[str]:
        """Do what can be done through a pooler in transaction mode, which keeps no lock between two transactions."""
        async with self._connection.transaction():
            if await self.version() < self._newest:
                raise SchemaError(
                    "a pooler in transaction mode cannot bring the schema up to date: set ATOMO_LISTEN_URL to a direct "
                    "address of the database, or run atomo-gql migrate with DATABASE_URL set to it"
                )
        await self._settle()
        return self._done

    async def version(self) -> int:
        """The version of the schema; 0: there is none yet."""
        fetchval = self._connection.fetchval
        if not await fetchval("SELECT to_regnamespace($1) IS NOT NULL", SCHEMA):
            return 0
        journal = "schema_versions"
        if not await fetchval("SELECT to_regclass($1) IS NOT NULL", f"{SCHEMA}.{journal}"):
            journal = "migrations"  # of a schema up to version 13
            if not await fetchval("SELECT to_regclass($1) IS NOT NULL", f"{SCHEMA}.{journal}"):
                if await fetchval("SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace($1)", SCHEMA):
                    raise SchemaError(
                        f"the database has a schema {SCHEMA} that this service did not make (no table "
                        f"{SCHEMA}.schema_versions); use another database, or move that schema away"
                    )
                return 0
        rows = await self._connection.fetch(f"SELECT * FROM {journal} ORDER BY version")  # noqa: S608  # one of two names
        if not rows:
            raise SchemaError(f"{SCHEMA}.{journal} is empty. Restore it, or drop the schema {SCHEMA}")
        version: int = rows[-1]["version"]
        if version < BASELINE or (journal == "migrations" and any(row["finished_at"] is None for row in rows)):
            raise SchemaError(
                f"the schema is version {version}, or half of it, and this atomo-gql brings schemas from version "
                f"{BASELINE} on up to date: start an atomo-gql of the version before it first"
            )
        if journal == "schema_versions":
            self._check_history(rows)
        return version

    def _check_history(self, rows: list[Any]) -> None:
        last, oldest_server = rows[-1], max(row["oldest_server"] for row in rows)
        if why := misfit(max(last["version"], self._newest), oldest_server, last["made_by"], self._newest):
            raise SchemaError(why)
        applied = {row["version"]: row["checksum"] for row in rows}
        for step in self._steps:
            if applied.get(step.version) not in (None, step.checksum):
                raise SchemaError(
                    f"sql/migrations/{step.version:04}_{step.name}.sql is not what was applied to this database. "
                    "A step is never edited: reinstall atomo-gql, or write another step"
                )

    async def _make(self) -> None:
        """The present schema, in an empty database."""
        async with self._connection.transaction():
            if not await self._connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", SCHEMA):
                await self._connection.execute(f"CREATE SCHEMA {SCHEMA}")
            schema = [(file.name, 0, file) for file in (sql_root() / "schema").glob("*.sql")]
            functions = [(file.name, 1, file) for file in _function_files()]
            for _, _, file in sorted(schema + functions, key=lambda f: (f[0][:2], f[1], f[0])):
                await self._connection.execute(file.read_text(encoding="utf-8"))
            await self._note_functions()
            last = self._steps[-1] if self._steps else None
            await self._note(self._newest, "schema", None, last.oldest_server if last else BASELINE)
            await self._note_installation()
        self._done.append(f"made schema {SCHEMA}, version {self._newest}")

    async def _apply(self, step: Migration) -> None:
        """Apply a step that has not been applied, or not to its end."""
        if await self._connection.fetchval(
            "SELECT to_regclass('schema_versions') IS NOT NULL"
        ) and await self._connection.fetchval(
            "SELECT EXISTS (SELECT FROM schema_versions WHERE version = $1 AND finished_at IS NOT NULL)", step.version
        ):
            return
        is_last = step is self._steps[-1]
        if step.is_online:
            await self._with_locks(lambda: self._begin_online(step, is_last))
            for statement in step.text.split(";\n"):
                if _is_code(statement):
                    await self._repeat(statement)
            await self._connection.execute(
                "UPDATE schema_versions SET finished_at = clock_timestamp() WHERE version = $1", step.version
            )
        else:
            await self._with_locks(lambda: self._transact(step, is_last))
        self._done.append(f"applied {step.version:04} {step.name}")

    async def _transact(self, step: Migration, is_last: bool) -> None:
        before, _, after = step.text.partition(_WITH_FUNCTIONS)
        await self._connection.execute(before)
        await self._note(step.version, step.name, step.checksum, step.oldest_server)
        if is_last:  # the functions are those of the newest version, and need all steps
            await self._replace_functions()
        if after:
            await self._connection.execute(after)
        if is_last:
            await self._note_installation()

    async def _begin_online(self, step: Migration, is_last: bool) -> None:
        if is_last:
            await self._replace_functions()
        await self._note(step.version, step.name, step.checksum, step.oldest_server, finished=False)

    async def _repeat(self, statement: str) -> None:
        """Run a statement of an online step until it no longer answers true."""

        async def once() -> bool:
            return (await self._connection.fetchval(statement)) is True

        while await self._insist(once, statement.strip().partition("\n")[0]):
            pass

    async def _with_locks(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do that in a transaction which gives up a lock it cannot have soon, and is tried again."""

        async def once() -> None:
            async with self._connection.transaction():
                await self._connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
                await work()

        await self._insist(once, "a step")

    async def _insist(self, once: Callable[[], Awaitable[Any]], what: str, patience: float = _PATIENCE_SECS) -> Any:
        until = time.monotonic() + patience
        is_told = False
        while True:
            try:
                return await once()
            except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                if time.monotonic() > until:
                    raise
                if not is_told:
                    log.info("%s of the migration waits for a lock that others hold, and is tried again", what)
                    is_told = True
                await asyncio.sleep(random.uniform(0.2, 1.0))  # noqa: S311  # jitter, not a secret

    async def _replace_functions(self) -> None:
        """Apply `sql/functions` if a file of it is not the one that is in the database."""
        known = {
            row["file"]: row["checksum"]
            for row in await self._connection.fetch("SELECT file, checksum FROM schema_functions")
        }
        if known == {file.name: checksum_of(file.read_text(encoding="utf-8")) for file in _function_files()}:
            return
        for file in _function_files():
            await self._connection.execute(file.read_text(encoding="utf-8"))
        await self._note_functions()
        if known:
            self._done.append("replaced the functions")

    async def _note_functions(self) -> None:
        await self._connection.execute("DELETE FROM schema_functions")
        for file in _function_files():
            checksum = checksum_of(file.read_text(encoding="utf-8"))
            await self._connection.execute(
                "INSERT INTO schema_functions VALUES ($1, $2, clock_timestamp())", file.name, checksum
            )

    async def _note_installation(self) -> None:
        await self._connection.execute(
            "INSERT INTO installation (cluster_id, xid_offset, partition_days) VALUES (cluster_id(), 0, 30) "
            "ON CONFLICT DO NOTHING"
        )

    async def _settle(self) -> None:
        """What time, and a restore, ask for before anything is written."""
        try:
            adopted = await self._insist(
                lambda: self._connection.fetchval("SELECT adopt_cluster()"), "a step", _SOON_SECS
            )
        except asyncpg.LockNotAvailableError:
            adopted = (
                "the schema has come from another PostgreSQL cluster; the servers go on with the order of events once "
                "the transactions have ended that hold the table events"
            )
        if adopted:
            self._done.append(adopted)
        if self._partition_days is not None:
            await self._connection.execute("UPDATE installation SET partition_days = $1", self._partition_days)
        await self._connection.execute("SELECT make_partitions(4)")

    async def _note(
        self, version: int, name: str, checksum: str | None, oldest_server: int, *, finished: bool = True
    ) -> None:
        await self._connection.execute(
            "INSERT INTO schema_versions (version, name, finished_at, checksum, oldest_server, made_by) "
            "VALUES ($1, $2, CASE WHEN $3 THEN clock_timestamp() END, $4, $5, $6) ON CONFLICT (version) DO NOTHING",
            version,
            name,
            finished,
            checksum,
            oldest_server,
            __version__,
        )


def _function_files() -> list[Path]:
    return sorted((sql_root() / "functions").glob("*.sql"))


def _is_code(statement: str) -> bool:
    return any(line.strip() and not line.lstrip().startswith("--") for line in statement.splitlines())
