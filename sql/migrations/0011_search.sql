-- A search among errors looks at a bounded number of jobs; dead letters of a queue, and of a tenant, come in their order.
DROP INDEX dead_by_queue;
CREATE INDEX dead_by_queue ON dead (queue, id);                        -- queue_stats, job_page, job_search
CREATE INDEX dead_by_tenant ON dead (tenant, id) WHERE tenant <> '';   -- job_page, job_search
CREATE INDEX dead_by_lane ON dead (tenant, queue) WHERE tenant <> '';  -- queue_stats

DROP FUNCTION end_matches(timestamptz, text, timestamptz, timestamptz, text);
DROP FUNCTION job_matches(job_records, text, text, text, text, timestamptz, timestamptz);

-- Whether a job is one of those asked for; every condition may be null. Inlined into the queries, so that what is null
-- vanishes and what is not can use an index. First what its id tells: an id is made a little after its job's created_at,
-- an hour is plenty. A join hands on no such bound from one side to the other, so job_matches says it too.
CREATE FUNCTION id_matches(id uuid, key text, created_from timestamptz, created_to timestamptz, above uuid, below uuid)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT ($2 IS NULL OR $1 = ANY (job_ids_of_key($2)))
        AND ($3 IS NULL OR $1 >= first_id_at($3)) AND ($4 IS NULL OR $1 < first_id_at($4 + interval '1 hour'))
        AND ($5 IS NULL OR $1 > $5) AND ($6 IS NULL OR $1 < $6)
$$;

-- What its record tells.
CREATE FUNCTION job_matches(j job_records, tenant text, queue text, kind text, created_from timestamptz, created_to timestamptz)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT ($2 IS NULL OR j.tenant = $2)
        AND ($3 IS NULL OR j.queue = $3)
        AND ($4 IS NULL OR j.kind = $4)
        AND ($5 IS NULL OR j.created_at >= $5 AND j.id >= first_id_at($5))
        AND ($6 IS NULL OR j.created_at < $6 AND j.id < first_id_at($6 + interval '1 hour'))
$$;

-- When it ended. What ended before a moment was made before it, give or take a clock that was set.
CREATE FUNCTION end_matches(id uuid, finished_at timestamptz, finished_from timestamptz, finished_to timestamptz)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT ($3 IS NULL OR $2 >= $3) AND ($4 IS NULL OR $2 < $4 AND $1 < first_id_at($4 + interval '1 minute'))
$$;

-- The text of its error, in any case.
CREATE FUNCTION error_matches(error text, part text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT position(lower($2) IN lower($1)) > 0
$$;
