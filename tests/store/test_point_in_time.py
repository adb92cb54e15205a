"""A backup of the whole PostgreSQL, restored to an earlier moment: its transaction ids are given out a second time."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from atomo_gql.domain.events import Place
from atomo_gql.embedded import EmbeddedPostgres
from atomo_gql.store.migrations import migrate
from tests.chaos.rig import a_folder
from tests.conftest import until
from tests.parts import replica_on

from .restoring import read_log, record_deals, run_program, use_transaction_ids


@pytest.fixture
def within() -> Iterator[Path]:
    """A folder that the database's user, who is not root, can reach."""
    with a_folder() as folder:
        yield folder


async def _until_promoted(dsn: str) -> list[str]:
    sql: Any = await asyncpg.connect(dsn)

    async def is_promoted() -> bool:
        is_in_recovery: bool = await sql.fetchval("SELECT pg_is_in_recovery()")
        return not is_in_recovery

    await until(is_promoted)
    await sql.close()
    return await migrate(dsn)


async def test_a_reader_goes_on_after_a_backup_was_restored_to_a_point_in_time(within: Path) -> None:
    folder, backup = within / "cluster", within / "backup"
    settings = {"fsync": "off"}
    postgres = EmbeddedPostgres(folder, settings=settings)
    dsn = await postgres.start()
    await migrate(dsn)
    async with replica_on(dsn) as replica:
        await record_deals(replica, 1)
    await postgres.stop()
    await run_program("cp", "-a", folder, backup)
    postgres = EmbeddedPostgres(folder, settings=settings)
    dsn = await postgres.start()
    async with replica_on(dsn) as replica:
        await use_transaction_ids(dsn, 1_000)
        await record_deals(replica, 2)
        _, place = await read_log(replica.database, Place())
    await postgres.stop()
    shutil.rmtree(folder)
    await run_program("cp", "-a", backup, folder)
    [wal] = folder.rglob("pg_wal")
    signal = wal.with_name("recovery.signal")
    signal.touch()
    os.chown(signal, wal.stat().st_uid, wal.stat().st_gid)
    postgres = EmbeddedPostgres(folder, settings={**settings, "restore_command": "false"})
    dsn = await postgres.start()
    try:
        [line] = await _until_promoted(dsn)
        assert line.startswith("PostgreSQL has gone back to an earlier moment, or a standby has taken over")
        assert await migrate(dsn) == []
        async with replica_on(dsn) as replica:
            await record_deals(replica, 3)
            told, _ = await read_log(replica.database, place)
            assert [e.data["eventId"] for e in told] == ["deal 3"]
    finally:
        await postgres.stop()
