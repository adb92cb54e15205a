"""A database of the previous version that has been in use for some days: jobs in every state."""

from datetime import date
from typing import Any

_LOT = 50_000
_DAY = """
DO $$
DECLARE
    v_day timestamptz := date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - interval '{ago} days';
    v_parent text;
    v_name text;
BEGIN
    FOREACH v_parent IN ARRAY ARRAY['events', 'job_records'] LOOP
        v_name := v_parent || '_' || to_char(v_day AT TIME ZONE 'UTC', 'YYYYMMDD');
        CONTINUE WHEN to_regclass(v_name) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', v_name, v_parent);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', v_parent, v_name,
                       first_id_at(v_day), first_id_at(v_day + interval '1 day'));
    END LOOP;
END $$"""
# Of a hundred jobs 90 have succeeded and 5 are dead; and 2 are due, 2 wait for a time and 1 is leased, or these five
# have succeeded, too. No worker of the test takes any of them. They are spread over the day.
_JOBS = """
WITH made AS MATERIALIZED (
    SELECT d.first + i * interval '1 microsecond' * (86000000000 / $3) AS at,
        nth_id((extract(epoch FROM d.first) * 1000000)::bigint + i * (86000000000 / $3), gen_random_uuid(), 0) AS id,
        gen_random_uuid() AS lease_id, gen_random_uuid() AS worker_id, i, 'filled-' || i % 50 AS queue,
        'kind' || i % 7 AS kind, CASE WHEN i % 10 = 0 THEN 'tenant' ELSE '' END AS tenant,
        CASE WHEN i % 1000 = 0 THEN 'key ' || $4::integer || ' ' || i END AS key,
        CASE WHEN i % 100 < 90 THEN 'succeeded' WHEN i % 100 < 95 THEN 'dead' WHEN $5 THEN 'succeeded'
             WHEN i % 100 < 97 THEN 'due'
             WHEN i % 100 < 99 THEN 'later' ELSE 'leased' END AS state
    FROM generate_series($1::bigint, $2::bigint) AS i, (
        SELECT date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - $4::integer * interval '1 day' AS first
    ) AS d
),
timed AS MATERIALIZED (SELECT *, CASE WHEN state = 'later' THEN at + interval '90 days' END AS run_at FROM made),
recorded AS (
    INSERT INTO job_records (id, created_at, run_at, priority, max_attempts, tenant, queue, kind, idempotency_key)
    SELECT id, at, run_at, 0, 5, tenant, queue, kind, key FROM timed
),
queued AS (
    INSERT INTO ready (id, eligible_at, version, priority, attempts, max_attempts, tenant, queue, kind, deliveries)
    SELECT id, coalesce(run_at, at), 1, 0, 0, 5, tenant, queue, kind, 0 FROM timed WHERE state IN ('due', 'later')
),
given AS (
    INSERT INTO leases (id, lease_id, worker_id, leased_at, expires_at, eligible_at, version, visibility_secs, priority,
                        attempt, max_attempts, tenant, queue, kind, deliveries)
    SELECT id, lease_id, worker_id, at, now() + interval '1 day', at, 2, 86400, 0, 1, 5, tenant, queue, kind, 1
    FROM timed WHERE state = 'leased'
),
buried AS (
    INSERT INTO dead (id, finished_at, version, attempts, deliveries, tenant, queue, error)
    SELECT id, at, 3, 1, 1, tenant, queue, 'error ' || i FROM timed WHERE state = 'dead'
),
keyed AS (
    INSERT INTO idempotency_keys (tenant, queue, key, job_id)
    SELECT tenant, queue, key, id FROM timed WHERE key IS NOT NULL
),
laned AS (
    INSERT INTO lanes (tenant, queue) SELECT DISTINCT tenant, queue FROM timed ON CONFLICT DO NOTHING
)
INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data)
SELECT id, v, at, 'Job',
    CASE v WHEN 1 THEN 'enqueued' WHEN 2 THEN 'leased' ELSE state END::event_type, tenant,
    CASE v WHEN 1 THEN 'user:fill' ELSE 'worker:' || worker_id END,
    CASE v WHEN 1 THEN jsonb_build_object('queue', queue, 'kind', kind, 'payload', jsonb_build_object('n', i),
                                          'priority', 0, 'maxAttempts', 5, 'runAt', run_at, 'idempotencyKey', key)
           WHEN 2 THEN jsonb_build_object('leaseId', lease_id, 'attempt', 1, 'visibilitySecs', 86400)
           ELSE jsonb_build_object('leaseId', lease_id, 'attempt', 1) || CASE state
               WHEN 'dead' THEN jsonb_build_object('error', 'error ' || i, 'reason', 'not_retryable')
               ELSE jsonb_build_object('result', NULL) END END
FROM timed CROSS JOIN generate_series(1, 3) AS v
WHERE v <= CASE WHEN state IN ('succeeded', 'dead') THEN 3 WHEN state = 'leased' THEN 2 ELSE 1 END"""

_LEFT = """
SELECT $1::date - (created_at AT TIME ZONE 'UTC')::date AS ago, status::text, count(*) AS jobs
FROM jobs WHERE queue LIKE 'filled-%' GROUP BY 1, 2"""

_STRAY = "SELECT count(*) FROM idempotency_keys AS k WHERE NOT EXISTS (SELECT FROM jobs WHERE id = k.job_id)"
# What is there has been dispatched.
_DISPATCHED = "UPDATE checkpoints SET xid = pg_current_xact_id()::text::bigint"


async def fill(sql: Any, jobs: int, days: int) -> date:
    """Make so many jobs, in hundreds, as many on each of these days before today, and return today. All of the first
    day have ended."""
    each = max(1, jobs // days)
    assert each % 100 == 0, "the states are dealt out by the hundred"
    await sql.execute("SET synchronous_commit = off")
    for ago in range(days, 0, -1):
        await sql.execute(_DAY.replace("{ago}", str(ago)))
        for first in range(1, each + 1, _LOT):
            await sql.execute(_JOBS, first, min(first + _LOT - 1, each), each, ago, ago == days, timeout=600)
    await sql.execute("RESET synchronous_commit")
    await sql.execute(_DISPATCHED)
    await sql.execute("VACUUM ANALYZE", timeout=1_800)
    today: date = await sql.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
    return today


async def check(sql: Any, jobs: int, days: int, today: date) -> None:
    """Retention of no version has taken what must be kept, and no key has lost its job. See `Story.retention`."""
    each = max(1, jobs // days)
    rows = await sql.fetch(_LEFT, today)
    left = {(row["ago"], row["status"]): row["jobs"] for row in rows}
    alive = {ago: left.get((ago, "queued"), 0) + left.get((ago, "leased"), 0) for ago in range(1, days + 1)}
    assert alive == {**dict.fromkeys(range(1, days), each // 100 * 5), days: 0}, "queued and leased"
    young = range(1, days - 2)  # midnight may have passed, and then another day is too old
    assert {left.get((ago, "succeeded"), 0) for ago in young} == {each // 100 * 90}
    assert {left.get((ago, "dead"), 0) for ago in young} == {each // 100 * 5}
    assert await sql.fetchval(_STRAY) == 0, "keys of jobs that are gone"
