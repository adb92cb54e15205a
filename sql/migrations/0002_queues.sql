-- Queues that can be paused, what they have been doing, and events of pauses and tokens.
ALTER TYPE stream_type ADD VALUE 'Queue';
ALTER TYPE stream_type ADD VALUE 'WorkerToken';
ALTER TYPE event_type ADD VALUE 'paused';
ALTER TYPE event_type ADD VALUE 'resumed';
ALTER TYPE event_type ADD VALUE 'minted';
ALTER TYPE event_type ADD VALUE 'revoked';

CREATE INDEX job_records_by_kind ON job_records (kind, id);
CREATE INDEX job_records_dead_by_queue ON job_records (queue, id) WHERE outcome = 'dead';
CREATE INDEX job_records_failed ON job_records (id) WHERE error IS NOT NULL;
CREATE INDEX idempotency_keys_by_key ON idempotency_keys (key);

-- Where jobs have ever been put; a lane is one tenant's part of a queue.
CREATE TABLE lanes (
    tenant text COLLATE "C" NOT NULL,
    queue  text COLLATE "C" NOT NULL,
    PRIMARY KEY (queue, tenant)
);

CREATE INDEX lanes_by_tenant ON lanes (tenant, queue);

-- Queues that nothing is leased from just now. A pause is a stream of its own: 'paused', then 'resumed'.
CREATE TABLE queue_pauses (
    queue     text COLLATE "C" NOT NULL,
    tenant    text COLLATE "C" NOT NULL,  -- whose part of it; U+001F, which is in no tenant's name: everybody's
    id        uuid NOT NULL,
    paused_at timestamptz NOT NULL,
    paused_by text NOT NULL,
    PRIMARY KEY (queue, tenant)
);

-- What the servers have seen, written every few seconds and not worth a log: how busy each lane has been, and which
-- worker has asked for which queue ('*': any).
CREATE UNLOGGED TABLE lane_activity (
    minute    timestamptz NOT NULL,
    tenant    text COLLATE "C" NOT NULL,
    queue     text COLLATE "C" NOT NULL,
    enqueued  integer NOT NULL,
    leased    integer NOT NULL,
    succeeded integer NOT NULL,
    failed    integer NOT NULL,  -- attempts, whether or not a retry follows
    PRIMARY KEY (queue, minute, tenant)
);

CREATE UNLOGGED TABLE worker_sightings (
    worker_id uuid NOT NULL,
    queue     text COLLATE "C" NOT NULL,
    seen_at   timestamptz NOT NULL,
    PRIMARY KEY (queue, worker_id)
);

INSERT INTO lanes (tenant, queue) SELECT DISTINCT tenant, queue FROM job_records;

-- Every queue in which a job is queued, found by skipping along the index from one to the next.
CREATE FUNCTION queues_of_all() RETURNS text[] LANGUAGE sql STABLE AS $$
    WITH RECURSIVE found AS (
        (SELECT queue FROM ready ORDER BY queue LIMIT 1)
        UNION ALL
        SELECT (SELECT r.queue FROM ready AS r WHERE r.queue > f.queue ORDER BY r.queue LIMIT 1)
        FROM found AS f WHERE f.queue IS NOT NULL)
    SELECT coalesce(array_agg(queue), '{}') FROM found WHERE queue IS NOT NULL
$$;

CREATE FUNCTION dispatch_scope(p_tenant text, p_queues text[], OUT queues text[], OUT paused text[])
LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
BEGIN
    queues := p_queues;
    IF p_queues IS NULL AND p_tenant IS NOT NULL THEN
        queues := queues_of_tenant(p_tenant);
    END IF;
    IF NOT EXISTS (SELECT FROM queue_pauses) THEN
        RETURN;
    END IF;
    IF queues IS NULL THEN
        queues := queues_of_all();
    END IF;
    queues := ARRAY(
        SELECT q.queue FROM unnest(queues) AS q (queue) WHERE NOT EXISTS (
            SELECT FROM queue_pauses AS p WHERE p.queue = q.queue AND (p.tenant = E'\x1f' OR p.tenant = p_tenant)));
    IF p_tenant IS NULL THEN
        paused := (SELECT array_agg(p.tenant || E'\x1f' || p.queue) FROM queue_pauses AS p WHERE p.tenant <> E'\x1f');
    END IF;
END $$;

CREATE OR REPLACE FUNCTION take_ready(p_tenant text, p_queues text[], p_count integer) RETURNS SETOF ready
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off AS $$
DECLARE
    v_now timestamptz := statement_timestamp();
    v_paused text[];
    v_slack CONSTANT integer := 64;  -- candidates beyond the count, in case others are locking the first ones
    v_priority integer := 32768;
    v_left integer := p_count;
    v_taken integer;
    v_candidates uuid[];
BEGIN
    SELECT d.queues, d.paused INTO p_queues, v_paused FROM dispatch_scope(p_tenant, p_queues) AS d;
    WHILE v_left > 0 LOOP
        v_priority := next_priority(p_tenant, p_queues, v_priority);
        EXIT WHEN v_priority IS NULL;
        IF p_queues IS NULL THEN
            v_candidates := ARRAY(
                SELECT r.id FROM ready AS r
                WHERE r.priority::integer = v_priority AND r.eligible_at <= v_now
                ORDER BY r.eligible_at, r.id LIMIT v_left FOR UPDATE SKIP LOCKED);
        ELSIF p_tenant IS NULL AND cardinality(p_queues) = 1 THEN
            v_candidates := ARRAY(
                SELECT r.id FROM ready AS r
                WHERE r.queue = p_queues[1] AND r.priority = v_priority AND r.eligible_at <= v_now
                    AND (v_paused IS NULL OR r.tenant || E'\x1f' || r.queue <> ALL (v_paused))
                ORDER BY r.eligible_at, r.id LIMIT v_left FOR UPDATE SKIP LOCKED);
        ELSIF p_tenant IS NULL THEN
            v_candidates := ARRAY(
                SELECT c.id FROM unnest(p_queues) AS q (queue) CROSS JOIN LATERAL (
                    SELECT r.id, r.eligible_at FROM ready AS r
                    WHERE r.queue = q.queue AND r.priority = v_priority AND r.eligible_at <= v_now
                        AND (v_paused IS NULL OR r.tenant || E'\x1f' || r.queue <> ALL (v_paused))
                    ORDER BY r.eligible_at, r.id LIMIT v_left + v_slack) AS c
                ORDER BY c.eligible_at, c.id LIMIT v_left + v_slack);
        ELSE
            v_candidates := ARRAY(
                SELECT c.id FROM unnest(p_queues) AS q (queue) CROSS JOIN LATERAL (
                    SELECT r.id, r.eligible_at FROM ready AS r
                    WHERE r.tenant || E'\x1f' || r.queue = p_tenant || E'\x1f' || q.queue AND r.tenant <> '' AND r.priority = v_priority
                        AND r.eligible_at <= v_now
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

CREATE OR REPLACE FUNCTION next_eligible(p_tenant text, p_queues text[]) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_priority integer := 32768;
    v_first timestamptz;
    v_soonest timestamptz;
    v_paused text[];
BEGIN
    SELECT d.queues, d.paused INTO p_queues, v_paused FROM dispatch_scope(p_tenant, p_queues) AS d;
    LOOP
        v_priority := next_priority(p_tenant, p_queues, v_priority);
        EXIT WHEN v_priority IS NULL;
        IF p_queues IS NULL THEN
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

CREATE FUNCTION oldest_eligible(p_tenant text, p_queue text) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_priority integer := 32768;
    v_oldest timestamptz;
BEGIN
    LOOP
        v_priority := next_priority(nullif(p_tenant, ''), ARRAY[p_queue], v_priority);
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

CREATE OR REPLACE FUNCTION first_id_at(moment timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid
$$;

-- The jobs that a key names, of any tenant and queue.
CREATE FUNCTION job_ids_of_key(p_key text) RETURNS uuid[] LANGUAGE sql STABLE AS $$
    SELECT array_agg(job_id) FROM idempotency_keys WHERE key = p_key
$$;

-- Whether a job is one of those asked for; every condition may be null. Inlined into the queries, so that what is null
-- vanishes and what is not can use an index. An id is made a little after its job's created_at; an hour is plenty.
CREATE FUNCTION job_matches(j job_records, tenant text, queue text, kind text, key text, created_from timestamptz,
                            created_to timestamptz, finished_from timestamptz, finished_to timestamptz, error text)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT ($2 IS NULL OR j.tenant = $2)
        AND ($3 IS NULL OR j.queue = $3)
        AND ($4 IS NULL OR j.kind = $4)
        AND ($5 IS NULL OR j.id = ANY (job_ids_of_key($5)))
        AND ($6 IS NULL OR j.created_at >= $6 AND j.id >= first_id_at($6))
        AND ($7 IS NULL OR j.created_at < $7 AND j.id < first_id_at($7 + interval '1 hour'))
        AND ($8 IS NULL OR j.finished_at >= $8)
        AND ($9 IS NULL OR j.finished_at < $9)
        AND ($10 IS NULL OR j.error IS NOT NULL AND position(lower($10) IN lower(j.error)) > 0)
$$;

-- Pauses and tokens may outlive the day they began on: when retention drops that day, their events go here, and so does
-- what happens to them after it.
CREATE TABLE events_kept PARTITION OF events DEFAULT;

CREATE OR REPLACE FUNCTION drop_partition_pair(p_day text, p_succeeded timestamptz, p_dead timestamptz) RETURNS boolean
LANGUAGE plpgsql SET lock_timeout = '2s' AS $$
DECLARE
    v_kept boolean;
BEGIN
    EXECUTE format(
        'SELECT EXISTS (SELECT FROM %I WHERE outcome IS NULL
            OR outcome = ''succeeded'' AND ($1 IS NULL OR finished_at >= $1)
            OR outcome = ''dead'' AND ($2 IS NULL OR finished_at >= $2))', 'job_records_' || p_day)
        INTO v_kept USING p_succeeded, p_dead;
    IF v_kept THEN
        RETURN false;
    END IF;
    EXECUTE format('ALTER TABLE events DETACH PARTITION %I', 'events_' || p_day);
    EXECUTE format('INSERT INTO events SELECT * FROM %I WHERE stream <> ''Job''', 'events_' || p_day);
    EXECUTE format('DROP TABLE %I, %I', 'job_records_' || p_day, 'events_' || p_day);
    RETURN true;
END $$;
