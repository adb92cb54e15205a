-- Proving and making anew: store/rebuild reads the log range by range, and folds it.

-- name: rebuild_estimate() :one
SELECT (
    SELECT greatest(sum(c.reltuples), 0)::float8
    FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid WHERE i.inhparent = 'job_records'::regclass) AS jobs,
    (SELECT greatest(c.reltuples, 0)::float8 FROM pg_class AS c WHERE c.oid = 'workflow_runs'::regclass) AS runs;

-- name: rebuild_job_range(after uuid, most integer) :many
-- The next jobs that have a row or events, whichever; a stream without a row is as wrong as a row without events.
SELECT id FROM (
    (SELECT id FROM job_records WHERE id > $1::uuid ORDER BY id LIMIT $2::integer)
    UNION
    (SELECT stream_id FROM events
     WHERE stream_id > $1::uuid AND version = 1 AND stream = 'Job' ORDER BY stream_id LIMIT $2::integer)
) AS u
ORDER BY id LIMIT $2::integer;

-- name: rebuild_job_streams(after uuid, most integer) :many
SELECT stream_id AS id FROM events WHERE stream_id > $1::uuid AND version = 1 AND stream = 'Job' ORDER BY stream_id LIMIT $2::integer;

-- name: rebuild_run_range(after uuid, most integer) :many
-- The same of runs.
SELECT id FROM (
    (SELECT id FROM workflow_runs WHERE id > $1::uuid ORDER BY id LIMIT $2::integer)
    UNION
    (SELECT stream_id FROM events
     WHERE stream_id > $1::uuid AND version = 1 AND stream = 'Workflow' ORDER BY stream_id LIMIT $2::integer)
) AS u
ORDER BY id LIMIT $2::integer;

-- name: rebuild_run_streams(after uuid, most integer) :many
SELECT stream_id AS id FROM events WHERE stream_id > $1::uuid AND version = 1 AND stream = 'Workflow' ORDER BY stream_id LIMIT $2::integer;

-- name: rebuild_jobs(ids uuid[]) :many
SELECT j.*, e.data -> 'result' AS result
FROM jobs AS j
LEFT JOIN events AS e ON e.stream_id = j.id AND e.type = 'succeeded'
WHERE j.id = ANY ($1::uuid[]);

-- name: rebuild_runs(ids uuid[]) :many
SELECT * FROM workflow_runs WHERE id = ANY ($1::uuid[]);

-- name: rebuild_waits(run_ids uuid[]) :many
SELECT run_id, step, job_id FROM run_waits WHERE run_id = ANY ($1::uuid[]);

-- name: rebuild_events(ids uuid[]) :many
SELECT stream_id, position, xid::text::bigint AS xid, at, version, stream::text, type::text, tenant, actor, trace, data
FROM events WHERE stream_id = ANY ($1::uuid[]) ORDER BY stream_id, version;

-- name: rebuild_lock() :one
LOCK TABLE job_records, ready, leases, dead, workflow_runs, run_waits, events IN ACCESS EXCLUSIVE MODE;

-- name: rebuild_abandon_rewrite() :one
-- A rewrite of partitions has copied rows that are about to be made anew.
SELECT abandon_rewrite()::text AS done;

-- name: rebuild_hold() :one
-- Before a snapshot is taken: partitions that are replaced after that would look empty to it.
LOCK TABLE ONLY events, ONLY job_records IN ACCESS SHARE MODE;

-- name: rebuild_empty() :one
TRUNCATE job_records, ready, leases, dead, workflow_runs, run_waits;

-- name: rebuild_settle(most integer) :many
-- As wait_settle, of all waits, before anybody else sees them.
UPDATE run_waits AS w SET ended_at = statement_timestamp()
FROM (
    SELECT u.job_id, u.run_id, u.step FROM run_waits AS u
    WHERE u.ended_at IS NULL
        AND NOT EXISTS (SELECT FROM ready AS r WHERE r.id = u.job_id)
        AND NOT EXISTS (SELECT FROM leases AS l WHERE l.id = u.job_id)
    LIMIT $1::integer) AS u
WHERE w.job_id = u.job_id AND w.run_id = u.run_id AND w.step = u.step
RETURNING w.run_id;

-- name: rebuild_put_runs(id uuid, tenant text, workflow text, workflow_id uuid, definition_version integer, status text, steps_run integer, version integer, via jsonb, started_at timestamptz, changed_at timestamptz, finished_at timestamptz, timeout_at timestamptz, wake_at timestamptz, actor text, trace text, key text, trigger jsonb, context jsonb, steps jsonb, errors jsonb) :one
INSERT INTO workflow_runs (id, tenant, workflow, workflow_id, definition_version, status, steps_run, version, via,
                           started_at, changed_at, finished_at, timeout_at, wake_at, actor, trace, key, trigger, context,
                           steps, errors, bytes)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
        octet_length($19::jsonb::text) + octet_length($20::jsonb::text));

-- name: rebuild_put_waits(job_id uuid, run_id uuid, step text, is_shared boolean) :one
INSERT INTO run_waits (job_id, run_id, step, is_shared) VALUES ($1, $2, $3, $4);

-- name: rebuild_put_records(id uuid, created_at timestamptz, run_at timestamptz, deadline timestamptz, timeout_secs integer, priority smallint, max_attempts smallint, tenant text, queue text, kind text, idempotency_key text, run_id uuid) :one
INSERT INTO job_records (id, created_at, run_at, deadline, timeout_secs, priority, max_attempts, tenant, queue, kind,
                         idempotency_key, run_id)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12);

-- name: rebuild_put_dead(id uuid, finished_at timestamptz, version integer, attempts smallint, deliveries smallint, tenant text, queue text, error text) :one
INSERT INTO dead (id, finished_at, version, attempts, deliveries, tenant, queue, error)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: rebuild_put_ready(id uuid, eligible_at timestamptz, version integer, priority smallint, attempts smallint, max_attempts smallint, tenant text, queue text, kind text, deliveries smallint, timeout_secs integer, deadline timestamptz, error text) :one
INSERT INTO ready (id, eligible_at, version, priority, attempts, max_attempts, tenant, queue, kind, deliveries,
                   timeout_secs, deadline, error)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13);

-- name: rebuild_put_leases(id uuid, lease_id uuid, worker_id uuid, leased_at timestamptz, eligible_at timestamptz, version integer, visibility_secs integer, priority smallint, attempt smallint, max_attempts smallint, tenant text, queue text, kind text, deliveries smallint, timeout_secs integer, deadline timestamptz, error text) :one
INSERT INTO leases (id, lease_id, worker_id, leased_at, expires_at, eligible_at, version, visibility_secs, priority,
                    attempt, max_attempts, tenant, queue, kind, deliveries, timeout_secs, deadline, error)
VALUES ($1, $2, $3, $4, statement_timestamp() + make_interval(secs => $7::integer), $5, $6, $7::integer, $8, $9, $10, $11,
        $12, $13, $14, $15, $16, $17);
