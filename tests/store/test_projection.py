"""After any sequence of commands, folding the events gives the projection, column for column."""

import asyncio
import uuid
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atomo_gql.domain.jobs import LeasedJob
from atomo_gql.domain.principals import WorkerToken
from atomo_gql.store import enqueue, housekeeping, lease, manage, rebuild, report, tokens
from atomo_gql.store.database import Database
from atomo_gql.store.enqueue import EnqueueRow
from atomo_gql.store.lease import LeaseRow
from atomo_gql.store.report import ReportRow

_SPARE = 1  # so that poison is found, too
TENANTS, QUEUES, KEYS = ["", "acme"], ["q", "r"], [None, None, "once"]

_enqueue = st.tuples(
    st.just("enqueue"),
    st.sampled_from(TENANTS),
    st.sampled_from(QUEUES),
    st.sampled_from(KEYS),
    st.integers(1, 3),
    st.integers(-2, 2),
    st.sampled_from([None, None, 60]),
    st.sampled_from([None, None, None, datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)]),
)
_lease = st.tuples(st.just("lease"), st.sampled_from([("q",), ("r",), ("q", "r"), ("*",)]), st.integers(1, 4))
_report = st.tuples(
    st.sampled_from(["heartbeat", "progress", "complete", "fail", "die", "release", "stale"]), st.integers(0, 20)
)
_manage = st.tuples(st.sampled_from(["retry", "cancel"]), st.integers(0, 20))
_time = st.tuples(st.sampled_from(["expire", "sweep", "due"]))


async def make_token(database: Database, *queues: str, tenant: str = "") -> WorkerToken:
    """A live worker token."""
    return await tokens.mint(
        database,
        tenant=tenant,
        name="w",
        queues=queues or ("*",),
        token_hash=uuid.uuid4().bytes * 2,
        created_by="user:x",
    )


def row(queue: str = "q", *, tenant: str = "", key: str | None = None, most: int = 5, priority: int = 0) -> EnqueueRow:
    """A job to enqueue."""
    payload = orjson.dumps({"n": [1, None, "x"]})
    return EnqueueRow(tenant, queue, "k", payload, key, most, priority, None, "user:x", None)


async def _apply(database: Database, sql: Any, token: WorkerToken, held: list[LeasedJob], command: Any) -> None:
    match command:
        case ("enqueue", tenant, queue, key, most, priority, timeout, deadline):
            made = row(queue, tenant=tenant, key=key, most=most, priority=priority)
            await enqueue.enqueue(database, [made._replace(timeout_secs=timeout, deadline=deadline)])
        case ("lease", queues, count):
            [jobs] = await lease.lease(database, [LeaseRow(token.id, count, 30, queues)])
            held.extend(jobs)
        case ("expire",):
            await sql.execute("UPDATE leases SET expires_at = now() - interval '1 s'")
        case ("due",):
            # As if time had passed: both the truth and the row are moved, or they would rightly differ.
            await sql.execute(
                "WITH due AS (UPDATE ready SET eligible_at = now() WHERE eligible_at > now() RETURNING id, version) "
                "UPDATE events e SET data = data || jsonb_build_object('retryAt', (SELECT eligible_at FROM ready r "
                "WHERE r.id = e.stream_id)) FROM due d WHERE e.stream_id = d.id AND e.version = d.version"
            )
            await sql.execute(
                "UPDATE events e SET data = data || jsonb_build_object('retryAt', r.eligible_at) FROM ready r "
                "WHERE r.id = e.stream_id AND r.version = e.version AND e.type = 'failed'"
            )
        case ("sweep",):
            await housekeeping.reclaim(database, 100, _SPARE)
            await housekeeping.end_overdue(database, 100)
        case (("retry" | "cancel") as verb, number):
            ids = [r["id"] for r in await sql.fetch("SELECT id FROM job_records ORDER BY id")]
            chosen = ids[number : number + 2]
            if verb == "retry":
                await manage.retry(database, chosen, None, "user:x", None)
            else:
                await manage.cancel(database, chosen, None, "user:x", None, "cancelled by user:x")
        case (verb, number) if held:
            job = held[number % len(held)]
            lease_id = uuid.uuid4() if verb == "stale" else job.lease_id
            said = ReportRow(
                job.id,
                str(lease_id),
                token.id,
                visibility_secs=30,
                body=b'{"percent": 1}',
                error="boom",
                retryable=verb != "die",
            )
            functions: dict[str, Any] = {
                "die": report.fail,
                "stale": report.complete,
                "release": partial(report.release, spare=_SPARE),
            }
            function = functions.get(verb) or getattr(report, verb)
            [done] = await function(database, [said])
            assert verb != "stale" or done is None


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.one_of(_enqueue, _enqueue, _lease, _lease, _report, _report, _report, _manage, _time), max_size=40))
def test_the_projection_is_what_the_events_say(loop_runner: Any, commands: list[Any]) -> None:
    loop_runner(commands)


@pytest.fixture
async def loop_runner(database: Database, sql: Any) -> Any:
    """Hypothesis calls plain functions; this one runs its commands on the session's loop."""
    loop = asyncio.get_running_loop()
    token = await make_token(database)

    async def run(commands: list[Any]) -> None:
        await sql.execute("TRUNCATE events, job_records, ready, leases, dead, idempotency_keys")
        held: list[LeasedJob] = []
        for command in commands:
            await _apply(database, sql, token, held, command)
        jobs = await sql.fetchval("SELECT count(*) FROM job_records")
        compared = 0
        async for proof in rebuild.verify(database):
            assert proof.differences == ()
            compared = proof.compared
        assert compared == jobs

    def call(commands: list[Any]) -> None:
        loop.run_until_complete(run(commands))

    return call


async def test_a_rebuild_makes_the_same_rows_again(database: Database, sql: Any) -> None:
    token = await make_token(database)
    await enqueue.enqueue(database, [row(), row("r", tenant="acme", priority=3), row(most=1), row(), row()])
    [jobs] = await lease.lease(database, [LeaseRow(token.id, 4, 30, ("q", "r"))])
    held = [ReportRow(j.id, j.lease_id, token.id, body=b"[1]", error="boom") for j in jobs]
    await report.complete(database, held[:1])
    await report.fail(database, held[1:3])
    before = await sql.fetch("SELECT * FROM jobs ORDER BY id")

    assert (await rebuild.rebuild(database)).jobs == 5

    after = await sql.fetch("SELECT * FROM jobs ORDER BY id")
    moved = {"lease_expires_at"}
    assert [{k: v for k, v in r.items() if k not in moved} for r in after] == [
        {k: v for k, v in r.items() if k not in moved} for r in before
    ]


async def test_a_row_that_was_tampered_with_is_found(database: Database, sql: Any) -> None:
    [made] = await enqueue.enqueue(database, [row()])
    await sql.execute("UPDATE job_records SET kind = 'other' WHERE id = $1", made.id)

    [proof] = [p async for p in rebuild.verify(database)]

    assert [d.id for d in proof.differences] == [made.id]
    assert "kind is 'other', should be 'k'" in proof.differences[0].detail
