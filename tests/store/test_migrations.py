"""A database is brought to the schema of this version, or left alone with a reason."""

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from atomo_gql.domain.errors import Unavailable
from atomo_gql.store.migrations import SchemaError, known_migrations, migrate


@pytest.fixture
async def empty(cluster: str, dsn: str) -> str:
    """A database without our schema."""
    connection: Any = await asyncpg.connect(dsn)
    await connection.execute("DROP SCHEMA atomo CASCADE")
    await connection.close()
    return dsn


def _folder(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        (tmp_path / f"{name.lstrip('m')}.sql").write_text(text)
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
    folder = _folder(tmp_path, m0002_more="CREATE TABLE more (id int);")

    assert await migrate(dsn, folder=folder) == ["applied 0002 more"]
    assert await migrate(dsn, folder=folder) == []
    assert "more" in await _tables(dsn)


async def test_a_step_that_fails_leaves_nothing_behind(dsn: str, tmp_path: Path) -> None:
    folder = _folder(tmp_path, m0002_bad="CREATE TABLE half (id int); SELECT 1 / 0;")

    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(dsn, folder=folder)

    assert "half" not in await _tables(dsn)
    assert await migrate(dsn, folder=_folder(tmp_path, m0002_bad="SELECT 1;")) == ["applied 0002 bad"]


async def test_an_interrupted_step_outside_a_transaction_stops_the_next_start(dsn: str, tmp_path: Path) -> None:
    text = "-- no transaction\nCREATE TABLE first (id int);\nSELECT 1 / 0;\n"
    folder = _folder(tmp_path, m0002_long=text)

    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(dsn, folder=folder)
    with pytest.raises(SchemaError, match=r"half-migrated: 0002 long began at .* and did not finish"):
        await migrate(dsn, folder=folder)


async def test_a_newer_schema_is_refused(dsn: str, tmp_path: Path) -> None:
    await migrate(dsn, folder=_folder(tmp_path, m0002_future="SELECT 1;"))

    with pytest.raises(SchemaError, match=r"version 2, newer than this atomo-gql knows \(1\)"):
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
    with pytest.raises(SchemaError, match="not numbered 0002, 0003"):
        known_migrations(_folder(tmp_path, m0002_one="SELECT 1;", m0004_two="SELECT 1;"))
    assert [step.version for step in known_migrations()] == list(range(2, 2 + len(known_migrations())))
