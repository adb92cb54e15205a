-- The schema as version 1 had it, for the test that a database made by it comes to the present one.
-- The event store: the truth. Everything else in this schema can be derived from it.
--
-- Each thing that has a life (a job today) is a stream; each transition of it is one event, numbered 1, 2, 3 … without
-- gaps by the primary key. An event is written in the statement that changes the projection, so neither exists without
-- the other. Nothing ever updates an event; retention drops whole partitions.
--
-- Streams are named by UUIDv7 (see new_id), which begins with its time: `events` and `job_records` are partitioned by
-- the same ranges of ids, one pair a day, so that one job's whole story lies in one pair (partitions.sql).

CREATE TYPE stream_type AS ENUM ('Job');

CREATE TYPE event_type AS ENUM (
    'enqueued',   -- nothing → queued
    'leased',     -- queued → leased
    'released',   -- leased → queued, handed back unharmed: the attempt is not counted
    'reclaimed',  -- leased → queued, the lease ran out: the attempt counts
    'failed',     -- leased → queued until its retry time
    'succeeded',  -- leased → succeeded
    'dead',       -- leased → dead: attempts used up, not retryable, or the last lease ran out
    'retried',    -- dead → queued, by hand
    'cancelled'   -- queued or leased → dead, by hand
);

CREATE SEQUENCE event_position;

CREATE TABLE events (
    stream_id uuid NOT NULL,
    -- A reader that tails the log goes by (xid, position) and stops below the oldest running transaction: positions are
    -- handed out before commit, so by position alone a late commit would be missed.
    position  bigint NOT NULL DEFAULT nextval('event_position'),
    xid       xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at        timestamptz NOT NULL,
    version   integer NOT NULL,
    stream    stream_type NOT NULL,
    type      event_type NOT NULL,
    tenant    text COLLATE "C" NOT NULL,  -- '' is: no tenant
    actor     text NOT NULL,              -- user:<sub>, worker:<token id>, system:<who>
    trace     text,                       -- W3C traceparent of the request that caused it
    data      jsonb NOT NULL,
    PRIMARY KEY (stream_id, version)
) PARTITION BY RANGE (stream_id);

CREATE INDEX events_in_commit_order ON events (xid, position);  -- event_tail

-- A time-ordered id, after RFC 9562 §5.7 and §6.2 method 3: 48 bits of milliseconds, 12 bits of their fraction, then 8
-- fixed bits for the cell (a shard; 0 today) between random ones. Ids made in one statement keep their order.
CREATE FUNCTION new_id() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT (lpad(to_hex(us / 1000), 12, '0') || '7' || lpad(to_hex((us % 1000) * 4096 / 1000), 3, '0')
            || substr(r, 20, 2) || '00' || right(r, 12))::uuid
    FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS us, gen_random_uuid()::text AS r) AS t
$$;

-- The smallest id of a moment: where a partition begins, and where a range of time begins in a query.
CREATE FUNCTION first_id_at(moment timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid
$$;
-- The projection of the job streams, in three tables: a job's home tells its state.
--
--   ready        queued: one narrow row per job that waits for a worker, for its time or for its retry
--   leases       leased: one narrow row per job that is with a worker
--   job_records  every job: what was enqueued, and, once it has ended, how
--
-- The hot two stay as small as the work at hand however long the history grows, and dispatch reads nothing else. The
-- wide row is written twice in a job's life: when it is enqueued and when it ends. Payload and result are in no row of
-- the projection at all: each is kept once, in its event.

CREATE TYPE job_outcome AS ENUM ('succeeded', 'dead');

CREATE TABLE job_records (
    id              uuid NOT NULL PRIMARY KEY,
    created_at      timestamptz NOT NULL,
    run_at          timestamptz,           -- as asked by the caller
    finished_at     timestamptz,
    version         integer,               -- of the event that ended it; null while it lives
    priority        smallint NOT NULL,
    max_attempts    smallint NOT NULL,
    attempts        smallint,              -- used when it ended; while it lives they are counted in ready and leases
    outcome         job_outcome,           -- null while it lives
    tenant          text COLLATE "C" NOT NULL,
    queue           text COLLATE "C" NOT NULL,
    kind            text COLLATE "C" NOT NULL,
    idempotency_key text,
    error           text                   -- of the last attempt that failed; null again after a success
) PARTITION BY RANGE (id);

CREATE INDEX job_records_by_queue ON job_records (queue, id);                      -- job_page
CREATE INDEX job_records_by_tenant ON job_records (tenant, id) WHERE tenant <> ''; -- job_page
CREATE INDEX job_records_dead ON job_records (id) WHERE outcome = 'dead';          -- job_page

CREATE TABLE ready (
    id           uuid NOT NULL PRIMARY KEY,
    eligible_at  timestamptz NOT NULL,
    version      integer NOT NULL,         -- of the stream's newest event
    priority     smallint NOT NULL,
    attempts     smallint NOT NULL,        -- used so far
    max_attempts smallint NOT NULL,
    tenant       text COLLATE "C" NOT NULL,
    queue        text COLLATE "C" NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- One index for each way a lease asks (40_dispatch.sql). Within a queue and a priority the rows that are due come first,
-- so those that are not due yet are never in the way. The expressions are there to keep the planner from answering one
-- way with the index of another and a filter, which is fast on a small table and a scan of everybody's backlog on a big
-- one. U+001F occurs in no tenant's and no queue's name.
CREATE INDEX ready_by_queue ON ready (queue, priority DESC, eligible_at, id);
CREATE INDEX ready_by_tenant ON ready ((tenant || E'\x1f' || queue), priority DESC, eligible_at, id) WHERE tenant <> '';
CREATE INDEX ready_by_priority ON ready ((priority::integer) DESC, eligible_at, id);

CREATE TABLE leases (
    id              uuid NOT NULL PRIMARY KEY,
    lease_id        uuid NOT NULL,         -- the fencing token: a report must name it
    worker_id       uuid NOT NULL,         -- the worker token it was given to
    leased_at       timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,  -- no index: heartbeats move it, and the table is as small as the work at hand
    eligible_at     timestamptz NOT NULL,  -- where it stood in the queue, for handing it back
    version         integer NOT NULL,
    visibility_secs integer NOT NULL,
    priority        smallint NOT NULL,
    attempt         smallint NOT NULL,     -- this one: 1, 2, 3 …
    max_attempts    smallint NOT NULL,
    tenant          text COLLATE "C" NOT NULL,
    queue           text COLLATE "C" NOT NULL,
    progress        jsonb                  -- the newest {percent, message, data}; forgotten with the lease
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- The same tenant, queue and key is the same job. Kept apart from the jobs, because a partitioned table can hold no
-- uniqueness across its partitions.
CREATE TABLE idempotency_keys (
    tenant text COLLATE "C" NOT NULL,
    queue  text COLLATE "C" NOT NULL,
    key    text COLLATE "C" NOT NULL,
    job_id uuid NOT NULL,
    PRIMARY KEY (tenant, queue, key)
);

CREATE INDEX idempotency_keys_by_job ON idempotency_keys (job_id);  -- retention_forget_keys

-- The projection in one piece, a row per job: what queries read, and what a rebuild compares, column for column.
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
    l.progress
FROM job_records AS j
LEFT JOIN ready AS r ON r.id = j.id
LEFT JOIN leases AS l ON l.id = j.id;
-- Who may pull work. The token itself is shown once, at minting; here is only its SHA-256.
CREATE TABLE worker_tokens (
    id         uuid NOT NULL PRIMARY KEY,
    created_at timestamptz NOT NULL,
    revoked_at timestamptz,
    tenant     text COLLATE "C" NOT NULL,    -- '' leases every tenant's jobs
    name       text NOT NULL,
    queues     text[] COLLATE "C" NOT NULL,  -- {*} is: any
    token_hash bytea NOT NULL UNIQUE,
    created_by text NOT NULL
);
-- Dispatch: who gets which job. Two functions, because each needs a loop or a lock that a plain statement would repeat.

-- Take up to p_count eligible jobs out of `ready`: highest priority first, then the one that has been eligible longest,
-- the same across queues. p_tenant null: any tenant; p_queues null: any queue.
--
-- It walks down the priorities that are there, and asks within each for rows that are due; so a backlog in other queues,
-- of other tenants, or of jobs whose time has not come costs one index descent and no more. Rows that another
-- transaction holds are skipped, never waited for. Planner switches pin the index walk: a plan cached while the table
-- was empty must not scan it when it is full.
CREATE FUNCTION take_ready(p_tenant text, p_queues text[], p_count integer) RETURNS SETOF ready
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off AS $$
DECLARE
    v_now timestamptz := statement_timestamp();
    v_slack CONSTANT integer := 64;  -- candidates beyond the count, in case others are locking the first ones
    v_priority integer := 32768;
    v_left integer := p_count;
    v_taken integer;
    v_candidates uuid[];
BEGIN
    IF p_queues IS NULL AND p_tenant IS NOT NULL THEN
        p_queues := queues_of_tenant(p_tenant);
    END IF;
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
                ORDER BY r.eligible_at, r.id LIMIT v_left FOR UPDATE SKIP LOCKED);
        ELSIF p_tenant IS NULL THEN
            v_candidates := ARRAY(
                SELECT c.id FROM unnest(p_queues) AS q (queue) CROSS JOIN LATERAL (
                    SELECT r.id, r.eligible_at FROM ready AS r
                    WHERE r.queue = q.queue AND r.priority = v_priority AND r.eligible_at <= v_now
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

-- The highest priority below p_below at which a job is queued in that scope; null when there is none.
CREATE FUNCTION next_priority(p_tenant text, p_queues text[], p_below integer) RETURNS integer
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    IF p_queues IS NULL THEN
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

-- The queues in which a tenant has jobs queued, found by skipping along the index from one to the next.
CREATE FUNCTION queues_of_tenant(p_tenant text) RETURNS text[] LANGUAGE sql STABLE AS $$
    WITH RECURSIVE found AS (
        (SELECT queue FROM ready WHERE tenant <> '' AND tenant || E'\x1f' || queue > p_tenant || E'\x1f'
            AND tenant || E'\x1f' || queue < p_tenant || E'\x20' ORDER BY tenant || E'\x1f' || queue LIMIT 1)
        UNION ALL
        SELECT (SELECT r.queue FROM ready AS r WHERE r.tenant <> ''
                AND r.tenant || E'\x1f' || r.queue > p_tenant || E'\x1f' || f.queue
                AND r.tenant || E'\x1f' || r.queue < p_tenant || E'\x20' ORDER BY r.tenant || E'\x1f' || r.queue LIMIT 1)
        FROM found AS f WHERE f.queue IS NOT NULL)
    SELECT coalesce(array_agg(queue), '{}') FROM found WHERE queue IS NOT NULL
$$;

-- When the next job of that scope becomes, or became, eligible; null when none is queued. Long polls sleep until then.
CREATE FUNCTION next_eligible(p_tenant text, p_queues text[]) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_priority integer := 32768;
    v_first timestamptz;
    v_soonest timestamptz;
BEGIN
    IF p_queues IS NULL AND p_tenant IS NOT NULL THEN
        p_queues := queues_of_tenant(p_tenant);
    END IF;
    LOOP
        v_priority := next_priority(p_tenant, p_queues, v_priority);
        EXIT WHEN v_priority IS NULL;
        IF p_queues IS NULL THEN
            v_first := (SELECT r.eligible_at FROM ready AS r WHERE r.priority::integer = v_priority
                        ORDER BY r.eligible_at LIMIT 1);
        ELSIF p_tenant IS NULL THEN
            v_first := (SELECT min(t.eligible_at) FROM unnest(p_queues) AS q (queue) CROSS JOIN LATERAL (
                SELECT r.eligible_at FROM ready AS r WHERE r.queue = q.queue AND r.priority = v_priority
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

-- Lock the leases that the callers really hold, in one order for all, so that two batches never wait for each other in
-- a ring. A lease is held when its id is the current one and the worker's token is neither revoked nor out of scope.
CREATE FUNCTION hold_leases(p_ids uuid[], p_lease_ids uuid[], p_worker_ids uuid[])
RETURNS TABLE (ord integer, id uuid) LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    RETURN QUERY
        SELECT i.ord::integer, l.id
        FROM unnest(p_ids, p_lease_ids, p_worker_ids) WITH ORDINALITY AS i (id, lease_id, worker_id, ord)
        JOIN leases AS l ON l.id = i.id AND l.lease_id = i.lease_id
        JOIN worker_tokens AS t ON t.id = i.worker_id
        WHERE t.revoked_at IS NULL
            AND (t.tenant = '' OR t.tenant = l.tenant)
            AND (l.queue = ANY (t.queues) OR '*' = ANY (t.queues))
        ORDER BY l.id, i.ord
        FOR UPDATE OF l;
END $$;
-- Partitions: one pair (events_YYYYMMDD, job_records_YYYYMMDD) a UTC day. A housekeeping loop of every replica asks for
-- the days ahead, and retention drops pairs.

-- Make the pairs from yesterday to p_ahead days ahead that are missing; answers how many were made. A partition is made
-- aside and attached, which does not wait for, or block, readers and writers of the parent.
CREATE FUNCTION make_partitions(p_ahead integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_day timestamptz;
    v_name text;
    v_parent text;
    v_made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('atomo.make_partitions', 0));
    FOR v_day IN
        SELECT d AT TIME ZONE 'UTC' FROM generate_series(
            date_trunc('day', now() AT TIME ZONE 'UTC') - interval '1 day',
            date_trunc('day', now() AT TIME ZONE 'UTC') + make_interval(days => p_ahead), interval '1 day') AS d
    LOOP
        FOREACH v_parent IN ARRAY ARRAY['events', 'job_records'] LOOP
            v_name := v_parent || '_' || to_char(v_day AT TIME ZONE 'UTC', 'YYYYMMDD');
            CONTINUE WHEN to_regclass(v_name) IS NOT NULL;
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL) WITH (fillfactor = %s)', v_name, v_parent,
                           CASE v_parent WHEN 'job_records' THEN 80 ELSE 100 END);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', v_parent, v_name,
                           first_id_at(v_day), first_id_at(v_day + interval '1 day'));
            v_made := v_made + 1;
        END LOOP;
    END LOOP;
    RETURN v_made;
END $$;

-- The pairs, oldest first, with the ids they begin and end at.
CREATE VIEW partition_days AS
SELECT
    right(c.relname, 8) AS day,
    (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''([^'']+)''\)'))[1]::uuid AS first_id,
    (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''([^'']+)''\)'))[1]::uuid AS end_id
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'job_records'::regclass
ORDER BY 1;

-- Drop one day's pair, if nothing in it needs to be kept: every job of it ended before p_succeeded or, dead, before
-- p_dead (null: keep those for ever). Answers whether it did. It gives way when the tables are busy.
CREATE FUNCTION drop_partition_pair(p_day text, p_succeeded timestamptz, p_dead timestamptz) RETURNS boolean
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
    EXECUTE format('DROP TABLE %I, %I', 'job_records_' || p_day, 'events_' || p_day);
    RETURN true;
END $$;
