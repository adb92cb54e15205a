-- What people do by hand. Each changes the projection and leaves an event with who did it.

-- name: job_retry(ids uuid[], tenant text, actor text, trace text) :many
-- Dead jobs of the tenant ('': those without one; null: anybody's) are queued again, with all their attempts before
-- them; a deadline that has passed counts no longer. Answers those that were; others are passed over.
WITH raised AS (
    DELETE FROM dead AS d USING (
        SELECT id FROM dead WHERE id = ANY ($1::uuid[]) AND ($2::text IS NULL OR tenant = $2) ORDER BY id FOR UPDATE) AS w
    WHERE d.id = w.id
    RETURNING d.*
),
again AS MATERIALIZED (
    SELECT r.*, j.kind, j.priority, j.max_attempts, j.timeout_secs, j.deadline
    FROM raised AS r JOIN job_records AS j ON j.id = r.id
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, trace, data)
    SELECT id, version + 1, statement_timestamp(), 'Job', 'retried', tenant, $3::text, $4::text,
           jsonb_build_object('attempts', attempts)
    FROM again
),
queued AS (
    INSERT INTO ready (id, eligible_at, version, priority, attempts, max_attempts, tenant, queue, kind, deliveries,
                       timeout_secs, deadline, error)
    SELECT id, statement_timestamp(), version + 1, priority, 0, max_attempts, tenant, queue, kind, 0, timeout_secs,
           CASE WHEN deadline > statement_timestamp() THEN deadline END, error
    FROM again
),
released AS (
    UPDATE job_records AS j SET deadline = NULL
    FROM again AS a WHERE j.id = a.id AND a.deadline <= statement_timestamp()
)
SELECT id, tenant, queue FROM again;

-- name: job_cancel(ids uuid[], tenant text, actor text, trace text, error text) :many
-- Jobs of the tenant (as above) that are queued or leased are dead, with that error. A worker that has one is told with
-- its next report: its lease is gone. Answers those that were; one that moved between the two meanwhile is missed.
WITH waiting AS (
    DELETE FROM ready AS r USING (
        SELECT id FROM ready WHERE id = ANY ($1::uuid[]) AND ($2::text IS NULL OR tenant = $2) ORDER BY id FOR UPDATE) AS w
    WHERE r.id = w.id
    RETURNING r.id, r.version, r.attempts, r.deliveries, r.tenant, r.queue, NULL::uuid AS lease_id
),
held AS (
    DELETE FROM leases AS l USING (
        SELECT id FROM leases WHERE id = ANY ($1::uuid[]) AND ($2::text IS NULL OR tenant = $2) ORDER BY id FOR UPDATE) AS h
    WHERE l.id = h.id
    RETURNING l.id, l.version, l.attempt AS attempts, l.deliveries, l.tenant, l.queue, l.lease_id
),
ended AS (SELECT * FROM waiting UNION ALL SELECT * FROM held),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, trace, data)
    SELECT id, version + 1, statement_timestamp(), 'Job', 'cancelled', tenant, $3::text, $4::text,
           jsonb_build_object('error', $5::text, 'attempt', attempts, 'leaseId', lease_id)
    FROM ended
),
buried AS (
    INSERT INTO dead (id, finished_at, version, attempts, deliveries, tenant, queue, error)
    SELECT id, statement_timestamp(), version + 1, attempts, deliveries, tenant, queue, $5::text FROM ended
),
awaited AS (
    UPDATE run_waits AS w SET ended_at = statement_timestamp() FROM ended AS e WHERE w.job_id = e.id RETURNING w.run_id
)
SELECT id, tenant, queue FROM ended;

-- name: queue_pause(queue text, tenant text, actor text, trace text) :one
-- Nothing is leased from the tenant's part of the queue (U+001F: everybody's). No row: it was paused already.
WITH paused AS (
    INSERT INTO queue_pauses (queue, tenant, id, paused_at, paused_by)
    VALUES ($1::text, $2::text, new_id(), statement_timestamp(), $3::text)
    ON CONFLICT (queue, tenant) DO NOTHING
    RETURNING *
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, trace, data)
    SELECT id, 1, paused_at, 'Queue', 'paused', trim(E'\x1f' FROM tenant), paused_by, $4::text,
           jsonb_build_object('queue', queue, 'everyTenant', tenant = E'\x1f')
    FROM paused
)
SELECT id FROM paused;

-- name: queue_resume(queue text, tenant text, actor text, trace text) :one
-- The end of that pause. No row: there was none.
WITH resumed AS (
    DELETE FROM queue_pauses WHERE queue = $1::text AND tenant = $2::text RETURNING *
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, trace, data)
    SELECT id, 2, statement_timestamp(), 'Queue', 'resumed', trim(E'\x1f' FROM tenant), $3::text, $4::text,
           jsonb_build_object('queue', queue, 'everyTenant', tenant = E'\x1f')
    FROM resumed
)
SELECT id FROM resumed;

-- name: queue_lanes(queue text) :many
-- Whose jobs have been in that queue.
SELECT tenant FROM lanes WHERE queue = $1::text;
