"""What the shell tells PostgreSQL (PG… variables, locales, time zones) is not heeded, and clocks may jump."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from atomo_gql.embedded import EmbeddedPostgres, account
from atomo_gql.store.migrations import migrate

from .helpers import AS_NOBODY, NOBODY, PURELIB, connected, other_process, remember, words

# Each breaks a client, a server or a program of PostgreSQL that heeds it.
SHELL = {
    "PGSSLMODE": "verify-full",
    "PGSSLNEGOTIATION": "direct",
    "PGSSLCERT": "/nowhere/cert",
    "PGSSLKEY": "/nowhere/key",
    "PGSSLROOTCERT": "/nowhere/root",
    "PGSSLCRL": "/nowhere/crl",
    "PGSSLMINPROTOCOLVERSION": "TLSv9",
    "PGCHANNELBINDING": "require",
    "PGGSSENCMODE": "require",
    "PGREQUIREAUTH": "gss",
    "PGTARGETSESSIONATTRS": "standby",
    "PGLOADBALANCEHOSTS": "random",
    "PGSERVICE": "nowhere",
    "PGSERVICEFILE": "/nowhere/service",
    "PGPASSFILE": "/nowhere/pass",
    "PGHOST": "nowhere.invalid",
    "PGHOSTADDR": "192.0.2.1",
    "PGPORT": "1",
    "PGUSER": "nobody",
    "PGPASSWORD": "wrong",
    "PGDATABASE": "nothing",
    "PGOPTIONS": "-c default_transaction_read_only=on",
    "PGTZ": "Nowhere/Land",
    "PGDATESTYLE": "nonsense",
    "PGCLIENTENCODING": "LATIN1",
    "PGDATA": "/nowhere/data",
    "PGCONNECT_TIMEOUT": "1",
    "PG_GRANDPARENT_PID": "1",
    "LC_ALL": "tlh_KX.UTF-8",
    "LC_MESSAGES": "tlh_KX.UTF-8",
    "LC_CTYPE": "tlh_KX.UTF-8",
    "LANG": "tlh_KX.ISO8859-15",
    "LANGUAGE": "tlh",
    "TZ": "Nowhere/Land",
}


async def _check(dsn: str) -> None:
    await migrate(dsn)
    async with connected(dsn) as connection:
        for name, value in {
            "TimeZone": "UTC",
            "log_timezone": "UTC",
            "lc_messages": "C",
            "server_encoding": "UTF8",
            "default_transaction_read_only": "off",
            "max_locks_per_transaction": "256",
        }.items():
            assert await connection.fetchval("SELECT current_setting($1)", name) == value, name


async def test_no_variable_of_the_shell_reaches_the_server_or_our_connections(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SHELL.items():
        monkeypatch.setenv(name, value)
    postgres = EmbeddedPostgres(fresh)
    await postgres.start()
    await _check(postgres.dsn)
    await postgres.stop()


@pytest.mark.parametrize(
    "name", ["PGSSLMODE", "PGSSLNEGOTIATION", "PGTARGETSESSIONATTRS", "PGSSLCERT", "PGSERVICE", "PGOPTIONS", "LC_ALL"]
)
async def test_no_variable_does_so_alone(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, SHELL[name])
    postgres = EmbeddedPostgres(folder)
    await postgres.start()
    await _check(postgres.dsn)
    await postgres.stop()


async def test_a_command_works_in_such_a_shell(fresh: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "DATABASE_URL_FILE")}
    done = subprocess.run(
        [sys.executable, "-m", "atomo_gql", "migrate"],
        env=kept | SHELL | {"ATOMO_DATA_DIR": str(fresh)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "made schema atomo" in done.stdout


FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


@pytest.mark.skipif(FAKETIME is None or not account.is_root(), reason="needs libfaketime, and root to become another")
async def test_a_clock_that_jumps_between_or_during_runs_loses_nothing(folder: Path, place: Path, python: str) -> None:
    clock = place / "clock"
    environment = {
        "CHILDREN_LD_PRELOAD": str(FAKETIME),
        "CHILDREN_FAKETIME_TIMESTAMP_FILE": str(clock),
        "CHILDREN_FAKETIME_NO_CACHE": "1",
        "CHILDREN_FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    account.give_tree(folder, NOBODY)
    expected = []
    for offset in (-30, 0, 400, -1000):
        clock.write_text(f"{offset:+}d")
        async with other_process(
            folder, python=python, path=PURELIB, within=AS_NOBODY, environment=environment
        ) as process:
            dsn = await process.dsn()
            async with connected(dsn) as connection:
                ahead = await connection.fetchval("SELECT extract(epoch FROM now())::float8") - time.time()
            assert abs(ahead / 86_400 - offset) < 1
            await remember(dsn, f"begun at {offset}")
            clock.write_text("+5000d")
            await remember(dsn, f"then after {offset}")
            clock.write_text("-5000d")
            expected += [f"begun at {offset}", f"then after {offset}"]
            assert await words(dsn) == sorted(expected)
            await process.stop()
