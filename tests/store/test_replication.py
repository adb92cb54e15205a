"""A move to another cluster by logical replication, step by step as docs/operations.md has it."""

import asyncio
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from atomo_gql.domain.events import Place
from atomo_gql.embedded import EmbeddedPostgres
from atomo_gql.embedded.binaries import find_binaries, program
from atomo_gql.store.migrations import migrate
from tests.conftest import until
from tests.parts import ROOT, Replica, replica_on

from .restoring import DEAL, RESTORED, WORKFLOW, read_log, record_deals, run_program

DOCS = Path(__file__).parents[2] / "docs" / "operations.md"


def _documented(name: str) -> str:
    """The SQL of that name in the docs."""
    blocks = [textwrap.dedent(b.removeprefix("sql\n")) for b in DOCS.read_text(encoding="utf-8").split("```")[1::2]]
    [block] = [b for b in blocks if b.startswith(f"-- {name}\n")]
    return block


@pytest.fixture
async def clusters(tmp_path: Path) -> AsyncIterator[tuple[str, str]]:
    """The addresses of a source that may replicate, and of a target."""
    source = EmbeddedPostgres(tmp_path / "source", settings={"fsync": "off", "wal_level": "logical"})
    target = EmbeddedPostgres(tmp_path / "target", settings={"fsync": "off"})
    try:
        yield await source.start(), await target.start()
    finally:
        await target.stop()
        await source.stop()


async def _work(replica: Replica) -> None:
    await replica.settle()
    for job in await replica.lease("w"):
        await replica.complete(job)
    await replica.settle()


@pytest.mark.parametrize("is_younger", [True, False], ids=["to a younger cluster", "to an older one"])
async def test_a_move_by_logical_replication_goes_on_where_it_was(
    clusters: tuple[str, str], tmp_path: Path, is_younger: bool
) -> None:
    source, target = clusters
    older: Any = await asyncpg.connect(source if is_younger else target)
    await older.execute("DO $$ BEGIN FOR i IN 1..3000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")
    await older.close()
    await migrate(source)
    old: Any = await asyncpg.connect(source)
    new: Any = await asyncpg.connect(target)
    async with replica_on(source) as replica:
        await replica.services.bindings.register(ROOT, DEAL)
        await replica.services.workflows.register(ROOT, WORKFLOW)
        await record_deals(replica, 1, 2, 3)
        await _work(replica)

        dump, psql = program(find_binaries(), "pg_dump"), program(find_binaries(), "psql")
        await run_program(dump, "-n", "atomo", "-s", "-f", tmp_path / "schema.sql", source)
        await run_program(dump, "-a", "-t", "atomo.partitions", "-f", tmp_path / "partitions.sql", source)
        for file in ("schema.sql", "partitions.sql"):
            await run_program(psql, "-v", "ON_ERROR_STOP=1", "-f", tmp_path / file, target)
        await old.execute(_documented("publication"))
        await new.execute(_documented("subscription").replace("postgresql://…the old one…", source))

        await record_deals(replica, 4, 5)
        await _work(replica)
        await record_deals(replica, 6)  # and is not yet dispatched
        seen, place = await read_log(replica.database, Place())
    # The old servers have stopped.
    end = await old.fetchval("SELECT pg_current_wal_lsn()")

    async def has_caught_up() -> bool:
        is_there: bool = await old.fetchval(
            "SELECT bool_and(confirmed_flush_lsn >= $1) FROM pg_replication_slots", end
        ) and await new.fetchval("SELECT NOT EXISTS (SELECT FROM pg_subscription_rel WHERE srsubstate <> 'r')")
        return is_there

    await until(has_caught_up, within=60)
    await new.execute("DROP SUBSCRIPTION atomo_move")
    everything = "SELECT stream_id, version, xid, position FROM atomo.events ORDER BY xid, position"
    assert await new.fetch(everything) == await old.fetch(everything)
    assert any(line.startswith(RESTORED) for line in await migrate(target))
    assert await migrate(target) == []
    assert await new.fetch(everything) == await old.fetch(everything)
    async with replica_on(target) as replica:
        await record_deals(replica, 7)
        await _work(replica)
        told, _ = await read_log(replica.database, place)
        assert [e.data["eventId"] for e in told if "eventId" in e.data] == ["deal 7"]
        assert min(e.position for e in told) > max(e.position for e in seen)
        rows = await new.fetch("SELECT kind, count(*) FROM atomo.job_records GROUP BY kind ORDER BY kind")
        assert [tuple(row) for row in rows] == [("greet", 7), ("w", 7)]
        rows = await new.fetch("SELECT status, count(*) FROM atomo.workflow_runs GROUP BY status")
        assert [tuple(row) for row in rows] == [("Completed", 7)]
        assert await replica.differences() == []
    await asyncio.gather(old.close(), new.close())
