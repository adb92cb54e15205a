"""Leases beside a model: whatever waits, and whoever asks, the answer is what sorting by hand gives."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from atomo_gql.store import enqueue, lease
from atomo_gql.store.database import Database
from atomo_gql.store.lease import LeaseRow
from tests.store.test_projection import make_token, row


@pytest.mark.parametrize("seed", range(8))
async def test_a_lease_is_what_sorting_by_hand_gives(database: Database, sql: Any, seed: int) -> None:
    chance = random.Random(seed)
    queues = [f"q{n}" for n in range(chance.choice((1, 2, 5, 20, 120)))]
    tenants, kinds = ("", "acme", "acme2"), ("a", "b", "c")
    later = datetime.now(UTC) + timedelta(days=1)
    await enqueue.enqueue(
        database,
        [
            row(
                chance.choice(queues), tenant=chance.choice(tenants), priority=chance.choice((-1, 0, 0, 0, 7))
            )._replace(
                kind=chance.choice(kinds),
                run_at=later if chance.random() < 0.1 else None,
                deadline=later if chance.random() < 0.1 else None,
            )
            for _ in range(600)
        ],
    )
    # Some queues are far older than the others, some jobs past their deadline, and many stand at the same moment.
    await sql.execute("""
        UPDATE ready SET eligible_at = date_trunc('second', now()) - make_interval(secs =>
            CASE WHEN queue IN ('q0', 'q3') THEN 900 ELSE 0 END + (random() * 30)::integer)
        WHERE eligible_at <= now()""")
    await sql.execute(
        "UPDATE ready SET deadline = now() - interval '1 s' WHERE deadline IS NOT NULL AND random() < 0.5"
    )
    waits = [
        r
        for r in await sql.fetch("SELECT * FROM ready WHERE eligible_at <= now()")
        if r["deadline"] is None or r["deadline"] > datetime.now(UTC)
    ]
    workers = {tenant: await make_token(database, "*", tenant=tenant) for tenant in ("", "acme")}
    for _ in range(25):
        tenant = chance.choice(("", "", "acme"))
        asked = ("*",) if chance.random() < 0.3 else tuple(chance.sample(queues, chance.randint(1, len(queues))))
        of_kinds = None if chance.random() < 0.6 else tuple(chance.sample(kinds, chance.randint(1, 3)))
        count = chance.choice((1, 3, 10, 40))
        fitting = [
            r
            for r in waits
            if (asked == ("*",) or r["queue"] in asked)
            and (of_kinds is None or r["kind"] in of_kinds)
            and tenant in ("", r["tenant"])
        ]
        expected = sorted(fitting, key=lambda r: (-r["priority"], r["eligible_at"], r["id"]))[:count]

        [jobs] = await lease.lease(database, [LeaseRow(workers[tenant].id, count, 30, asked, of_kinds)])

        assert [UUID(job.id) for job in jobs] == [r["id"] for r in expected], (tenant, asked, of_kinds, count)
        waits = [r for r in waits if r not in expected]
