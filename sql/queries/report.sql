-- What a worker may say of a job it holds. Every statement takes arrays, answers the ordinals (1, 2, …) of the reports
-- it accepted, and passes over those whose lease is not, or no longer, the current one.

-- name: job_heartbeat(ids uuid[], lease_ids uuid[], worker_ids uuid[], visibilities integer[]) :many
WITH held AS MATERIALIZED (SELECT * FROM hold_leases($1::uuid[], $2::uuid[], $3::uuid[]))
UPDATE leases AS l
SET expires_at = statement_timestamp() + make_interval(secs => ($4::integer[])[h.ord])
FROM held AS h WHERE l.id = h.id
RETURNING h.ord;

-- name: job_progress(ids uuid[], lease_ids uuid[], worker_ids uuid[], visibilities integer[], progress jsonb[]) :many
-- A visibility that is null is the lease's own.
WITH held AS MATERIALIZED (SELECT * FROM hold_leases($1::uuid[], $2::uuid[], $3::uuid[])),
newest AS MATERIALIZED (SELECT DISTINCT ON (id) id, ord FROM held ORDER BY id, ord DESC),
moved AS (
    UPDATE leases AS l
    SET expires_at = statement_timestamp() + make_interval(secs => coalesce(($4::integer[])[n.ord], l.visibility_secs)),
        progress = ($5::jsonb[])[n.ord]
    FROM newest AS n WHERE l.id = n.id
    RETURNING l.id, l.tenant, l.attempt
)
SELECT h.ord, m.tenant, m.attempt FROM held AS h JOIN moved AS m ON m.id = h.id;

-- name: job_complete(ids uuid[], lease_ids uuid[], worker_ids uuid[], results jsonb[]) :many
WITH held AS MATERIALIZED (SELECT * FROM hold_leases($1::uuid[], $2::uuid[], $3::uuid[])),
ended AS (
    DELETE FROM leases AS l USING held AS h WHERE l.id = h.id
    RETURNING h.ord, l.*
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data)
    SELECT id, version + 1, statement_timestamp(), 'Job', 'succeeded', tenant, 'worker:' || ($3::uuid[])[ord],
           jsonb_build_object('leaseId', lease_id, 'attempt', attempt, 'result', ($4::jsonb[])[ord])
    FROM ended
),
recorded AS (
    UPDATE job_records AS j
    SET outcome = 'succeeded', finished_at = statement_timestamp(), version = e.version + 1, attempts = e.attempt,
        error = NULL
    FROM ended AS e WHERE j.id = e.id
)
SELECT ord, tenant, queue FROM ended;

-- name: job_fail(ids uuid[], lease_ids uuid[], worker_ids uuid[], errors text[], retryable boolean[]) :many
-- A retry waits min(5·2^(attempt−1), 3600) seconds, and up to a tenth more, so that a crowd that failed together does
-- not come back together. delay_secs is that wait without its jitter; null: the job is dead.
WITH held AS MATERIALIZED (SELECT * FROM hold_leases($1::uuid[], $2::uuid[], $3::uuid[])),
ended AS (
    DELETE FROM leases AS l USING held AS h WHERE l.id = h.id
    RETURNING h.ord, l.*
),
judged AS MATERIALIZED (
    SELECT *, ($4::text[])[ord] AS error,
        CASE WHEN delay_secs IS NOT NULL
             THEN statement_timestamp() + make_interval(secs => delay_secs * (1 + random() / 10)) END AS retry_at
    FROM (
        SELECT *, CASE WHEN ($5::boolean[])[ord] AND attempt < max_attempts
                       THEN least(5 * 2 ^ least(attempt - 1, 12), 3600)::integer END AS delay_secs
        FROM ended) AS e
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data)
    SELECT id, version + 1, statement_timestamp(), 'Job',
           CASE WHEN delay_secs IS NULL THEN 'dead' ELSE 'failed' END::event_type, tenant,
           'worker:' || ($3::uuid[])[ord],
           jsonb_build_object('leaseId', lease_id, 'attempt', attempt, 'error', error) || CASE
               WHEN delay_secs IS NOT NULL THEN jsonb_build_object('delaySecs', delay_secs, 'retryAt', retry_at)
               WHEN ($5::boolean[])[ord] THEN '{"reason": "attempts_exhausted"}'
               ELSE '{"reason": "not_retryable"}' END
    FROM judged
),
queued AS (
    INSERT INTO ready (id, eligible_at, version, priority, attempts, max_attempts, tenant, queue)
    SELECT id, retry_at, version + 1, priority, attempt, max_attempts, tenant, queue
    FROM judged WHERE delay_secs IS NOT NULL
),
recorded AS (
    UPDATE job_records AS j
    SET error = d.error,
        outcome = CASE WHEN d.delay_secs IS NULL THEN 'dead'::job_outcome END,
        finished_at = CASE WHEN d.delay_secs IS NULL THEN statement_timestamp() END,
        version = CASE WHEN d.delay_secs IS NULL THEN d.version + 1 END,
        attempts = CASE WHEN d.delay_secs IS NULL THEN d.attempt END
    FROM judged AS d WHERE j.id = d.id
)
SELECT ord, tenant, queue, delay_secs FROM judged;

-- name: job_release(ids uuid[], lease_ids uuid[], worker_ids uuid[]) :many
-- Handed back unharmed: queued again where it stood, and the attempt is not counted.
WITH held AS MATERIALIZED (SELECT * FROM hold_leases($1::uuid[], $2::uuid[], $3::uuid[])),
ended AS (
    DELETE FROM leases AS l USING held AS h WHERE l.id = h.id
    RETURNING h.ord, l.*
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data)
    SELECT id, version + 1, statement_timestamp(), 'Job', 'released', tenant, 'worker:' || ($3::uuid[])[ord],
           jsonb_build_object('leaseId', lease_id, 'attempt', attempt)
    FROM ended
),
queued AS (
    INSERT INTO ready (id, eligible_at, version, priority, attempts, max_attempts, tenant, queue)
    SELECT id, eligible_at, version + 1, priority, attempt - 1, max_attempts, tenant, queue FROM ended
)
SELECT ord, tenant, queue FROM ended;
