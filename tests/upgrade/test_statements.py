"""What the previous version asks of the database means the same on this version's schema."""

import os
import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from atomo_gql.store.migrations import migrate

from .previous import NoPreviousVersion, files_under

_HEADER = re.compile(r"^-- name: (\w+)\(.*\) :(?:one|many)$", re.MULTILINE)
_JOURNAL = """
CREATE TABLE migrations (version integer PRIMARY KEY, name text NOT NULL,
    began_at timestamptz NOT NULL DEFAULT clock_timestamp(), finished_at timestamptz)"""
Shape = tuple[list[str], list[tuple[str, str]]]  # of a statement: the types it takes, and the columns it gives


def previous_files(folder: str) -> dict[str, str]:
    """Its files, or a skip where there is no history; CI has all of it."""
    try:
        return files_under(folder)
    except NoPreviousVersion as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def previous_statements() -> dict[str, str]:
    """The text of each of its statements, by name."""
    found: dict[str, str] = {}
    for text in previous_files("sql/queries").values():
        headers = list(_HEADER.finditer(text))
        for header, following in zip(headers, [*headers[1:], None], strict=True):
            found[header[1]] = text[header.end() : following.start() if following else None].strip()
    return found


def previous_version() -> int:
    """The number of its schema."""
    return len(previous_files("sql/migrations")) + 1


async def shapes(sql: Any) -> dict[str, Shape | str]:
    """What the database makes of each statement; of one that it cannot prepare, why."""
    found: dict[str, Shape | str] = {}
    for name, text in previous_statements().items():
        try:
            prepared = await sql.prepare(text)
        except asyncpg.PostgresError as error:
            found[name] = f"{error.sqlstate}: {error}"
            continue
        taken = [parameter.name for parameter in prepared.get_parameters()]
        found[name] = taken, [(column.name, column.type.name) for column in prepared.get_attributes()]
    return found


@pytest.fixture
async def before(dsn: str, sql: Any) -> AsyncIterator[Any]:
    """A connection to a database that the previous version has made."""
    await sql.execute("DROP SCHEMA atomo CASCADE; CREATE SCHEMA atomo")
    for _, text in sorted(previous_files("sql/schema").items()):
        await sql.execute(text)
    await sql.execute(_JOURNAL)
    await sql.execute("SELECT make_partitions(3)")
    await sql.execute("INSERT INTO migrations VALUES ($1, 'schema', now(), now())", previous_version())
    yield sql


@pytest.mark.parametrize("how", ["migrated", "made new"])
async def test_each_statement_of_the_previous_version_is_the_same_on_this_schema(
    before: Any, dsn: str, how: str
) -> None:
    expected = await shapes(before)
    assert {name: why for name, why in expected.items() if isinstance(why, str)} == {}, "on its own schema"
    if how == "made new":
        await before.execute("DROP SCHEMA atomo CASCADE")

    await migrate(dsn)

    connection: Any = await asyncpg.connect(dsn, server_settings={"search_path": "atomo"})
    try:
        found = await shapes(connection)
    finally:
        await connection.close()
    assert {name: shape for name, shape in found.items() if shape != expected[name]} == {}


async def test_the_previous_version_starts_and_is_ready_on_this_schema(before: Any, dsn: str) -> None:
    """Version c8930df reads `max(version)` of the table `migrations`. It refuses to start on a number above its own, is
    not ready (503) on any other, and stops at a row without `finished_at`. A later version has a window of its own."""
    await migrate(dsn)

    row = await before.fetchrow(previous_statements()["schema_version"])
    assert (row["version"], row["unfinished"]) == (previous_version(), False)
