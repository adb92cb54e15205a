-- name: token_mint(tenant text, name text, queues text[], token_hash bytea, created_by text) :one
WITH minted AS (
    INSERT INTO worker_tokens (id, created_at, tenant, name, queues, token_hash, created_by)
    VALUES (new_id(), statement_timestamp(), $1::text, $2::text, $3::text[], $4::bytea, $5::text)
    RETURNING id, created_at, revoked_at, tenant, name, queues, created_by
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data)
    SELECT id, 1, created_at, 'WorkerToken', 'minted', tenant, created_by,
           jsonb_build_object('name', name, 'queues', queues)
    FROM minted
)
SELECT * FROM minted;

-- name: token_find(token_hashes bytea[]) :many
SELECT token_hash, id, created_at, revoked_at, tenant, name, queues, created_by
FROM worker_tokens WHERE token_hash = ANY ($1::bytea[]) AND revoked_at IS NULL;

-- name: token_live(ids uuid[]) :many
-- Those of the tokens that are not revoked.
SELECT id FROM worker_tokens WHERE id = ANY ($1::uuid[]) AND revoked_at IS NULL;

-- name: token_list(tenant text) :many
SELECT id, created_at, revoked_at, tenant, name, queues, created_by
FROM worker_tokens WHERE $1::text IS NULL OR tenant = $1 ORDER BY id;

-- name: token_page(tenant text, above uuid, below uuid, descending boolean, most integer) :many
SELECT id, created_at, revoked_at, tenant, name, queues, created_by
FROM worker_tokens
WHERE ($1::text IS NULL OR tenant = $1) AND ($2::uuid IS NULL OR id > $2) AND ($3::uuid IS NULL OR id < $3)
ORDER BY CASE WHEN $4::boolean THEN id END DESC, CASE WHEN NOT $4 THEN id END LIMIT $5::integer;

-- name: token_get(id uuid, tenant text) :one
SELECT id, created_at, revoked_at, tenant, name, queues, created_by
FROM worker_tokens WHERE id = $1::uuid AND ($2::text IS NULL OR tenant = $2);

-- name: token_revoke(id uuid, tenant text, actor text) :one
WITH revoked AS (
    UPDATE worker_tokens SET revoked_at = statement_timestamp()
    WHERE id = $1::uuid AND revoked_at IS NULL AND ($2::text IS NULL OR tenant = $2)
    RETURNING id, revoked_at, tenant, name
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data)
    SELECT r.id, 1 + coalesce((SELECT max(version) FROM events AS e WHERE e.stream_id = r.id), 0), r.revoked_at, 'WorkerToken',
           'revoked', r.tenant, $3::text, jsonb_build_object('name', r.name)
    FROM revoked AS r
)
SELECT id FROM revoked;
