"""Schedules: the clock begins runs, one for each tick, with any number of replicas.

Whoever holds the row of a schedule that is due begins its run and moves it to the next tick, in one transaction; a tick
is the run's key besides. The database's clock alone says what time it is. When it jumps back, ticks that were are not
again; when it jumps forward, or no server ran for a while, the schedule says what becomes of the ticks it missed.
"""

import logging
from datetime import datetime, timedelta
from uuid import UUID

import orjson

from atomo_gql.domain.errors import Unavailable
from atomo_gql.domain.workflows.definition import Definition, Schedule
from atomo_gql.service import metrics
from atomo_gql.service.context import Resources
from atomo_gql.service.workflows.cron import Cron
from atomo_gql.service.workflows.definitions import DefinitionService, Workflow
from atomo_gql.service.workflows.starting import as_trigger, run_row
from atomo_gql.store import runs as store_runs
from atomo_gql.store import workflows as store
from atomo_gql.store.runs import RunRow
from atomo_gql.store.workflows import WorkflowRow

log = logging.getLogger("atomo_gql.schedules")

ACTOR = "system:scheduler"
GRACE = timedelta(seconds=60)  # a tick that is later than that was missed
MOST_MISSED = 100  # ticks that one schedule makes up for, with missed: "all"; the newest
_LOT = 50  # schedules in one transaction
_AGAIN = timedelta(seconds=60)


class ScheduleService:
    """Called by the clock."""

    def __init__(self, resources: Resources, definitions: DefinitionService) -> None:
        self._database = resources.database
        self._bell = resources.runs_bell
        self._definitions = definitions

    async def turn(self, now: datetime | None = None) -> int:
        """Begin the runs whose time has come; how many schedules were due. `now`: None is the database's clock.

        They are begun and no more: the engine carries them on, so that what is wrong with a run is not in the way of
        the clock.
        """
        async with self._database.transaction() as connection:
            due = await store.schedules_due(connection, now, _LOT)
            if not due:
                return 0
            versions = {(row.id, row.definition_version) for row in due}
            definitions = await self._definitions.load(connection, versions)
            rows: list[RunRow] = []
            moves: list[tuple[UUID, datetime | None]] = []
            for row in due:
                try:
                    found, following = _due(row, definitions[row.id, row.definition_version])
                except Exception:
                    log.exception("the schedule of workflow %s cannot be read; it is looked at again later", row.name)
                    assert row.now is not None  # noqa: S101  # the statement tells
                    found, following = [], row.now + _AGAIN
                rows += found
                moves.append((row.id, following))
            await store.move_schedules(connection, moves)
            begun = await store_runs.start(connection, rows) if rows else []
        metrics.RUNS_STARTED.inc(sum(run.is_new for run in begun))
        if begun:
            self._bell.ring()
        return len(due)

    async def look_again(self) -> int:
        """Bring forward next ticks that were worked out while the database's clock was ahead; how many.

        A tick that was there already begins nothing again, as long as its run is kept: the tick is the run's key.
        """
        moved, after = 0, UUID(int=0)
        while True:
            async with self._database.transaction() as connection:
                rows = await store.schedules_ahead(connection, after, _LOT)
                definitions = await self._definitions.load(connection, {(r.id, r.definition_version) for r in rows})
                moves: list[tuple[UUID, datetime | None]] = []
                for row in rows:
                    definition = definitions[row.id, row.definition_version]
                    if isinstance(definition, Unavailable) or not isinstance(definition.trigger, Schedule):
                        continue
                    assert row.next_at is not None and row.now is not None  # noqa: S101  # the statement tells
                    following = Cron.parse(definition.trigger.cron, definition.trigger.timezone).next_after(row.now)
                    if following and following < row.next_at:
                        log.warning("schedule %s waited for %s; it goes on at %s", row.name, row.next_at, following)
                        moves.append((row.id, following))
                if moves:
                    await store.move_schedules(connection, moves)
            moved += len(moves)
            if len(rows) < _LOT:
                return moved
            after = rows[-1].id


def _due(row: WorkflowRow, definition: Definition | Unavailable) -> tuple[list[RunRow], datetime | None]:
    """The runs of the ticks that are due, and when the next tick is."""
    if isinstance(definition, Unavailable):
        raise definition
    schedule = definition.trigger
    if not isinstance(schedule, Schedule):
        return [], None
    ticks, following = _ticks(row, schedule)
    return [_run(Workflow(row, definition), schedule, tick) for tick in ticks], following


def next_ticks(workflow: Workflow, most: int) -> list[datetime]:
    """When its schedule will begin it, at most so many times; none when it is paused, or there is none."""
    trigger, tick = workflow.definition.trigger, workflow.row.next_at
    if not isinstance(trigger, Schedule) or tick is None:
        return []
    cron = Cron.parse(trigger.cron, trigger.timezone)
    found = [tick]
    while len(found) < most and (tick := cron.next_after(tick)) is not None:
        found.append(tick)
    return found


def _ticks(row: WorkflowRow, schedule: Schedule) -> tuple[list[datetime], datetime | None]:
    """The ticks that are due, and the one after them."""
    assert row.next_at is not None and row.now is not None  # noqa: S101  # it is due
    cron = Cron.parse(schedule.cron, schedule.timezone)
    first, now = row.next_at, row.now
    before = first - timedelta(microseconds=1)
    following = cron.next_after(now)
    if schedule.missed == "all":
        ticks = cron.ticks(before, now, MOST_MISSED + 1)
        if len(ticks) > MOST_MISSED:
            log.warning("schedule %s missed many ticks; it makes up for the newest %d", row.name, MOST_MISSED)
            ticks = cron.newest(before, now, MOST_MISSED)
        return ticks, following
    latest = cron.latest(before, now)
    if latest is None or (schedule.missed == "skip" and now - latest > GRACE):
        return [], following
    return [latest], following


def _run(workflow: Workflow, schedule: Schedule, tick: datetime) -> RunRow:
    at = tick.strftime("%Y-%m-%dT%H:%M:%SZ")
    context = {"schedule": {"tick": at, "cron": schedule.cron, "timezone": schedule.timezone}}
    return run_row(
        workflow,
        tenant=workflow.row.tenant,
        actor=ACTOR,
        trace=None,
        key=f"tick:{at}",
        trigger=as_trigger("schedule", tick=at),
        context=orjson.dumps(context),
    )
