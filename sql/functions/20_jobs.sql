-- Beyond which no heartbeat moves a lease's deadline; null: as far as one likes.
CREATE OR REPLACE FUNCTION lease_limit(leased_at timestamptz, timeout_secs integer, deadline timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT least($1 + $2 * interval '1 second', $3)
$$;

-- The jobs that a key names, of any tenant and queue.
CREATE OR REPLACE FUNCTION job_ids_of_key(p_key text) RETURNS uuid[] LANGUAGE sql STABLE AS $$
    SELECT array_agg(job_id) FROM idempotency_keys WHERE key = p_key
$$;

-- The first id that no job made before a moment has: an id is made in the same moment as its job's created_at, up to the
-- microseconds that tell those of one statement apart.
CREATE OR REPLACE FUNCTION end_id_at(moment timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT first_id_at($1 + interval '10 milliseconds')
$$;

-- Whether a job is one of those asked for; every condition may be null. Inlined into the queries, so that what is null
-- vanishes and what is not can use an index. First what its id tells. A join hands on no such bound from one side to the
-- other, so job_matches says it too.
CREATE OR REPLACE FUNCTION id_matches(id uuid, key text, created_from timestamptz, created_to timestamptz, above uuid, below uuid)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT ($2 IS NULL OR $1 = ANY (job_ids_of_key($2)))
        AND ($3 IS NULL OR $1 >= first_id_at($3)) AND ($4 IS NULL OR $1 < end_id_at($4))
        AND ($5 IS NULL OR $1 > $5) AND ($6 IS NULL OR $1 < $6)
$$;

-- What its record tells.
CREATE OR REPLACE FUNCTION job_matches(j job_records, tenant text, queue text, kind text, created_from timestamptz, created_to timestamptz)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT ($2 IS NULL OR j.tenant = $2)
        AND ($3 IS NULL OR j.queue = $3)
        AND ($4 IS NULL OR j.kind = $4)
        AND ($5 IS NULL OR j.created_at >= $5 AND j.id >= first_id_at($5))
        AND ($6 IS NULL OR j.created_at < $6 AND j.id < end_id_at($6))
$$;

-- When it ended. What ended before a moment was made before it, give or take a clock that was set.
CREATE OR REPLACE FUNCTION end_matches(id uuid, finished_at timestamptz, finished_from timestamptz, finished_to timestamptz)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT ($3 IS NULL OR $2 >= $3) AND ($4 IS NULL OR $2 < $4 AND $1 < first_id_at($4 + interval '1 minute'))
$$;

-- The text of its error, in any case.
CREATE OR REPLACE FUNCTION error_matches(error text, part text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT position(lower($2) IN lower($1)) > 0
$$;
