-- name: queue_names(tenant text, after text, before text, descending boolean, most integer) :many
-- The queues that a tenant has put jobs into, or that are paused for it, by name. null: anybody.
SELECT name FROM (
    SELECT queue AS name FROM lanes WHERE $1::text IS NULL OR tenant = $1
    UNION
    SELECT queue FROM queue_pauses WHERE $1 IS NULL OR tenant = $1
) AS n
WHERE ($2::text IS NULL OR name > $2) AND ($3::text IS NULL OR name < $3)
ORDER BY CASE WHEN $4::boolean THEN name END DESC, CASE WHEN NOT $4 THEN name END LIMIT $5::integer;

-- name: queue_stats(tenant text, queues text[], most integer) :many
-- How these queues are; the tenant's part of them, null: all. Depths are counted up to a bound.
SELECT
    n.queue, depth.queued, depth.scheduled, held.leased, dead.dead, depth.is_bounded,
    extract(epoch FROM statement_timestamp() - oldest_eligible($1::text, n.queue))::float8 AS oldest_secs,
    p.paused_at, p.paused_by, p.tenant = E'\x1f' AS is_paused_for_all,
    busy.enqueued, busy.leased AS started, busy.succeeded, busy.failed
FROM unnest($2::text[]) WITH ORDINALITY AS n (queue, ord)
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE c.eligible_at <= statement_timestamp())::integer AS queued,
        count(*) FILTER (WHERE c.eligible_at > statement_timestamp())::integer AS scheduled, count(*) = $3::integer AS is_bounded
    FROM (
        (SELECT r.eligible_at FROM ready AS r WHERE $1::text IS NULL AND r.queue = n.queue LIMIT $3::integer)
        UNION ALL
        (SELECT r.eligible_at FROM ready AS r WHERE $1 IS NOT NULL
            AND r.tenant || E'\x1f' || r.queue = $1 || E'\x1f' || n.queue AND r.tenant <> '' LIMIT $3::integer)
        UNION ALL
        (SELECT r.eligible_at FROM ready AS r WHERE $1 = '' AND r.queue = n.queue AND r.tenant = '' LIMIT $3::integer)) AS c) AS depth
CROSS JOIN LATERAL (
    SELECT count(*)::integer AS leased FROM leases AS l
    WHERE l.queue = n.queue AND ($1::text IS NULL OR l.tenant = $1)) AS held
CROSS JOIN LATERAL (
    SELECT count(*)::integer AS dead FROM (
        SELECT FROM dead AS d
        WHERE d.queue = n.queue AND ($1::text IS NULL OR d.tenant = $1) LIMIT $3::integer) AS d) AS dead
CROSS JOIN LATERAL (
    SELECT coalesce(sum(a.enqueued), 0)::integer AS enqueued, coalesce(sum(a.leased), 0)::integer AS leased,
        coalesce(sum(a.succeeded), 0)::integer AS succeeded, coalesce(sum(a.failed), 0)::integer AS failed
    FROM lane_activity AS a
    WHERE a.queue = n.queue AND a.minute > statement_timestamp() - interval '5 minutes'
        AND ($1::text IS NULL OR a.tenant = $1)) AS busy
LEFT JOIN LATERAL (
    SELECT * FROM queue_pauses AS q WHERE q.queue = n.queue AND (q.tenant = E'\x1f' OR q.tenant = $1)
    ORDER BY q.tenant = E'\x1f' DESC LIMIT 1) AS p ON true
ORDER BY n.ord;

-- name: queue_workers(tenant text, queues text[], seen_since timestamptz) :many
-- The workers that have asked for these queues lately, and reach the tenant's jobs.
SELECT n.queue, t.id, t.name, max(s.seen_at) AS seen_at
FROM unnest($2::text[]) AS n (queue)
JOIN worker_sightings AS s ON s.queue IN (n.queue, '*')
JOIN worker_tokens AS t ON t.id = s.worker_id AND t.revoked_at IS NULL
WHERE s.seen_at >= $3::timestamptz AND ($1::text IS NULL OR t.tenant = '' OR t.tenant = $1)
GROUP BY 1, 2, 3 ORDER BY 1, 4 DESC, 2;

-- name: activity_add(tenants text[], queues text[], enqueued integer[], leased integer[], succeeded integer[], failed integer[]) :many
-- A lane that the transaction of its first job did not make, because another's was about to, is made here; at a later
-- time, if that other, which may be an application's own and long, is still about to.
WITH laned AS (
    INSERT INTO lanes (tenant, queue)
    SELECT i.tenant, i.queue FROM unnest($1::text[], $2::text[]) AS i (tenant, queue)
    WHERE NOT EXISTS (SELECT FROM lanes AS l WHERE l.queue = i.queue AND l.tenant = i.tenant)
        AND pg_try_advisory_xact_lock(hashtextextended('lane ' || i.tenant || E'\x1f' || i.queue, 0))
    ORDER BY i.queue, i.tenant
    ON CONFLICT DO NOTHING
)
INSERT INTO lane_activity AS a (minute, tenant, queue, enqueued, leased, succeeded, failed)
SELECT date_trunc('minute', statement_timestamp()), i.*
FROM unnest($1::text[], $2::text[], $3::integer[], $4::integer[], $5::integer[], $6::integer[])
    AS i (tenant, queue, enqueued, leased, succeeded, failed)
ORDER BY i.queue, i.tenant
ON CONFLICT (queue, minute, tenant) DO UPDATE SET enqueued = a.enqueued + excluded.enqueued,
    leased = a.leased + excluded.leased, succeeded = a.succeeded + excluded.succeeded, failed = a.failed + excluded.failed;

-- name: activity_seen(worker_ids uuid[], queues text[]) :many
INSERT INTO worker_sightings AS s (worker_id, queue, seen_at)
SELECT i.worker_id, i.queue, statement_timestamp()
FROM unnest($1::uuid[], $2::text[]) AS i (worker_id, queue) ORDER BY i.queue, i.worker_id
ON CONFLICT (queue, worker_id) DO UPDATE SET seen_at = excluded.seen_at;

-- name: activity_forget() :many
WITH old AS (DELETE FROM lane_activity WHERE minute < statement_timestamp() - interval '1 hour')
DELETE FROM worker_sightings WHERE seen_at < statement_timestamp() - interval '1 day';
