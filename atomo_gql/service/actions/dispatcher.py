"""The action dispatcher: reads the log behind a durable checkpoint, and fires what is bound to its events.

Each turn locks the checkpoint's row, so one replica at a time is at it, whichever comes. It reads on from there in the
order of commit, which is safe to resume from, enqueues a job for each match, begins a run for each workflow that an
event starts, and moves the checkpoint, in one transaction: killed at any moment, it has done all of a turn or nothing.
Idempotency keys stand behind it.

A binding that fails is set aside with its error at the event it failed on, and does not hold the others up; resumed, it
goes on from there by itself until it is with the others again.
"""

import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from atomo_gql.domain.actions import Binding, ModelEvent, job_of
from atomo_gql.domain.errors import AtomoError
from atomo_gql.domain.events import EventFilter, EventType, Place, Stream
from atomo_gql.domain.rules import MAX_BATCH
from atomo_gql.service import metrics
from atomo_gql.service.actions.subscribers import ACTOR, Subscribers, read_event, run_of, starts
from atomo_gql.service.context import Resources
from atomo_gql.service.jobs import JobService
from atomo_gql.store import actions as store
from atomo_gql.store import events as store_events
from atomo_gql.store import runs as store_runs
from atomo_gql.store.database import is_data_error
from atomo_gql.store.enqueue import Enqueued, EnqueueRow
from atomo_gql.store.runs import RunRow

log = logging.getLogger("atomo_gql.actions")

_LOT = 500  # recorded events in one transaction
_LOOKED_AT = 2_000  # events of all kinds looked at in one transaction
_BYTES = 8_000_000  # of their data
_ENVELOPE = 65_536  # bytes around an event's data in a payload: no event that was taken is too large for its job
_FAR = 10_000  # transactions


@dataclass(slots=True)
class Fired:
    """What a turn did, to be told once it is committed."""

    is_careful: bool = False  # whatever PostgreSQL refuses is found, and left out
    events: int = 0
    has_more: bool = False
    rows: list[EnqueueRow] = field(default_factory=list)
    enqueued: list[Enqueued] = field(default_factory=list)
    runs: int = 0
    set_aside: int = 0


class _Match(NamedTuple):
    """A job that a binding makes, and the place in the log before the event that it makes it of."""

    binding_id: UUID
    before: Place
    row: EnqueueRow


class Dispatcher:
    """One per process."""

    def __init__(self, resources: Resources, jobs: JobService) -> None:
        self._database = resources.database
        self._runs_bell = resources.runs_bell
        self._bell = resources.log_bell
        self._jobs = jobs

    async def turn(self) -> Fired | None:
        """Go on in the log; None: another replica is at it."""
        try:
            return await self._turn(is_careful=False)
        except Exception as error:
            if not is_data_error(error):
                raise
            log.warning("PostgreSQL refused what a turn would write; each binding goes for itself: %s", error)
            return await self._turn(is_careful=True)

    async def _turn(self, *, is_careful: bool) -> Fired | None:
        async with self._database.transaction() as connection:
            place = await store.take_checkpoint(connection)
            if place is None:
                return None
            # Before it is known who there is: who registers after this wants only what comes after this.
            head = await store_events.head_in(connection)
            bindings = [b for b in await store.bindings(connection, None) if b.set_aside_at is None]
            everyone = Subscribers([b for b in bindings if b.at is None], await store.triggers(connection))
            self._bell.is_for_jobs = everyone.types is not None
            fired = Fired(is_careful=is_careful)
            end = await self._go_on(connection, place, head, everyone, fired)
            for late in bindings:
                if late.at is not None:
                    await self._catch_up(connection, late, end, fired)
            if end != place:
                await store.move_checkpoint(connection, end)
        self._tell(fired)
        return fired

    async def look(self) -> float:
        """How far behind the log's end the checkpoint is, in seconds; 0: it has seen all."""
        lag = max(0.0, await store.lag(self._database, is_all=self._bell.is_for_jobs) or 0.0)
        metrics.DISPATCH_LAG.set(lag)
        return lag

    async def _go_on(self, connection: Any, place: Place, head: Place, subscribers: Subscribers, fired: Fired) -> Place:
        if subscribers.is_nobody:
            found, _ = await store.recorded(connection, place, 1, 1)
            return max(place, head) if found else place
        events, end, has_more = await self._read(connection, place, head, subscribers)
        await self._fire(connection, events, subscribers, place, fired)
        fired.events += len(events)
        fired.has_more |= has_more
        return end

    async def _catch_up(self, connection: Any, late: Binding, main: Place, fired: Fired) -> None:
        """Take a binding that was set aside a step nearer to the others."""
        assert late.at is not None  # noqa: S101  # the caller asked
        alone = Subscribers([late], [])
        events, end, has_more = await self._read(connection, late.at, main, alone)
        is_there = not has_more or end >= main
        if await self._fire(connection, events, alone, late.at, fired):
            await store.move(connection, [(late.id, None if is_there else end)])
            fired.has_more |= not is_there

    async def _read(
        self, connection: Any, place: Place, until: Place, subscribers: Subscribers
    ) -> tuple[list[ModelEvent], Place, bool]:
        """What comes after one place, up to another; where that ends, and whether there may be more up to there."""
        types = subscribers.types
        if types is None:
            found, has_more = await store.recorded(connection, place, _LOT, _BYTES)
            end = found[-1].place if found else place
            if not has_more and until.xid - end.xid > _FAR:
                end = until  # or a binding to jobs that comes later would have to wade through what lies between
        else:
            wanted = EventFilter(streams=(Stream.JOB, Stream.MODEL), types=(EventType.RECORDED, *types))
            found, end, has_more = await store_events.tail_in(connection, place, None, wanted, _LOOKED_AT, _BYTES)
        found = [event for event in found if event.place <= until]
        ids = {event.stream_id for event in found if event.stream is Stream.JOB}
        kept = await store.beginnings(connection, ids) if ids else {}
        events = [read for event in found if (read := read_event(event, kept))]
        return events, max(place, min(end, until)), has_more and end < until

    async def _fire(
        self, connection: Any, events: Sequence[ModelEvent], subscribers: Subscribers, place: Place, fired: Fired
    ) -> bool:
        """Enqueue and begin what these events call for; whether no binding had to be set aside."""
        matches: list[_Match] = []
        begun: list[RunRow] = []
        aside: dict[UUID, tuple[str, Place]] = {}
        before = place
        for event in events:
            for binding in subscribers.bindings:
                if binding.id in aside or not binding.matches(event):
                    continue
                try:
                    matches.append(_Match(binding.id, before, self._row(binding, event)))
                except AtomoError as error:
                    aside[binding.id] = f"event {event.event_id}: {error}", before
                except Exception as error:
                    log.exception("binding %s failed on event %s", binding.id, event.event_id)
                    aside[binding.id] = f"event {event.event_id}: {type(error).__name__}: {error}", before
            begun += [run_of(trigger, event) for trigger in subscribers.triggers if starts(trigger, event)]
            before = event.place
        if fired.is_careful:
            matches, begun = await self._possible(connection, matches, begun, aside)
        rows = [match.row for match in matches]
        for start in range(0, len(rows), MAX_BATCH):
            fired.enqueued += await self._jobs.write_in(connection, rows[start : start + MAX_BATCH])
        fired.rows += rows
        if begun:
            started = await store_runs.start(connection, begun)
            fired.runs += sum(run.is_new for run in started)
        for binding_id, (why, at) in aside.items():
            log.error("binding %s is set aside: %s", binding_id, why)
            await store.change(connection, [binding_id], None, "set_aside", ACTOR, error=why[:4_000], place=at)
        fired.set_aside += len(aside)
        return not aside

    async def _possible(
        self,
        connection: Any,
        matches: Sequence[_Match],
        begun: Sequence[RunRow],
        aside: dict[UUID, tuple[str, Place]],
    ) -> tuple[list[_Match], list[RunRow]]:
        """Those that PostgreSQL does not refuse; a binding is set aside at the first of its own that it refuses."""
        good: list[_Match] = []
        for match in matches:
            if match.binding_id not in aside:
                if (why := await _refusal(connection, self._jobs.write_in(connection, [match.row]))) is None:
                    good.append(match)
                else:
                    aside[match.binding_id] = why, match.before
        runs: list[RunRow] = []
        for run in begun:
            if (why := await _refusal(connection, store_runs.start(connection, [run]))) is None:
                runs.append(run)
            else:
                log.error("workflow %s could not be begun by %s: %s", run.workflow, run.key, why)
        return good, runs

    def _row(self, binding: Binding, event: ModelEvent) -> EnqueueRow:
        return self._jobs.row(
            job_of(binding.what, event),
            tenant=event.tenant or "",
            actor=ACTOR,
            trace=event.trace,
            via=(*event.via, binding.what.action),
            room=_ENVELOPE,
        )

    def _tell(self, fired: Fired) -> None:
        if fired.rows:
            self._jobs.tell(fired.rows, fired.enqueued)
            metrics.FIRED.inc(sum(done.is_new for done in fired.enqueued))
        if fired.runs:
            metrics.RUNS_STARTED.inc(fired.runs)
            self._runs_bell.ring()
        metrics.SET_ASIDE.inc(fired.set_aside)


class _Undone(Exception):
    """It could have been written, and was not."""


async def _refusal(connection: Any, write: Awaitable[object]) -> str | None:
    """Why PostgreSQL would refuse that; nothing is written."""
    try:
        async with connection.transaction():
            await write
            raise _Undone
    except _Undone:
        return None
    except Exception as error:
        if not is_data_error(error):
            raise
        return f"{type(error).__name__}: {error}"
