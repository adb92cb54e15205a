"""`atomo-gql check` says what a start would find, and changes nothing."""

import asyncio
import json
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from atomo_gql.cli.findings import State, findings
from atomo_gql.embedded import EmbeddedPostgres
from tests.conftest import SECRET, with_database


async def _check(tmp_path: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """The status and the output of the real command."""
    base = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "ATOMO_DATA_DIR": str(tmp_path / "data"), "PORT": "0"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "atomo_gql", "check", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,
        env={**base, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, dsn: str, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment with nothing wrong in it."""
    for name in list(os.environ):
        if name.startswith(("ATOMO_", "JWT_")):
            monkeypatch.delenv(name)
    for name, value in {
        "DATABASE_URL": dsn,
        "JWT_SECRET": SECRET,
        "PORT": "0",
        "ATOMO_DATA_DIR": str(tmp_path / "data"),
        "ATOMO_MAX_CONNECTIONS": "100",  # whatever the limit of open files is here
    }.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


async def _found() -> dict[str, tuple[State, str]]:
    """What there is to be found; of several with one name, the worst."""
    found: dict[str, tuple[State, str]] = {}
    order = list(State)
    async for finding in findings():
        if finding.name not in found or order.index(finding.state) > order.index(found[finding.name][0]):
            found[finding.name] = finding.state, finding.says
    return found


async def test_where_all_is_well_each_line_is_ok(given: pytest.MonkeyPatch, dsn: str) -> None:
    found = await _found()
    assert {name: says for name, (state, says) in found.items() if state is not State.OK} == {}
    assert set(found) >= {
        *("settings", "data folder", "port", "open files", "Redis", "database", "encoding", "isolation", "clock"),
        *("connections", "rights", "schema", "partitions"),
    }
    assert (urlsplit(dsn).password or "none") not in str(found)


async def test_the_command_writes_a_table_that_lines_up_and_ends_with_0(dsn: str, tmp_path: Path) -> None:
    status, output = await _check(tmp_path, DATABASE_URL=dsn, JWT_SECRET=SECRET, COLUMNS="80")
    assert status == 0, output
    begins = {match.start(1) for match in re.finditer(r"^[A-Za-z ]+?  +(ok|warning) ", output, re.MULTILINE)}
    columns = {match - output.rfind("\n", 0, match) for match in begins}
    assert len(columns) == 1, output
    assert max(map(len, output.splitlines())) <= 80
    assert not (tmp_path / "data").exists(), "it makes nothing"


async def test_what_would_keep_a_server_from_starting_ends_it_with_1_for_scripts_too(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"postgresql://u:s3cret@127.0.0.1:{free.getsockname()[1]}/d"
        status, output = await _check(tmp_path, "--json", DATABASE_URL=url, PORT="eighty", ATOMO_JWKS_URL="x")
    answer = json.loads(output)
    assert (status, answer["ok"]) == (1, False)
    states = [(f["name"], f["state"]) for f in answer["findings"] if f["state"] != "ok" and f["name"] != "open files"]
    assert states == [("settings", "failed"), ("settings", "warning"), ("database", "failed")]
    assert "s3cret" not in output
    assert not (tmp_path / "data").exists()


async def test_a_file_that_would_stop_a_start_fails(given: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        '{"name": "f", "steps": [{"name": "a", "action": {"SetVariable": {"key": "x", "value": 1}}}]}'
    )
    given.setenv("ATOMO_WORKFLOWS_DIR", str(tmp_path))
    assert (await _found())["files"] == (State.OK, f"workflows in {tmp_path}: 1")
    (tmp_path / "b.json").write_text("{]")
    state, says = (await _found())["files"]
    assert state is State.FAILED
    assert says.startswith(f"{tmp_path}/b.json: line 1, column 2")


async def test_an_option_that_is_none_ends_it_with_2(tmp_path: Path) -> None:
    assert (await _check(tmp_path, "--yaml"))[0] == 2


async def test_a_database_without_the_schema_is_left_without_it(
    given: pytest.MonkeyPatch, cluster: str, dsn: str, sql: Any
) -> None:
    await sql.execute("DROP SCHEMA atomo CASCADE")
    found = await _found()
    assert found["schema"] == (State.OK, found["schema"][1])
    assert found["schema"][1].startswith("is not there, and would be made as version ")
    assert found["rights"][0] is State.OK
    assert await sql.fetchval("SELECT to_regnamespace('atomo')") is None


async def test_a_schema_that_is_newer_fails_and_says_what_to_start(given: pytest.MonkeyPatch, sql: Any) -> None:
    later = "INSERT INTO schema_versions (version, name, finished_at, oldest_server) VALUES ($1, 'later', now(), $2)"
    await sql.execute(later, 9998, 1)
    assert (await _found())["schema"][0] is State.OK, "it says that this version can work with it"
    await sql.execute(later, 9999, 9998)
    state, says = (await _found())["schema"]
    assert state is State.FAILED
    assert "version 9999" in says
    assert "start a newer atomo-gql" in says


async def test_a_role_without_rights_fails_and_says_what_to_grant(
    given: pytest.MonkeyPatch, dsn: str, sql: Any
) -> None:
    role, parts = f"check_{os.getpid()}", urlsplit(dsn)
    await sql.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'")
    try:
        address = f"{role}:p@{parts.netloc.rpartition('@')[2]}"
        given.setenv("DATABASE_URL", urlunsplit(parts._replace(netloc=address)))
        found = await _found()
        assert found["rights"] == (
            State.FAILED,
            f"{role} may not use the schema atomo: GRANT USAGE, CREATE ON SCHEMA atomo TO {role}",
        )
        await sql.execute(f"GRANT USAGE, CREATE ON SCHEMA atomo TO {role}")
        found = await _found()
        state, says = found["rights"]
        assert state is State.FAILED
        assert found["database"][0] is State.OK
        assert re.search(rf"\d+ tables belong to \w+, whose rights {role} lacks: GRANT \w+ TO {role}", says)
    finally:
        await sql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_what_a_team_would_meet_later_is_warned_of(given: pytest.MonkeyPatch, dsn: str, sql: Any) -> None:
    database = urlsplit(dsn).path[1:]
    await sql.execute(f"ALTER DATABASE {database} SET default_transaction_isolation = 'serializable'")
    name = await sql.fetchval("SELECT name FROM partitions ORDER BY first_id DESC LIMIT 1")
    await sql.execute(f"DROP TABLE events_{name}, job_records_{name}")
    with socket.socket() as taken, socket.socket() as free:
        for bound in (taken, free):
            bound.bind(("127.0.0.1", 0))
        taken.listen()
        given.setenv("PORT", str(taken.getsockname()[1]))
        given.setenv("ATOMO_BROADCAST_URL", f"redis://127.0.0.1:{free.getsockname()[1]}")
        found = await _found()
    for name, word in {
        "isolation": "default_transaction_isolation = 'read committed'",
        "partitions": "missing for today",
        "port": "cannot be listened on",
        "Redis": "a server starts without it",
    }.items():
        assert found[name][0] is State.WARNING, found[name]
        assert word in found[name][1]


async def test_more_connections_than_there_are_fail(given: pytest.MonkeyPatch) -> None:
    given.setenv("ATOMO_WORKERS", "100")
    state, says = (await _found())["connections"]
    assert state is State.FAILED
    assert says.startswith("1,700 wanted, and PostgreSQL allows ")


async def test_an_encoding_that_is_not_utf8_fails(given: pytest.MonkeyPatch, cluster: str) -> None:
    name = f"check_ascii_{os.getpid()}"
    sql = await asyncpg.connect(cluster)
    try:
        await sql.execute(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
        given.setenv("DATABASE_URL", with_database(cluster, name))
        state, says = (await _found())["encoding"]
        assert state is State.FAILED
        assert "createdb -E UTF8" in says
    finally:
        await sql.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await sql.close()


async def test_the_embedded_database_is_looked_at_where_it_runs_and_never_started(
    given: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    given.delenv("DATABASE_URL")
    state, says = (await _found())["database"]
    assert state is State.OK
    assert f"embedded PostgreSQL in {folder} is not there; a start would make it" in says
    assert not folder.exists()

    postgres = EmbeddedPostgres(folder)
    await postgres.start()
    try:
        found = await _found()
        assert "answers in" in found["database"][1]
        assert found["schema"][1].startswith("is not there, and would be made")
    finally:
        await postgres.stop()
    assert "is not running; a start would start it" in (await _found())["database"][1]
