-- name: token_mint(tenant text, name text, queues text[], token_hash bytea, created_by text) :one
INSERT INTO worker_tokens (id, created_at, tenant, name, queues, token_hash, created_by)
VALUES (new_id(), statement_timestamp(), $1::text, $2::text, $3::text[], $4::bytea, $5::text)
RETURNING id, created_at, revoked_at, tenant, name, queues, created_by;

-- name: token_find(token_hashes bytea[]) :many
SELECT token_hash, id, created_at, revoked_at, tenant, name, queues, created_by
FROM worker_tokens WHERE token_hash = ANY ($1::bytea[]) AND revoked_at IS NULL;

-- name: token_live(ids uuid[]) :many
-- Those of the tokens that are not revoked.
SELECT id FROM worker_tokens WHERE id = ANY ($1::uuid[]) AND revoked_at IS NULL;

-- name: token_list(tenant text) :many
SELECT id, created_at, revoked_at, tenant, name, queues, created_by
FROM worker_tokens WHERE $1::text IS NULL OR tenant = $1 ORDER BY id;

-- name: token_revoke(id uuid, tenant text) :one
UPDATE worker_tokens SET revoked_at = statement_timestamp()
WHERE id = $1::uuid AND revoked_at IS NULL AND ($2::text IS NULL OR tenant = $2)
RETURNING id;
