"""Dumps, restores, and readers that live through them: what several tests of a move to another cluster need."""

import asyncio
import contextlib
import shutil
from dataclasses import dataclass
from typing import Any

import asyncpg

from atomo_gql.domain.actions import NewEvent
from atomo_gql.domain.events import Event, EventFilter, Place, Stream
from atomo_gql.embedded.binaries import find_binaries, program
from atomo_gql.store import events
from atomo_gql.store.database import Database
from tests.conftest import with_database
from tests.parts import ROOT, Replica

RESTORED = "the schema has come from another PostgreSQL cluster"
DEAL = {"model": "Deal", "event": "created", "action": "greet"}
WORKFLOW = {
    "name": "welcome",
    "trigger": {"OnEvent": {"model": "Deal", "event_type": "created"}},
    "steps": [{"name": "a", "action": {"Job": {"queue": "w", "kind": "w", "wait": True}}}],
}


async def run_program(*command: object) -> None:
    """A program of PostgreSQL, which must end with 0."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


async def use_transaction_ids(dsn: str, count: int) -> None:
    """Have the cluster give out so many ids."""
    connection: Any = await asyncpg.connect(dsn)
    await connection.execute(
        f"DO $$ BEGIN FOR i IN 1..{count} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
    )
    await connection.close()


@dataclass
class Copier:
    """Dumps one database, and restores it elsewhere."""

    source: str
    cluster: str
    folder: Any

    async def dump(self) -> None:
        """As docs/operations.md has it."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder / "dump")
        await run_program(
            program(find_binaries(), "pg_dump"), "-n", "atomo", "-Fd", "-f", self.folder / "dump", self.source
        )

    async def make(self, name: str) -> str:
        """A new database; its address."""
        connection: Any = await asyncpg.connect(self.cluster)
        await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()
        return with_database(self.cluster, name)

    async def load(self, name: str, *options: str, address: str | None = None) -> str:
        """The dump, or a part of it, into that database; its address."""
        target = address or with_database(self.cluster, name)
        restore = program(find_binaries(), "pg_restore")
        await run_program(restore, "-d", target, "--no-owner", *options, self.folder / "dump")
        return target

    async def restore(self, name: str) -> str:
        """Into a new database; its address."""
        await self.make(name)
        return await self.load(name)


async def record_deals(replica: Replica, *numbers: int) -> None:
    """Events that fire DEAL and begin WORKFLOW."""
    for n in numbers:
        event = NewEvent(model="Deal", event="created", entity_id=str(n), data={}, event_id=f"deal {n}")
        await replica.services.records.record(ROOT, event)


async def read_log(database: Database, after: Place) -> tuple[list[Event], Place]:
    """What a reader that was at that place is told, and where it is then."""
    wanted = EventFilter(streams=(Stream.MODEL, Stream.JOB))
    found, place, _ = await events.tail(database, after, None, wanted, 1_000, 10_000_000)
    return found, place
