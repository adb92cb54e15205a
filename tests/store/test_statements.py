"""Every statement is what its header says, on a migrated database, and is called from one place."""

import re
from pathlib import Path
from typing import Any

import pytest

from atomo_gql.store.statements import sql_root, statements

ALIASES = {"int2": "smallint", "int4": "integer", "int8": "bigint", "bool": "boolean"}


def _plain(name: str) -> str:
    is_array = name.startswith("_") or name.endswith("[]")
    base = name.removeprefix("_").removesuffix("[]")
    return ALIASES.get(base, base) + ("[]" if is_array else "")


@pytest.mark.parametrize("name", sorted(statements()))
async def test_a_statement_takes_what_its_header_says(sql: Any, name: str) -> None:
    statement = statements()[name]

    prepared = await sql.prepare(statement.text)

    assert [_plain(p.name) for p in prepared.get_parameters()] == [_plain(t) for _, t in statement.parameters]
    columns = [a.name for a in prepared.get_attributes()]
    assert len(columns) == len(set(columns)), "two columns of one name"


def test_each_statement_is_called_from_one_module_of_the_store() -> None:
    store = Path(sql_root().parent / "atomo_gql" / "store")
    files = [*store.rglob("*.py"), store.parent / "service" / "health.py"]
    modules = {str(file.relative_to(store.parent)): file.read_text() for file in files}

    callers = {
        name: [module for module, text in modules.items() if re.search(rf'"{name}"', text)] for name in statements()
    }

    assert {name: found for name, found in callers.items() if len(found) != 1} == {}


def test_statements_name_tables_without_a_schema() -> None:
    named = [s.name for s in statements().values() if re.search(r"\batomo\.", s.text)]
    assert named == ["job_enqueue_within"], "which runs on the connections of others, and names no table"
