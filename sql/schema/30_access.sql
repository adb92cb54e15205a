-- Who may pull work. The token itself is shown once, at minting; here is only its SHA-256.
CREATE TABLE worker_tokens (
    id         uuid NOT NULL PRIMARY KEY,
    created_at timestamptz NOT NULL,
    revoked_at timestamptz,
    tenant     text COLLATE "C" NOT NULL,    -- '' leases every tenant's jobs
    name       text NOT NULL,
    queues     text[] COLLATE "C" NOT NULL,  -- {*} is: any
    token_hash bytea NOT NULL UNIQUE,
    created_by text NOT NULL,
    kinds      text[] COLLATE "C",           -- null: any
    expires_at timestamptz,                  -- null: never
    last_used_at timestamptz                 -- give or take a minute
);

CREATE FUNCTION token_lives(t worker_tokens) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > statement_timestamp())
$$;

-- Whether a token of that tenant, those queues and those kinds reaches a job.
CREATE FUNCTION covers(token_tenant text, queues text[], kinds text[], tenant text, queue text, kind text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT ($1 = '' OR $1 = $4) AND ($5 = ANY ($2) OR '*' = ANY ($2)) AND ($3 IS NULL OR $6 = ANY ($3))
$$;
