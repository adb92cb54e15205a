"""Runs: begun by people, read, watched, cancelled, retried."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from atomo_gql.domain.errors import BadUserInput, NotFound, TooManyRequests, Unavailable
from atomo_gql.domain.jobs import Json
from atomo_gql.domain.paging import Page, Window
from atomo_gql.domain.principals import Caller
from atomo_gql.domain.rules import MAX_KEY, MAX_REASON, check_name, check_text, check_unique
from atomo_gql.domain.workflows.runs import Run, RunBody, RunStatus
from atomo_gql.realtime.hub import Mailbox
from atomo_gql.service import metrics
from atomo_gql.service.access import acting_tenant, visible_tenant
from atomo_gql.service.context import Resources
from atomo_gql.service.encoding import encode
from atomo_gql.service.workflows.definitions import DefinitionService
from atomo_gql.service.workflows.engine import Command, Engine, RunDecider, Turn
from atomo_gql.service.workflows.starting import check_context, run_row
from atomo_gql.store import runs as store
from atomo_gql.store.batching import Batcher
from atomo_gql.store.database import is_data_error
from atomo_gql.store.runs import Begun, RunRow

_MANUAL = b'{"kind":"manual"}'
_RETRY_SECS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs are asked for; what is None is not asked."""

    workflow: str | None = None
    statuses: tuple[RunStatus, ...] | None = None
    key: str | None = None


class RunService:
    """What people do with runs."""

    def __init__(self, resources: Resources, definitions: DefinitionService, engine: Engine) -> None:
        self._database = resources.database
        self._hub = resources.hub
        self._limits = resources.limits
        self._definitions = definitions
        self._engine = engine
        self._starting: Batcher[RunRow, Run] = Batcher(self._start, size=100, weigh=lambda row: len(row.context))

    async def start(
        self, caller: Caller, name: str, context: Json = None, *, key: str | None = None, trace: str | None = None
    ) -> Run:
        """Begin a run, and carry it on as far as it goes without waiting; the same key is the same run.

        Raises:
            NotFound: there is no such workflow.
            BadUserInput, PayloadTooLarge: the context, or the key, breaks a rule.
        """
        context = {} if context is None else context
        check_context(context)
        if key is not None:
            check_name("idempotencyKey", key, MAX_KEY)
            check_unique("idempotencyKey", key, acting_tenant(caller), names="tenant")
        encoded = encode("context", context, self._limits.max_body)
        workflow = await self._definitions.find(caller, name)
        row = run_row(
            workflow,
            tenant=acting_tenant(caller),
            actor=caller.actor,
            trace=trace,
            key=None if key is None else f"key:{key}",
            trigger=_MANUAL,
            context=encoded,
        )
        return await self._starting.submit(row)

    async def get(self, caller: Caller, run_id: UUID) -> Run:
        """A run as it stands.

        Raises:
            NotFound: there is none, or none that the caller may see.
        """
        found = await store.get(self._database, [run_id], visible_tenant(caller))
        if run_id not in found:
            raise NotFound(f"there is no run {run_id}")
        return found[run_id]

    async def get_many(self, caller: Caller, ids: Sequence[UUID]) -> dict[UUID, Run]:
        """Those of these runs that the caller may see, without contexts and results."""
        return await store.listed(self._database, ids, visible_tenant(caller))

    async def bodies(self, ids: Sequence[UUID], most: int) -> dict[UUID, RunBody]:
        """The contexts and results of these runs, which the caller has been shown.

        Raises:
            AnswerTooLarge: all together are larger than so many bytes.
        """
        return await store.bodies(self._database, ids, most)

    async def page(self, caller: Caller, wanted: RunFilter, window: Window[UUID], *, oldest_first: bool) -> Page[Run]:
        """The runs that are wanted and that the caller may see, without contexts and results."""
        tenant = visible_tenant(caller)
        ids = await self._ids(
            tenant,
            wanted,
            **window.walk(ascending=oldest_first),
        )
        found = await store.listed(self._database, ids, tenant)
        return window.page([found[run_id] for run_id in ids if run_id in found])

    async def count(self, caller: Caller, wanted: RunFilter, most: int) -> tuple[int, bool]:
        """How many are wanted and may be seen, counted up to `most`, and whether those are all."""
        found = len(await self._ids(visible_tenant(caller), wanted, most=most + 1))
        return min(found, most), found <= most

    async def _ids(
        self,
        tenant: str | None,
        wanted: RunFilter,
        *,
        above: UUID | None = None,
        below: UUID | None = None,
        descending: bool = True,
        most: int,
    ) -> list[UUID]:
        return await store.page(
            self._database,
            tenant,
            workflow=wanted.workflow,
            statuses=wanted.statuses,
            key=None if wanted.key is None else f"key:{wanted.key}",
            above=above,
            below=below,
            descending=descending,
            most=most,
        )

    async def jobs(self, ids: Sequence[UUID], most: int) -> dict[UUID, list[UUID]]:
        """The jobs that the steps of these runs, which the caller has been shown, enqueued; at most so many of each."""
        return await store.jobs(self._database, ids, most)

    async def cancel(self, caller: Caller, run_id: UUID, reason: str | None = None, *, trace: str | None = None) -> Run:
        """End a run that has not ended, and the jobs that it waits for. One that has failed stays as it is.

        Raises:
            NotFound: there is none, or none that the caller may see.
            BadUserInput: it has completed.
        """
        if reason is not None:
            check_text("reason", reason, MAX_REASON)
        said = f": {reason.strip()}" if reason and reason.strip() else ""
        error = f"cancelled by {caller.actor}{said}"

        def is_due(run: Run) -> bool:
            if run.status is RunStatus.COMPLETED:
                raise BadUserInput(f"run {run_id} has completed already", field="id")
            return not run.status.is_final

        command = Command(lambda decider: decider.cancel(error), caller.actor, trace)
        return await self._command(caller, run_id, is_due, command)

    async def retry(self, caller: Caller, run_id: UUID, *, trace: str | None = None) -> Run:
        """Go on with a run that has failed, from the step that failed. One that has not ended stays as it is.

        Raises:
            NotFound: there is none, or none that the caller may see.
            BadUserInput: it has completed.
        """

        def is_due(run: Run) -> bool:
            if run.status is RunStatus.COMPLETED:
                raise BadUserInput(f"run {run_id} has completed; only one that has failed can be retried", field="id")
            return run.status is RunStatus.FAILED

        return await self._command(caller, run_id, is_due, Command(RunDecider.retry, caller.actor, trace))

    async def follow(self, caller: Caller, run_id: UUID) -> AsyncGenerator[Run]:
        """A run as it stands, then each time it has changed, up to its end.

        Raises:
            NotFound: there is none, or none that the caller may see.
            TooManyRequests: the server has as many watchers as it takes.
        """
        if self._hub.watchers >= self._limits.max_subscriptions:
            raise TooManyRequests(f"{self._limits.max_subscriptions} subscriptions are open here already; try again")
        mailbox = Mailbox()
        self._hub.watch(run_id, mailbox)  # before the first look: the other order loses what happens in between
        metrics.WATCHERS.set(self._hub.watchers)
        told = 0
        try:
            while True:
                try:
                    run = await self.get(caller, run_id)
                except Unavailable:
                    if not told:
                        raise
                    await asyncio.sleep(_RETRY_SECS)
                    continue
                if run.version != told:
                    told = run.version
                    yield run
                if run.status.is_final:
                    return
                await mailbox.take()
        finally:
            self._hub.unwatch(run_id, mailbox)
            metrics.WATCHERS.set(self._hub.watchers)

    async def _command(self, caller: Caller, run_id: UUID, is_due: Callable[[Run], bool], command: Command) -> Run:
        turn: Turn | None = None
        async with self._database.transaction() as connection:
            runs = await store.take(connection, [run_id], visible_tenant(caller))
            if not runs:
                raise NotFound(f"there is no run {run_id}")
            if is_due(runs[0]):
                turn = await self._engine.advance(connection, runs, command)
        if turn is not None:
            self._engine.tell(turn)
        return runs[0]

    async def _start(self, rows: Sequence[RunRow]) -> list[Run]:
        try:
            async with self._database.transaction() as connection:
                begun = await store.start(connection, rows)
                new = [run.id for run in begun if run.is_new]
                runs = await store.take(connection, new, None) if new else []
                turn = await self._engine.advance(connection, runs)
            self._engine.tell(turn)
        except Exception as error:
            if not is_data_error(error):
                raise
            return await self._start_apart(rows)
        metrics.RUNS_STARTED.inc(len(new))
        return await self._found(begun, {run.id: run for run in turn.runs})

    async def _start_apart(self, rows: Sequence[RunRow]) -> list[Run]:
        """Begin them, and carry them on one by one: what cannot be written is one run's fault, and it fails."""
        async with self._database.transaction() as connection:
            begun = await store.start(connection, rows)
        new = [run.id for run in begun if run.is_new]
        metrics.RUNS_STARTED.inc(len(new))
        await self._engine.carry_on(new)
        return await self._found(begun, {})

    async def _found(self, begun: Sequence[Begun], known: dict[UUID, Run]) -> list[Run]:
        missing = [run.id for run in begun if run.id not in known]
        found = known | (await store.get(self._database, missing, None) if missing else {})
        return [found[run.id] for run in begun]


def key_of(run: Run) -> str | None:
    """The idempotency key that somebody gave it; None: it has none, or one that a tick or an event made."""
    kind, _, key = (run.key or "").partition(":")
    return key if kind == "key" else None
