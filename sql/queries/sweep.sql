-- name: lease_reclaim(most integer, spare integer) :many
-- Take back leases that ran out: queued again while attempts remain, its deadline has not passed, and it is no poison
-- (see job_release); else dead. Rows that somebody else is working on
-- are passed over, so every replica may sweep at once.
WITH expired AS MATERIALIZED (
    SELECT id FROM leases WHERE expires_at < statement_timestamp() LIMIT $1::integer FOR UPDATE SKIP LOCKED
),
ended AS (
    DELETE FROM leases AS l USING expired AS x WHERE l.id = x.id
    RETURNING l.*,
        CASE WHEN l.attempt >= l.max_attempts THEN 'lease_expired'
             WHEN l.deadline <= statement_timestamp() THEN 'deadline_passed'
             WHEN l.deliveries >= l.max_attempts + $2::integer THEN 'poison' END AS reason,
        CASE WHEN l.expires_at >= lease_limit(l.leased_at, l.timeout_secs, NULL)
             THEN format('timed out: attempt %s was not reported within the %s s it may take', l.attempt, l.timeout_secs)
             WHEN l.expires_at >= l.deadline
             THEN format('deadline passed: attempt %s was not reported by then', l.attempt)
             ELSE format('lease expired: attempt %s was not reported within %s s', l.attempt, l.visibility_secs) END AS told
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data)
    SELECT id, version + 1, statement_timestamp(), 'Job', CASE WHEN reason IS NULL THEN 'reclaimed' ELSE 'dead' END::event_type,
           tenant, 'system:sweeper',
           jsonb_build_object('leaseId', lease_id, 'attempt', attempt, 'workerId', worker_id, 'error', told)
           || CASE WHEN reason IS NULL THEN '{}' ELSE jsonb_build_object('reason', reason) END
    FROM ended
),
queued AS (
    INSERT INTO ready (id, eligible_at, version, priority, attempts, max_attempts, tenant, queue, kind, deliveries,
                       timeout_secs, deadline, error)
    SELECT id, statement_timestamp(), version + 1, priority, attempt, max_attempts, tenant, queue, kind, deliveries,
           timeout_secs, deadline, told
    FROM ended WHERE reason IS NULL
),
buried AS (
    INSERT INTO dead (id, finished_at, version, attempts, deliveries, tenant, queue, error)
    SELECT id, statement_timestamp(), version + 1, attempt, deliveries, tenant, queue, told
    FROM ended WHERE reason IS NOT NULL
),
awaited AS (
    UPDATE run_waits AS w SET ended_at = statement_timestamp() FROM ended AS e WHERE w.job_id = e.id AND e.reason IS NOT NULL RETURNING w.run_id
)
SELECT id, tenant, queue, reason IS NOT NULL AS is_dead FROM ended;

-- name: job_overdue(most integer) :many
-- Jobs that nobody began before their deadline are dead.
WITH overdue AS MATERIALIZED (
    SELECT id FROM ready WHERE deadline IS NOT NULL AND deadline <= statement_timestamp()
    ORDER BY deadline LIMIT $1::integer FOR UPDATE SKIP LOCKED
),
ended AS (
    DELETE FROM ready AS r USING overdue AS o WHERE r.id = o.id
    RETURNING r.*, 'deadline passed: the job was not done by then' AS told
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data)
    SELECT id, version + 1, statement_timestamp(), 'Job', 'dead', tenant, 'system:sweeper',
           jsonb_build_object('attempt', attempts, 'error', told, 'reason', 'deadline_passed')
    FROM ended
),
buried AS (
    INSERT INTO dead (id, finished_at, version, attempts, deliveries, tenant, queue, error)
    SELECT id, statement_timestamp(), version + 1, attempts, deliveries, tenant, queue, told FROM ended
),
awaited AS (
    UPDATE run_waits AS w SET ended_at = statement_timestamp() FROM ended AS e WHERE w.job_id = e.id RETURNING w.run_id
)
SELECT id, tenant, queue, true AS is_dead FROM ended;

-- name: lease_requests_forget(most integer) :one
WITH old AS MATERIALIZED (
    SELECT worker_id, request_id FROM lease_requests WHERE expires_at < statement_timestamp()
    ORDER BY expires_at LIMIT $1::integer FOR UPDATE SKIP LOCKED
),
gone AS (
    DELETE FROM lease_requests AS r USING old AS o WHERE r.worker_id = o.worker_id AND r.request_id = o.request_id
    RETURNING 1
)
SELECT count(*)::integer AS deleted FROM gone;
