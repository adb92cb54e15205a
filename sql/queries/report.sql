-- What a worker may say of a job it holds. Every statement takes arrays, answers the ordinals (1, 2, …) of the reports
-- it accepted, and passes over those whose lease is not, or no longer, the current one. A lease that has reached its
-- job's time limit can still be ended, and not be extended. Ids come as one text, parted by commas, which is cheaper to
-- send than an array; worker_ids is short by those that are the same as its first. What ends a job marks those that
-- wait for it, and says whether there were any.

-- name: leases_lock(ids text, lease_ids text) :many
-- Whoever moves them meanwhile is waited for, and nobody does until the transaction ends. In the order of held_leases.
SELECT FROM leases
WHERE id = ANY (string_to_array($1::text, ',')::uuid[]) AND lease_id = ANY (string_to_array($2::text, ',')::uuid[])
ORDER BY id FOR UPDATE;

-- name: job_heartbeat(ids text, lease_ids text, worker_ids uuid[], visibilities integer[]) :many
-- Of several for one lease the last counts, and all are accepted.
WITH held AS MATERIALIZED (SELECT * FROM held_leases($1::text, $2::text, $3::uuid[])),
newest AS MATERIALIZED (SELECT DISTINCT ON (id) id, place, ord FROM held ORDER BY id, ord DESC),
moved AS (
    UPDATE leases AS l
    SET expires_at = least(statement_timestamp() + make_interval(secs => ($4::integer[])[n.ord]),
                           lease_limit(l.leased_at, l.timeout_secs, l.deadline))
    FROM newest AS n
    WHERE l.ctid = n.place AND coalesce(lease_limit(l.leased_at, l.timeout_secs, l.deadline) > statement_timestamp(), true)
    RETURNING l.id
)
SELECT h.ord FROM held AS h JOIN moved AS m ON m.id = h.id;

-- name: job_progress(ids text, lease_ids text, worker_ids uuid[], visibilities integer[], progress jsonb[]) :many
-- A visibility that is null is the lease's own.
WITH held AS MATERIALIZED (SELECT * FROM held_leases($1::text, $2::text, $3::uuid[])),
newest AS MATERIALIZED (SELECT DISTINCT ON (id) id, place, ord FROM held ORDER BY id, ord DESC),
moved AS (
    UPDATE leases AS l
    SET expires_at = least(
            statement_timestamp() + make_interval(secs => coalesce(($4::integer[])[n.ord], l.visibility_secs)),
            lease_limit(l.leased_at, l.timeout_secs, l.deadline)),
        progress = ($5::jsonb[])[n.ord]
    FROM newest AS n
    WHERE l.ctid = n.place AND coalesce(lease_limit(l.leased_at, l.timeout_secs, l.deadline) > statement_timestamp(), true)
    RETURNING l.id, l.attempt
)
SELECT h.ord, m.attempt FROM held AS h JOIN moved AS m ON m.id = h.id;

-- name: job_complete(ids text, lease_ids text, worker_ids uuid[], results jsonb) :many
-- Answered in one row, which is cheaper to read than many.
WITH held AS MATERIALIZED (SELECT * FROM held_leases($1::text, $2::text, $3::uuid[])),
ended AS (
    DELETE FROM leases AS l USING held AS h WHERE l.ctid = h.place
    RETURNING h.ord, h.reporter, l.*
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data)
    SELECT id, version + 1, statement_timestamp(), 'Job', 'succeeded', tenant, 'worker:' || reporter,
           jsonb_build_object('leaseId', lease_id, 'attempt', attempt, 'result', $4::jsonb -> (ord - 1))
    FROM ended
),
awaited AS (
    UPDATE run_waits AS w SET ended_at = statement_timestamp() FROM ended AS e WHERE w.job_id = e.id RETURNING w.run_id
)
SELECT coalesce(array_agg(ord), '{}') AS ords, coalesce(array_agg(tenant), '{}') AS tenants,
    coalesce(array_agg(queue), '{}') AS queues, EXISTS (SELECT FROM awaited) AS is_awaited FROM ended;

-- name: job_fail(ids text, lease_ids text, worker_ids uuid[], errors text[], retryable boolean[], retry_afters integer[]) :many
-- A retry waits min(5·2^(attempt−1), 3600) seconds, and up to a tenth more, so that a crowd that failed together does
-- not come back together. delay_secs is that wait without its jitter; null: the job is dead.
WITH held AS MATERIALIZED (SELECT * FROM held_leases($1::text, $2::text, $3::uuid[])),
ended AS (
    DELETE FROM leases AS l USING held AS h WHERE l.ctid = h.place
    RETURNING h.ord, h.reporter, l.*
),
timed AS (
    SELECT ended.*, ($4::text[])[ord] AS said,
        coalesce(($6::integer[])[ord], least(5 * 2 ^ least(attempt - 1, 12), 3600)::integer) AS wait_secs
    FROM ended
),
judged AS MATERIALIZED (
    SELECT *, CASE WHEN reason IS NULL THEN wait_secs END AS delay_secs, said || CASE WHEN reason = 'deadline_passed'
            THEN format(' (not retried: its deadline comes before a retry in %s s)', wait_secs) ELSE '' END AS told,
        statement_timestamp() + make_interval(secs => wait_secs * (1 + random() / 10)) AS retry_at
    FROM (
        SELECT *, CASE WHEN NOT ($5::boolean[])[ord] THEN 'not_retryable'
                       WHEN attempt >= max_attempts THEN 'attempts_exhausted'
                       WHEN statement_timestamp() + make_interval(secs => wait_secs) >= deadline THEN 'deadline_passed'
                  END AS reason
        FROM timed) AS e
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data)
    SELECT id, version + 1, statement_timestamp(), 'Job',
           CASE WHEN reason IS NULL THEN 'failed' ELSE 'dead' END::event_type, tenant,
           'worker:' || reporter,
           jsonb_build_object('leaseId', lease_id, 'attempt', attempt, 'error', told) || CASE
               WHEN reason IS NULL THEN jsonb_build_object('delaySecs', delay_secs, 'retryAt', retry_at)
               ELSE jsonb_build_object('reason', reason) END
    FROM judged
),
queued AS (
    INSERT INTO ready (id, eligible_at, version, priority, attempts, max_attempts, tenant, queue, kind, deliveries,
                       timeout_secs, deadline, error)
    SELECT id, retry_at, version + 1, priority, attempt, max_attempts, tenant, queue, kind, deliveries, timeout_secs,
           deadline, told
    FROM judged WHERE reason IS NULL
),
buried AS (
    INSERT INTO dead (id, finished_at, version, attempts, deliveries, tenant, queue, error)
    SELECT id, statement_timestamp(), version + 1, attempt, deliveries, tenant, queue, told
    FROM judged WHERE reason IS NOT NULL
),
awaited AS (
    UPDATE run_waits AS w SET ended_at = statement_timestamp() FROM judged AS e WHERE w.job_id = e.id AND e.reason IS NOT NULL RETURNING w.run_id
)
SELECT ord, tenant, queue, delay_secs, EXISTS (SELECT FROM awaited) AS is_awaited FROM judged;

-- name: job_release(ids text, lease_ids text, worker_ids uuid[], spare integer) :many
-- Handed back unharmed: queued again where it stood, and the attempt is not counted. The delivery is: a job that is
-- leased more often than its attempts and so many spare ones is poison, and dead.
WITH held AS MATERIALIZED (SELECT * FROM held_leases($1::text, $2::text, $3::uuid[])),
ended AS (
    DELETE FROM leases AS l USING held AS h WHERE l.ctid = h.place
    RETURNING h.ord, h.reporter, l.*
),
judged AS MATERIALIZED (
    SELECT *, CASE WHEN deliveries >= max_attempts + $4::integer
                   THEN format('poison: leased %s times and handed back again', deliveries) END AS poison
    FROM ended
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data)
    SELECT id, version + 1, statement_timestamp(), 'Job',
           CASE WHEN poison IS NULL THEN 'released' ELSE 'dead' END::event_type, tenant,
           'worker:' || reporter,
           jsonb_build_object('leaseId', lease_id, 'attempt', attempt)
           || CASE WHEN poison IS NULL THEN '{}' ELSE jsonb_build_object('error', poison, 'reason', 'poison') END
    FROM judged
),
queued AS (
    INSERT INTO ready (id, eligible_at, version, priority, attempts, max_attempts, tenant, queue, kind, deliveries,
                       timeout_secs, deadline, error)
    SELECT id, eligible_at, version + 1, priority, attempt - 1, max_attempts, tenant, queue, kind, deliveries,
           timeout_secs, deadline, error
    FROM judged WHERE poison IS NULL
),
buried AS (
    INSERT INTO dead (id, finished_at, version, attempts, deliveries, tenant, queue, error)
    SELECT id, statement_timestamp(), version + 1, attempt, deliveries, tenant, queue, poison
    FROM judged WHERE poison IS NOT NULL
),
awaited AS (
    UPDATE run_waits AS w SET ended_at = statement_timestamp() FROM judged AS e WHERE w.job_id = e.id AND e.poison IS NOT NULL RETURNING w.run_id
)
SELECT ord, tenant, queue, poison IS NOT NULL AS is_dead, EXISTS (SELECT FROM awaited) AS is_awaited FROM judged;

-- name: lease_ends(ids text, lease_ids text, worker_ids uuid[]) :many
-- For reports that came too late: what ended the lease, where it was that worker's own.
SELECT i.ord::integer AS ord, e.type::text AS type
FROM unnest(string_to_array($1::text, ',')::uuid[], string_to_array($2::text, ',')::uuid[], $3::uuid[])
    WITH ORDINALITY AS i (id, lease_id, worker_id, ord)
CROSS JOIN LATERAL (
    SELECT e.version FROM events AS e
    WHERE e.stream_id = i.id AND e.type = 'leased' AND e.data ->> 'leaseId' = i.lease_id::text
        AND e.actor = 'worker:' || coalesce(i.worker_id, ($3::uuid[])[1])) AS l
JOIN events AS e ON e.stream_id = i.id AND e.version = l.version + 1;
