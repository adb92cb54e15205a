-- name: job_enqueue(tenants text[], queues text[], kinds text[], payloads jsonb[], keys text[], max_attempts smallint[], priorities smallint[], run_ats timestamptz[], actors text[], traces text[], timeouts integer[], deadlines timestamptz[], run_ids uuid[], vias jsonb[]) :many
-- One row per input, in its order: the job's id, and whether it is new. Within one call a key may occur once per tenant
-- and queue (store/enqueue.py sees to it); keys are claimed in one order, so that replicas never wait in a ring. Of what
-- can be null, an empty array will do where all are; of what cannot, an array of one where all are the same. A job's id and
-- its created_at are of one moment (end_id_at), the clock's: a statement may have waited for a lock.
WITH input AS MATERIALIZED (
    SELECT coalesce(i.tenant, ($1::text[])[1]) AS tenant, coalesce(i.queue, ($2::text[])[1]) AS queue,
        coalesce(i.kind, ($3::text[])[1]) AS kind, i.payload, i.key,
        coalesce(i.max_attempts, ($6::smallint[])[1]) AS max_attempts, coalesce(i.priority, ($7::smallint[])[1]) AS priority,
        i.run_at, coalesce(i.actor, ($9::text[])[1]) AS actor, i.trace, i.timeout_secs, i.deadline, i.run_id, i.via,
        i.ord, nth_id(o.us, o.secret, i.ord) AS id, o.at
    FROM (SELECT n.at, (extract(epoch FROM n.at) * 1000000)::bigint AS us, gen_random_uuid() AS secret
          FROM (SELECT clock_timestamp() AS at OFFSET 0) AS n OFFSET 0) AS o, unnest($1::text[], $2::text[], $3::text[], $4::jsonb[], $5::text[], $6::smallint[], $7::smallint[],
                $8::timestamptz[], $9::text[], $10::text[], $11::integer[], $12::timestamptz[], $13::uuid[], $14::jsonb[])
        WITH ORDINALITY AS i (tenant, queue, kind, payload, key, max_attempts, priority, run_at, actor, trace, timeout_secs,
                              deadline, run_id, via, ord)
),
claimed AS (
    INSERT INTO idempotency_keys AS k (tenant, queue, key, job_id)
    SELECT tenant, queue, key, id FROM input WHERE key IS NOT NULL ORDER BY tenant, queue, key
    ON CONFLICT (tenant, queue, key) DO UPDATE SET job_id = k.job_id
    RETURNING k.tenant, k.queue, k.key, k.job_id
),
settled AS MATERIALIZED (
    -- Without a join, and scanned as it is by all that follows: jobs and events come in the order of the input.
    SELECT i.*, CASE WHEN i.key IS NULL THEN i.id ELSE (
        (SELECT jsonb_object_agg(c.tenant || E'\x1f' || c.queue || E'\x1f' || c.key, c.job_id) FROM claimed AS c)
        ->> (i.tenant || E'\x1f' || i.queue || E'\x1f' || i.key))::uuid END AS job_id
    FROM input AS i
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, trace, data)
    SELECT id, 1, at, 'Job', 'enqueued', tenant, actor, trace, jsonb_build_object(
        'queue', queue, 'kind', kind, 'payload', payload, 'priority', priority, 'maxAttempts', max_attempts,
        'runAt', run_at, 'idempotencyKey', key)
        || CASE WHEN timeout_secs IS NULL AND deadline IS NULL THEN '{}'
                ELSE jsonb_build_object('timeoutSecs', timeout_secs, 'deadline', deadline) END
        || CASE WHEN via IS NULL THEN '{}'  -- of a job that nobody asked for, but an action or a workflow
                ELSE jsonb_strip_nulls(jsonb_build_object('runId', run_id, 'origin', via -> -1, 'via', via)) END
    FROM settled WHERE job_id = id
),
recorded AS (
    INSERT INTO job_records (id, created_at, run_at, priority, max_attempts, tenant, queue, kind, idempotency_key,
                             timeout_secs, deadline, run_id)
    SELECT id, at, run_at, priority, max_attempts, tenant, queue, kind, key, timeout_secs, deadline, run_id
    FROM settled WHERE job_id = id
),
new_lanes AS MATERIALIZED (
    SELECT tenant, queue FROM (SELECT DISTINCT tenant, queue FROM settled WHERE job_id = id) AS s
    WHERE NOT EXISTS (SELECT FROM lanes AS l WHERE l.queue = s.queue AND l.tenant = s.tenant)
),
laned AS (
    -- Whoever comes first; others do not wait for a transaction that may be long, and go without.
    INSERT INTO lanes (tenant, queue)
    SELECT tenant, queue FROM new_lanes
    WHERE pg_try_advisory_xact_lock(hashtextextended('lane ' || tenant || E'\x1f' || queue, 0))
    ON CONFLICT DO NOTHING
),
queued AS (
    INSERT INTO ready (id, eligible_at, version, priority, attempts, max_attempts, tenant, queue, kind, deliveries,
                       timeout_secs, deadline)
    SELECT id, greatest(run_at, at), 1, priority, 0, max_attempts, tenant, queue, kind, 0, timeout_secs, deadline
    FROM settled WHERE job_id = id
)
SELECT job_id AS id, job_id = id AS is_new FROM settled ORDER BY ord;

-- name: job_enqueue_within(queue text, kind text, payload text, idempotency_key text, max_attempts text, priority text, run_at text, tenant_id text, timeout_secs text, deadline text, actor text, traceparent text) :one
-- On the connection of an application, whatever its search_path and its codecs: all as text, and the function by its full
-- name.
SELECT atomo.enqueue_job(
    queue => $1::text, kind => $2::text, payload => $3::text::jsonb, idempotency_key => $4::text,
    max_attempts => $5::text::integer, priority => $6::text::integer, run_at => $7::text::timestamptz,
    tenant_id => $8::text, timeout_secs => $9::text::integer, deadline => $10::text::timestamptz, actor => $11::text,
    traceparent => $12::text)::text AS id;
