"""Jobs in bulk, by SQL: what waits goes in as an enqueue does it, what has ended is written as it would stand there."""

import asyncio
import itertools
import os
import time
from datetime import datetime

from atomo_gql.cli.bench.figures import Tell
from atomo_gql.domain.errors import Unavailable
from atomo_gql.store import enqueue, lease, tokens
from atomo_gql.store.database import Database
from atomo_gql.store.enqueue import EnqueueRow
from atomo_gql.store.lease import LeaseRow

BATCH = 100
FLIGHTS = 2  # statements at a time, as the server has them
_CHUNK = 50_000
_TRIES = 5
# Every twentieth is dead.
_ENDED = """
WITH made AS MATERIALIZED (
    SELECT clock_timestamp() AS at, new_id() AS id, i, i % 20 = 0 AS is_dead, 'q' || i % 50 AS queue,
        'kind' || i % 7 AS kind, CASE WHEN i % 10 = 0 THEN 'tenant' ELSE '' END AS tenant,
        CASE WHEN i % 100 = 0 THEN 'key ' || i END AS key
    FROM generate_series($1::integer, $2::integer) AS i
),
recorded AS (
    INSERT INTO job_records (id, created_at, priority, max_attempts, tenant, queue, kind, idempotency_key)
    SELECT id, at, 0, 5, tenant, queue, kind, key FROM made
),
buried AS (
    INSERT INTO dead (id, finished_at, version, attempts, deliveries, tenant, queue, error)
    SELECT id, at, 3, 1, 1, tenant, queue, 'error ' || i FROM made WHERE is_dead
),
keyed AS (
    INSERT INTO idempotency_keys (tenant, queue, key, job_id)
    SELECT tenant, queue, key, id FROM made WHERE key IS NOT NULL
),
laned AS (
    INSERT INTO lanes (tenant, queue) SELECT DISTINCT tenant, queue FROM made ON CONFLICT DO NOTHING
)
INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data)
SELECT id, version, at, 'Job',
    CASE version WHEN 1 THEN 'enqueued' WHEN 2 THEN 'leased'
                 ELSE CASE WHEN is_dead THEN 'dead' ELSE 'succeeded' END END::event_type, tenant,
    CASE version WHEN 1 THEN 'user:bench' ELSE 'worker:' || id END,
    CASE version WHEN 1 THEN jsonb_build_object('queue', queue, 'kind', kind, 'payload', jsonb_build_object('n', i),
                                                'priority', 0, 'maxAttempts', 5, 'runAt', NULL, 'idempotencyKey', key)
                 WHEN 2 THEN jsonb_build_object('leaseId', id, 'attempt', 1, 'visibilitySecs', 30)
                 ELSE jsonb_build_object('leaseId', id, 'attempt', 1) || CASE WHEN is_dead
                    THEN jsonb_build_object('error', 'error ' || i, 'reason', 'not_retryable')
                    ELSE jsonb_build_object('result', NULL) END END
FROM made CROSS JOIN generate_series(1, 3) AS version"""


async def ended(database: Database, count: int, tell: Tell) -> None:
    """So many jobs that have ended, with the three events of a life, in 50 queues, 7 kinds and two tenants."""
    async with database.connection() as sql:
        for first in range(1, count + 1, _CHUNK):
            await sql.execute(_ENDED, first, min(first + _CHUNK - 1, count), timeout=300)
            tell(f"{min(first + _CHUNK - 1, count):,} of {count:,} jobs that have ended")
    await tidy(database)


async def queued(
    database: Database,
    queues: list[str],
    count: float,
    *,
    priority: int = 0,
    run_at: datetime | None = None,
    payload: bytes = b'{"n":1}',
    each: int = BATCH,
) -> float:
    """Enqueue no-op jobs, in whole batches of `each`, one queue after the other; the rate per second."""
    total = rounded(count, each)
    names = itertools.cycle(queues)
    rows = {
        queue: EnqueueRow("", queue, "noop", payload, None, 5, priority, run_at, "user:bench", None) for queue in queues
    }
    batches = iter(range(total // each))

    async def flight() -> None:
        for _ in batches:
            await enqueue.enqueue(database, [rows[next(names)] for _ in range(each)])

    began = time.perf_counter()
    await asyncio.gather(*(flight() for _ in range(FLIGHTS)))
    return total / (time.perf_counter() - began)


async def leased(database: Database, queue: str) -> None:
    """A batch of that queue is being worked on for a day."""
    token = await tokens.mint(
        database, tenant="", name="bench", queues=[queue], token_hash=os.urandom(32), created_by="user:bench"
    )
    await lease.lease(database, [LeaseRow(token.id, BATCH, 86_400, (queue,))])


async def emptied(database: Database) -> None:
    """No job is left, and no trace of one."""
    for left in reversed(range(_TRIES)):
        try:
            async with database.transaction() as sql:
                await sql.execute(
                    "TRUNCATE events, job_records, ready, leases, dead, lease_requests, idempotency_keys", timeout=60
                )
            return
        except Unavailable:  # it waited in a ring with what the server reads meanwhile
            if not left:
                raise


async def tidy(database: Database) -> None:
    """What autovacuum would have done by and by."""
    async with database.connection() as sql:
        await sql.execute("VACUUM ANALYZE", timeout=600)


def rounded(count: float, each: int = BATCH) -> int:
    """In whole batches, and one at least."""
    return max(each, int(count) // each * each)
