-- name: token_mint(tenant text, name text, queues text[], token_hash bytea, created_by text, kinds text[], expires_at timestamptz) :one
WITH minted AS (
    INSERT INTO worker_tokens (id, created_at, tenant, name, queues, token_hash, created_by, kinds, expires_at)
    VALUES (new_id(), statement_timestamp(), $1::text, $2::text, $3::text[], $4::bytea, $5::text, $6::text[],
            $7::timestamptz)
    RETURNING id, created_at, revoked_at, tenant, name, queues, created_by, kinds, expires_at, last_used_at
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data)
    SELECT id, 1, created_at, 'WorkerToken', 'minted', tenant, created_by,
           jsonb_build_object('name', name, 'queues', queues, 'kinds', kinds, 'expiresAt', expires_at)
    FROM minted
)
SELECT * FROM minted;

-- name: token_rotate(id uuid, tenant text, token_hash bytea, actor text, grace integer) :one
-- A successor with the same name and the same scope. Both are good until the old one is revoked or, with a grace (in
-- seconds), so long from now. The successor lives as long from now as the old one was to live from its minting.
WITH old AS (
    UPDATE worker_tokens AS t
    SET expires_at = least(t.expires_at, statement_timestamp() + $5::integer * interval '1 second')
    WHERE id = $1::uuid AND token_lives(t) AND ($2::text IS NULL OR tenant = $2)
    RETURNING t.*
),
minted AS (
    INSERT INTO worker_tokens (id, created_at, tenant, name, queues, token_hash, created_by, kinds, expires_at)
    SELECT new_id(), statement_timestamp(), o.tenant, o.name, o.queues, $3::bytea, $4::text, o.kinds,
           statement_timestamp() + ((e.data ->> 'expiresAt')::timestamptz - o.created_at)
    FROM old AS o LEFT JOIN events AS e ON e.stream_id = o.id AND e.version = 1
    RETURNING *
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, data)
    SELECT o.id, 1 + coalesce((SELECT max(version) FROM events AS e WHERE e.stream_id = o.id), 0), m.created_at,
           'WorkerToken'::stream_type, 'rotated'::event_type, o.tenant, $4::text,
           jsonb_build_object('successor', m.id, 'expiresAt', o.expires_at)
    FROM old AS o, minted AS m
    UNION ALL
    SELECT m.id, 1, m.created_at, 'WorkerToken', 'minted', m.tenant, $4::text, jsonb_build_object(
        'name', m.name, 'queues', m.queues, 'kinds', m.kinds, 'expiresAt', m.expires_at, 'predecessor', o.id)
    FROM old AS o, minted AS m
)
SELECT id, created_at, revoked_at, tenant, name, queues, created_by, kinds, expires_at, last_used_at FROM minted;

-- name: token_used(ids uuid[]) :many
-- Noted once a minute at most.
UPDATE worker_tokens AS t SET last_used_at = statement_timestamp()
FROM (SELECT id FROM worker_tokens WHERE id = ANY ($1::uuid[]) ORDER BY id FOR UPDATE SKIP LOCKED) AS i
WHERE t.id = i.id AND (t.last_used_at IS NULL OR t.last_used_at < statement_timestamp() - interval '1 minute');

-- name: token_find(token_hashes bytea[]) :many
SELECT token_hash, id, created_at, revoked_at, tenant, name, queues, created_by, kinds, expires_at, last_used_at
FROM worker_tokens AS t WHERE token_hash = ANY ($1::bytea[]) AND token_lives(t);

-- name: token_live(ids uuid[]) :many
-- Those of the tokens that are neither revoked nor over.
SELECT id FROM worker_tokens AS t WHERE id = ANY ($1::uuid[]) AND token_lives(t);

-- name: token_list(tenant text) :many
SELECT id, created_at, revoked_at, tenant, name, queues, created_by, kinds, expires_at, last_used_at
FROM worker_tokens WHERE $1::text IS NULL OR tenant = $1 ORDER BY id;

-- name: token_page(tenant text, above uuid, below uuid, descending boolean, most integer) :many
SELECT id, created_at, revoked_at, tenant, name, queues, created_by, kinds, expires_at, last_used_at
FROM worker_tokens
WHERE ($1::text IS NULL OR tenant = $1) AND ($2::uuid IS NULL OR id > $2) AND ($3::uuid IS NULL OR id < $3)
ORDER BY CASE WHEN $4::boolean THEN id END DESC, CASE WHEN NOT $4 THEN id END LIMIT $5::integer;

-- name: token_get(id uuid, tenant text) :one
SELECT id, created_at, revoked_at, tenant, name, queues, created_by, kinds, expires_at, last_used_at
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
