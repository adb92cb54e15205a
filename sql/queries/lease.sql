-- name: job_lease(worker_ids uuid[], counts integer[], visibilities integer[], scope_rows integer[], scope_queues text[]) :many
-- One row per leased job. Request n asks for counts[n] jobs with worker_ids[n]; its queues are the scope_queues whose
-- scope_rows is n ('*': any). Requests are served in order, and a request whose token is revoked gets nothing.
WITH requests AS MATERIALIZED (
    SELECT
        r.ord::integer AS request, r.worker_id, r.count, r.visibility, nullif(t.tenant, '') AS tenant,
        (SELECT CASE WHEN '*' = ANY (array_agg(s.queue)) THEN NULL ELSE array_agg(DISTINCT s.queue) END
         FROM unnest($4::integer[], $5::text[]) AS s (row, queue) WHERE s.row = r.ord) AS queues
    FROM unnest($1::uuid[], $2::integer[], $3::integer[]) WITH ORDINALITY AS r (worker_id, count, visibility, ord)
    JOIN worker_tokens AS t ON t.id = r.worker_id AND t.revoked_at IS NULL
    ORDER BY r.ord
),
taken AS MATERIALIZED (
    SELECT r.request, r.worker_id, r.visibility, gen_random_uuid() AS lease_id, statement_timestamp() AS leased_at, t.*
    FROM requests AS r CROSS JOIN LATERAL take_ready(r.tenant, r.queues, r.count) AS t
),
leased AS (
    INSERT INTO leases (id, lease_id, worker_id, leased_at, expires_at, eligible_at, version, visibility_secs, priority,
                        attempt, max_attempts, tenant, queue)
    SELECT id, lease_id, worker_id, leased_at, leased_at + make_interval(secs => visibility), eligible_at, version + 1,
           visibility, priority, attempts + 1, max_attempts, tenant, queue
    FROM taken
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data)
    SELECT id, version + 1, leased_at, 'Job', 'leased', tenant, 'worker:' || worker_id, jsonb_build_object(
        'leaseId', lease_id, 'attempt', attempts + 1, 'visibilitySecs', visibility)
    FROM taken
)
SELECT
    t.request, t.id, t.lease_id, t.attempts + 1 AS attempt, t.max_attempts, t.queue, e.data ->> 'kind' AS kind,
    (e.data -> 'payload')::text AS payload, t.priority, t.leased_at,
    t.leased_at + make_interval(secs => t.visibility) AS lease_expires_at, e.at AS created_at, e.trace, t.tenant
FROM taken AS t
CROSS JOIN LATERAL (SELECT * FROM events AS e WHERE e.stream_id = t.id AND e.version = 1 LIMIT 1) AS e
ORDER BY t.request, t.priority DESC, t.eligible_at, t.id;

-- name: job_next_eligible(tenants text[], scope_rows integer[], scope_queues text[]) :many
-- For each scope (a tenant, null: any; its queues as in job_lease): the seconds until a job of it is eligible, below zero
-- when one is. Scopes with nothing queued are left out.
SELECT s.ord::integer AS ord, extract(epoch FROM s.at - clock_timestamp())::float8 AS seconds
FROM (
    SELECT t.ord, next_eligible(t.tenant, (
        SELECT CASE WHEN '*' = ANY (array_agg(q.queue)) THEN NULL ELSE array_agg(q.queue) END
        FROM unnest($2::integer[], $3::text[]) AS q (row, queue) WHERE q.row = t.ord)) AS at
    FROM unnest($1::text[]) WITH ORDINALITY AS t (tenant, ord)
) AS s
WHERE s.at IS NOT NULL;
