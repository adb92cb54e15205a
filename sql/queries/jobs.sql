-- name: job_get(ids uuid[], tenant text) :many
-- The jobs of these ids that the tenant may see ('': those without one; null: all), with their result.
SELECT j.*, e.data -> 'result' AS result
FROM unnest($1::uuid[]) AS i (id)
JOIN jobs AS j ON j.id = i.id
LEFT JOIN events AS e ON e.stream_id = j.id AND e.type = 'succeeded'
WHERE $2::text IS NULL OR j.tenant = $2;

-- name: job_rows(ids uuid[], tenant text) :many
-- The same for a page: without what may be large, which job_bodies has.
SELECT j.id, j.tenant, j.queue, j.kind, j.status, j.priority, j.attempts, j.max_attempts, j.run_at, j.created_at,
    j.eligible_at, j.leased_at, j.lease_id, j.lease_expires_at, j.worker_id, j.finished_at, j.version, j.idempotency_key,
    j.error, NULL::jsonb AS progress, j.deliveries, j.timeout_secs, j.deadline, j.run_id
FROM unnest($1::uuid[]) AS i (id)
JOIN jobs AS j ON j.id = i.id
WHERE $2::text IS NULL OR j.tenant = $2;

-- name: job_bodies(ids uuid[], what text, most bigint) :many
-- The payload, result or progress of these jobs, and how many bytes each has as text. What lies beyond so many bytes of
-- them all is left out, and said to be.
WITH found AS MATERIALIZED (
    SELECT i.id, CASE $2::text
        WHEN 'payload' THEN (SELECT e.data -> 'payload' FROM events AS e WHERE e.stream_id = i.id AND e.version = 1)
        WHEN 'result' THEN (SELECT e.data -> 'result' FROM events AS e WHERE e.stream_id = i.id AND e.type = 'succeeded')
        WHEN 'progress' THEN (SELECT l.progress FROM leases AS l WHERE l.id = i.id) END AS body
    FROM unnest($1::uuid[]) AS i (id)
),
sized AS MATERIALIZED (SELECT *, coalesce(octet_length(body::text), 0) AS size FROM found),
summed AS (SELECT *, sum(size) OVER (ORDER BY id) > $3::bigint AS is_beyond FROM sized)
SELECT id, CASE WHEN NOT is_beyond THEN body END AS body, size, is_beyond FROM summed;

-- name: job_page(tenant text, statuses text[], queue text, kind text, key text, created_from timestamptz, created_to timestamptz, finished_from timestamptz, finished_to timestamptz, above uuid, below uuid, descending boolean, most integer) :many
-- The ids of a page of jobs between two ids, either way round. Each condition may be null. Every state has a home to look
-- in, and those that cannot match fall away, because the plan is made for the values at hand (the pool says
-- force_custom_plan); when no state matters, and nothing that depends on it, the records alone are looked at. The range of
-- the ids is said of the records as well, so that partitions outside of it are neither planned nor locked.
--
-- Dead letters of a queue or of a tenant are asked for by a range, and in the order of those first, so that the planner
-- walks their own index: from an equality it would see that the order is that of the ids, and might walk those of all, in
-- the hope to meet the wanted ones soon. Those of a kind are found by their records.
SELECT id FROM (
    (SELECT j.id FROM job_records AS j
     WHERE num_nonnulls($2::text[], $8::timestamptz, $9::timestamptz) = 0 AND id_matches(j.id, $5::text, $6::timestamptz, $7::timestamptz, $10::uuid, $11::uuid)
        AND job_matches(j, $1::text, $3::text, $4::text, $6, $7)
     ORDER BY CASE WHEN $12::boolean THEN j.id END DESC, CASE WHEN NOT $12 THEN j.id END LIMIT $13::integer)
    UNION ALL
    (SELECT j.id FROM ready AS r JOIN job_records AS j ON j.id = r.id
     WHERE 'queued' = ANY ($2::text[]) AND num_nonnulls($8::timestamptz, $9::timestamptz) = 0
        AND ($1::text IS NULL OR r.tenant = $1) AND ($3::text IS NULL OR r.queue = $3) AND ($4::text IS NULL OR r.kind = $4)
        AND id_matches(r.id, $5::text, $6::timestamptz, $7::timestamptz, $10::uuid, $11::uuid) AND job_matches(j, $1::text, $3::text, $4::text, $6, $7)
        AND ($10::uuid IS NULL OR j.id > $10) AND ($11::uuid IS NULL OR j.id < $11)
     ORDER BY CASE WHEN $12::boolean THEN r.id END DESC, CASE WHEN NOT $12 THEN r.id END LIMIT $13::integer)
    UNION ALL
    (SELECT j.id FROM leases AS l JOIN job_records AS j ON j.id = l.id
     WHERE 'leased' = ANY ($2::text[]) AND num_nonnulls($8::timestamptz, $9::timestamptz) = 0
        AND ($1::text IS NULL OR l.tenant = $1) AND ($3::text IS NULL OR l.queue = $3) AND ($4::text IS NULL OR l.kind = $4)
        AND id_matches(l.id, $5::text, $6::timestamptz, $7::timestamptz, $10::uuid, $11::uuid) AND job_matches(j, $1::text, $3::text, $4::text, $6, $7)
        AND ($10::uuid IS NULL OR j.id > $10) AND ($11::uuid IS NULL OR j.id < $11)
     ORDER BY CASE WHEN $12::boolean THEN l.id END DESC, CASE WHEN NOT $12 THEN l.id END LIMIT $13::integer)
    UNION ALL
    (SELECT j.id FROM events AS s JOIN job_records AS j ON j.id = s.stream_id
     WHERE s.type = 'succeeded' AND ('succeeded' = ANY ($2::text[]) OR $2 IS NULL AND num_nonnulls($8::timestamptz, $9::timestamptz) > 0)
        AND end_matches(s.stream_id, s.at, $8, $9)
        AND id_matches(s.stream_id, $5::text, $6::timestamptz, $7::timestamptz, $10::uuid, $11::uuid) AND job_matches(j, $1::text, $3::text, $4::text, $6, $7)
        AND ($10::uuid IS NULL OR j.id > $10) AND ($11::uuid IS NULL OR j.id < $11)
     ORDER BY CASE WHEN $12::boolean THEN s.stream_id END DESC, CASE WHEN NOT $12 THEN s.stream_id END LIMIT $13::integer)
    UNION ALL
    (SELECT j.id FROM dead AS d JOIN job_records AS j ON j.id = d.id
     WHERE $4::text IS NOT NULL AND ('dead' = ANY ($2::text[]) OR $2 IS NULL AND num_nonnulls($8::timestamptz, $9::timestamptz) > 0)
        AND end_matches(d.id, d.finished_at, $8, $9) AND ($1::text IS NULL OR d.tenant = $1) AND ($3::text IS NULL OR d.queue = $3)
        AND id_matches(d.id, $5::text, $6::timestamptz, $7::timestamptz, $10::uuid, $11::uuid) AND job_matches(j, $1::text, $3::text, $4::text, $6, $7)
        AND ($10::uuid IS NULL OR j.id > $10) AND ($11::uuid IS NULL OR j.id < $11)
     ORDER BY CASE WHEN $12::boolean THEN d.id END DESC, CASE WHEN NOT $12 THEN d.id END LIMIT $13::integer)
    UNION ALL
    (SELECT d.id FROM dead AS d
     WHERE $4::text IS NULL AND ('dead' = ANY ($2::text[]) OR $2 IS NULL AND num_nonnulls($8::timestamptz, $9::timestamptz) > 0)
        AND end_matches(d.id, d.finished_at, $8, $9) AND ($1::text IS NULL OR d.tenant BETWEEN $1 AND $1) AND ($3::text IS NULL OR d.queue BETWEEN $3 AND $3)
        AND id_matches(d.id, $5::text, $6::timestamptz, $7::timestamptz, $10::uuid, $11::uuid)
        AND (num_nonnulls($6, $7) = 0 OR (SELECT job_matches(j, NULL, NULL, NULL, $6, $7) FROM job_records AS j
            WHERE j.id = d.id AND ($10::uuid IS NULL OR j.id > $10) AND ($11::uuid IS NULL OR j.id < $11)))
     ORDER BY CASE WHEN $12::boolean AND $3 IS NOT NULL THEN d.queue END DESC,
        CASE WHEN $12 AND $1 IS NOT NULL THEN d.tenant END DESC, CASE WHEN $12 THEN d.id END DESC,
        CASE WHEN NOT $12 AND $3 IS NOT NULL THEN d.queue END,
        CASE WHEN NOT $12 AND $1 IS NOT NULL THEN d.tenant END, CASE WHEN NOT $12 THEN d.id END LIMIT $13::integer)
) AS f
ORDER BY CASE WHEN $12::boolean THEN id END DESC, CASE WHEN NOT $12 THEN id END LIMIT $13::integer;

-- name: job_page_made(tenant text, queue text, kind text, key text, created_from timestamptz, created_to timestamptz, above uuid, below uuid, descending boolean, most integer) :many
-- job_page where no state is asked for, and nothing of the end: the records alone. A statement of its own, since branches that
-- fall away are planned, and their partitions locked, before they do.
SELECT j.id FROM job_records AS j
WHERE id_matches(j.id, $4::text, $5::timestamptz, $6::timestamptz, $7::uuid, $8::uuid)
    AND job_matches(j, $1::text, $2::text, $3::text, $5, $6)
ORDER BY CASE WHEN $9::boolean THEN j.id END DESC, CASE WHEN NOT $9 THEN j.id END LIMIT $10::integer;

-- name: job_search(tenant text, statuses text[], queue text, kind text, key text, created_from timestamptz, created_to timestamptz, finished_from timestamptz, finished_to timestamptz, above uuid, below uuid, descending boolean, most integer, error text, look integer) :many
-- The same with a part of the error's text, for which there is no index. In each home at most so many jobs that failed are
-- looked at (null: all), or fewer where errors are longer than 250 bytes; the first beyond comes after those that match, and
-- says so. It is never another tenant's: whoever goes on from there learns of none.
SELECT o.id, o.is_beyond
FROM unnest('{queued,leased,dead}'::text[]) AS h (status)
CROSS JOIN LATERAL (
    SELECT l.id, l.is_beyond IS true AS is_beyond
    FROM (
        SELECT f.*, sum(greatest(octet_length(f.error), 250)) OVER w > 250 * $15::bigint AS is_beyond
        FROM (
            (SELECT r.id, r.queue, r.error, NULL::timestamptz AS finished_at FROM ready AS r
             WHERE h.status = 'queued' AND r.error IS NOT NULL AND ($1::text IS NULL OR r.tenant BETWEEN $1 AND $1)
                AND id_matches(r.id, $5::text, $6::timestamptz, $7::timestamptz, $10::uuid, $11::uuid)
             ORDER BY CASE WHEN $12::boolean AND $1 IS NOT NULL THEN r.tenant END DESC, CASE WHEN $12 THEN r.id END DESC,
                CASE WHEN NOT $12 AND $1 IS NOT NULL THEN r.tenant END, CASE WHEN NOT $12 THEN r.id END LIMIT $15::integer + 1)
            UNION ALL
            (SELECT l.id, l.queue, l.error, NULL::timestamptz AS finished_at FROM leases AS l
             WHERE h.status = 'leased' AND l.error IS NOT NULL AND ($1::text IS NULL OR l.tenant = $1)
                AND id_matches(l.id, $5::text, $6::timestamptz, $7::timestamptz, $10::uuid, $11::uuid)
             ORDER BY CASE WHEN $12::boolean THEN l.id END DESC, CASE WHEN NOT $12 THEN l.id END LIMIT $15::integer + 1)
            UNION ALL
            (SELECT d.id, d.queue, d.error, d.finished_at FROM dead AS d
             WHERE h.status = 'dead' AND ($1::text IS NULL OR d.tenant BETWEEN $1 AND $1) AND ($3::text IS NULL OR d.queue BETWEEN $3 AND $3)
                AND id_matches(d.id, $5::text, $6::timestamptz, $7::timestamptz, $10::uuid, $11::uuid)
                AND ($9::timestamptz IS NULL OR d.id < first_id_at($9 + interval '1 minute'))
             ORDER BY CASE WHEN $12::boolean AND $3 IS NOT NULL THEN d.queue END DESC,
                CASE WHEN $12 AND $1 IS NOT NULL THEN d.tenant END DESC, CASE WHEN $12 THEN d.id END DESC,
                CASE WHEN NOT $12 AND $3 IS NOT NULL THEN d.queue END,
                CASE WHEN NOT $12 AND $1 IS NOT NULL THEN d.tenant END, CASE WHEN NOT $12 THEN d.id END LIMIT $15::integer + 1)) AS f
        WINDOW w AS (ROWS UNBOUNDED PRECEDING)) AS l
    WHERE l.is_beyond OR error_matches(l.error, $14::text) AND ($3 IS NULL OR l.queue = $3)
        AND (num_nonnulls($8::timestamptz, $9::timestamptz) = 0 OR end_matches(l.id, l.finished_at, $8, $9))
        AND (num_nonnulls($4::text, $6, $7) = 0 OR (SELECT job_matches(j, NULL, NULL, $4, $6, $7) FROM job_records AS j WHERE j.id = l.id))
    LIMIT $13::integer) AS o
WHERE ($2::text[] IS NULL OR h.status = ANY ($2)) AND (h.status = 'dead' OR num_nonnulls($8::timestamptz, $9::timestamptz) = 0)
ORDER BY CASE WHEN $12::boolean THEN o.id END DESC, CASE WHEN NOT $12 THEN o.id END LIMIT $13::integer;

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
