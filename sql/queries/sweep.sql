-- name: lease_reclaim(most integer) :many
-- Take back leases that ran out: queued again while attempts remain, else dead. Rows that somebody else is working on
-- are passed over, so every replica may sweep at once.
WITH expired AS MATERIALIZED (
    SELECT id FROM leases WHERE expires_at < statement_timestamp() LIMIT $1::integer FOR UPDATE SKIP LOCKED
),
ended AS (
    DELETE FROM leases AS l USING expired AS x WHERE l.id = x.id
    RETURNING l.*, l.attempt >= l.max_attempts AS is_dead,
        format('lease expired: attempt %s was not reported within %s s', l.attempt, l.visibility_secs) AS error
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data)
    SELECT id, version + 1, statement_timestamp(), 'Job', CASE WHEN is_dead THEN 'dead' ELSE 'reclaimed' END::event_type,
           tenant, 'system:sweeper',
           jsonb_build_object('leaseId', lease_id, 'attempt', attempt, 'workerId', worker_id, 'error', error)
           || CASE WHEN is_dead THEN '{"reason": "lease_expired"}'::jsonb ELSE '{}' END
    FROM ended
),
queued AS (
    INSERT INTO ready (id, eligible_at, version, priority, attempts, max_attempts, tenant, queue)
    SELECT id, statement_timestamp(), version + 1, priority, attempt, max_attempts, tenant, queue
    FROM ended WHERE NOT is_dead
),
recorded AS (
    UPDATE job_records AS j
    SET error = e.error,
        outcome = CASE WHEN e.is_dead THEN 'dead'::job_outcome END,
        finished_at = CASE WHEN e.is_dead THEN statement_timestamp() END,
        version = CASE WHEN e.is_dead THEN e.version + 1 END,
        attempts = CASE WHEN e.is_dead THEN e.attempt END
    FROM ended AS e WHERE j.id = e.id
)
SELECT id, tenant, queue, is_dead FROM ended;
