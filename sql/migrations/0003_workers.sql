-- Workers in any language: kinds in the dispatch, deliveries apart from attempts, time limits, lease requests that may be
-- repeated, and tokens with a scope of kinds, an end, and a successor.
ALTER TYPE event_type ADD VALUE 'rotated' BEFORE 'revoked';

ALTER TABLE job_records ADD COLUMN deliveries smallint, ADD COLUMN timeout_secs integer, ADD COLUMN deadline timestamptz;

ALTER TABLE ready ADD COLUMN kind text COLLATE "C", ADD COLUMN deliveries smallint, ADD COLUMN timeout_secs integer,
    ADD COLUMN deadline timestamptz;
ALTER TABLE leases ADD COLUMN kind text COLLATE "C", ADD COLUMN deliveries smallint, ADD COLUMN timeout_secs integer,
    ADD COLUMN deadline timestamptz, ADD COLUMN request_id text;

-- Deliveries are the leases since the job was enqueued, or retried by hand.
CREATE FUNCTION deliveries_of(p_id uuid) RETURNS smallint LANGUAGE sql STABLE AS $$
    SELECT count(*)::smallint FROM events WHERE stream_id = p_id AND type = 'leased'
        AND version > coalesce((SELECT max(version) FROM events WHERE stream_id = p_id AND type = 'retried'), 0)
$$;
UPDATE ready AS r SET kind = j.kind, deliveries = deliveries_of(r.id) FROM job_records AS j WHERE j.id = r.id;
UPDATE leases AS l SET kind = j.kind, deliveries = deliveries_of(l.id) FROM job_records AS j WHERE j.id = l.id;
UPDATE job_records SET deliveries = deliveries_of(id)
WHERE outcome IS NOT NULL AND id IN (SELECT stream_id FROM events WHERE type = 'released');
DROP FUNCTION deliveries_of(uuid);

ALTER TABLE ready ALTER COLUMN kind SET NOT NULL, ALTER COLUMN deliveries SET NOT NULL;
ALTER TABLE leases ALTER COLUMN kind SET NOT NULL, ALTER COLUMN deliveries SET NOT NULL;

CREATE INDEX ready_by_kind ON ready (queue, kind, tenant, priority DESC, eligible_at, id);
CREATE INDEX ready_by_deadline ON ready (deadline) WHERE deadline IS NOT NULL;
CREATE INDEX leases_by_request ON leases (worker_id, request_id) WHERE request_id IS NOT NULL;

-- Lease requests that were answered, so that the same one again gets the same leases, and no others, long after those
-- have ended. Kept as long as the leases it gave could live unattended, and ten minutes at least.
CREATE TABLE lease_requests (
    worker_id  uuid NOT NULL,
    request_id text NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (worker_id, request_id)
);

CREATE INDEX lease_requests_by_end ON lease_requests (expires_at);

CREATE FUNCTION lease_limit(leased_at timestamptz, timeout_secs integer, deadline timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT least($1 + $2 * interval '1 second', $3)
$$;

DROP VIEW jobs;
CREATE VIEW jobs AS
SELECT
    j.id,
    j.tenant,
    j.queue,
    j.kind,
    CASE WHEN j.outcome IS NOT NULL THEN j.outcome::text WHEN l.id IS NOT NULL THEN 'leased' ELSE 'queued' END AS status,
    j.priority,
    coalesce(j.attempts, l.attempt, r.attempts) AS attempts,
    j.max_attempts,
    j.run_at,
    j.created_at,
    coalesce(r.eligible_at, l.eligible_at) AS eligible_at,
    l.leased_at,
    l.lease_id,
    l.expires_at AS lease_expires_at,
    l.worker_id,
    j.finished_at,
    coalesce(j.version, l.version, r.version) AS version,
    j.idempotency_key,
    j.error,
    l.progress,
    coalesce(j.deliveries, l.deliveries, r.deliveries, j.attempts) AS deliveries,
    j.timeout_secs,
    j.deadline
FROM job_records AS j
LEFT JOIN ready AS r ON r.id = j.id
LEFT JOIN leases AS l ON l.id = j.id;

ALTER TABLE worker_tokens ADD COLUMN kinds text[] COLLATE "C", ADD COLUMN expires_at timestamptz,
    ADD COLUMN last_used_at timestamptz;

CREATE FUNCTION token_lives(t worker_tokens) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > statement_timestamp())
$$;

CREATE FUNCTION token_covers(t worker_tokens, tenant text, queue text, kind text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT (t.tenant = '' OR t.tenant = $2) AND ('*' = ANY (t.queues) OR $3 = ANY (t.queues))
        AND (t.kinds IS NULL OR $4 = ANY (t.kinds))
$$;

CREATE TYPE kind_lane AS (tenant text, queue text, kind text);

CREATE FUNCTION kind_lanes(p_tenant text, p_queues text[], p_paused text[], p_kinds text[]) RETURNS kind_lane[]
LANGUAGE sql STABLE AS $$
    WITH RECURSIVE found AS (
        SELECT q.queue, k.kind, (SELECT r.tenant FROM ready AS r WHERE r.queue = q.queue AND r.kind = k.kind
                                     AND r.tenant >= coalesce(p_tenant, '') ORDER BY r.tenant LIMIT 1) AS tenant
        FROM unnest(p_queues) AS q (queue) CROSS JOIN unnest(p_kinds) AS k (kind)
        UNION ALL
        SELECT f.queue, f.kind, (SELECT r.tenant FROM ready AS r WHERE r.queue = f.queue AND r.kind = f.kind
                                     AND r.tenant > f.tenant ORDER BY r.tenant LIMIT 1)
        FROM found AS f WHERE f.tenant IS NOT NULL AND p_tenant IS NULL)
    SELECT coalesce(array_agg((tenant, queue, kind)::kind_lane), '{}') FROM found
    WHERE tenant IS NOT NULL AND (p_tenant IS NULL OR tenant = p_tenant)
        AND (p_paused IS NULL OR tenant || E'\x1f' || queue <> ALL (p_paused))
$$;

DROP FUNCTION take_ready(text, text[], integer);
CREATE FUNCTION take_ready(p_tenant text, p_queues text[], p_kinds text[], p_count integer) RETURNS SETOF ready
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off AS $$
DECLARE
    v_now timestamptz := statement_timestamp();
    v_paused text[];
    v_lanes kind_lane[];
    v_slack CONSTANT integer := 64;  -- candidates beyond the count, in case others are locking the first ones
    v_priority integer := 32768;
    v_left integer := p_count;
    v_taken integer;
    v_candidates uuid[];
BEGIN
    SELECT d.queues, d.paused INTO p_queues, v_paused FROM dispatch_scope(p_tenant, p_queues) AS d;
    IF p_kinds IS NOT NULL THEN
        v_lanes := kind_lanes(p_tenant, coalesce(p_queues, queues_of_all()), v_paused, p_kinds);
    END IF;
    WHILE v_left > 0 LOOP
        v_priority := next_priority(p_tenant, p_queues, v_lanes, v_priority);
        EXIT WHEN v_priority IS NULL;
        IF v_lanes IS NOT NULL THEN
            v_candidates := ARRAY(
                SELECT c.id FROM unnest(v_lanes) AS k CROSS JOIN LATERAL (
                    SELECT r.id, r.eligible_at FROM ready AS r
                    WHERE r.queue = k.queue AND r.kind = k.kind AND r.tenant = k.tenant AND r.priority = v_priority
                        AND r.eligible_at <= v_now AND (r.deadline IS NULL OR r.deadline > v_now)
                    ORDER BY r.eligible_at, r.id LIMIT v_left + v_slack) AS c
                ORDER BY c.eligible_at, c.id LIMIT v_left + v_slack);
        ELSIF p_queues IS NULL THEN
            v_candidates := ARRAY(
                SELECT r.id FROM ready AS r
                WHERE r.priority::integer = v_priority AND r.eligible_at <= v_now
                    AND (r.deadline IS NULL OR r.deadline > v_now)
                ORDER BY r.eligible_at, r.id LIMIT v_left FOR UPDATE SKIP LOCKED);
        ELSIF p_tenant IS NULL AND cardinality(p_queues) = 1 THEN
            v_candidates := ARRAY(
                SELECT r.id FROM ready AS r
                WHERE r.queue = p_queues[1] AND r.priority = v_priority AND r.eligible_at <= v_now
                    AND (r.deadline IS NULL OR r.deadline > v_now)
                    AND (v_paused IS NULL OR r.tenant || E'\x1f' || r.queue <> ALL (v_paused))
                ORDER BY r.eligible_at, r.id LIMIT v_left FOR UPDATE SKIP LOCKED);
        ELSIF p_tenant IS NULL THEN
            v_candidates := ARRAY(
                SELECT c.id FROM unnest(p_queues) AS q (queue) CROSS JOIN LATERAL (
                    SELECT r.id, r.eligible_at FROM ready AS r
                    WHERE r.queue = q.queue AND r.priority = v_priority AND r.eligible_at <= v_now
                        AND (r.deadline IS NULL OR r.deadline > v_now)
                        AND (v_paused IS NULL OR r.tenant || E'\x1f' || r.queue <> ALL (v_paused))
                    ORDER BY r.eligible_at, r.id LIMIT v_left + v_slack) AS c
                ORDER BY c.eligible_at, c.id LIMIT v_left + v_slack);
        ELSE
            v_candidates := ARRAY(
                SELECT c.id FROM unnest(p_queues) AS q (queue) CROSS JOIN LATERAL (
                    SELECT r.id, r.eligible_at FROM ready AS r
                    WHERE r.tenant || E'\x1f' || r.queue = p_tenant || E'\x1f' || q.queue AND r.tenant <> '' AND r.priority = v_priority
                        AND r.eligible_at <= v_now AND (r.deadline IS NULL OR r.deadline > v_now)
                    ORDER BY r.eligible_at, r.id LIMIT v_left + v_slack) AS c
                ORDER BY c.eligible_at, c.id LIMIT v_left + v_slack);
        END IF;
        RETURN QUERY
            WITH locked AS MATERIALIZED (
                SELECT r.id FROM unnest(v_candidates) AS c (id) CROSS JOIN LATERAL (
                    SELECT w.id FROM ready AS w WHERE w.id = c.id FOR UPDATE SKIP LOCKED) AS r
                LIMIT v_left)
            DELETE FROM ready AS r USING locked AS l WHERE r.id = l.id RETURNING r.*;
        GET DIAGNOSTICS v_taken = ROW_COUNT;
        v_left := v_left - v_taken;
    END LOOP;
END $$;

DROP FUNCTION next_priority(text, text[], integer);
CREATE FUNCTION next_priority(p_tenant text, p_queues text[], p_lanes kind_lane[], p_below integer) RETURNS integer
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    IF p_lanes IS NOT NULL THEN
        RETURN (SELECT max(t.priority) FROM unnest(p_lanes) AS k CROSS JOIN LATERAL (
            SELECT r.priority FROM ready AS r
            WHERE r.queue = k.queue AND r.kind = k.kind AND r.tenant = k.tenant AND r.priority < p_below
            ORDER BY r.priority DESC LIMIT 1) AS t);
    ELSIF p_queues IS NULL THEN
        RETURN (SELECT r.priority::integer FROM ready AS r WHERE r.priority::integer < p_below
                ORDER BY r.priority::integer DESC LIMIT 1);
    ELSIF p_tenant IS NULL THEN
        RETURN (SELECT max(t.priority) FROM unnest(p_queues) AS q (queue) CROSS JOIN LATERAL (
            SELECT r.priority FROM ready AS r WHERE r.queue = q.queue AND r.priority < p_below
            ORDER BY r.priority DESC LIMIT 1) AS t);
    ELSE
        RETURN (SELECT max(t.priority) FROM unnest(p_queues) AS q (queue) CROSS JOIN LATERAL (
            SELECT r.priority FROM ready AS r
            WHERE r.tenant || E'\x1f' || r.queue = p_tenant || E'\x1f' || q.queue AND r.tenant <> '' AND r.priority < p_below
            ORDER BY r.priority DESC LIMIT 1) AS t);
    END IF;
END $$;

DROP FUNCTION next_eligible(text, text[]);
CREATE FUNCTION next_eligible(p_tenant text, p_queues text[], p_kinds text[]) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_priority integer := 32768;
    v_first timestamptz;
    v_soonest timestamptz;
    v_paused text[];
    v_lanes kind_lane[];
BEGIN
    SELECT d.queues, d.paused INTO p_queues, v_paused FROM dispatch_scope(p_tenant, p_queues) AS d;
    IF p_kinds IS NOT NULL THEN
        v_lanes := kind_lanes(p_tenant, coalesce(p_queues, queues_of_all()), v_paused, p_kinds);
    END IF;
    LOOP
        v_priority := next_priority(p_tenant, p_queues, v_lanes, v_priority);
        EXIT WHEN v_priority IS NULL;
        IF v_lanes IS NOT NULL THEN
            v_first := (SELECT min(t.eligible_at) FROM unnest(v_lanes) AS k CROSS JOIN LATERAL (
                SELECT r.eligible_at FROM ready AS r
                WHERE r.queue = k.queue AND r.kind = k.kind AND r.tenant = k.tenant AND r.priority = v_priority
                ORDER BY r.eligible_at LIMIT 1) AS t);
        ELSIF p_queues IS NULL THEN
            v_first := (SELECT r.eligible_at FROM ready AS r WHERE r.priority::integer = v_priority
                        ORDER BY r.eligible_at LIMIT 1);
        ELSIF p_tenant IS NULL THEN
            v_first := (SELECT min(t.eligible_at) FROM unnest(p_queues) AS q (queue) CROSS JOIN LATERAL (
                SELECT r.eligible_at FROM ready AS r
                WHERE r.queue = q.queue AND r.priority = v_priority
                    AND (v_paused IS NULL OR r.tenant || E'\x1f' || r.queue <> ALL (v_paused))
                ORDER BY r.eligible_at LIMIT 1) AS t);
        ELSE
            v_first := (SELECT min(t.eligible_at) FROM unnest(p_queues) AS q (queue) CROSS JOIN LATERAL (
                SELECT r.eligible_at FROM ready AS r
                WHERE r.tenant || E'\x1f' || r.queue = p_tenant || E'\x1f' || q.queue AND r.tenant <> '' AND r.priority = v_priority
                ORDER BY r.eligible_at LIMIT 1) AS t);
        END IF;
        v_soonest := least(v_soonest, v_first);
        EXIT WHEN v_soonest <= statement_timestamp();
    END LOOP;
    RETURN v_soonest;
END $$;

CREATE OR REPLACE FUNCTION hold_leases(p_ids uuid[], p_lease_ids uuid[], p_worker_ids uuid[])
RETURNS TABLE (ord integer, id uuid) LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    RETURN QUERY
        SELECT i.ord::integer, l.id
        FROM unnest(p_ids, p_lease_ids, p_worker_ids) WITH ORDINALITY AS i (id, lease_id, worker_id, ord)
        JOIN leases AS l ON l.id = i.id AND l.lease_id = i.lease_id
        JOIN worker_tokens AS t ON t.id = i.worker_id
        WHERE token_lives(t) AND token_covers(t, l.tenant, l.queue, l.kind)
        ORDER BY l.id, i.ord
        FOR UPDATE OF l;
END $$;

CREATE OR REPLACE FUNCTION oldest_eligible(p_tenant text, p_queue text) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_priority integer := 32768;
    v_oldest timestamptz;
BEGIN
    LOOP
        v_priority := next_priority(nullif(p_tenant, ''), ARRAY[p_queue], NULL, v_priority);
        EXIT WHEN v_priority IS NULL;
        IF nullif(p_tenant, '') IS NULL THEN
            v_oldest := least(v_oldest, (
                SELECT r.eligible_at FROM ready AS r
                WHERE r.queue = p_queue AND r.priority = v_priority AND (p_tenant IS NULL OR r.tenant = '')
                ORDER BY r.eligible_at LIMIT 1));
        ELSE
            v_oldest := least(v_oldest, (
                SELECT r.eligible_at FROM ready AS r
                WHERE r.tenant || E'\x1f' || r.queue = p_tenant || E'\x1f' || p_queue AND r.tenant <> ''
                    AND r.priority = v_priority
                ORDER BY r.eligible_at LIMIT 1));
        END IF;
    END LOOP;
    RETURN CASE WHEN v_oldest <= statement_timestamp() THEN v_oldest END;
END $$;
