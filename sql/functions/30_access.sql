CREATE OR REPLACE FUNCTION token_lives(t worker_tokens) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > statement_timestamp())
$$;

-- Whether a token of that tenant, those queues and those kinds reaches a job.
CREATE OR REPLACE FUNCTION covers(token_tenant text, queues text[], kinds text[], tenant text, queue text, kind text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT ($1 = '' OR $1 = $4) AND ($5 = ANY ($2) OR '*' = ANY ($2)) AND ($3 IS NULL OR $6 = ANY ($3))
$$;
