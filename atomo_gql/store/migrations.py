"""Bringing a database to the schema this version speaks.

`sql/schema` is the present shape, and what a fresh database gets in one transaction. `sql/migrations/NNNN_name.sql`
are the steps for databases that were made by an earlier version: each in a transaction of its own, or, when its first
line is `-- no transaction`, outside of one, with its beginning and its end noted apart.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atomo_gql.address import parse_address
from atomo_gql.store.connecting import COMMON_SETTINGS, SCHEMA, Purpose, connect
from atomo_gql.store.database import translated
from atomo_gql.store.poolers import find_way
from atomo_gql.store.statements import sql_root

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('atomo.migrate', 0))"
# DDL waits for whoever uses a table as long as it takes; the rest as for any connection.
_PURPOSE = Purpose("migrate", {**COMMON_SETTINGS, "lock_timeout": "0", "idle_in_transaction_session_timeout": "0"})
_LEAST_SERVER = 150_000  # PostgreSQL 15, as server_version_num
_JOURNAL = f"""
CREATE TABLE {SCHEMA}.migrations (
    version     integer PRIMARY KEY,
    name        text NOT NULL,
    began_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
)"""


class SchemaError(Exception):
    """The database's schema is not one this version can work with; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """A step from one version to the next."""

    version: int
    name: str
    text: str

    @property
    def is_transactional(self) -> bool:
        """Whether it can be undone as a whole."""
        return not self.text.startswith("-- no transaction")


def known_migrations(folder: Path | None = None) -> list[Migration]:
    """The steps that this version brings, in order. Version 1 is the first schema, and no step."""
    files = sorted((folder or sql_root() / "migrations").glob("[0-9]*.sql"))
    steps = [Migration(int(f.stem[:4]), f.stem[5:], f.read_text(encoding="utf-8")) for f in files]
    if [step.version for step in steps] != list(range(2, len(steps) + 2)):
        raise SchemaError(f"the files in sql/migrations are not numbered 0002, 0003 …: {[f.name for f in files]}")
    return steps


async def migrate(dsn: str, *, folder: Path | None = None) -> list[str]:
    """Bring the database up to date under a lock; what was done, a line each (nothing: it was).

    Raises:
        SchemaError: the schema is newer than this version, half-migrated, or not ours; or the server is too old.
        Unavailable: the database cannot be reached.
    """
    steps = known_migrations(folder)
    newest = steps[-1].version if steps else 1
    address = parse_address(dsn)
    with translated():
        way = await find_way(address, timeout=30)
        connection: Any = await connect(address, _PURPOSE, way, timeout=30, command_timeout=None)
        try:
            if way.is_shared:
                async with connection.transaction():
                    if await _version(connection, newest) != newest:
                        raise SchemaError(
                            "a pooler in transaction mode cannot bring the schema up to date: set ATOMO_LISTEN_URL to "
                            "a direct address of the database, or run atomo-gql migrate with DATABASE_URL set to it"
                        )
                return []
            return await _migrate(connection, steps)
        finally:
            await connection.close(timeout=5)


async def _migrate(connection: Any, steps: list[Migration]) -> list[str]:
    number = int(await connection.fetchval("SHOW server_version_num"))
    if number < _LEAST_SERVER:
        raise SchemaError(f"PostgreSQL 15 or later is needed; this one is {number // 10_000}")
    done: list[str] = []
    newest = steps[-1].version if steps else 1
    async with connection.transaction():
        await connection.execute(_LOCK)
        version = await _version(connection, newest)
        if version == 0:
            await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            for file in sorted((sql_root() / "schema").glob("*.sql")):
                await connection.execute(file.read_text(encoding="utf-8"))
            await connection.execute("SELECT make_partitions(3)")
            await connection.execute(_JOURNAL)
            await _note(connection, newest, "schema")
            return [f"made schema {SCHEMA}, version {newest}"]
    for step in steps[version - 1 :]:
        async with connection.transaction():
            await connection.execute(_LOCK)
            if await _version(connection, newest) >= step.version:
                continue
            if step.is_transactional:
                await connection.execute(step.text)
            await _note(connection, step.version, step.name, finished=step.is_transactional)
        if not step.is_transactional:
            for statement in step.text.split(";\n"):
                if statement.strip():
                    await connection.execute(statement)
            await connection.execute(
                "UPDATE migrations SET finished_at = clock_timestamp() WHERE version = $1", step.version
            )
        done.append(f"applied {step.version:04} {step.name}")
    return done


async def _version(connection: Any, newest: int) -> int:
    """The version of the schema; 0: there is none yet."""
    if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", SCHEMA):
        return 0
    if not await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", f"{SCHEMA}.migrations"):
        if await connection.fetchval("SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace($1)", SCHEMA):
            raise SchemaError(
                f"the database has a schema {SCHEMA} that this service did not make (no table {SCHEMA}.migrations); "
                "use another database, or move that schema away"
            )
        return 0
    half = await connection.fetchrow("SELECT version, name, began_at FROM migrations WHERE finished_at IS NULL")
    if half:
        raise SchemaError(
            f"the schema is half-migrated: {half['version']:04} {half['name']} began at "
            f"{half['began_at']:%Y-%m-%d %H:%M:%S} UTC and did not finish. See what is left of it, finish or undo it "
            f"by hand, then set finished_at, or delete its row, in {SCHEMA}.migrations"
        )
    version: int = await connection.fetchval("SELECT max(version) FROM migrations") or 0
    if version == 0:
        raise SchemaError(
            f"the schema is half-migrated: {SCHEMA}.migrations is empty. Restore it, or drop the schema {SCHEMA}"
        )
    if version > newest:
        raise SchemaError(
            f"the schema is version {version}, newer than this atomo-gql knows ({newest}); start a newer atomo-gql"
        )
    return version


async def _note(connection: Any, version: int, name: str, *, finished: bool = True) -> None:
    await connection.execute(
        "INSERT INTO migrations (version, name, finished_at) VALUES ($1, $2, CASE WHEN $3 THEN clock_timestamp() END)",
        version,
        name,
        finished,
    )


async def schema_version(dsn: str) -> int:
    """The version the database has; 0: none.

    Raises:
        SchemaError: as `migrate`.
    """
    with translated():
        connection: Any = await connect(parse_address(dsn), _PURPOSE, timeout=10)
        try:
            steps = known_migrations()
            return await _version(connection, steps[-1].version if steps else 1)
        finally:
            await connection.close(timeout=5)
