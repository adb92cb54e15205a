-- name: partition_make(ahead integer) :one
SELECT make_partitions($1::integer) AS made;

-- name: partition_expired(before timestamptz) :many
-- The days that ended before that moment.
SELECT day, first_id, end_id FROM partition_days WHERE end_id <= first_id_at($1::timestamptz);

-- name: partition_drop(day text, succeeded timestamptz, dead timestamptz) :one
SELECT drop_partition_pair($1::text, $2::timestamptz, $3::timestamptz) AS dropped;

-- name: retention_delete(first_id uuid, end_id uuid, succeeded timestamptz, dead timestamptz, most integer) :one
-- For a day that holds something worth keeping beside what is not: take out the jobs whose time is over, a bounded lot.
WITH old AS MATERIALIZED (
    (SELECT stream_id AS id FROM events
     WHERE stream_id >= $1::uuid AND stream_id < $2::uuid AND type = 'succeeded' AND at < $3::timestamptz
     ORDER BY stream_id LIMIT $5::integer)
    UNION ALL
    (SELECT id FROM dead WHERE id >= $1 AND id < $2 AND finished_at < $4::timestamptz ORDER BY id LIMIT $5::integer)
),
gone AS (
    DELETE FROM job_records WHERE id IN (
        SELECT id FROM job_records WHERE id IN (SELECT id FROM old) ORDER BY id LIMIT $5::integer FOR UPDATE SKIP LOCKED)
    RETURNING id
),
raised AS (DELETE FROM dead AS d USING gone AS g WHERE d.id = g.id),
forgotten AS (DELETE FROM events AS e USING gone AS g WHERE e.stream_id = g.id),
unkeyed AS (DELETE FROM idempotency_keys AS k USING gone AS g WHERE k.job_id = g.id)
SELECT count(*)::integer AS deleted FROM gone;

-- name: retention_forget_keys(first_id uuid, end_id uuid) :one
-- Idempotency keys end with their job.
WITH gone AS (DELETE FROM idempotency_keys WHERE job_id >= $1::uuid AND job_id < $2::uuid RETURNING 1)
SELECT count(*)::integer AS deleted FROM gone;

-- name: schema_version() :one
SELECT coalesce(max(version), 0)::integer AS version, coalesce(bool_or(finished_at IS NULL), false) AS unfinished
FROM migrations;

-- name: connections_allowed() :one
-- reserved_connections is there from PostgreSQL 16 on.
SELECT current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
    - coalesce(current_setting('reserved_connections', true), '0')::integer AS allowed;
