"""Schedules: the clock begins runs, one for each tick, with any number of replicas.

Whoever holds the row of a schedule that is due begins its run and moves it to the next tick, in one transaction; a tick
is the run's key besides. The database's clock alone says what time it is. When it jumps back, ticks that were are not
again; when it jumps forward, or no server ran for a while, the schedule says what becomes of the ticks it missed.
"""

import logging
from datetime import datetime, timedelta

import orjson

from atomo_gql.domain.workflows.definition import Definition, Schedule
from atomo_gql.service.context import Resources
from atomo_gql.service.workflows.cron import Cron
from atomo_gql.service.workflows.definitions import DefinitionService, Workflow
from atomo_gql.service.workflows.engine import Engine, Turn
from atomo_gql.service.workflows.runs import as_trigger, begin, run_row
from atomo_gql.store import workflows as store
from atomo_gql.store.runs import RunRow
from atomo_gql.store.workflows import WorkflowRow

log = logging.getLogger("atomo_gql.schedules")

ACTOR = "system:scheduler"
GRACE = timedelta(seconds=60)  # a tick that is later than that was missed
MOST_MISSED = 100  # ticks that one schedule makes up for, with missed: "all"
_MANY = 1_000_000  # ticks; two years of minutes
_LOT = 50  # schedules in one transaction


class ScheduleService:
    """Called by the clock."""

    def __init__(self, resources: Resources, definitions: DefinitionService, engine: Engine) -> None:
        self._database = resources.database
        self._definitions = definitions
        self._engine = engine

    async def turn(self, now: datetime | None = None) -> int:
        """Begin the runs whose time has come; how many schedules were due. `now`: None is the database's clock."""
        async with self._database.transaction() as connection:
            due = await store.schedules_due(connection, now, _LOT)
            if not due:
                return 0
            versions = {(row.id, row.definition_version) for row in due}
            definitions = await self._definitions.load(connection, versions)
            rows: list[RunRow] = []
            moves: list[tuple[object, datetime | None]] = []
            for row in due:
                definition = definitions[row.id, row.definition_version]
                if not isinstance(definition, Definition) or not isinstance(definition.trigger, Schedule):
                    log.error("workflow %s has a schedule that cannot be read: %s", row.name, definition)
                    moves.append((row.id, None))
                    continue
                ticks, following = _ticks(row, definition.trigger)
                rows += [_run(Workflow(row, definition), definition.trigger, tick) for tick in ticks]
                moves.append((row.id, following))
            await store.move_schedules(connection, moves)  # type: ignore[arg-type]
            _, turn = await begin(connection, self._engine, rows) if rows else ([], Turn([]))
        self._engine.tell(turn)
        return len(due)


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
        if len(cron.ticks(before, now, MOST_MISSED + 1)) <= MOST_MISSED:
            return cron.ticks(before, now, MOST_MISSED), following
        log.warning("schedule %s missed more than %d ticks; it makes up for the last", row.name, MOST_MISSED)
        return _last(cron, now), following
    latest = cron.latest(before, now)
    if latest is None or (schedule.missed == "skip" and now - latest > GRACE):
        return [], following
    return [latest], following


def _last(cron: Cron, now: datetime) -> list[datetime]:
    """The newest ticks up to now, as many as are made up for: looked for further and further back."""
    back = timedelta(hours=1)
    while len(cron.ticks(now - back, now, MOST_MISSED)) < MOST_MISSED:
        back *= 2
    return cron.ticks(now - back, now, _MANY)[-MOST_MISSED:]


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
