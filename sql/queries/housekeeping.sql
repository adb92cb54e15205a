-- name: clock_now() :one
SELECT clock_timestamp() AS now;

-- name: cluster_adopt() :one
-- What had to be done because the schema has come from another PostgreSQL cluster; null: nothing, it has not.
SELECT adopt_cluster() AS done;

-- name: partition_make(ahead integer) :one
SELECT make_partitions($1::integer) AS made;

-- name: partition_span(days integer) :many
-- How many days the next partitions span. No row: so many already.
UPDATE installation SET partition_days = $1::integer WHERE partition_days <> $1 RETURNING partition_days;

-- name: partition_list() :many
-- The pairs of partitions, oldest first, with the moments at which each begins and ends, and its bytes without indexes.
SELECT p.first_id, p.end_id, moment_of(p.first_id) AS begins_at, moment_of(p.end_id) AS ends_at,
    (pg_relation_size('events_' || p.name) + pg_relation_size('job_records_' || p.name))::bigint AS bytes
FROM partitions AS p ORDER BY p.first_id;

-- name: partition_starts() :many
-- The first ids of partitions that have begun.
SELECT first_id FROM partitions WHERE first_id <= first_id_at(clock_timestamp()) ORDER BY first_id;

-- name: partition_rewrite(first_id uuid, end_id uuid, expired timestamptz) :one
-- No end: the day after tomorrow.
SELECT rewrite_partitions($1::uuid, coalesce($2::uuid, first_id_at(date_trunc('day', clock_timestamp()) + interval '2 days')),
                          $3::timestamptz) AS has_begun;

-- name: partition_copy(events integer) :one
SELECT copy_partitions($1::integer) AS has_more;

-- name: partition_swap() :one
SELECT s.replaced, s.left_out FROM swap_partitions() AS s;

-- name: partition_drop_detached() :one
SELECT drop_detached() AS dropped;

-- name: lease_shorten() :one
-- Leases that end later than any lease can were given, or extended, while the clock was ahead. Each has its own time again,
-- from now on.
WITH shortened AS (
    UPDATE leases AS l SET expires_at = statement_timestamp() + make_interval(secs => l.visibility_secs)
    WHERE l.id IN (SELECT id FROM leases WHERE expires_at > statement_timestamp() + interval '25 hours' FOR UPDATE SKIP LOCKED)
    RETURNING 1
)
SELECT count(*)::integer AS shortened FROM shortened;

-- name: retention_count(first_id uuid, end_id uuid, succeeded timestamptz, most integer) :one
-- How many jobs of these ids succeeded before that moment; most means: or more.
SELECT count(*)::integer AS expired FROM (
    SELECT FROM events
    WHERE stream_id >= $1::uuid AND stream_id < $2::uuid AND type = 'succeeded' AND at < $3::timestamptz
    LIMIT $4::integer) AS e;

-- name: retention_delete(first_id uuid, end_id uuid, succeeded timestamptz, dead timestamptz, most integer) :one
-- Delete jobs of these ids that ended before those moments (null: none did), with all that refers to them; a bounded lot.
-- A job that a run waits for stays until the run has gone on.
WITH succeeded AS MATERIALIZED (
    SELECT e.stream_id AS id FROM events AS e
    WHERE e.stream_id >= $1::uuid AND e.stream_id < $2::uuid AND e.type = 'succeeded' AND e.at < $3::timestamptz
        AND NOT EXISTS (SELECT FROM run_waits AS w WHERE w.job_id = e.stream_id)
    ORDER BY e.stream_id LIMIT $5::integer
),
died AS MATERIALIZED (  -- locked, so that nobody brings one back meanwhile
    SELECT d.id FROM dead AS d
    WHERE d.id >= $1 AND d.id < $2 AND d.finished_at < $4::timestamptz
        AND NOT EXISTS (SELECT FROM run_waits AS w WHERE w.job_id = d.id)
    ORDER BY d.id LIMIT $5 FOR UPDATE SKIP LOCKED
),
gone AS (
    DELETE FROM job_records WHERE id >= $1 AND id < $2 AND id IN (
        SELECT j.id FROM job_records AS j
        WHERE j.id >= $1 AND j.id < $2 AND j.id IN (SELECT id FROM succeeded UNION ALL SELECT id FROM died)
        ORDER BY j.id LIMIT $5 FOR UPDATE SKIP LOCKED)
    RETURNING id
),
raised AS (DELETE FROM dead AS d USING gone AS g WHERE d.id = g.id),
forgotten AS (DELETE FROM events AS e USING gone AS g
    WHERE e.stream_id = g.id AND e.stream_id >= $1 AND e.stream_id < $2),
unkeyed AS (DELETE FROM idempotency_keys AS k USING gone AS g WHERE k.job_id = g.id)
SELECT count(*)::integer AS deleted FROM gone;

-- name: schema_version() :one
SELECT v.version, v.made_by, (SELECT max(o.oldest_server) FROM schema_versions AS o) AS oldest_server
FROM schema_versions AS v ORDER BY v.version DESC LIMIT 1;

-- name: connections_allowed() :one
-- reserved_connections is there from PostgreSQL 16 on.
SELECT current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
    - coalesce(current_setting('reserved_connections', true), '0')::integer AS allowed;
