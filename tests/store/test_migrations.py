"""A database is brought to the schema of this version, or left alone with a reason."""

import asyncio
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from atomo_gql.domain.errors import Unavailable
from atomo_gql.store.migrations import SchemaError, known_migrations, migrate
from atomo_gql.store.statements import sql_root


@pytest.fixture
async def empty(cluster: str, dsn: str) -> str:
    """A database without our schema."""
    connection: Any = await asyncpg.connect(dsn)
    await connection.execute("DROP SCHEMA atomo CASCADE")
    await connection.close()
    return dsn


NEXT = len(known_migrations()) + 2


def _folder(tmp_path: Path, **files: str) -> Path:
    """The steps there are, and another."""
    for file in (sql_root() / "migrations").glob("*.sql"):
        shutil.copy(file, tmp_path)
    for name, text in files.items():
        (tmp_path / f"{NEXT:04}_{name}.sql").write_text(text)
    return tmp_path


async def _tables(dsn: str) -> set[str]:
    connection: Any = await asyncpg.connect(dsn)
    rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'atomo'")
    await connection.close()
    return {row["tablename"] for row in rows}


async def test_two_servers_that_start_at_once_make_one_schema(empty: str) -> None:
    done = await asyncio.gather(*(migrate(empty) for _ in range(4)))

    assert sorted(map(len, done)) == [0, 0, 0, 1]
    assert await migrate(empty) == []


async def test_a_step_is_applied_once(dsn: str, tmp_path: Path) -> None:
    folder = _folder(tmp_path, more="CREATE TABLE more (id int);")

    assert await migrate(dsn, folder=folder) == [f"applied {NEXT:04} more"]
    assert await migrate(dsn, folder=folder) == []
    assert "more" in await _tables(dsn)


async def test_a_step_that_fails_leaves_nothing_behind(dsn: str, tmp_path: Path) -> None:
    folder = _folder(tmp_path, bad="CREATE TABLE half (id int); SELECT 1 / 0;")

    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(dsn, folder=folder)

    assert "half" not in await _tables(dsn)
    assert await migrate(dsn, folder=_folder(tmp_path, bad="SELECT 1;")) == [f"applied {NEXT:04} bad"]


async def test_an_interrupted_step_outside_a_transaction_stops_the_next_start(dsn: str, tmp_path: Path) -> None:
    text = "-- no transaction\nCREATE TABLE first (id int);\nSELECT 1 / 0;\n"
    folder = _folder(tmp_path, long=text)

    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(dsn, folder=folder)
    with pytest.raises(SchemaError, match=rf"half-migrated: {NEXT:04} long began at .* and did not finish"):
        await migrate(dsn, folder=folder)


async def test_a_newer_schema_is_refused(dsn: str, tmp_path: Path) -> None:
    await migrate(dsn, folder=_folder(tmp_path, future="SELECT 1;"))

    with pytest.raises(SchemaError, match=rf"version {NEXT}, newer than this atomo-gql knows \({NEXT - 1}\)"):
        await migrate(dsn)


async def test_a_stranger_s_schema_is_left_alone(empty: str) -> None:
    connection: Any = await asyncpg.connect(empty)
    await connection.execute("CREATE SCHEMA atomo; CREATE TABLE atomo.theirs (id int)")
    await connection.close()

    with pytest.raises(SchemaError, match="did not make"):
        await migrate(empty)
    assert await _tables(empty) == {"theirs"}


async def test_a_database_that_is_away_is_said_to_be_so(dsn: str) -> None:
    with pytest.raises(Unavailable):
        await migrate("postgresql://nobody:x@127.0.0.1:1/none")


def test_steps_are_numbered_without_gaps(tmp_path: Path) -> None:
    for name in ("0002_one", "0004_two"):
        (tmp_path / f"{name}.sql").write_text("SELECT 1;")
    with pytest.raises(SchemaError, match="not numbered 0002, 0003"):
        known_migrations(tmp_path)
    assert [step.version for step in known_migrations()] == list(range(2, 2 + len(known_migrations())))


_CATALOGUE = {
    "columns": "SELECT table_name, column_name, rank() OVER (PARTITION BY table_name "
    "ORDER BY ordinal_position), data_type, is_nullable, column_default, "
    "collation_name FROM information_schema.columns WHERE table_schema = 'atomo' AND table_name !~ '_[0-9]{8}'",
    "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'atomo' AND indexdef !~ '_[0-9]{8}'",
    "functions": "SELECT proname, pg_get_functiondef(p.oid), proacl::text FROM pg_proc p "
    "WHERE pronamespace = 'atomo'::regnamespace",
    "statistics": "SELECT regexp_replace(attrelid::regclass::text, '[0-9]{8}', 'DAY'), attname, attstattarget "
    "FROM pg_attribute WHERE attstattarget >= 0 AND attrelid IN (SELECT oid FROM pg_class "
    "WHERE relnamespace = 'atomo'::regnamespace AND relkind IN ('r', 'p'))",
    "enums": "SELECT typname, enumlabel, rank() OVER (PARTITION BY typname ORDER BY enumsortorder) "
    "FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid",
    "tables": "SELECT relname, relpersistence::text, reloptions::text FROM pg_class "
    "WHERE relnamespace = 'atomo'::regnamespace AND relkind IN ('r', 'p', 'v') AND relname !~ '_[0-9]{8}'",
}


async def test_a_database_made_by_the_first_version_comes_to_the_present_one(empty: str, template: str) -> None:
    connection: Any = await asyncpg.connect(empty, server_settings={"search_path": "atomo"})
    try:
        await migrate(empty)
        fresh = {name: {tuple(r) for r in await connection.fetch(query)} for name, query in _CATALOGUE.items()}
        slack = "SELECT end_id_at(m) = first_id_at(m + $1) FROM (SELECT now() + $2 AS m) AS t"
        moment, hour = timedelta(milliseconds=10), timedelta(hours=1)
        assert await connection.fetchval(slack, moment, timedelta())
        await connection.execute("DROP SCHEMA atomo CASCADE; CREATE SCHEMA atomo")
        await connection.execute((Path(__file__).parent / "versions" / "0001.sql").read_text())
        await connection.execute(
            "SELECT make_partitions(1); CREATE TABLE migrations (version integer PRIMARY KEY, name text NOT NULL, "
            "began_at timestamptz NOT NULL DEFAULT clock_timestamp(), finished_at timestamptz); "
            "INSERT INTO migrations VALUES (1, 'schema', now(), now()); "
            "INSERT INTO job_records (id, created_at, priority, max_attempts, tenant, queue, kind) "
            "VALUES (new_id(), now(), 0, 5, 'acme', 'q', 'k'); "
            # Leased and handed back, retried by hand, leased again, and handed back again: one delivery since.
            "INSERT INTO ready (id, eligible_at, version, priority, attempts, max_attempts, tenant, queue) "
            "SELECT id, now(), 6, 0, 0, 5, tenant, queue FROM job_records; "
            "INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data) "
            "SELECT id, n, now(), 'Job', (ARRAY['enqueued', 'leased', 'released', 'retried', 'leased', 'released'])[n]"
            "::event_type, tenant, 'x', '{}' FROM job_records, generate_series(1, 6) AS n; "
            # And one that is dead.
            "INSERT INTO job_records (id, created_at, finished_at, version, attempts, outcome, error, priority, "
            "max_attempts, tenant, queue, kind) "
            "VALUES (new_id(), now(), now(), 3, 1, 'dead', 'boom', 0, 5, '', 'q', 'k')"
        )
        assert len(await migrate(empty)) == NEXT - 2
        migrated = {name: {tuple(r) for r in await connection.fetch(query)} for name, query in _CATALOGUE.items()}
        assert migrated == fresh
        assert await connection.fetchval(slack, hour, timedelta()), "an older job's id may be younger than the job"
        assert await connection.fetchval(slack, moment, 2 * hour)
        lanes = await connection.fetch("SELECT tenant, queue FROM lanes ORDER BY tenant")
        assert [tuple(r) for r in lanes] == [("", "q"), ("acme", "q")]
        assert [tuple(r) for r in await connection.fetch("SELECT kind, deliveries FROM ready")] == [("k", 1)]
        jobs = await connection.fetch("SELECT status, attempts, deliveries, error FROM jobs ORDER BY status")
        assert [tuple(r) for r in jobs] == [("dead", 1, 1, "boom"), ("queued", 0, 1, None)]
    finally:
        await connection.close()
