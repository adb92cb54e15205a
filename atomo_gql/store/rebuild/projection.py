"""The whole projection: proven beside a live service, or made anew while all others wait.

The log is read in ranges of ids, each in a short snapshot of its own, so that a proof of millions of jobs on a live
database holds no old row versions back.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import ModuleType
from uuid import UUID

from atomo_gql.store.database import Database
from atomo_gql.store.rebuild import jobs, runs
from atomo_gql.store.rebuild.log import Difference, events_of, ids_after
from atomo_gql.store.statements import statements

_FIRST = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Proof:
    """How far a verification has come."""

    compared: int  # jobs so far
    events: int
    differences: tuple[Difference, ...]  # found in this range
    runs: int = 0  # of workflows, compared so far


@dataclass(frozen=True, slots=True)
class Made:
    """What a rebuild has made."""

    jobs: int
    runs: int


async def estimate(database: Database) -> int:
    """About how many jobs and runs there are."""
    row = await database.fetch_one("rebuild_estimate")
    return int(row["jobs"] + row["runs"])


async def verify(database: Database) -> AsyncIterator[Proof]:
    """Compare every row of jobs, then of runs, with its events, column for column; yields after each range."""
    seen, compared = 0, {jobs: 0, runs: 0}
    for room in (jobs, runs):
        after = _FIRST
        while True:
            async with (
                database.connection() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                await connection.execute(statements()["rebuild_hold"].text)
                ids = await ids_after(connection, room.IN_EITHER, after)
                if not ids:
                    break
                events = await events_of(connection, ids)
                differences = await room.compare(connection, events)
            compared[room] += len(ids)
            seen += sum(map(len, events.values()))
            after = ids[-1]
            yield Proof(compared[jobs], seen, tuple(differences), compared[runs])


async def rebuild(database: Database) -> Made:
    """Drop the projection and make it anew from the events, in one transaction that others wait for.

    A live lease gets its full visibility again, counted from now: its deadline is not in the events. Runs that wait for
    a job that has ended go on.

    Raises:
        BrokenStream: a stream contradicts itself; nothing is changed.
    """
    async with database.connection() as connection, connection.transaction():
        for name in ("rebuild_lock", "rebuild_abandon_rewrite", "rebuild_empty"):
            await connection.execute(statements()[name].text, timeout=None)
        made = Made(await _make(connection, jobs), await _make(connection, runs))
        await runs.settle(connection)
        return made


async def _make(connection: object, room: ModuleType) -> int:
    after, made = _FIRST, 0
    while ids := await ids_after(connection, room.IN_THE_LOG, after):
        await room.write(connection, await events_of(connection, ids))
        after, made = ids[-1], made + len(ids)
    return made
