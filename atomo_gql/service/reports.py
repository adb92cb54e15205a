"""What workers say of the jobs they hold: heartbeat, progress, complete, fail, release."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

import orjson

from atomo_gql.domain.errors import AtomoError, LeaseLost
from atomo_gql.domain.jobs import JobStatus
from atomo_gql.domain.principals import WorkerToken
from atomo_gql.domain.reports import FailOutcome, Progress, Report, ReportType
from atomo_gql.domain.updates import JobUpdate
from atomo_gql.service import metrics
from atomo_gql.service.context import Resources
from atomo_gql.service.encoding import encode
from atomo_gql.service.tokens import TokenService
from atomo_gql.store import report as store
from atomo_gql.store.batching import Batcher
from atomo_gql.store.report import Accepted, Answers, ReportRow

Outcome = FailOutcome | AtomoError | None  # of one report; None: it took effect, and there is nothing to say
_STATEMENTS = {
    ReportType.HEARTBEAT: store.heartbeat,
    ReportType.PROGRESS: store.progress,
    ReportType.COMPLETE: store.complete,
    ReportType.FAIL: store.fail,
}
_ENDING = (ReportType.COMPLETE, ReportType.FAIL, ReportType.RELEASE)


@dataclass(slots=True)
class _Pile:
    """Reports of one type, each with its place in the list that came in."""

    places: list[int] = field(default_factory=list)
    rows: list[ReportRow] = field(default_factory=list)


class ReportService:
    """Every report is checked against the worker's token in the statement that acts. One alone is a list of one."""

    def __init__(self, resources: Resources, tokens: TokenService) -> None:
        self._hub = resources.hub
        self._seen = resources.seen
        self._runs_bell = resources.runs_bell
        self._log_bell = resources.log_bell
        self._most = resources.limits.max_body
        self._tokens = tokens
        statements: dict[ReportType, Callable[..., Awaitable[Answers]]] = {
            **_STATEMENTS,
            ReportType.RELEASE: partial(store.release, spare=resources.limits.spare_deliveries),
        }
        self._batchers: dict[ReportType, Batcher[ReportRow, Accepted | None]] = {
            type_: Batcher(partial(statement, resources.database), weigh=lambda r: len(r.body) if r.body else 0)
            for type_, statement in statements.items()
        }
        self._ends: Batcher[ReportRow, str | None] = Batcher(partial(store.ends, resources.database))

    async def report(self, token: WorkerToken, report: Report) -> FailOutcome | None:
        """One report; what became of the job, where it failed.

        Raises:
            LeaseLost: the lease is not the current one, or has reached its job's time limit.
            Unauthenticated: the token has been revoked.
            BadUserInput, PayloadTooLarge: a field breaks a rule, which is named.
        """
        [outcome] = await self.apply(token, [report])
        if isinstance(outcome, AtomoError):
            raise outcome
        return outcome

    async def apply(self, token: WorkerToken, reports: Sequence[Report]) -> list[Outcome]:
        """Many reports, each with its own outcome, in order. What extends a lease is done before what ends one, and of
        two that end the same job's the first counts.

        Raises:
            Unauthenticated: the token has been revoked; nothing has taken effect.
            Unavailable: the database is out of reach; some may have taken effect.
        """
        outcomes: list[Outcome] = [None] * len(reports)
        lost = _Pile()
        for by_type in self._turns(token, reports, outcomes):
            piles = (self._apply(type_, pile, reports, outcomes) for type_, pile in by_type.items())
            for missed in await asyncio.gather(*piles):
                lost.places += missed.places
                lost.rows += missed.rows
        if lost.places:
            await self._explain(token, lost, outcomes)
        return outcomes

    def _turns(
        self, token: WorkerToken, reports: Sequence[Report], outcomes: list[Outcome]
    ) -> list[dict[ReportType, _Pile]]:
        """What extends; then what ends a lease: the first of each job, the second …"""
        turns: list[dict[ReportType, _Pile]] = [defaultdict(_Pile), defaultdict(_Pile)]
        ends: dict[str, int] = {}
        for place, report in enumerate(reports):
            type_ = report.type
            try:
                row = self._row(token, report)
            except AtomoError as error:
                outcomes[place] = error
                continue
            turn = 0
            if type_ in _ENDING:
                turn = ends[report.job_id] = ends.get(report.job_id, 0) + 1
                if turn == len(turns):
                    turns.append(defaultdict(_Pile))
            pile = turns[turn][type_]
            pile.places.append(place)
            pile.rows.append(row)
        return turns

    def _row(self, token: WorkerToken, report: Report) -> ReportRow:
        body = None if report.result is None else encode("result", report.result, self._most)
        if report.type is ReportType.COMPLETE:
            return ReportRow(report.job_id, report.lease_id, token.id, body)
        if report.progress is not None:
            said = report.progress
            data = encode("data", said.data, self._most)
            body = orjson.dumps({"percent": said.percent, "message": said.message, "data": orjson.Fragment(data)})
        return ReportRow(
            report.job_id,
            report.lease_id,
            token.id,
            body,
            report.visibility_secs,
            report.error,
            report.retryable,
            report.retry_after_secs,
        )

    async def _apply(self, type_: ReportType, pile: _Pile, reports: Sequence[Report], outcomes: list[Outcome]) -> _Pile:
        """Run one statement for all of a type; those whose lease was lost."""
        answers = await self._batchers[type_].submit_many(pile.rows)
        lost, done = _Pile(), [answer for answer in answers if answer is not None]
        if len(done) < len(answers):
            for place, row, answer in zip(pile.places, pile.rows, answers, strict=True):
                if answer is None:
                    lost.places.append(place)
                    lost.rows.append(row)
        if type_ in (ReportType.PROGRESS, ReportType.FAIL):
            for place, answer in zip(pile.places, answers, strict=True):
                if answer is None:
                    continue
                if type_ is ReportType.PROGRESS:
                    self._tell(reports[place], answer.attempt or 0)
                else:
                    outcomes[place] = answer.failure
        if type_ in _ENDING and done:
            self._ended(type_, done)
            self._log_bell.ring_for_jobs()
            self._hub.changed(
                UUID(row.job_id) for row, answer in zip(pile.rows, answers, strict=True) if answer is not None
            )
        return lost

    def _ended(self, type_: ReportType, ends: Sequence[Accepted]) -> None:
        """Count them, and say where jobs are queued again."""
        if True in [end.is_awaited for end in ends]:
            self._runs_bell.ring()
        lanes = [end.lane for end in ends]
        if type_ is ReportType.COMPLETE:
            metrics.SUCCEEDED.inc(len(ends))
            self._seen.now.succeeded.update(lanes)
            return
        if type_ is ReportType.FAIL:
            self._seen.now.failed.update(lanes)
        queued = [end.lane for end in ends if not end.is_dead]
        metrics.DEAD.inc(len(ends) - len(queued))
        (metrics.FAILED if type_ is ReportType.FAIL else metrics.RELEASED).inc(len(queued))
        if queued:
            self._hub.wake(set(queued))

    def _tell(self, report: Report, attempts: int) -> None:
        said = report.progress or Progress()
        self._hub.publish(
            JobUpdate(
                job_id=UUID(report.job_id),
                status=JobStatus.LEASED,
                attempts=attempts,
                percent=said.percent,
                message=said.message,
                data=said.data,
            )
        )

    async def _explain(self, token: WorkerToken, lost: _Pile, outcomes: list[Outcome]) -> None:
        """Say of leases that are lost what ended them: a report whose answer was lost is known by it again."""
        await self._tokens.require_live(token)
        metrics.LEASES_LOST.inc(len(lost.rows))
        ends = await self._ends.submit_many(lost.rows)
        for place, row, ended in zip(lost.places, lost.rows, ends, strict=True):
            outcomes[place] = LeaseLost(row.job_id, ended)
