"""Pages of jobs, whatever is asked: all together miss none, though a search in errors looks at a few at a time."""

import random
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from atomo_gql.domain.jobs import JobFilter, JobStatus
from atomo_gql.store import enqueue, jobs, lease, report
from atomo_gql.store.database import Database
from atomo_gql.store.lease import LeaseRow
from atomo_gql.store.report import ReportRow
from tests.store.test_projection import make_token, row

_ERRORS = ("Timeout of API", "the disk is full", "the api says 500", "ÄRGER mit der API")


async def _failed(database: Database, chance: random.Random) -> None:
    """Jobs of three tenants, two queues and two kinds, most of which failed: dead, waiting again, or leased again."""
    made = [
        row(
            chance.choice("qr"),
            tenant=chance.choice(("", "acme", "acm")),
            key=chance.choice((None, None, None, f"k{n}")),
        )
        for n in range(260)
    ]
    await enqueue.enqueue(database, [job._replace(kind=chance.choice(("one", "two"))) for job in made])
    token = await make_token(database, "*")
    [held] = await lease.lease(database, [LeaseRow(token.id, 230, 600, ("*",))])
    for job in held[:200]:
        failed = ReportRow(job.id, job.lease_id, token.id, error=chance.choice(_ERRORS))
        await report.fail(database, [failed._replace(retryable=chance.random() < 0.4, retry_after_secs=0)])
    await report.complete(database, [ReportRow(job.id, job.lease_id, token.id) for job in held[200:215]])
    await lease.lease(database, [LeaseRow(token.id, 60, 600, ("*",))])


def _filters(chance: random.Random, keys: list[str], moments: list[datetime]) -> JobFilter:
    def maybe(*values: Any) -> Any:
        return chance.choice(values) if chance.random() < 0.3 else None

    return JobFilter(
        error=chance.choice(("api", "API", "full", "ärger", "nothing of it", "e", None, None, None)),
        statuses=maybe((JobStatus.DEAD,), (JobStatus.QUEUED, JobStatus.LEASED), (JobStatus.SUCCEEDED,), ()),
        queue=maybe("q", "r"),
        kind=maybe("one", "two"),
        idempotency_key=chance.choice(keys) if chance.random() < 0.1 else None,
        created_from=maybe(*moments),
        created_to=maybe(*moments),
        finished_from=maybe(*moments),
        finished_to=maybe(*moments),
    )


def _is_wanted(job: Any, tenant: str | None, wanted: JobFilter) -> bool:
    def within(moment: datetime | None, start: datetime | None, end: datetime | None) -> bool:
        if start is None and end is None:
            return True
        return moment is not None and (start is None or moment >= start) and (end is None or moment < end)

    return (
        (wanted.error is None or wanted.error.lower() in (job["error"] or "").lower())
        and tenant in (None, job["tenant"])
        and (wanted.statuses is None or job["status"] in wanted.statuses)
        and wanted.queue in (None, job["queue"])
        and wanted.kind in (None, job["kind"])
        and wanted.idempotency_key in (None, job["idempotency_key"])
        and within(job["created_at"], wanted.created_from, wanted.created_to)
        and within(job["finished_at"], wanted.finished_from, wanted.finished_to)
    )


@pytest.mark.parametrize("seed", range(3))
async def test_pages_of_short_looks_find_what_one_look_finds(database: Database, sql: Any, seed: int) -> None:
    chance = random.Random(seed)
    await _failed(database, chance)
    every = await sql.fetch("SELECT * FROM jobs ORDER BY id DESC")
    assert {job["status"] for job in every if job["error"]} == {"queued", "leased", "dead"}
    keys = [job["idempotency_key"] for job in every if job["idempotency_key"]]
    moments = [job["created_at"] for job in every[::60]] + [datetime.now(UTC)]
    short = 0
    for _ in range(120):
        tenant, wanted = chance.choice((None, None, "", "acme")), _filters(chance, keys, moments)
        look, most, descending = chance.choice((1, 7, 50, None)), chance.choice((1, 5, 40)), chance.random() < 0.5
        expected = [job["id"] for job in every if _is_wanted(job, tenant, wanted)][:: 1 if descending else -1]
        found: list[UUID] = []
        edge: UUID | None = None
        while True:
            window = {"below": edge} if descending else {"above": edge}
            ids, resumes_at = await jobs.page(
                database, tenant, wanted, **window, descending=descending, most=most, look=look
            )
            found += ids
            short += len(ids) < most and resumes_at is not None
            if resumes_at is None and len(ids) < most:
                break
            edge = ids[-1] if resumes_at is None else resumes_at
        assert found == expected, (tenant, wanted, look, most, descending)
    assert short > 20


async def test_a_look_at_long_errors_is_shorter(database: Database) -> None:
    await enqueue.enqueue(database, [row() for _ in range(30)])
    token = await make_token(database, "*")
    [held] = await lease.lease(database, [LeaseRow(token.id, 30, 600, ("*",))])
    long = [ReportRow(job.id, job.lease_id, token.id, error="hay" * 3_333, retryable=False) for job in held]
    await report.fail(database, [long[0]._replace(error="hay and a needle"), *long[1:]])
    looks, edge, found = 0, None, []
    while looks == 0 or edge is not None:
        ids, edge = await jobs.page(database, None, JobFilter(error="needle"), below=edge, most=40, look=400)
        found += ids
        looks += 1
    assert ([str(one) for one in found], looks) == ([held[0].id], 3)  # ten of them are as long as 400 are wont to be
