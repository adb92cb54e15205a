-- A search among errors looks at no other tenant's jobs that wait for their retry, and a page of what was made before a
-- moment begins there.
CREATE INDEX ready_failed_by_tenant ON ready (tenant, id) WHERE error IS NOT NULL;

-- The first id that no job made before a moment has: an id is made in the same moment as its job's created_at, up to the
-- microseconds that tell those of one statement apart. Up to migration 12 it was made a little later; an hour is plenty.
-- What it tells changes with that migration alone, so that plans may hold it for a constant.
CREATE FUNCTION end_id_at(moment timestamptz) RETURNS uuid LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN first_id_at(moment + CASE WHEN EXISTS (
        SELECT FROM migrations AS m WHERE m.version = 12 AND m.name <> 'schema' AND m.finished_at > moment - interval '1 hour')
        THEN interval '1 hour' ELSE interval '10 milliseconds' END);
END $$;

CREATE OR REPLACE FUNCTION id_matches(id uuid, key text, created_from timestamptz, created_to timestamptz, above uuid, below uuid)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT ($2 IS NULL OR $1 = ANY (job_ids_of_key($2)))
        AND ($3 IS NULL OR $1 >= first_id_at($3)) AND ($4 IS NULL OR $1 < end_id_at($4))
        AND ($5 IS NULL OR $1 > $5) AND ($6 IS NULL OR $1 < $6)
$$;

CREATE OR REPLACE FUNCTION job_matches(j job_records, tenant text, queue text, kind text, created_from timestamptz, created_to timestamptz)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT ($2 IS NULL OR j.tenant = $2)
        AND ($3 IS NULL OR j.queue = $3)
        AND ($4 IS NULL OR j.kind = $4)
        AND ($5 IS NULL OR j.created_at >= $5 AND j.id >= first_id_at($5))
        AND ($6 IS NULL OR j.created_at < $6 AND j.id < end_id_at($6))
$$;
