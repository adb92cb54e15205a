"""`sql/queries/report.sql`: what a worker may say of a job it holds.

Each function takes reports that name a lease and the worker token they came with, and answers one outcome per report,
in order; None is: the lease is not the current one, or the token does not reach it.

What a statement does not find is locked, and looked for again: a lease that another report has just moved is a new row,
which the statement, begun before, passes over.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache, partial
from itertools import repeat
from typing import Any, NamedTuple
from uuid import UUID

from atomo_gql.domain.jobs import Lane
from atomo_gql.domain.reports import FailOutcome
from atomo_gql.store.columns import shared
from atomo_gql.store.database import Database, fetch_in


class ReportRow(NamedTuple):
    """A report on a lease. What the fields below it mean depends on the verb."""

    job_id: str
    lease_id: str
    worker_id: UUID
    body: bytes | None = None  # encoded JSON: a result (None: null), or a progress
    visibility_secs: int | None = None
    error: str | None = None
    retryable: bool = True
    retry_after_secs: int | None = None


class Accepted(NamedTuple):
    """The report took effect on a job of that lane, which heartbeat and progress do not say."""

    lane: Lane = ("", "")
    attempt: int | None = None
    failure: FailOutcome | None = None
    is_dead: bool = False
    is_awaited: bool = False  # some run of a workflow waits for a job that ended with it


Rows = Sequence[ReportRow]
Answers = list[Accepted | None]
_Fetch = Callable[..., Awaitable[list[Any]]]  # of a statement and its arguments


async def heartbeat(database: Database, reports: Rows) -> Answers:
    """Move the deadlines."""
    return await _report(database, "job_heartbeat", reports, lambda rows: ([r.visibility_secs for r in rows],))


async def progress(database: Database, reports: Rows) -> Answers:
    """Move the deadlines, and keep the newest progress while the lease lasts."""
    return await _report(
        database, "job_progress", reports, lambda rows: ([r.visibility_secs for r in rows], [r.body for r in rows])
    )


async def complete(database: Database, reports: Rows) -> Answers:
    """The work is done, with a result."""

    async def run(fetch: _Fetch, rows: Rows) -> Answers:
        results = b"[%b]" % b",".join([r.body or b"null" for r in rows])
        answers: Answers = [None] * len(rows)
        [(ords, tenants, queues, is_awaited)] = await fetch("job_complete", *_leases(rows), results)
        for number, answer in zip(ords, map(_completed, tenants, queues, repeat(is_awaited)), strict=True):
            answers[number - 1] = answer
        return answers

    return await _insistently(database, run, reports)


@lru_cache(4096)
def _completed(tenant: str, queue: str, is_awaited: bool) -> Accepted:
    """All there is to tell of a completion; kept, because making it costs more than finding it."""
    return Accepted((tenant, queue), is_awaited=is_awaited)


async def fail(database: Database, reports: Rows) -> Answers:
    """The attempt failed: queued again for later, or dead."""

    def columns(rows: Rows) -> tuple[Any, ...]:
        return [r.error for r in rows], [r.retryable for r in rows], [r.retry_after_secs for r in rows]

    return await _report(database, "job_fail", reports, columns, failed=True)


async def release(database: Database, reports: Rows, spare: int) -> Answers:
    """Handed back unharmed; dead after so many deliveries beyond its attempts."""
    return await _report(database, "job_release", reports, lambda _: (spare,))


async def ends(database: Database, reports: Rows) -> list[str | None]:
    """The type of the event that ended each lease, where it was that worker's and is over."""
    found = await database.dispatch("lease_ends", *_leases(reports))
    answers: list[str | None] = [None] * len(reports)
    for row in found:
        answers[row["ord"] - 1] = row["type"]
    return answers


async def _report(
    database: Database,
    statement: str,
    reports: Rows,
    columns: Callable[[Rows], tuple[Any, ...]],
    *,
    failed: bool = False,
) -> Answers:
    async def run(fetch: _Fetch, rows: Rows) -> Answers:
        answers: Answers = [None] * len(rows)
        for row in await fetch(statement, *_leases(rows), *columns(rows)):
            answers[row["ord"] - 1] = Accepted(
                (row.get("tenant", ""), row.get("queue", "")),
                row.get("attempt"),
                FailOutcome(row["delay_secs"]) if failed else None,
                row["delay_secs"] is None if failed else row.get("is_dead", False),
                row.get("is_awaited", False),
            )
        return answers

    return await _insistently(database, run, reports)


async def _insistently(database: Database, run: Callable[[_Fetch, Rows], Awaitable[Answers]], reports: Rows) -> Answers:
    answers = await run(database.dispatch, reports)
    if None in answers:
        missed = [place for place, answer in enumerate(answers) if answer is None]
        rows = [reports[place] for place in missed]
        async with database.transaction() as connection:
            fetch = partial(fetch_in, connection)
            await fetch("leases_lock", *_leases(rows)[:2])
            for place, answer in zip(missed, await run(fetch, rows), strict=True):
                answers[place] = answer
    return answers


def _leases(reports: Rows) -> tuple[str, str, Sequence[UUID]]:
    return (
        ",".join([r.job_id for r in reports]),
        ",".join([r.lease_id for r in reports]),
        shared([r.worker_id for r in reports]),
    )
