"""A plan that was cached while nothing was leased still finds a lease when many are."""

from collections.abc import Awaitable, Callable

import pytest

from atomo_gql.cli.bench import fill
from atomo_gql.store import lease, report
from atomo_gql.store.database import Database
from atomo_gql.store.lease import LeaseRow
from atomo_gql.store.report import Answers, ReportRow, Rows
from tests.guard.meter import Meter
from tests.store.test_projection import make_token

_PAGES = 40  # a report of one job touches some twenty; 1,500 leases lie on eighty


@pytest.mark.parametrize("verb", [report.heartbeat, report.progress, report.complete, report.fail])
async def test_a_report_finds_its_lease_among_many(
    database: Database, cluster: str, verb: Callable[[Database, Rows], Awaitable[Answers]]
) -> None:
    await fill.queued(database, ["q"], 1_600)
    await fill.tidy(database)
    meter = await Meter.on(database, cluster)  # before anything is planned: what it alters has plans made anew
    worker = await make_token(database)
    held: list[ReportRow] = []

    async def take(count: int) -> None:
        [jobs] = await lease.lease(database, [LeaseRow(worker.id, count, 600, ("q",))])
        held.extend(ReportRow(j.id, j.lease_id, worker.id, visibility_secs=600, body=b"{}", error="x") for j in jobs)

    async def say() -> None:
        assert await verb(database, [held.pop()]) != [None]

    await take(2)
    await say()
    for _ in range(3):
        await take(500)
    spent = await meter.spent(say)
    await meter.close()
    assert spent.buffers <= _PAGES
