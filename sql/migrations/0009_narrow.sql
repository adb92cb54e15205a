-- Reports find their leases without locking them first, and answered lease requests are half as wide.
ALTER TABLE lease_requests ADD COLUMN leased_at timestamptz;
UPDATE lease_requests AS q SET leased_at = coalesce(
    (SELECT l.leased_at FROM leases AS l WHERE l.id = ANY (q.job_ids) AND l.lease_id = ANY (q.lease_ids) LIMIT 1), '-infinity');
ALTER TABLE lease_requests ALTER COLUMN leased_at SET NOT NULL, DROP COLUMN lease_ids;

DROP FUNCTION hold_leases(text, text, uuid[]);
DROP FUNCTION token_covers(worker_tokens, text, text, text);

-- Whether a token of that tenant, those queues and those kinds reaches a job.
CREATE FUNCTION covers(token_tenant text, queues text[], kinds text[], tenant text, queue text, kind text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT ($1 = '' OR $1 = $4) AND ($5 = ANY ($2) OR '*' = ANY ($2)) AND ($3 IS NULL OR $6 = ANY ($3))
$$;

-- The leases that the callers really hold: the lease's id is the current one, and the worker's token lives and covers the
-- job. `place` is where the statement that asks finds its row; whoever changes it meanwhile changes it for the same lease,
-- or ends it. They come in one order for all, so that two batches never wait for each other in a ring. The ids are parted
-- by commas; p_worker_ids has one for each, or one for all.
CREATE FUNCTION held_leases(p_ids text, p_lease_ids text, p_worker_ids uuid[])
RETURNS TABLE (ord integer, id uuid, place tid, reporter uuid) LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_ids CONSTANT uuid[] := string_to_array(p_ids, ',');
    v_lease_ids CONSTANT uuid[] := string_to_array(p_lease_ids, ',');
    v_tenant text;
    v_queues text[];
    v_kinds text[];
BEGIN
    IF cardinality(p_worker_ids) = 1 THEN
        SELECT w.tenant, w.queues, w.kinds INTO v_tenant, v_queues, v_kinds
        FROM worker_tokens AS w WHERE w.id = p_worker_ids[1] AND token_lives(w);
        IF v_tenant IS NULL THEN
            RETURN;
        END IF;
        RETURN QUERY
            SELECT r.ord::integer, r.id, l.ctid, p_worker_ids[1]
            FROM (SELECT * FROM unnest(v_ids, v_lease_ids) WITH ORDINALITY AS r (id, lease_id, ord) ORDER BY 1, 3) AS r
            CROSS JOIN LATERAL (  -- with a limit, so that no plan begins at the leases
                SELECT w.ctid FROM leases AS w
                WHERE w.id = r.id AND w.lease_id = r.lease_id AND covers(v_tenant, v_queues, v_kinds, w.tenant, w.queue, w.kind)
                LIMIT 1) AS l;
    ELSE
        RETURN QUERY
            SELECT r.ord::integer, r.id, l.ctid, r.worker_id
            FROM (SELECT * FROM unnest(v_ids, v_lease_ids, p_worker_ids)
                  WITH ORDINALITY AS r (id, lease_id, worker_id, ord) ORDER BY 1, 4) AS r
            CROSS JOIN LATERAL (
                SELECT w.ctid FROM leases AS w
                WHERE w.id = r.id AND w.lease_id = r.lease_id AND EXISTS (
                    SELECT FROM worker_tokens AS t WHERE t.id = r.worker_id AND token_lives(t)
                        AND covers(t.tenant, t.queues, t.kinds, w.tenant, w.queue, w.kind))
                LIMIT 1) AS l;
    END IF;
END $$;
