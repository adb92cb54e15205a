"""What workers say of the jobs they hold: heartbeat, progress, complete, fail, release."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
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
_NULL = b"null"
_Numbered = list[tuple[int, Report, ReportRow]]  # with its place in the list that came in


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
            type_: Batcher(partial(statement, resources.database), weigh=lambda r: len(r.body or b""))
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
        turns: list[dict[ReportType, _Numbered]] = [{}, {}]  # what extends; the first that ends a job's, the second …
        ends: Counter[str] = Counter()
        for place, report in enumerate(reports):
            try:
                row = self._row(token, report)
            except AtomoError as error:
                outcomes[place] = error
                continue
            turn = 0
            if report.type in _ENDING:
                turn = ends[report.lease.job_id] = ends[report.lease.job_id] + 1
                if turn == len(turns):
                    turns.append({})
            turns[turn].setdefault(report.type, []).append((place, report, row))
        lost: _Numbered = []
        for by_type in turns:
            for missed in await asyncio.gather(*(self._apply(t, found, outcomes) for t, found in by_type.items())):
                lost += missed
        if lost:
            await self._explain(token, lost, outcomes)
        return outcomes

    def _row(self, token: WorkerToken, report: Report) -> ReportRow:
        if report.type is ReportType.COMPLETE:
            result = _NULL if report.result is None else encode("result", report.result, self._most)
            return ReportRow(report.lease, token.id, body=result)
        body = None
        if report.progress is not None:
            said = report.progress
            data = encode("data", said.data, self._most)
            body = orjson.dumps({"percent": said.percent, "message": said.message, "data": orjson.Fragment(data)})
        return ReportRow(
            report.lease,
            token.id,
            visibility_secs=report.visibility_secs,
            body=body,
            error=report.error,
            retryable=report.retryable,
            retry_after_secs=report.retry_after_secs,
        )

    async def _apply(self, type_: ReportType, numbered: _Numbered, outcomes: list[Outcome]) -> _Numbered:
        """Run one statement for all of a type; those whose lease was lost."""
        answers = await self._batchers[type_].submit_many([row for _, _, row in numbered])
        lost = [one for one, done in zip(numbered, answers, strict=True) if done is None]
        done = [(place, report, took) for (place, report, _), took in zip(numbered, answers, strict=True) if took]
        if type_ is ReportType.PROGRESS:
            for _, report, took in done:
                self._tell(report.lease.job_id, report.progress or Progress(), took.attempt or 0)
        elif type_ in _ENDING and done:
            if type_ is ReportType.FAIL:
                for place, _, took in done:
                    outcomes[place] = took.failure
            self._ended(type_, Counter([took for _, _, took in done]))
            self._log_bell.ring_for_jobs()
            self._hub.changed(UUID(report.lease.job_id) for _, report, _ in done)
        return lost

    def _ended(self, type_: ReportType, ends: Counter[Accepted]) -> None:
        """Count them, and say where jobs are queued again."""
        for end, count in ends.items():
            lane = end.tenant or "", end.queue or ""
            seen, is_dead = self._seen.lane(*lane), end.is_dead
            if end.is_awaited:
                self._runs_bell.ring()
            match type_:
                case ReportType.COMPLETE:
                    metrics.SUCCEEDED.inc(count)
                    seen.succeeded += count
                    continue
                case ReportType.FAIL:
                    seen.failed += count
                    is_dead = end.failure is None or end.failure.delay_secs is None
                    if not is_dead:
                        metrics.FAILED.inc(count)
                case _ if not is_dead:
                    metrics.RELEASED.inc(count)
                case _:
                    pass
            if is_dead:
                metrics.DEAD.inc(count)
            else:
                self._hub.wake([lane])

    def _tell(self, job_id: str, said: Progress, attempts: int) -> None:
        self._hub.publish(
            JobUpdate(
                job_id=UUID(job_id),
                status=JobStatus.LEASED,
                attempts=attempts,
                percent=said.percent,
                message=said.message,
                data=said.data,
            )
        )

    async def _explain(self, token: WorkerToken, lost: _Numbered, outcomes: list[Outcome]) -> None:
        """Say of leases that are lost what ended them: a report whose answer was lost is known by it again."""
        await self._tokens.require_live(token)
        metrics.LEASES_LOST.inc(len(lost))
        ends = await self._ends.submit_many([row for _, _, row in lost])
        for (place, report, _), ended in zip(lost, ends, strict=True):
            outcomes[place] = LeaseLost(report.lease.job_id, ended)
