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
