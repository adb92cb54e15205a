-- Definitions of workflows, and their schedules.

-- name: workflow_lock(tenant text, name text, actor text, source_file text) :one
-- The row of a workflow, made if there is none (definition_version 0), and locked; and what time it is then.
INSERT INTO workflows AS w (id, tenant, name, definition_version, version, since_xid, is_scheduled, registered_at,
                            registered_by, source_file)
VALUES (new_id(), $1::text, $2::text, 0, 0, event_xid(), false, statement_timestamp(), $3::text,
        $4::text)
ON CONFLICT (tenant, name) DO UPDATE SET name = EXCLUDED.name
RETURNING w.*, clock_timestamp() AS now;

-- name: workflow_put(id uuid, source json, actor text, trace text, source_file text, model text, event_type text, is_scheduled boolean, next_at timestamptz, timeout_secs integer) :one
-- A new version of that workflow. What has been paused stays so, if there still is something to pause.
WITH put AS (
    UPDATE workflows SET definition_version = definition_version + 1, version = version + 1, model = $6::text,
        event_type = $7::text, is_scheduled = $8::boolean, next_at = $9::timestamptz, timeout_secs = $10::integer,
        paused_at = CASE WHEN removed_at IS NULL AND ($8 OR $6::text IS NOT NULL) THEN paused_at END,
        paused_by = CASE WHEN removed_at IS NULL AND ($8 OR $6 IS NOT NULL) THEN paused_by END,
        since_xid = CASE WHEN definition_version = 0 OR removed_at IS NOT NULL OR model IS DISTINCT FROM $6::text
                              OR event_type IS DISTINCT FROM $7::text
                         THEN event_xid() ELSE since_xid END,
        registered_at = statement_timestamp(), registered_by = $3::text, source_file = $5::text, removed_at = NULL
    WHERE id = $1::uuid
    RETURNING *
),
kept AS (
    INSERT INTO workflow_definitions (workflow_id, version, source, registered_at, registered_by)
    SELECT id, definition_version, $2::json, registered_at, registered_by FROM put
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, trace, data)
    SELECT id, version, registered_at, 'Definition', 'registered', tenant, registered_by, $4::text,
        jsonb_build_object('name', name, 'definitionVersion', definition_version, 'definition', $2::jsonb)
    FROM put
)
SELECT * FROM put;

-- name: workflow_adopt(id uuid, source_file text) :one
-- A file defines what was registered before; from now on it goes with the file.
UPDATE workflows SET source_file = $2::text WHERE id = $1::uuid RETURNING *;

-- name: workflow_change(id uuid, type text, actor text, trace text, next_at timestamptz) :one
-- Remove, pause or resume it. No row: it is so already.
WITH changed AS (
    UPDATE workflows SET version = version + 1, next_at = $5::timestamptz,
        removed_at = CASE WHEN $2::text = 'removed' THEN statement_timestamp() END,
        paused_at = CASE WHEN $2 = 'paused' THEN statement_timestamp() END,
        paused_by = CASE WHEN $2 = 'paused' THEN $3::text END,
        since_xid = CASE WHEN $2 = 'resumed' THEN event_xid() ELSE since_xid END
    WHERE id = $1::uuid AND removed_at IS NULL AND ($2 = 'removed' OR (paused_at IS NULL) = ($2 = 'paused'))
    RETURNING *
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, trace, data)
    SELECT id, version, statement_timestamp(), 'Definition', $2::event_type, tenant, $3::text, $4::text,
        jsonb_build_object('name', name)
    FROM changed
)
SELECT * FROM changed;

-- name: workflow_find(names text[], tenant text) :many
-- The workflows of these names that a tenant ('': none) can run: its own before the service's.
SELECT DISTINCT ON (w.name) w.*, d.source
FROM workflows AS w JOIN workflow_definitions AS d ON d.workflow_id = w.id AND d.version = w.definition_version
WHERE w.name = ANY ($1::text[]) AND w.tenant = ANY (ARRAY['', $2::text]) AND w.removed_at IS NULL
ORDER BY w.name, w.tenant DESC;

-- name: workflow_list(tenant text) :many
-- Those that a tenant ('': none; null: every one) can see, by name.
SELECT w.*, d.source
FROM workflows AS w JOIN workflow_definitions AS d ON d.workflow_id = w.id AND d.version = w.definition_version
WHERE ($1::text IS NULL OR w.tenant = ANY (ARRAY['', $1])) AND w.removed_at IS NULL
ORDER BY w.name, w.tenant;

-- name: workflow_page(tenant text, is_scheduled boolean, above text[], below text[], descending boolean, most integer) :many
-- The same in pages, or schedules alone; a key is a name and a tenant, and may be null.
SELECT w.*, d.source
FROM workflows AS w JOIN workflow_definitions AS d ON d.workflow_id = w.id AND d.version = w.definition_version
WHERE ($1::text IS NULL OR w.tenant = ANY (ARRAY['', $1])) AND w.removed_at IS NULL AND (w.is_scheduled OR NOT $2::boolean)
    AND ($3::text[] IS NULL OR (w.name, w.tenant) > ($3[1] COLLATE "C", $3[2] COLLATE "C"))
    AND ($4::text[] IS NULL OR (w.name, w.tenant) < ($4[1] COLLATE "C", $4[2] COLLATE "C"))
ORDER BY CASE WHEN $5::boolean THEN w.name END DESC, CASE WHEN $5 THEN w.tenant END DESC, w.name, w.tenant
LIMIT $6::integer;

-- name: workflow_versions(ids uuid[], versions integer[]) :many
-- The definitions of these versions.
SELECT d.workflow_id, d.version, d.source, d.registered_at, d.registered_by
FROM unnest($1::uuid[], $2::integer[]) AS i (id, version)
JOIN workflow_definitions AS d ON d.workflow_id = i.id AND d.version = i.version;

-- name: workflow_sources(ids uuid[], versions integer[], most bigint) :many
-- The same, no more than so many bytes of them all; what lies beyond is left out, and said to be.
WITH sized AS MATERIALIZED (
    SELECT d.workflow_id, d.version, d.source, octet_length(d.source::text) AS size
    FROM unnest($1::uuid[], $2::integer[]) AS i (id, version)
    JOIN workflow_definitions AS d ON d.workflow_id = i.id AND d.version = i.version
),
summed AS (SELECT *, sum(size) OVER (ORDER BY workflow_id, version) > $3::bigint AS is_beyond FROM sized)
SELECT workflow_id, version, CASE WHEN NOT is_beyond THEN source END AS source, is_beyond FROM summed;

-- name: workflow_history(ids uuid[], most integer) :many
-- The versions of these workflows, newest first, at most so many of each, without the definitions.
SELECT d.workflow_id, d.version, d.registered_at, d.registered_by
FROM unnest($1::uuid[]) AS i (id)
CROSS JOIN LATERAL (
    SELECT * FROM workflow_definitions AS w WHERE w.workflow_id = i.id ORDER BY w.version DESC LIMIT $2::integer) AS d;

-- name: schedule_due(now timestamptz, most integer) :many
-- Schedules whose next tick has come by that time (null: by now), locked; those that somebody else has are passed over.
SELECT w.*, d.source, coalesce($1::timestamptz, statement_timestamp()) AS now
FROM workflows AS w JOIN workflow_definitions AS d ON d.workflow_id = w.id AND d.version = w.definition_version
WHERE w.next_at <= coalesce($1::timestamptz, statement_timestamp())
ORDER BY w.next_at LIMIT $2::integer FOR UPDATE OF w SKIP LOCKED;

-- name: schedule_ahead(after uuid, most integer) :many
-- Schedules whose next tick is more than an hour away, locked, by id from one on; those that somebody else has are passed over.
SELECT w.*, d.source, statement_timestamp() AS now
FROM workflows AS w JOIN workflow_definitions AS d ON d.workflow_id = w.id AND d.version = w.definition_version
WHERE w.next_at > statement_timestamp() + interval '1 hour' AND w.id > $1::uuid
ORDER BY w.id LIMIT $2::integer FOR UPDATE OF w SKIP LOCKED;

-- name: schedule_move(ids uuid[], next_ats timestamptz[]) :many
-- Their next ticks; without answer.
UPDATE workflows AS w SET next_at = i.next_at FROM unnest($1::uuid[], $2::timestamptz[]) AS i (id, next_at)
WHERE w.id = i.id;

-- name: database_now() :one
SELECT statement_timestamp() AS now;
