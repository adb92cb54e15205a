-- Proving and making anew: store/rebuild.py reads the log range by range, and folds it.

-- name: rebuild_estimate() :one
SELECT greatest(sum(c.reltuples), 0)::float8 AS jobs
FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid WHERE i.inhparent = 'job_records'::regclass;

-- name: rebuild_range(after uuid, most integer) :many
-- The next jobs that have a row or events, whichever; a stream without a row is as wrong as a row without events.
SELECT id FROM (
    (SELECT id FROM job_records WHERE id > $1::uuid ORDER BY id LIMIT $2::integer)
    UNION
    (SELECT stream_id FROM events
     WHERE stream_id > $1::uuid AND version = 1 AND stream = 'Job' ORDER BY stream_id LIMIT $2::integer)
) AS u
ORDER BY id LIMIT $2::integer;

-- name: rebuild_streams(after uuid, most integer) :many
SELECT stream_id AS id FROM events WHERE stream_id > $1::uuid AND version = 1 AND stream = 'Job' ORDER BY stream_id LIMIT $2::integer;

-- name: rebuild_jobs(ids uuid[]) :many
SELECT j.*, e.data -> 'result' AS result
FROM jobs AS j
LEFT JOIN events AS e ON e.stream_id = j.id AND e.type = 'succeeded'
WHERE j.id = ANY ($1::uuid[]);

-- name: rebuild_events(ids uuid[]) :many
SELECT stream_id, position, xid::text::bigint AS xid, at, version, stream::text, type::text, tenant, actor, trace, data
FROM events WHERE stream_id = ANY ($1::uuid[]) ORDER BY stream_id, version;

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
