"""The engine: carries runs on, as their definitions say.

Each turn takes some runs that have something to do, locks them, decides for each what follows (as
domain/workflows/deciding has it), and writes events, rows, jobs and waits in one transaction. Killed at any moment, it
has either done all of a turn or nothing. Every replica has one, and runs that another has are passed over.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from atomo_gql.domain.errors import Unavailable
from atomo_gql.domain.events import EventType
from atomo_gql.domain.jobs import Json, NewJob
from atomo_gql.domain.workflows.deciding import MAX_ERROR, Decider, JobEnd
from atomo_gql.domain.workflows.definition import Definition
from atomo_gql.domain.workflows.runs import Run, StepStatus
from atomo_gql.service import metrics
from atomo_gql.service.context import Resources
from atomo_gql.service.encoding import encode
from atomo_gql.service.jobs import JobService
from atomo_gql.service.workflows.definitions import DefinitionService
from atomo_gql.store import manage as store_manage
from atomo_gql.store import runs as store
from atomo_gql.store import workflows as store_workflows
from atomo_gql.store.database import is_data_error, is_database_error
from atomo_gql.store.enqueue import Enqueued, EnqueueRow

log = logging.getLogger("atomo_gql.workflows")

ACTOR = "system:workflows"
_LOT = 100  # runs in one transaction
_LOT_BYTES = 8_000_000  # of their contexts and steps
_BREATH_SECS = 0.01  # of deciding, after which others have their turn
_SETTLE = 500  # waits in one statement
_ENCODED_MOST = 2**31
_ORPHANED = "cancelled: the run of a workflow that waited for it has ended"

RunDecider = Decider[EnqueueRow]


class Command(NamedTuple):
    """Something that happens to a run from outside."""

    do: Callable[[RunDecider], None]
    actor: str
    trace: str | None = None


@dataclass(slots=True)
class Turn:
    """What a turn did, to be told once it is committed."""

    runs: Sequence[Run]
    rows: list[EnqueueRow] = field(default_factory=list)
    enqueued: list[Enqueued] = field(default_factory=list)
    cancelled: list[UUID] = field(default_factory=list)
    steps: int = 0
    ended: list[Run] = field(default_factory=list)


class Engine:
    """One per process."""

    def __init__(self, resources: Resources, jobs: JobService, definitions: DefinitionService) -> None:
        self._database = resources.database
        self._hub = resources.hub
        self._bell = resources.runs_bell
        self._jobs = jobs
        self._definitions = definitions
        self._most_bytes = 2 * resources.limits.max_body

    async def turn(self) -> int:
        """Carry on some of the runs that have something to do; how many."""
        try:
            async with self._database.transaction() as connection:
                ids = await store.due(connection, _LOT, _LOT_BYTES)
                if not ids:
                    return 0
                runs = await store.take(connection, ids, None)
                turn = await self.advance(connection, runs)
        except Exception as error:
            if not _is_of_a_run(error):
                raise
            log.exception("a turn failed: one of its runs is to blame, and each goes for itself")
            ids = await store.due_ids(self._database, _LOT)
            await self.carry_on(ids)
            return len(ids)
        self.tell(turn)
        return len(runs)

    async def carry_on(self, ids: Iterable[UUID]) -> None:
        """Each of these runs for itself: one that cannot be carried on fails, and one that cannot even fail waits."""
        for run_id in ids:
            try:
                await self._alone(run_id, None)
            except Exception as error:
                if not _is_of_a_run(error):
                    raise
                log.exception("run %s cannot be carried on, and fails", run_id)
                await self._fail(run_id, f"the engine failed: {type(error).__name__}: {error}"[:MAX_ERROR])

    async def _fail(self, run_id: UUID, error: str) -> None:
        try:
            await self._alone(run_id, Command(lambda decider: decider.give_up(error), ACTOR))
        except Exception as error_:
            if not _is_of_a_run(error_):
                raise
            log.exception("run %s cannot be read, and waits for somebody to look at it", run_id)
            async with self._database.transaction() as connection:
                await store.postpone(connection, [run_id])

    async def _alone(self, run_id: UUID, command: Command | None) -> None:
        async with self._database.transaction() as connection:
            runs = await store.take(connection, [run_id], None)
            turn = await self.advance(connection, [run for run in runs if not run.status.is_final], command)
        self.tell(turn)

    async def next_wake(self) -> float | None:
        """Seconds until there is something to do; None: nothing that time will bring."""
        return await store.next_wake(self._database)

    async def settle(self) -> int:
        """Find jobs that had ended before a run began to wait for them; how many there were."""
        found = await store.settle_waits(self._database, _SETTLE)
        if found:
            self._bell.ring()
        return found

    async def advance(self, connection: Any, runs: Sequence[Run], command: Command | None = None) -> Turn:
        """Carry these runs on, which the transaction has locked; a command happens to each of them first.

        `tell` of it once it is committed.
        """
        turn = Turn(runs)
        now = await store_workflows.now(connection)
        waited = {run.id: _waits(run) for run in runs}
        begun = [run.id for run in runs if run.version > 1]
        ends = await store.job_ends(connection, begun) if begun else {}
        definitions = await self._definitions.load(
            connection, {(run.workflow_id, run.definition_version) for run in runs}
        )
        deciders = [
            self._decider(definitions[run.workflow_id, run.definition_version], run, now, ends.get(run.id, {}))
            for run in runs
        ]
        if command is not None:
            for decider in deciders:
                command.do(decider)
                await store.log(connection, [(decider.run, decider.events.pop())], now, command.actor, command.trace)
        await self._decide(connection, deciders, turn)
        logged = [(decider.run, event) for decider in deciders for event in decider.events]
        if logged:
            await store.log(connection, logged, now, ACTOR)
            turn.steps = sum(event.type is EventType.STEP_COMPLETED for _, event in logged)
        changed = [decider.run for decider in deciders if decider.events or command is not None]
        if changed:
            await store.save(connection, changed, now)
            turn.ended = [run for run in changed if run.status.is_final]
        await self._move_waits(connection, runs, waited, ends, turn)
        await self._postpone(connection, [d.run for d in deciders if not d.events and command is None], now)
        return turn

    def tell(self, turn: Turn) -> None:
        """Count what a turn did, and wake who waits for it; after the commit."""
        if turn.rows:
            self._jobs.tell(turn.rows, turn.enqueued)
        metrics.STEPS.inc(turn.steps)
        for run in turn.ended:
            metrics.RUNS_ENDED.labels(run.status.value).inc()
            if run.errors:
                log.info("run %s of %s %s: %s", run.id, run.workflow, run.status.value.lower(), run.errors[-1][:500])
        self._hub.changed([*(run.id for run in turn.runs), *turn.cancelled])

    async def _decide(self, connection: Any, deciders: Iterable[RunDecider], turn: Turn) -> None:
        """Decide until nothing can be done without a job's end, or time. Jobs of many runs are enqueued together."""
        active = list(deciders)
        loop = asyncio.get_running_loop()
        breath = loop.time()
        while active:
            for decider in active:
                if loop.time() - breath > _BREATH_SECS:
                    await asyncio.sleep(0)
                    breath = loop.time()
                try:
                    decider.go()
                except Exception as error:
                    log.exception("run %s of %s failed", decider.run.id, decider.run.workflow)
                    decider.give_up(f"the engine failed: {type(error).__name__}")
            active = [decider for decider in active if decider.orders]
            rows = [order.job for decider in active for order in decider.orders]
            if not rows:
                return
            done = await self._jobs.write_in(connection, rows)
            turn.rows += rows
            turn.enqueued += done
            answers = iter(done)
            for decider in active:
                for order in decider.orders:
                    job = next(answers)
                    decider.placed(order, job.id, is_new=job.is_new)

    async def _move_waits(
        self,
        connection: Any,
        runs: Sequence[Run],
        waited: Mapping[UUID, set[tuple[str, UUID]]],
        ends: Mapping[UUID, Mapping[UUID, JobEnd]],
        turn: Turn,
    ) -> None:
        """Begin and end waits, and cancel jobs whose run has ended without them."""
        orphans = [
            state.job_id
            for run in turn.ended
            for state in run.steps.values()
            if state.status is StepStatus.CANCELLED and state.job_id and not state.is_shared
        ]
        if orphans:
            ended = [run.id for run in turn.ended]
            wanted = await store.wanted_by_others(connection, orphans, ended)
            orphans = [job_id for job_id in orphans if job_id not in wanted]
        if orphans:  # before the waits: what ends a job locks the job first, too
            for _ in range(2):  # one that changes hands just now is missed
                cancelled = await store_manage.cancel_in(connection, orphans, ACTOR, _ORPHANED)
                turn.cancelled += [job.id for job in cancelled]
        over = {(run.id, job_id) for run in runs for _, job_id in waited[run.id] - _waits(run)}
        over |= {(run_id, job_id) for run_id, jobs in ends.items() for job_id in jobs}
        if over:
            await store.wait_no_more(connection, list(over))
        begun = [
            store.Wait(job_id, run.id, name, run.steps[name].is_shared)
            for run in runs
            for name, job_id in _waits(run) - waited[run.id]
        ]
        if begun:
            await store.wait_for(connection, begun)

    async def _postpone(self, connection: Any, idle: Sequence[Run], now: datetime) -> None:
        """Nothing followed for these: one that is due all the same, against the law, shall not be so at once again."""
        stuck = [run for run in idle if run.wake_at is not None and run.wake_at <= now]
        if stuck:
            log.error("runs %s are due, and nothing follows", ", ".join(str(run.id) for run in stuck))
            await store.postpone(connection, [run.id for run in stuck])

    def _decider(
        self, definition: Definition | Unavailable, run: Run, now: datetime, ended: Mapping[UUID, JobEnd]
    ) -> RunDecider:
        return Decider(
            definition if isinstance(definition, Definition) else str(definition),
            run,
            now,
            renderer=self._definitions.renderer,
            prepare=partial(self._prepare, run),
            size=_size,
            most_bytes=self._most_bytes,
            ended=ended,
        )

    def _prepare(self, run: Run, job: NewJob) -> EnqueueRow:
        return self._jobs.row(
            job,
            tenant=run.tenant or "",
            actor=ACTOR,
            trace=run.trace,
            run_id=run.id,
            via=(*run.via, f"workflow:{run.workflow}"),
        )


def _is_of_a_run(error: Exception) -> bool:
    """Whether what a run holds may be to blame, and not the database, or its schema, as a whole."""
    return is_data_error(error) or not (isinstance(error, Unavailable) or is_database_error(error))


def _waits(run: Run) -> set[tuple[str, UUID]]:
    """Which steps of it wait for which jobs."""
    return {(name, state.job_id) for name, state in run.awaited().items() if state.job_id}


def _size(value: Json) -> int:
    """Of a JSON value, in bytes.

    Raises:
        BadUserInput: PostgreSQL cannot hold it.
    """
    return len(encode("value", value, _ENCODED_MOST))
