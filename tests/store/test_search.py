"""A text is looked for among the errors of a bounded number of jobs at a time, and all pages together miss none."""

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
    await lease.lease(database, [LeaseRow(token.id, 60, 600, ("*",))])


def _filters(chance: random.Random, keys: list[str], moments: list[datetime]) -> JobFilter:
    def maybe(*values: Any) -> Any:
        return chance.choice(values) if chance.random() < 0.3 else None

    return JobFilter(
        error=chance.choice(("api", "API", "full", "ärger", "nothing of it", "e")),
        statuses=maybe((JobStatus.DEAD,), (JobStatus.QUEUED, JobStatus.LEASED), (JobStatus.SUCCEEDED,), ()),
        queue=maybe("q", "r"),
        kind=maybe("one", "two"),
        idempotency_key=chance.choice(keys) if chance.random() < 0.1 else None,
        created_from=maybe(*moments),
        finished_to=maybe(*moments),
    )


def _is_wanted(job: Any, tenant: str | None, wanted: JobFilter) -> bool:
    return (
        job["error"] is not None
        and str(wanted.error).lower() in job["error"].lower()
        and tenant in (None, job["tenant"])
        and (wanted.statuses is None or job["status"] in wanted.statuses)
        and wanted.queue in (None, job["queue"])
        and wanted.kind in (None, job["kind"])
        and wanted.idempotency_key in (None, job["idempotency_key"])
        and (wanted.created_from is None or job["created_at"] >= wanted.created_from)
        and (wanted.finished_to is None or (job["finished_at"] is not None and job["finished_at"] < wanted.finished_to))
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
    for _ in range(60):
        tenant, wanted = chance.choice((None, None, "", "acme")), _filters(chance, keys, moments)
        look, most, descending = chance.choice((1, 7, 50, None)), chance.choice((1, 5, 40)), chance.random() < 0.5
        expected = [job["id"] for job in every if _is_wanted(job, tenant, wanted)][:: 1 if descending else -1]
        found: list[UUID] = []
        edge: UUID | None = None
        while True:
            window = {"below": edge} if descending else {"above": edge}
            ids, stopped_at = await jobs.page(
                database, tenant, wanted, **window, descending=descending, most=most, look=look
            )
            found += ids
            short += len(ids) < most and stopped_at is not None
            if stopped_at is None and len(ids) < most:
                break
            edge = ids[-1] if stopped_at is None else stopped_at
        assert found == expected, (tenant, wanted, look, most, descending)
    assert short > 20
