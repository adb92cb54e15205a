-- name: job_lease(worker_ids uuid[], counts integer[], visibilities integer[], request_ids text[], scope_rows integer[], scope_queues text[], kind_rows integer[], kind_names text[], head_priorities integer[], head_sinces timestamptz[], slow_secs float8) :many
-- One row per leased job: the request's number, the fields of domain.jobs.LeasedJob in their order, whether they are
-- whole, and, where it took more than slow_secs to find them, since when it was eligible.
--
-- Request n asks for counts[n] jobs with worker_ids[n]; its queues are the scope_queues whose scope_rows is n ('*': any),
-- its kinds the kind_names whose kind_rows is n (none: any); its scope's first job stood at its head a moment ago (null: not
-- known), for take_ready. Requests are served in order, and one whose token is dead gets nothing. A request that was
-- answered before gets what is left of that answer, and nothing else; two that race are told apart by the key of
-- lease_requests, and the statement fails for the second.
--
-- What the worker is told of a job is written here, as JSON, and goes out as it is: to take a row apart and put it together
-- again cost the server more than all the rest of a lease. A job that was committed only after the statement began is not
-- whole: payload, createdAt and traceparent are null. The jobs of a request come in order without being sorted for it at
-- the end: they were sorted to be told from each other, and no plan that the pool allows puts them in another.
WITH asked AS MATERIALIZED (
    SELECT
        r.ord::integer AS request, r.worker_id, r.count, r.visibility, r.request_id, nullif(t.tenant, '') AS tenant,
        r.head_priority, r.head_since,
        (SELECT CASE WHEN '*' = ANY (array_agg(s.queue)) THEN NULL ELSE array_agg(DISTINCT s.queue) END
         FROM unnest($5::integer[], $6::text[]) AS s (row, queue) WHERE s.row = r.ord) AS queues,
        (SELECT array_agg(DISTINCT k.kind) FROM unnest($7::integer[], $8::text[]) AS k (row, kind) WHERE k.row = r.ord) AS kinds,
        r.request_id IS NOT NULL AND EXISTS (
            SELECT FROM lease_requests AS q WHERE q.worker_id = r.worker_id AND q.request_id = r.request_id) AS is_repeated
    FROM unnest($1::uuid[], $2::integer[], $3::integer[], $4::text[], $9::integer[], $10::timestamptz[])
        WITH ORDINALITY AS r (worker_id, count, visibility, request_id, head_priority, head_since, ord)
    JOIN worker_tokens AS t ON t.id = r.worker_id AND token_lives(t)
    ORDER BY r.ord
),
scopes AS MATERIALIZED (  -- requests of one scope are served together, in turn
    SELECT min(request) AS first, tenant, queues, kinds, sum(count)::integer AS count,
        array_agg(request ORDER BY request) AS requests, array_agg(before ORDER BY request) AS befores,
        (array_agg(head_priority ORDER BY request))[1] AS head_priority, (array_agg(head_since ORDER BY request))[1] AS head_since
    FROM (SELECT *, sum(count) OVER (PARTITION BY tenant, queues, kinds ORDER BY request) - count AS before
          FROM asked WHERE NOT is_repeated) AS a
    GROUP BY tenant, queues, kinds ORDER BY 1
),
taken AS MATERIALIZED (
    SELECT f.*, ($1::uuid[])[f.request] AS worker_id, ($3::integer[])[f.request] AS visibility,
        ($4::text[])[f.request] AS request_id, nth_secret_id(o.secret, f.request::bigint << 32 | f.nth) AS lease_id,
        statement_timestamp() AS leased_at,
        least(statement_timestamp() + make_interval(secs => ($3::integer[])[f.request]),
              lease_limit(statement_timestamp(), f.timeout_secs, f.deadline)) AS expires_at
    FROM (SELECT gen_random_uuid() AS secret OFFSET 0) AS o, (
        SELECT t.*, row_number() OVER w AS nth, s.requests[width_bucket(row_number() OVER w - 1, s.befores)] AS request
        FROM scopes AS s CROSS JOIN LATERAL
            take_ready(s.tenant, s.queues, s.kinds, s.count, s.head_priority, s.head_since) AS t
        WINDOW w AS (PARTITION BY s.first ORDER BY t.priority DESC, t.eligible_at, t.id)) AS f
),
claimed AS (
    INSERT INTO lease_requests (worker_id, request_id, expires_at, leased_at, job_ids)
    SELECT worker_id, request_id, statement_timestamp() + make_interval(secs => greatest(visibility, 600)),
        statement_timestamp(), array_agg(id)
    FROM taken WHERE request_id IS NOT NULL GROUP BY worker_id, request_id, visibility
),
leased AS (
    INSERT INTO leases (id, lease_id, worker_id, leased_at, expires_at, eligible_at, version, visibility_secs, priority,
                        attempt, max_attempts, tenant, queue, kind, deliveries, timeout_secs, deadline, error)
    SELECT id, lease_id, worker_id, leased_at, expires_at, eligible_at, version + 1, visibility, priority, attempts + 1,
           max_attempts, tenant, queue, kind, deliveries + 1, timeout_secs, deadline, error
    FROM taken
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data)
    SELECT id, version + 1, leased_at, 'Job', 'leased', tenant, 'worker:' || worker_id, jsonb_build_object(
        'leaseId', lease_id, 'attempt', attempts + 1, 'visibilitySecs', visibility)
    FROM taken
),
given AS (
    SELECT request, id, lease_id, attempts + 1 AS attempt, max_attempts, deliveries + 1 AS deliveries, queue, kind,
        priority, eligible_at, expires_at, timeout_secs, deadline, tenant
    FROM taken
    UNION ALL
    (SELECT a.request, l.id, l.lease_id, l.attempt, l.max_attempts, l.deliveries, l.queue, l.kind, l.priority,
        l.eligible_at, l.expires_at, l.timeout_secs, l.deadline, l.tenant
    FROM asked AS a
    CROSS JOIN LATERAL (  -- with limits, so that no plan begins at the leases
        SELECT * FROM lease_requests AS q WHERE q.worker_id = a.worker_id AND q.request_id = a.request_id LIMIT 1) AS q
    CROSS JOIN LATERAL unnest(q.job_ids) AS g (id)
    CROSS JOIN LATERAL (
        SELECT * FROM leases AS l WHERE l.id = g.id AND l.worker_id = q.worker_id AND l.leased_at = q.leased_at LIMIT 1) AS l
    WHERE a.is_repeated
    ORDER BY a.request, l.priority DESC, l.eligible_at, l.id)
)
SELECT g.request, g.id::text AS id, nullif(g.tenant, '') AS tenant, g.queue, row_to_json(t)::text AS told,
    e.stream_id IS NOT NULL AS is_whole,
    CASE WHEN clock_timestamp() > statement_timestamp() + make_interval(secs => $11::float8) THEN g.eligible_at END AS slow_head
FROM given AS g
LEFT JOIN LATERAL (SELECT * FROM events AS e WHERE e.stream_id = g.id AND e.version = 1 LIMIT 1) AS e ON true
CROSS JOIN LATERAL (
    SELECT g.id, g.queue, g.kind, e.data -> 'payload' AS payload, g.attempt AS attempts, g.deliveries,
        g.max_attempts AS "maxAttempts", g.lease_id AS "leaseId", rfc3339(g.expires_at) AS "leaseExpiresAt",
        g.timeout_secs AS "timeoutSecs", rfc3339(g.deadline) AS deadline, g.priority, rfc3339(e.at) AS "createdAt",
        e.trace AS traceparent, nullif(g.tenant, '') AS "tenantId") AS t;

-- name: lease_beginnings(ids text[]) :many
-- What job_lease could not see of jobs it took: take_ready looks with the eyes of its own moment, and finds what was
-- committed after the statement had begun.
SELECT stream_id::text AS id, (data -> 'payload')::text AS payload, at AS created_at, trace
FROM events WHERE stream_id = ANY ($1::text[]::uuid[]) AND version = 1;

-- name: lease_request_close(worker_ids uuid[], request_ids text[], visibilities integer[]) :many
-- These requests were answered with nothing, and nothing shall be leased for them any more. Answers the ordinals of
-- those that were open until now; for the others somebody has leased meanwhile.
WITH closed AS (
    INSERT INTO lease_requests (worker_id, request_id, expires_at, leased_at, job_ids)
    SELECT i.worker_id, i.request_id, statement_timestamp() + make_interval(secs => greatest(i.visibility, 600)),
        statement_timestamp(), '{}'
    FROM unnest($1::uuid[], $2::text[], $3::integer[]) AS i (worker_id, request_id, visibility)
    ORDER BY 1, 2
    ON CONFLICT DO NOTHING
    RETURNING worker_id, request_id
)
SELECT i.ord::integer AS ord
FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS i (worker_id, request_id, ord)
JOIN closed AS c ON c.worker_id = i.worker_id AND c.request_id = i.request_id;

-- name: lease_standing(worker_ids uuid[], request_ids text[]) :many
-- Of each request, in order: whether its token lives, and whether it was answered before.
SELECT EXISTS (SELECT FROM worker_tokens AS t WHERE t.id = i.worker_id AND token_lives(t)) AS lives,
    EXISTS (SELECT FROM lease_requests AS q WHERE q.worker_id = i.worker_id AND q.request_id = i.request_id) AS is_spent
FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS i (worker_id, request_id, ord)
ORDER BY i.ord;

-- name: job_next_eligible(tenants text[], scope_rows integer[], scope_queues text[], kind_rows integer[], kind_names text[]) :many
-- For each scope (a tenant, null: any; its queues and kinds as in job_lease): the seconds until a job of it is eligible, below zero
-- when one is. Scopes with nothing queued are left out.
SELECT s.ord::integer AS ord, extract(epoch FROM s.at - clock_timestamp())::float8 AS seconds
FROM (
    SELECT t.ord, next_eligible(t.tenant, (
        SELECT CASE WHEN '*' = ANY (array_agg(q.queue)) THEN NULL ELSE array_agg(q.queue) END
        FROM unnest($2::integer[], $3::text[]) AS q (row, queue) WHERE q.row = t.ord), (
        SELECT array_agg(DISTINCT k.kind) FROM unnest($4::integer[], $5::text[]) AS k (row, kind) WHERE k.row = t.ord)) AS at
    FROM unnest($1::text[]) WITH ORDINALITY AS t (tenant, ord)
) AS s
WHERE s.at IS NOT NULL;
