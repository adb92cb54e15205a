"""A database is brought to the schema of this version, or left alone with a reason."""

import asyncio
import itertools
import shutil
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from atomo_gql import __version__
from atomo_gql.domain.errors import Unavailable
from atomo_gql.store.migrations import migrate
from atomo_gql.store.statements import sql_root
from atomo_gql.store.steps import BASELINE, SchemaError, known_migrations, newest_version


@pytest.fixture
async def empty(cluster: str, dsn: str) -> str:
    """A database without our schema."""
    connection: Any = await asyncpg.connect(dsn)
    await connection.execute("DROP SCHEMA atomo CASCADE")
    await connection.close()
    return dsn


NEXT = newest_version() + 1


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


async def test_an_interrupted_online_step_goes_on_at_the_next_start(dsn: str, tmp_path: Path) -> None:
    lots = (
        "-- online\n-- oldest server: 1\nCREATE TABLE IF NOT EXISTS lots (id int);\n"
        "WITH lot AS (INSERT INTO lots VALUES (1) RETURNING 1) SELECT count(*) < 2 FROM lots;\n"
    )
    folder = _folder(tmp_path, long=lots + "SELECT 1 / (SELECT count(*) - 3 FROM lots);\n")

    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(dsn, folder=folder)
    assert await migrate(dsn) == [], "the version before it works beside it"

    assert await migrate(dsn, folder=folder) == [f"applied {NEXT:04} long"]
    assert await migrate(dsn, folder=folder) == []


async def test_a_newer_schema_is_refused_with_the_version_to_start(dsn: str, tmp_path: Path) -> None:
    await migrate(dsn, folder=_folder(tmp_path, future="SELECT 1;"))

    with pytest.raises(
        SchemaError,
        match=rf"version {NEXT}, made by atomo-gql {__version__}, and needs servers of schema version {NEXT} or later; "
        rf"this one is of {NEXT - 1}: start a newer atomo-gql",
    ):
        await migrate(dsn)


async def test_the_next_schema_is_worked_with_and_left_as_it_is(dsn: str, tmp_path: Path, sql: Any) -> None:
    folder = _folder(tmp_path, future=f"-- oldest server: {NEXT - 1}\nCREATE TABLE future (id int);")
    await migrate(dsn, folder=folder)
    await sql.execute("UPDATE schema_functions SET checksum = 'of the next version'")

    assert await migrate(dsn) == []
    assert await sql.fetchval("SELECT bool_and(checksum = 'of the next version') FROM schema_functions")


async def test_a_function_that_has_changed_is_applied_again(dsn: str, sql: Any) -> None:
    await sql.execute("CREATE OR REPLACE FUNCTION new_id() RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'")
    assert await migrate(dsn) == []
    await sql.execute("UPDATE schema_functions SET checksum = 'another' WHERE file = '10_ids.sql'")

    assert await migrate(dsn) == ["replaced the functions"]
    assert await sql.fetchval("SELECT new_id() IS NOT NULL")


async def test_a_step_that_was_edited_after_it_was_applied_is_noticed(dsn: str, tmp_path: Path) -> None:
    await migrate(dsn, folder=_folder(tmp_path, more="SELECT 1;"))

    with pytest.raises(SchemaError, match=rf"{NEXT:04}_more.sql is not what was applied"):
        await migrate(dsn, folder=_folder(tmp_path, more="SELECT 2;"))


async def test_a_step_that_waits_for_a_lock_holds_nobody_up_and_is_tried_again(
    dsn: str, tmp_path: Path, sql: Any
) -> None:
    folder = _folder(tmp_path, more="ALTER TABLE dead ADD COLUMN more int;")
    reader: Any = await asyncpg.connect(dsn, server_settings={"search_path": "atomo"})
    try:
        async with reader.transaction():
            await reader.fetch("SELECT FROM dead")
            step = asyncio.create_task(migrate(dsn, folder=folder))
            for _ in range(5):
                await sql.execute("SET lock_timeout = '5s'")
                await sql.fetch("SELECT FROM dead")
                await asyncio.sleep(0.2)
            assert not step.done()
        assert await step == [f"applied {NEXT:04} more"]
    finally:
        await reader.close()


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
    for name in ("0014_one", "0016_two"):
        (tmp_path / f"{name}.sql").write_text("SELECT 1;")
    with pytest.raises(SchemaError, match="not numbered 0014, 0015"):
        known_migrations(tmp_path)
    assert [step.version for step in known_migrations()] == list(
        range(BASELINE + 1, BASELINE + 1 + len(known_migrations()))
    )


_CATALOGUE = {
    "columns": "SELECT table_name, column_name, rank() OVER (PARTITION BY table_name "
    "ORDER BY ordinal_position), data_type, is_nullable, column_default, "
    "collation_name FROM information_schema.columns WHERE table_schema = 'atomo' AND table_name !~ '_[0-9]{8}'",
    "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'atomo' AND indexdef !~ '_[0-9]{8}'",
    "triggers": "SELECT tgname, tgrelid::regclass::text, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
    "constraints": "SELECT conrelid::regclass::text, contype::text, pg_get_constraintdef(oid) FROM pg_constraint "
    "WHERE connamespace = 'atomo'::regnamespace AND conrelid::regclass::text !~ '_[0-9]{8}'",
    "functions": "SELECT proname, pg_get_functiondef(p.oid), proacl::text FROM pg_proc p "
    "WHERE pronamespace = 'atomo'::regnamespace",
    "statistics": "SELECT regexp_replace(attrelid::regclass::text, '[0-9]{8}(_[0-9]{8})?', 'DAYS'), attname, "
    "attstattarget FROM pg_attribute WHERE attstattarget >= 0 AND attrelid IN (SELECT oid FROM pg_class "
    "WHERE relnamespace = 'atomo'::regnamespace AND relkind IN ('r', 'p'))",
    "enums": "SELECT typname, enumlabel, rank() OVER (PARTITION BY typname ORDER BY enumsortorder) "
    "FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid",
    "tables": "SELECT relname, relpersistence::text, reloptions::text FROM pg_class "
    "WHERE relnamespace = 'atomo'::regnamespace AND relkind IN ('r', 'p', 'v') AND relname !~ '_[0-9]{8}'",
}


async def _at_baseline(connection: Any) -> None:
    """A database as version 13 made it, of four days, with a gap behind them, and jobs of all states."""
    await connection.execute("DROP SCHEMA IF EXISTS atomo CASCADE; CREATE SCHEMA atomo")
    await connection.execute((Path(__file__).parent / "versions" / "0013.sql").read_text())
    await connection.execute(
        "SELECT make_partitions(1); CREATE TABLE migrations (version integer PRIMARY KEY, name text NOT NULL, "
        "began_at timestamptz NOT NULL DEFAULT clock_timestamp(), finished_at timestamptz); "
        "INSERT INTO migrations VALUES (13, 'schema', now(), now()); "
        "SELECT enqueue_job('q', 'k', '{}', 'key', tenant_id => 'acme'); SELECT enqueue_job('q', 'k'); "
        # A pause that outlived the day it began on.
        "INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data) "
        "VALUES (first_id_at('2026-01-01T12:00Z'), 1, now(), 'Queue', 'paused', '', 'x', '{}'); "
        # And what was written on days for which no partition had been made.
        "INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data) "
        "SELECT first_id_at(now() + n * interval '5 days'), 1, now(), 'Definition', 'registered', '', 'x', '{}' "
        "FROM generate_series(1, 3) AS n"
    )


async def test_a_database_made_by_the_baseline_comes_to_the_present_one(empty: str) -> None:
    connection: Any = await asyncpg.connect(empty, server_settings={"search_path": "atomo", "timezone": "UTC"})
    try:
        await migrate(empty)
        fresh = {name: {tuple(r) for r in await connection.fetch(query)} for name, query in _CATALOGUE.items()}
        await _at_baseline(connection)
        events = await connection.fetch("SELECT stream_id, position, xid, data FROM events ORDER BY position")
        job_rows = await connection.fetch("SELECT * FROM jobs ORDER BY id")

        assert await migrate(empty) == [f"applied {step.version:04} {step.name}" for step in known_migrations()]

        migrated = {name: {tuple(r) for r in await connection.fetch(query)} for name, query in _CATALOGUE.items()}
        assert migrated == fresh
        assert await connection.fetch("SELECT stream_id, position, xid, data FROM events ORDER BY position") == events
        assert await connection.fetch("SELECT * FROM jobs ORDER BY id") == job_rows
        assert await connection.fetchval("SELECT count(*) FROM events WHERE tableoid = 'events'::regclass") == 0
        pairs = await connection.fetch("SELECT name, first_id, end_id FROM partitions ORDER BY first_id")
        for before, after in itertools.pairwise(pairs):
            assert before["end_id"] <= after["first_id"]
        assert await migrate(empty) == []
    finally:
        await connection.close()


@pytest.mark.parametrize("parents", [(), ("events",)], ids=["both detached", "one dropped"])
async def test_days_that_were_detached_or_dropped_by_hand_come_to_the_present_version(
    empty: str, parents: tuple[str, ...]
) -> None:
    connection: Any = await asyncpg.connect(empty, server_settings={"search_path": "atomo", "timezone": "UTC"})
    try:
        await _at_baseline(connection)
        day = await connection.fetchval("SELECT max(day) FROM partition_days")
        for parent in ("events", "job_records"):
            if not parents:
                await connection.execute(f"ALTER TABLE {parent} DETACH PARTITION {parent}_{day}")
        for parent in parents:
            await connection.execute(f"DROP TABLE {parent}_{day}")
        await connection.execute(
            "INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data) "
            "VALUES (first_id_at(to_date($1, 'YYYYMMDD') + interval '6 hours'), 1, now(), 'Queue', 'paused', '', 'x', "
            "'{}')",
            day,
        )
        count = await connection.fetchval("SELECT count(*) FROM events")

        assert await migrate(empty) == [f"applied {step.version:04} {step.name}" for step in known_migrations()]

        assert await connection.fetchval("SELECT count(*) FROM events") == count
        assert await connection.fetchval("SELECT bool_and(has_events AND has_records) FROM attached_partitions")
        assert await connection.fetchval("SELECT is_partitioned(to_date($1, 'YYYYMMDD'))", day)
    finally:
        await connection.close()


async def test_a_schema_older_than_the_baseline_is_told_which_version_to_start_first(empty: str) -> None:
    connection: Any = await asyncpg.connect(empty, server_settings={"search_path": "atomo"})
    await _at_baseline(connection)
    await connection.execute("UPDATE migrations SET version = 12")
    await connection.close()

    with pytest.raises(SchemaError, match=r"version 12, .* start an atomo-gql of the version before it first"):
        await migrate(empty)
