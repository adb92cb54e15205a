-- name: job_get(ids uuid[], tenant text) :many
-- The jobs of these ids that the tenant may see ('': those without one; null: all), with their result.
SELECT j.*, e.data -> 'result' AS result
FROM unnest($1::uuid[]) AS i (id)
JOIN jobs AS j ON j.id = i.id
LEFT JOIN events AS e ON e.stream_id = j.id AND e.version = j.version AND j.status = 'succeeded'
WHERE $2::text IS NULL OR j.tenant = $2;

-- name: job_rows(ids uuid[], tenant text) :many
-- The same for a page: without what may be large, which job_bodies has.
SELECT j.id, j.tenant, j.queue, j.kind, j.status, j.priority, j.attempts, j.max_attempts, j.run_at, j.created_at,
    j.eligible_at, j.leased_at, j.lease_id, j.lease_expires_at, j.worker_id, j.finished_at, j.version, j.idempotency_key,
    j.error, NULL::jsonb AS progress, j.deliveries, j.timeout_secs, j.deadline
FROM unnest($1::uuid[]) AS i (id)
JOIN jobs AS j ON j.id = i.id
WHERE $2::text IS NULL OR j.tenant = $2;

-- name: job_bodies(ids uuid[], what text, most bigint) :many
-- The payload, result or progress of these jobs, and how many bytes each has as text. What lies beyond so many bytes of
-- them all is left out, and said to be.
WITH found AS MATERIALIZED (
    SELECT i.id, CASE $2::text
        WHEN 'payload' THEN (SELECT e.data -> 'payload' FROM events AS e WHERE e.stream_id = i.id AND e.version = 1)
        WHEN 'result' THEN (SELECT e.data -> 'result' FROM job_records AS j
                            JOIN events AS e ON e.stream_id = j.id AND e.version = j.version
                            WHERE j.id = i.id AND j.outcome = 'succeeded')
        WHEN 'progress' THEN (SELECT l.progress FROM leases AS l WHERE l.id = i.id) END AS body
    FROM unnest($1::uuid[]) AS i (id)
),
sized AS MATERIALIZED (SELECT *, coalesce(octet_length(body::text), 0) AS size FROM found),
summed AS (SELECT *, sum(size) OVER (ORDER BY id) > $3::bigint AS is_beyond FROM sized)
SELECT id, CASE WHEN NOT is_beyond THEN body END AS body, size, is_beyond FROM summed;

-- name: job_page(tenant text, statuses text[], queue text, kind text, key text, created_from timestamptz, created_to timestamptz, finished_from timestamptz, finished_to timestamptz, error text, above uuid, below uuid, descending boolean, most integer) :many
-- The ids of a page of jobs between two ids, either way round. Each condition may be null. Every status has a place to
-- look: the first arm is for jobs of any, and the others fall away when they are not asked for, because the plan is made
-- for the values at hand (the pool says force_custom_plan).
SELECT id FROM (
    (SELECT j.id FROM job_records AS j
     WHERE $2::text[] IS NULL AND ($11::uuid IS NULL OR j.id > $11) AND ($12::uuid IS NULL OR j.id < $12)
        AND job_matches(j, $1::text, $3::text, $4::text, $5::text, $6::timestamptz, $7::timestamptz, $8::timestamptz, $9::timestamptz, $10::text)
     ORDER BY CASE WHEN $13::boolean THEN j.id END DESC, CASE WHEN NOT $13 THEN j.id END LIMIT $14::integer)
    UNION ALL
    (SELECT j.id FROM ready AS r JOIN job_records AS j ON j.id = r.id
     WHERE 'queued' = ANY ($2::text[]) AND ($11::uuid IS NULL OR j.id > $11) AND ($12::uuid IS NULL OR j.id < $12)
        AND job_matches(j, $1::text, $3::text, $4::text, $5::text, $6::timestamptz, $7::timestamptz, $8::timestamptz, $9::timestamptz, $10::text)
     ORDER BY CASE WHEN $13::boolean THEN j.id END DESC, CASE WHEN NOT $13 THEN j.id END LIMIT $14::integer)
    UNION ALL
    (SELECT j.id FROM leases AS l JOIN job_records AS j ON j.id = l.id
     WHERE 'leased' = ANY ($2::text[]) AND ($11::uuid IS NULL OR j.id > $11) AND ($12::uuid IS NULL OR j.id < $12)
        AND job_matches(j, $1::text, $3::text, $4::text, $5::text, $6::timestamptz, $7::timestamptz, $8::timestamptz, $9::timestamptz, $10::text)
     ORDER BY CASE WHEN $13::boolean THEN j.id END DESC, CASE WHEN NOT $13 THEN j.id END LIMIT $14::integer)
    UNION ALL
    (SELECT j.id FROM job_records AS j
     WHERE 'succeeded' = ANY ($2::text[]) AND j.outcome = 'succeeded' AND ($11::uuid IS NULL OR j.id > $11) AND ($12::uuid IS NULL OR j.id < $12)
        AND job_matches(j, $1::text, $3::text, $4::text, $5::text, $6::timestamptz, $7::timestamptz, $8::timestamptz, $9::timestamptz, $10::text)
     ORDER BY CASE WHEN $13::boolean THEN j.id END DESC, CASE WHEN NOT $13 THEN j.id END LIMIT $14::integer)
    UNION ALL
    (SELECT j.id FROM job_records AS j
     WHERE 'dead' = ANY ($2::text[]) AND j.outcome = 'dead' AND ($11::uuid IS NULL OR j.id > $11) AND ($12::uuid IS NULL OR j.id < $12)
        AND job_matches(j, $1::text, $3::text, $4::text, $5::text, $6::timestamptz, $7::timestamptz, $8::timestamptz, $9::timestamptz, $10::text)
     ORDER BY CASE WHEN $13::boolean THEN j.id END DESC, CASE WHEN NOT $13 THEN j.id END LIMIT $14::integer)
) AS f
ORDER BY CASE WHEN $13::boolean THEN id END DESC, CASE WHEN NOT $13 THEN id END LIMIT $14::integer;

-- name: job_waiting(ids uuid[], most integer) :many
-- Why jobs that are queued are not running: the pause that holds each, since or from when it is eligible, how many are
-- before it (counted up to a bound), and when a worker last asked for its queue.
SELECT
    r.id, r.eligible_at, r.eligible_at <= statement_timestamp() AS is_due, p.paused_at, p.paused_by,
    CASE WHEN r.eligible_at <= statement_timestamp() THEN (
        SELECT count(*)::integer FROM (
            (SELECT 1 FROM ready AS o WHERE o.queue = r.queue AND o.priority > r.priority
                AND o.eligible_at <= statement_timestamp() LIMIT $2::integer)
            UNION ALL
            (SELECT 1 FROM ready AS o WHERE o.queue = r.queue AND o.priority = r.priority
                AND (o.eligible_at, o.id) < (r.eligible_at, r.id) LIMIT $2)) AS b) END AS ahead,
    (SELECT max(s.seen_at) FROM worker_sightings AS s JOIN worker_tokens AS t ON t.id = s.worker_id
     WHERE s.queue IN (r.queue, '*') AND t.revoked_at IS NULL AND t.tenant IN ('', r.tenant)) AS worker_seen_at
FROM unnest($1::uuid[]) AS i (id)
JOIN ready AS r ON r.id = i.id
LEFT JOIN LATERAL (
    SELECT * FROM queue_pauses AS p WHERE p.queue = r.queue AND p.tenant IN (E'\x1f', r.tenant) LIMIT 1) AS p ON true;
