-- Runs of workflows, for the engine. Each transaction of it takes some runs, decides, and saves them.

-- name: run_start(workflow_ids uuid[], workflows text[], versions integer[], tenants text[], actors text[], traces text[], keys text[], vias jsonb[], timeouts integer[], triggers jsonb[], contexts jsonb[]) :many
-- Begin runs; answers, in order, each one's id, when it began, and whether it is new: the same key is the same run.
-- Within one call a key may occur once.
WITH input AS MATERIALIZED (
    SELECT i.*, nth_id(o.us, o.secret, i.ord) AS id, statement_timestamp() AS at,
        statement_timestamp() + make_interval(secs => i.timeout_secs) AS timeout_at
    FROM (SELECT microseconds_now() AS us, gen_random_uuid() AS secret OFFSET 0) AS o,
        unnest($1::uuid[], $2::text[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::text[], $8::jsonb[],
               $9::integer[], $10::jsonb[], $11::jsonb[])
        WITH ORDINALITY AS i (workflow_id, workflow, definition_version, tenant, actor, trace, key, via, timeout_secs,
                              trigger, context, ord)
),
begun AS (
    INSERT INTO workflow_runs AS r (id, tenant, workflow, workflow_id, definition_version, status, steps_run, version,
        via, started_at, changed_at, timeout_at, wake_at, actor, trace, key, trigger, context, steps, errors, bytes)
    SELECT id, tenant, workflow, workflow_id, definition_version, 'Running', 0, 1, via, at, at, timeout_at, at, actor,
        trace, key, trigger, context, '{}', '[]', octet_length(context::text)
    FROM input ORDER BY workflow_id, tenant, key, ord
    ON CONFLICT (workflow_id, tenant, key) WHERE key IS NOT NULL DO UPDATE SET key = EXCLUDED.key
    RETURNING r.id, r.workflow_id, r.tenant, r.key
),
settled AS (
    SELECT i.*, coalesce(b.id, i.id) AS run_id
    FROM input AS i
    LEFT JOIN begun AS b ON b.workflow_id = i.workflow_id AND b.tenant = i.tenant AND b.key = i.key
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, trace, data)
    SELECT id, 1, at, 'Workflow', 'run_started', tenant, actor, trace, jsonb_strip_nulls(jsonb_build_object(
            'workflow', workflow, 'workflowId', workflow_id, 'definitionVersion', definition_version, 'key', key,
            'via', nullif(via, '[]'), 'timeoutAt', timeout_at))
        || jsonb_build_object('trigger', trigger, 'context', context)
    FROM settled WHERE run_id = id ORDER BY ord
)
SELECT run_id AS id, run_id = id AS is_new FROM settled ORDER BY ord;

-- name: run_due(most integer) :many
-- Runs that have something to do, and runs that waited for a job that has ended, at most so many of each, locked; those
-- that somebody else has are passed over. Whoever takes them reads what they are afterwards, as many as it can hold.
WITH timed AS MATERIALIZED (
    SELECT id, bytes FROM workflow_runs WHERE wake_at <= statement_timestamp()
    ORDER BY wake_at LIMIT $1::integer FOR UPDATE SKIP LOCKED
),
told AS MATERIALIZED (
    SELECT r.id, r.bytes FROM run_waits AS w JOIN workflow_runs AS r ON r.id = w.run_id
    WHERE w.ended_at <= statement_timestamp()
    ORDER BY w.ended_at LIMIT $1::integer FOR UPDATE OF r SKIP LOCKED
)
SELECT id, bytes FROM timed UNION SELECT id, bytes FROM told;

-- name: run_due_ids(most integer) :many
-- The same, unlocked, and without what they are.
(SELECT id FROM workflow_runs WHERE wake_at <= statement_timestamp() ORDER BY wake_at LIMIT $1::integer)
UNION
(SELECT run_id FROM run_waits WHERE ended_at <= statement_timestamp() ORDER BY ended_at LIMIT $1::integer);

-- name: run_take(ids uuid[], tenant text) :many
-- These runs, as far as the tenant ('': those without one; null: anybody's) may see them, to be changed.
SELECT * FROM workflow_runs WHERE id = ANY ($1::uuid[]) AND ($2::text IS NULL OR tenant = $2) ORDER BY id FOR UPDATE;

-- name: run_job_ends(run_ids uuid[]) :many
-- The jobs that these runs wait for and that have ended, with what came of them. One that is alive has been retried by
-- hand since, and is waited for again; one that has left no trace is gone.
SELECT w.run_id, w.job_id, d.error, s.data -> 'result' AS result, s.data IS NOT NULL AS has_succeeded,
    d.id IS NULL AND s.data IS NULL AND (
        EXISTS (SELECT FROM ready AS r WHERE r.id = w.job_id) OR EXISTS (SELECT FROM leases AS l WHERE l.id = w.job_id)
    ) AS is_alive
FROM run_waits AS w
LEFT JOIN dead AS d ON d.id = w.job_id
LEFT JOIN LATERAL (
    SELECT e.data FROM events AS e WHERE e.stream_id = w.job_id AND e.type = 'succeeded') AS s ON true
WHERE w.run_id = ANY ($1::uuid[]) AND w.ended_at IS NOT NULL;

-- name: run_save(ids uuid[], statuses text[], steps_runs integer[], versions integer[], changed_at timestamptz, finished_ats timestamptz[], timeout_ats timestamptz[], wake_ats timestamptz[], contexts jsonb[], steps jsonb[], errors jsonb[]) :many
UPDATE workflow_runs AS r
SET status = i.status, steps_run = i.steps_run, version = i.version, changed_at = $5::timestamptz,
    finished_at = i.finished_at, timeout_at = i.timeout_at, wake_at = i.wake_at, context = i.context, steps = i.steps,
    errors = i.errors, bytes = octet_length(i.context::text) + octet_length(i.steps::text)
FROM unnest($1::uuid[], $2::text[], $3::integer[], $4::integer[], $6::timestamptz[], $7::timestamptz[],
            $8::timestamptz[], $9::jsonb[], $10::jsonb[], $11::jsonb[])
    AS i (id, status, steps_run, version, finished_at, timeout_at, wake_at, context, steps, errors)
WHERE r.id = i.id
RETURNING r.id;

-- name: run_log(ids uuid[], versions integer[], types text[], tenants text[], actor text, trace text, at timestamptz, data jsonb[]) :many
-- What happened to them; without answer.
INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, trace, data)
SELECT id, version, $7::timestamptz, 'Workflow', type::event_type, tenant, $5::text, $6::text, data
FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::text[], $8::jsonb[]) WITH ORDINALITY
    AS i (id, version, type, tenant, data, ord)
ORDER BY ord;

-- name: run_postpone(ids uuid[]) :many
-- They have nothing to do for a minute, whatever they waited for; without answer.
WITH put_off AS (
    UPDATE run_waits SET ended_at = statement_timestamp() + interval '1 minute'
    WHERE run_id = ANY ($1::uuid[]) AND ended_at IS NOT NULL
)
UPDATE workflow_runs SET wake_at = statement_timestamp() + interval '1 minute' WHERE id = ANY ($1::uuid[]);

-- name: wait_add(job_ids uuid[], run_ids uuid[], steps text[], shared boolean[]) :many
-- From now on these runs wait for these jobs; without answer.
INSERT INTO run_waits (job_id, run_id, step, is_shared)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::boolean[])
ON CONFLICT DO NOTHING;

-- name: wait_again(run_ids uuid[], job_ids uuid[]) :many
-- They wait on: the job lives again. Without answer.
UPDATE run_waits AS w SET ended_at = NULL, is_shared = true FROM unnest($1::uuid[], $2::uuid[]) AS i (run_id, job_id)
WHERE w.run_id = i.run_id AND w.job_id = i.job_id;

-- name: wait_remove(run_ids uuid[], job_ids uuid[]) :many
-- They wait no more; without answer.
DELETE FROM run_waits AS w USING unnest($1::uuid[], $2::uuid[]) AS i (run_id, job_id)
WHERE w.run_id = i.run_id AND w.job_id = i.job_id;

-- name: wait_wanted(job_ids uuid[], run_ids uuid[]) :many
-- Which of these jobs other runs than these wait for.
SELECT DISTINCT w.job_id FROM run_waits AS w WHERE w.job_id = ANY ($1::uuid[]) AND w.run_id <> ALL ($2::uuid[]);

-- name: wait_settle(most integer) :many
-- Mark what nobody marked: a job that somebody else enqueued may have ended before a run began to wait for it.
UPDATE run_waits AS w SET ended_at = statement_timestamp()
FROM (
    SELECT job_id FROM run_waits AS u
    WHERE u.ended_at IS NULL AND u.is_shared
        AND NOT EXISTS (SELECT FROM ready AS r WHERE r.id = u.job_id)
        AND NOT EXISTS (SELECT FROM leases AS l WHERE l.id = u.job_id)
    LIMIT $1::integer) AS u
WHERE w.job_id = u.job_id AND w.ended_at IS NULL
RETURNING w.run_id;

-- name: run_next_wake() :one
-- Seconds until there is something to do; null: nothing that time will bring.
SELECT extract(epoch FROM min(wake_at) - clock_timestamp())::float8 AS seconds FROM workflow_runs WHERE wake_at IS NOT NULL;

-- name: run_get(ids uuid[], tenant text) :many
-- These runs, as far as the tenant (as above) may see them.
SELECT * FROM workflow_runs WHERE id = ANY ($1::uuid[]) AND ($2::text IS NULL OR tenant = $2);

-- name: run_rows(ids uuid[], tenant text) :many
-- The same for a page: without what may be large, which run_bodies has.
SELECT id, tenant, workflow, workflow_id, definition_version, status, steps_run, version, via, started_at, changed_at,
    finished_at, timeout_at, actor, trace, key, trigger, '{}'::jsonb AS context,
    (SELECT coalesce(jsonb_object_agg(s.key, s.value - 'result'), '{}') FROM jsonb_each(steps) AS s) AS steps, errors
FROM workflow_runs WHERE id = ANY ($1::uuid[]) AND ($2::text IS NULL OR tenant = $2);

-- name: run_bodies(ids uuid[], most bigint) :many
-- The contexts of these runs, and the states of their steps. What lies beyond so many bytes of them all is left out, and
-- said to be.
WITH sized AS MATERIALIZED (
    SELECT id, context, steps, octet_length(context::text) + octet_length(steps::text) AS size
    FROM workflow_runs WHERE id = ANY ($1::uuid[])
),
summed AS (SELECT *, sum(size) OVER (ORDER BY id) > $2::bigint AS is_beyond FROM sized)
SELECT id, CASE WHEN NOT is_beyond THEN context END AS context, CASE WHEN NOT is_beyond THEN steps END AS steps, is_beyond
FROM summed;

-- name: run_page(tenant text, workflow text, statuses text[], key text, above uuid, below uuid, descending boolean, most integer) :many
-- The ids of runs that match, by id; every condition may be null. Where statuses alone are asked for, each of them is a
-- walk along their index, written so that no plan takes the other one, where what is rare comes late.
SELECT id FROM (
    (SELECT id FROM workflow_runs
     WHERE $7::boolean AND ($3::text[] IS NULL OR $1::text <> '' OR $2::text IS NOT NULL OR $4::text IS NOT NULL)
        AND ($1::text IS NULL OR tenant = $1) AND ($2::text IS NULL OR workflow = $2)
        AND ($3::text[] IS NULL OR status = ANY ($3)) AND ($4::text IS NULL OR key = $4)
        AND ($5::uuid IS NULL OR id > $5) AND ($6::uuid IS NULL OR id < $6)
     ORDER BY id DESC LIMIT $8::integer)
    UNION ALL
    (SELECT id FROM workflow_runs
     WHERE NOT $7::boolean AND ($3::text[] IS NULL OR $1::text <> '' OR $2::text IS NOT NULL OR $4::text IS NOT NULL)
        AND ($1::text IS NULL OR tenant = $1) AND ($2::text IS NULL OR workflow = $2)
        AND ($3::text[] IS NULL OR status = ANY ($3)) AND ($4::text IS NULL OR key = $4)
        AND ($5::uuid IS NULL OR id > $5) AND ($6::uuid IS NULL OR id < $6)
     ORDER BY id LIMIT $8::integer)
    UNION ALL
    (SELECT f.id FROM unnest($3::text[]) AS s (status) CROSS JOIN LATERAL (
        SELECT r.id FROM workflow_runs AS r
        WHERE $7::boolean AND coalesce($1::text, '') = '' AND $2::text IS NULL AND $4::text IS NULL
            AND ($1::text IS NULL OR r.tenant = $1)
            AND (r.status, r.id) > (s.status, coalesce($5::uuid, '00000000-0000-0000-0000-000000000000'))
            AND (r.status, r.id) < (s.status, coalesce($6::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
        ORDER BY r.status DESC, r.id DESC LIMIT $8::integer) AS f
     ORDER BY f.id DESC LIMIT $8::integer)
    UNION ALL
    (SELECT f.id FROM unnest($3::text[]) AS s (status) CROSS JOIN LATERAL (
        SELECT r.id FROM workflow_runs AS r
        WHERE NOT $7::boolean AND coalesce($1::text, '') = '' AND $2::text IS NULL AND $4::text IS NULL
            AND ($1::text IS NULL OR r.tenant = $1)
            AND (r.status, r.id) > (s.status, coalesce($5::uuid, '00000000-0000-0000-0000-000000000000'))
            AND (r.status, r.id) < (s.status, coalesce($6::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
        ORDER BY r.status, r.id LIMIT $8::integer) AS f
     ORDER BY f.id LIMIT $8::integer)) AS found;

-- name: run_jobs(run_ids uuid[], most integer) :many
-- The jobs that the steps of these runs enqueued, oldest first.
SELECT i.run_id, j.id FROM unnest($1::uuid[]) AS i (run_id)
CROSS JOIN LATERAL (
    SELECT r.id FROM job_records AS r WHERE r.run_id = i.run_id ORDER BY r.id LIMIT $2::integer) AS j;

-- name: run_forget(completed timestamptz, failed timestamptz, most integer) :one
-- Delete runs that ended before that (null: never) with their events, a bounded lot.
WITH old AS MATERIALIZED (
    SELECT r.id FROM (VALUES ('Completed', $1::timestamptz), ('Failed', $2::timestamptz)) AS v (status, before)
    CROSS JOIN LATERAL (
        SELECT id FROM workflow_runs AS r WHERE r.status = v.status AND r.finished_at < v.before
        ORDER BY r.finished_at LIMIT $3::integer FOR UPDATE SKIP LOCKED) AS r
),
gone AS (DELETE FROM workflow_runs AS r USING old AS o WHERE r.id = o.id RETURNING r.id),
forgotten AS (DELETE FROM events AS e USING gone AS g WHERE e.stream_id = g.id)
SELECT count(*)::integer AS deleted FROM gone;
