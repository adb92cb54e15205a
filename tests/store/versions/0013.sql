-- The schema as version 13 had it, for the test that a database made by it comes to the present one.
CREATE TYPE stream_type AS ENUM (
    'Job',
    'Queue',        -- one pause of it
    'WorkerToken',
    'Workflow',     -- one run
    'Definition',   -- of a workflow, through all its versions
    'Binding',      -- of an action to events
    'Model'         -- one thing of an application: what it has recorded of it
);

CREATE TYPE event_type AS ENUM (
    'enqueued',   -- nothing → queued
    'leased',     -- queued → leased
    'released',   -- leased → queued, handed back unharmed: the attempt is not counted
    'reclaimed',  -- leased → queued, the lease ran out: the attempt counts
    'failed',     -- leased → queued until its retry time
    'succeeded',  -- leased → succeeded
    'dead',       -- leased → dead: attempts used up, not retryable, or the last lease ran out
    'retried',    -- dead → queued, by hand
    'cancelled',  -- queued or leased → dead, by hand
    'paused',     -- a queue: begins a stream that its 'resumed' ends
    'resumed',
    'minted',     -- a worker token
    'rotated',    -- a successor was minted beside it
    'revoked',
    'registered',      -- a version of a workflow's definition; a binding
    'removed',
    'set_aside',       -- a binding that failed; 'resumed' ends it
    'recorded',        -- something that happened to a model
    'run_started',     -- a run of a workflow; it may be 'cancelled', and 'retried' when it has failed
    'step_started',    -- a group of branches
    'step_waiting',    -- for a job's end, or for a time
    'step_completed',
    'step_failed',     -- with the time of its retry, if there is one
    'step_skipped',    -- its condition was false
    'run_completed',
    'run_failed'
);

CREATE SEQUENCE event_position;

CREATE TABLE events (
    stream_id uuid NOT NULL,
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

DO $$ BEGIN
    ALTER TABLE events ALTER COLUMN data SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL;
END $$;

CREATE INDEX events_in_commit_order ON events (xid, position);  -- event_tail
CREATE INDEX events_recorded ON events (xid, position) WHERE stream = 'Model';  -- dispatch_read, record_forget

CREATE TABLE events_kept PARTITION OF events DEFAULT;

ALTER TABLE events ALTER COLUMN data SET STATISTICS 0;

CREATE FUNCTION derived(secret uuid, n bigint, bytes integer) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT substr(sha256(uuid_send($1) || int8send($2)), 1, $3)
$$;

CREATE FUNCTION nth_secret_id(secret uuid, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT encode(set_byte(set_byte(derived($1, $2, 16), 6, 64), 8, 128), 'hex')::uuid
$$;

CREATE FUNCTION microseconds_now() RETURNS bigint LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
$$;

CREATE FUNCTION nth_id(us bigint, secret uuid, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT encode(int8send((($1 + $3) / 1000) << 16 | 28672 | ($1 + $3) % 1000 * 4096 / 1000)
                  || set_byte(set_byte(derived($2, $3, 8), 0, 128), 1, 0), 'hex')::uuid
$$;

CREATE FUNCTION new_id() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT nth_id(microseconds_now(), gen_random_uuid(), 0)
$$;

CREATE FUNCTION first_id_at(moment timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid
$$;

CREATE TABLE job_records (
    id              uuid NOT NULL PRIMARY KEY,
    created_at      timestamptz NOT NULL,
    run_at          timestamptz,           -- as asked by the caller
    priority        smallint NOT NULL,
    max_attempts    smallint NOT NULL,
    tenant          text COLLATE "C" NOT NULL,
    queue           text COLLATE "C" NOT NULL,
    kind            text COLLATE "C" NOT NULL,
    idempotency_key text,
    timeout_secs    integer,               -- how long one attempt may take
    deadline        timestamptz,           -- from when it is not worth doing any more; gone when it is retried after it
    run_id          uuid                   -- the workflow's run that it is a step of
) PARTITION BY RANGE (id);

CREATE INDEX job_records_by_queue ON job_records (queue, id);                      -- job_page
CREATE INDEX job_records_by_tenant ON job_records (tenant, id) WHERE tenant <> ''; -- job_page
CREATE INDEX job_records_by_kind ON job_records (kind, id);                        -- job_page
CREATE INDEX job_records_by_run ON job_records (run_id, id) WHERE run_id IS NOT NULL; -- run_jobs

CREATE INDEX events_of_success ON events (stream_id) WHERE type = 'succeeded';     -- jobs, job_page
CREATE INDEX events_by_success ON events USING brin (at) WITH (pages_per_range = 32, autosummarize = on)
    WHERE type = 'succeeded';

CREATE TABLE dead (
    id          uuid NOT NULL PRIMARY KEY,  -- job_page, in its order
    finished_at timestamptz NOT NULL,
    version     integer NOT NULL,           -- of the event that ended it
    attempts    smallint NOT NULL,
    deliveries  smallint NOT NULL,          -- leases given, those handed back too
    tenant      text COLLATE "C" NOT NULL,
    queue       text COLLATE "C" NOT NULL,
    error       text NOT NULL
);

CREATE INDEX dead_by_lane ON dead (queue, tenant, id);  -- queue_stats, job_page, job_search; those below the last two
CREATE INDEX dead_by_queue ON dead (queue, id);
CREATE INDEX dead_by_tenant ON dead (tenant, id);
CREATE INDEX dead_by_end ON dead (finished_at);         -- job_page

CREATE TABLE ready (
    id           uuid NOT NULL PRIMARY KEY,
    eligible_at  timestamptz NOT NULL,
    version      integer NOT NULL,         -- of the stream's newest event
    priority     smallint NOT NULL,
    attempts     smallint NOT NULL,        -- used so far
    max_attempts smallint NOT NULL,
    tenant       text COLLATE "C" NOT NULL,
    queue        text COLLATE "C" NOT NULL,
    kind         text COLLATE "C" NOT NULL,
    deliveries   smallint NOT NULL,        -- leases given so far; attempts and those handed back
    timeout_secs integer,
    deadline     timestamptz,
    error        text                      -- of the last attempt that failed
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX ready_by_queue ON ready (queue, priority DESC, eligible_at, id);
CREATE INDEX ready_by_tenant ON ready ((tenant || E'\x1f' || queue), priority DESC, eligible_at, id) WHERE tenant <> '';
CREATE INDEX ready_by_priority ON ready ((priority::integer) DESC, eligible_at, id);
CREATE INDEX ready_by_kind ON ready ((queue || E'\x1f' || kind), priority DESC, eligible_at, id);
CREATE INDEX ready_by_tenant_kind ON ready ((tenant || E'\x1f' || queue || E'\x1f' || kind), priority DESC, eligible_at, id)
    WHERE tenant <> '';

CREATE INDEX ready_by_deadline ON ready (deadline) WHERE deadline IS NOT NULL;  -- job_overdue
CREATE INDEX ready_failed ON ready (id) WHERE error IS NOT NULL;                -- job_search, and the next
CREATE INDEX ready_failed_by_tenant ON ready (tenant, id) WHERE error IS NOT NULL;

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
    progress        jsonb,                 -- the newest {percent, message, data}; forgotten with the lease
    kind            text COLLATE "C" NOT NULL,
    deliveries      smallint NOT NULL,     -- this one included
    timeout_secs    integer,
    deadline        timestamptz,
    error           text
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE lease_requests (
    worker_id  uuid NOT NULL,
    request_id text NOT NULL,
    expires_at timestamptz NOT NULL,
    leased_at  timestamptz NOT NULL,  -- by it and the worker the leases are known that are still those
    job_ids    uuid[] NOT NULL,       -- a hundred of them stay below the two kilobytes from which a row is taken apart
    PRIMARY KEY (worker_id, request_id)
);

CREATE INDEX lease_requests_by_end ON lease_requests (expires_at);  -- lease_requests_forget

CREATE FUNCTION lease_limit(leased_at timestamptz, timeout_secs integer, deadline timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT least($1 + $2 * interval '1 second', $3)
$$;

CREATE TABLE idempotency_keys (
    tenant text COLLATE "C" NOT NULL,
    queue  text COLLATE "C" NOT NULL,
    key    text COLLATE "C" NOT NULL,
    job_id uuid NOT NULL,
    PRIMARY KEY (tenant, queue, key)
);

CREATE INDEX idempotency_keys_by_key ON idempotency_keys (key);     -- job_page
CREATE INDEX idempotency_keys_by_job ON idempotency_keys (job_id);  -- retention_forget_keys

CREATE FUNCTION job_ids_of_key(p_key text) RETURNS uuid[] LANGUAGE sql STABLE AS $$
    SELECT array_agg(job_id) FROM idempotency_keys WHERE key = p_key
$$;

CREATE FUNCTION end_id_at(moment timestamptz) RETURNS uuid LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN first_id_at(moment + CASE WHEN EXISTS (
        SELECT FROM migrations AS m WHERE m.version = 12 AND m.name <> 'schema' AND m.finished_at > moment - interval '1 hour')
        THEN interval '1 hour' ELSE interval '10 milliseconds' END);
END $$;

CREATE FUNCTION id_matches(id uuid, key text, created_from timestamptz, created_to timestamptz, above uuid, below uuid)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT ($2 IS NULL OR $1 = ANY (job_ids_of_key($2)))
        AND ($3 IS NULL OR $1 >= first_id_at($3)) AND ($4 IS NULL OR $1 < end_id_at($4))
        AND ($5 IS NULL OR $1 > $5) AND ($6 IS NULL OR $1 < $6)
$$;

CREATE FUNCTION job_matches(j job_records, tenant text, queue text, kind text, created_from timestamptz, created_to timestamptz)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT ($2 IS NULL OR j.tenant = $2)
        AND ($3 IS NULL OR j.queue = $3)
        AND ($4 IS NULL OR j.kind = $4)
        AND ($5 IS NULL OR j.created_at >= $5 AND j.id >= first_id_at($5))
        AND ($6 IS NULL OR j.created_at < $6 AND j.id < end_id_at($6))
$$;

CREATE FUNCTION end_matches(id uuid, finished_at timestamptz, finished_from timestamptz, finished_to timestamptz)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT ($3 IS NULL OR $2 >= $3) AND ($4 IS NULL OR $2 < $4 AND $1 < first_id_at($4 + interval '1 minute'))
$$;

CREATE FUNCTION error_matches(error text, part text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT position(lower($2) IN lower($1)) > 0
$$;

CREATE VIEW jobs AS
SELECT
    j.id,
    j.tenant,
    j.queue,
    j.kind,
    CASE WHEN r.id IS NOT NULL THEN 'queued' WHEN l.id IS NOT NULL THEN 'leased' WHEN d.id IS NOT NULL THEN 'dead'
         ELSE 'succeeded' END AS status,
    j.priority,
    coalesce(r.attempts, l.attempt, d.attempts, (s.data ->> 'attempt')::smallint) AS attempts,
    j.max_attempts,
    j.run_at,
    j.created_at,
    coalesce(r.eligible_at, l.eligible_at) AS eligible_at,
    coalesce(l.leased_at, h.at) AS leased_at,
    l.lease_id,
    l.expires_at AS lease_expires_at,
    coalesce(l.worker_id, substr(h.actor, 8)::uuid) AS worker_id,
    coalesce(d.finished_at, s.at) AS finished_at,
    coalesce(r.version, l.version, d.version, s.version) AS version,
    j.idempotency_key,
    coalesce(r.error, l.error, d.error) AS error,
    l.progress,
    coalesce(r.deliveries, l.deliveries, d.deliveries, (
        SELECT count(*)::smallint FROM events AS e WHERE e.stream_id = s.stream_id AND e.type = 'leased' AND e.version > coalesce((
            SELECT max(x.version) FROM events AS x WHERE x.stream_id = s.stream_id AND x.type = 'retried'), 0))) AS deliveries,
    j.timeout_secs,
    j.deadline,
    j.run_id
FROM job_records AS j
LEFT JOIN ready AS r ON r.id = j.id
LEFT JOIN leases AS l ON l.id = j.id
LEFT JOIN dead AS d ON d.id = j.id
LEFT JOIN events AS s ON s.stream_id = j.id AND s.type = 'succeeded'
LEFT JOIN events AS h ON h.stream_id = j.id AND h.type = 'leased' AND h.version = coalesce(d.version, s.version) - 1;

CREATE TABLE lanes (
    tenant text COLLATE "C" NOT NULL,
    queue  text COLLATE "C" NOT NULL,
    PRIMARY KEY (queue, tenant)
);

CREATE INDEX lanes_by_tenant ON lanes (tenant, queue);

CREATE TABLE queue_pauses (
    queue     text COLLATE "C" NOT NULL,
    tenant    text COLLATE "C" NOT NULL,  -- whose part of it; U+001F, which is in no tenant's name: everybody's
    id        uuid NOT NULL,
    paused_at timestamptz NOT NULL,
    paused_by text NOT NULL,
    PRIMARY KEY (queue, tenant)
);

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

CREATE FUNCTION covers(token_tenant text, queues text[], kinds text[], tenant text, queue text, kind text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT ($1 = '' OR $1 = $4) AND ($5 = ANY ($2) OR '*' = ANY ($2)) AND ($3 IS NULL OR $6 = ANY ($3))
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

CREATE FUNCTION kind_lanes(p_tenant text, p_queues text[], p_kinds text[]) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT coalesce(array_agg(l.lane), '{}')
    FROM (SELECT coalesce(p_tenant || E'\x1f', '') || q.queue || E'\x1f' || k.kind AS lane
          FROM unnest(p_queues) AS q (queue) CROSS JOIN unnest(p_kinds) AS k (kind)) AS l
    WHERE CASE WHEN cardinality(p_queues) * cardinality(p_kinds) <= 64 THEN true
        WHEN p_tenant IS NULL THEN (
            SELECT true FROM ready AS r WHERE r.queue || E'\x1f' || r.kind = l.lane
            ORDER BY r.priority DESC, r.eligible_at, r.id LIMIT 1)
        ELSE (
            SELECT true FROM ready AS r WHERE r.tenant || E'\x1f' || r.queue || E'\x1f' || r.kind = l.lane AND r.tenant <> ''
            ORDER BY r.priority DESC, r.eligible_at, r.id LIMIT 1) END
$$;

CREATE FUNCTION take_ready(p_tenant text, p_queues text[], p_kinds text[], p_count integer, p_priority integer,
                           p_since timestamptz) RETURNS SETOF ready
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off AS $$
DECLARE
    v_now timestamptz := statement_timestamp();
    v_paused text[];
    v_lanes text[];
    v_slack CONSTANT integer := 64;   -- candidates beyond what is needed: others may be taking the first ones
    v_few CONSTANT integer := 64;     -- queues, to be looked for among all that waits
    v_sample CONSTANT integer := 32;  -- rows that tell whether it is worth it
    v_least CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    v_greatest CONSTANT uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
    v_is_wide boolean;
    v_is_told boolean := p_priority IS NOT NULL;  -- begin where the caller says
    v_priority integer := 32768;
    v_since timestamptz; -- what stands up to here, in this priority, is taken, held, or not wanted; null: a new priority
    v_after uuid;
    v_until timestamptz; -- how far to look
    v_last uuid;
    v_left integer := p_count;
    v_taken integer;
    v_most integer;      -- candidates to look at: more each time
    v_reach integer;     -- as far as this goes, queues are looked into deeper
    v_depths integer[];  -- rows to look at in each queue, or lane; null: not merging
    v_places tid[];      -- candidates in order (null: a paused one), and where they stand
    v_sinces timestamptz[];
    v_ids uuid[];
    v_ends integer[];    -- the queues whose last row seen is among them, in their order: there may be more of those
    v_cuts integer[];    -- and where that row stands
    v_held tid[];        -- locked by us, so that they stay where they are
BEGIN
    IF p_queues IS NULL AND p_tenant IS NOT NULL OR EXISTS (SELECT FROM queue_pauses) THEN  -- else it is as it says
        SELECT d.queues, d.paused INTO p_queues, v_paused FROM dispatch_scope(p_tenant, p_queues) AS d;
    END IF;
    IF p_kinds IS NOT NULL THEN
        v_lanes := kind_lanes(p_tenant, coalesce(p_queues, queues_of_all()), p_kinds);
    END IF;
    v_is_wide := v_lanes IS NULL AND cardinality(p_queues) BETWEEN 2 AND v_few;
    IF v_is_told THEN
        v_is_told := (SELECT h.priority IS NULL FROM next_head(p_tenant, p_queues, v_lanes, 32768, p_priority, v_now) AS h);
    END IF;
    WHILE v_left > 0 LOOP
        IF v_since IS NULL THEN
            IF v_is_told THEN
                v_priority := p_priority;
                v_since := p_since;
            ELSIF v_is_wide THEN  -- due or not: others may have thousands of priorities that are not
                SELECT h.priority, h.since INTO v_priority, v_since FROM next_head(NULL, NULL, NULL, v_priority, -32769, 'infinity') AS h;
            ELSE
                SELECT h.priority, h.since INTO v_priority, v_since
                FROM next_head(p_tenant, p_queues, v_lanes, v_priority, -32769, v_now) AS h;
            END IF;
            EXIT WHEN v_priority IS NULL;
            v_after := v_least;
            v_most := v_left + v_left / 4 + v_slack;
            v_depths := NULL;
        END IF;
        IF v_is_wide THEN
            SELECT count(*) > 0
                AND 2 * count(*) FILTER (WHERE w.queue = ANY (p_queues) AND (p_tenant IS NULL OR w.tenant = p_tenant)) >= count(*)
            INTO v_is_wide FROM (
                SELECT r.queue, r.tenant FROM ready AS r
                WHERE r.priority::integer = v_priority AND (r.eligible_at, r.id) > (v_since, v_after) AND r.eligible_at <= v_now
                ORDER BY r.eligible_at, r.id LIMIT v_sample) AS w;
            IF NOT v_is_wide THEN
                v_priority := v_priority + 1;  -- that was the first of all of them: once more, of the scope's own
                v_since := NULL;
                CONTINUE;
            END IF;
            SELECT r.eligible_at, r.id INTO v_until, v_last FROM ready AS r
            WHERE r.priority::integer = v_priority AND (r.eligible_at, r.id) > (v_since, v_after) AND r.eligible_at <= v_now
            ORDER BY r.eligible_at, r.id OFFSET v_most - 1 LIMIT 1;
            v_held := ARRAY(
                SELECT r.ctid FROM ready AS r
                WHERE r.priority::integer = v_priority AND (r.eligible_at, r.id) > (v_since, v_after)
                    AND (r.eligible_at, r.id) <= (coalesce(v_until, v_now), coalesce(v_last, v_greatest))
                    AND (r.deadline IS NULL OR r.deadline > v_now)
                    AND r.queue || '' = ANY (p_queues) AND (p_tenant IS NULL OR r.tenant = p_tenant)
                    AND (v_paused IS NULL OR r.tenant || E'\x1f' || r.queue <> ALL (v_paused))
                ORDER BY r.eligible_at, r.id LIMIT v_left FOR UPDATE SKIP LOCKED);
        ELSIF v_lanes IS NULL AND p_queues IS NULL THEN
            v_held := ARRAY(
                SELECT r.ctid FROM ready AS r
                WHERE r.priority::integer = v_priority AND r.eligible_at BETWEEN v_since AND v_now
                    AND (r.deadline IS NULL OR r.deadline > v_now)
                ORDER BY r.eligible_at, r.id LIMIT v_left FOR UPDATE SKIP LOCKED);
        ELSIF v_lanes IS NULL AND p_tenant IS NULL AND cardinality(p_queues) = 1 THEN
            v_held := ARRAY(
                SELECT r.ctid FROM ready AS r
                WHERE r.queue = p_queues[1] AND r.priority = v_priority AND r.eligible_at BETWEEN v_since AND v_now
                    AND (r.deadline IS NULL OR r.deadline > v_now)
                    AND (v_paused IS NULL OR r.tenant || E'\x1f' || r.queue <> ALL (v_paused))
                ORDER BY r.eligible_at, r.id LIMIT v_left FOR UPDATE SKIP LOCKED);
        ELSE
            v_depths := coalesce(v_depths, array_fill(
                least(v_most, v_left / greatest(1, coalesce(cardinality(v_lanes), cardinality(p_queues))) + 8),
                ARRAY[coalesce(cardinality(v_lanes), cardinality(p_queues))]));
            IF v_lanes IS NOT NULL AND p_tenant IS NULL THEN
                SELECT array_agg(m.place), array_agg(m.eligible_at), array_agg(m.id),
                    array_agg(m.ord) FILTER (WHERE m.is_last), array_agg(m.at) FILTER (WHERE m.is_last)
                INTO v_places, v_sinces, v_ids, v_ends, v_cuts FROM (
                    SELECT c.*, k.ord, c.nth = k.depth AS is_last, row_number() OVER (ORDER BY c.eligible_at, c.id) AS at
                    FROM unnest(v_lanes, v_depths) WITH ORDINALITY AS k (lane, depth, ord) CROSS JOIN LATERAL (
                        SELECT CASE WHEN v_paused IS NULL OR r.tenant || E'\x1f' || r.queue <> ALL (v_paused) THEN r.ctid END AS place,
                            r.eligible_at, r.id, row_number() OVER (ORDER BY r.eligible_at, r.id) AS nth
                        FROM ready AS r
                        WHERE r.queue || E'\x1f' || r.kind = k.lane AND r.priority = v_priority
                            AND (r.eligible_at, r.id) > (v_since, v_after) AND r.eligible_at <= v_now
                            AND (r.deadline IS NULL OR r.deadline > v_now)
                        ORDER BY r.eligible_at, r.id LIMIT k.depth) AS c
                    ORDER BY c.eligible_at, c.id LIMIT v_most) AS m;
            ELSIF v_lanes IS NOT NULL THEN
                SELECT array_agg(m.place), array_agg(m.eligible_at), array_agg(m.id),
                    array_agg(m.ord) FILTER (WHERE m.is_last), array_agg(m.at) FILTER (WHERE m.is_last)
                INTO v_places, v_sinces, v_ids, v_ends, v_cuts FROM (
                    SELECT c.*, k.ord, c.nth = k.depth AS is_last, row_number() OVER (ORDER BY c.eligible_at, c.id) AS at
                    FROM unnest(v_lanes, v_depths) WITH ORDINALITY AS k (lane, depth, ord) CROSS JOIN LATERAL (
                        SELECT r.ctid AS place, r.eligible_at, r.id, row_number() OVER (ORDER BY r.eligible_at, r.id) AS nth
                        FROM ready AS r
                        WHERE r.tenant || E'\x1f' || r.queue || E'\x1f' || r.kind = k.lane AND r.tenant <> '' AND r.priority = v_priority
                            AND (r.eligible_at, r.id) > (v_since, v_after) AND r.eligible_at <= v_now
                            AND (r.deadline IS NULL OR r.deadline > v_now)
                        ORDER BY r.eligible_at, r.id LIMIT k.depth) AS c
                    ORDER BY c.eligible_at, c.id LIMIT v_most) AS m;
            ELSIF p_tenant IS NULL THEN
                SELECT array_agg(m.place), array_agg(m.eligible_at), array_agg(m.id),
                    array_agg(m.ord) FILTER (WHERE m.is_last), array_agg(m.at) FILTER (WHERE m.is_last)
                INTO v_places, v_sinces, v_ids, v_ends, v_cuts FROM (
                    SELECT c.*, k.ord, c.nth = k.depth AS is_last, row_number() OVER (ORDER BY c.eligible_at, c.id) AS at
                    FROM unnest(p_queues, v_depths) WITH ORDINALITY AS k (queue, depth, ord) CROSS JOIN LATERAL (
                        SELECT CASE WHEN v_paused IS NULL OR r.tenant || E'\x1f' || r.queue <> ALL (v_paused) THEN r.ctid END AS place,
                            r.eligible_at, r.id, row_number() OVER (ORDER BY r.eligible_at, r.id) AS nth
                        FROM ready AS r
                        WHERE r.queue = k.queue AND r.priority = v_priority
                            AND (r.eligible_at, r.id) > (v_since, v_after) AND r.eligible_at <= v_now
                            AND (r.deadline IS NULL OR r.deadline > v_now)
                        ORDER BY r.eligible_at, r.id LIMIT k.depth) AS c
                    ORDER BY c.eligible_at, c.id LIMIT v_most) AS m;
            ELSE
                SELECT array_agg(m.place), array_agg(m.eligible_at), array_agg(m.id),
                    array_agg(m.ord) FILTER (WHERE m.is_last), array_agg(m.at) FILTER (WHERE m.is_last)
                INTO v_places, v_sinces, v_ids, v_ends, v_cuts FROM (
                    SELECT c.*, k.ord, c.nth = k.depth AS is_last, row_number() OVER (ORDER BY c.eligible_at, c.id) AS at
                    FROM unnest(p_queues, v_depths) WITH ORDINALITY AS k (queue, depth, ord) CROSS JOIN LATERAL (
                        SELECT r.ctid AS place, r.eligible_at, r.id, row_number() OVER (ORDER BY r.eligible_at, r.id) AS nth
                        FROM ready AS r
                        WHERE r.tenant || E'\x1f' || r.queue = p_tenant || E'\x1f' || k.queue AND r.tenant <> ''
                            AND r.priority = v_priority
                            AND (r.eligible_at, r.id) > (v_since, v_after) AND r.eligible_at <= v_now
                            AND (r.deadline IS NULL OR r.deadline > v_now)
                        ORDER BY r.eligible_at, r.id LIMIT k.depth) AS c
                    ORDER BY c.eligible_at, c.id LIMIT v_most) AS m;
            END IF;
            v_places := v_places[:coalesce(v_cuts[1], v_most)];
            v_held := ARRAY(
                SELECT r.ctid FROM unnest(v_places) AS c (place) CROSS JOIN LATERAL (
                    SELECT w.ctid FROM ready AS w WHERE w.ctid = c.place FOR UPDATE SKIP LOCKED) AS r
                LIMIT v_left);
        END IF;
        RETURN QUERY DELETE FROM ready AS r WHERE r.ctid = ANY (v_held) RETURNING r.*;
        GET DIAGNOSTICS v_taken = ROW_COUNT;
        IF v_is_wide THEN
            v_since := v_until;
            v_after := v_last;
        ELSIF v_depths IS NULL OR v_ends IS NULL AND coalesce(cardinality(v_places), 0) < v_most THEN
            v_since := NULL;  -- all of this priority was seen
        ELSE
            v_since := v_sinces[cardinality(v_places)];
            v_after := v_ids[cardinality(v_places)];
            v_reach := CASE WHEN v_taken < cardinality(v_places) THEN greatest(v_left, v_most / 2) ELSE v_left END;
            FOR i IN 1 .. coalesce(cardinality(v_ends), 0) LOOP
                EXIT WHEN i > 1 AND v_cuts[i] > v_reach;
                v_depths[v_ends[i]] := least(v_most, 8 * v_depths[v_ends[i]]);
            END LOOP;
        END IF;
        v_left := v_left - v_taken;
        v_most := least(2 * v_most, 1000000);
        IF v_since IS NULL AND v_is_told THEN
            v_is_told := false;
            v_priority := 32768;  -- too little from there on: begin at the true head
        END IF;
    END LOOP;
END $$;

CREATE FUNCTION next_head(p_tenant text, p_queues text[], p_lanes text[], p_below integer, p_above integer,
                          p_due timestamptz, OUT priority integer, OUT since timestamptz)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    LOOP
        IF p_lanes IS NOT NULL AND p_tenant IS NULL THEN
            SELECT t.priority, min(t.eligible_at) INTO priority, since
            FROM unnest(p_lanes) AS k (lane) CROSS JOIN LATERAL (
                SELECT r.priority, r.eligible_at FROM ready AS r
                WHERE r.queue || E'\x1f' || r.kind = k.lane
                    AND r.priority < p_below AND r.priority > p_above
                ORDER BY r.priority DESC, r.eligible_at LIMIT 1) AS t
            GROUP BY t.priority ORDER BY t.priority DESC LIMIT 1;
        ELSIF p_lanes IS NOT NULL THEN
            SELECT t.priority, min(t.eligible_at) INTO priority, since
            FROM unnest(p_lanes) AS k (lane) CROSS JOIN LATERAL (
                SELECT r.priority, r.eligible_at FROM ready AS r
                WHERE r.tenant || E'\x1f' || r.queue || E'\x1f' || r.kind = k.lane AND r.tenant <> ''
                    AND r.priority < p_below AND r.priority > p_above
                ORDER BY r.priority DESC, r.eligible_at LIMIT 1) AS t
            GROUP BY t.priority ORDER BY t.priority DESC LIMIT 1;
        ELSIF p_queues IS NULL THEN
            SELECT r.priority::integer, r.eligible_at INTO priority, since FROM ready AS r
            WHERE r.priority::integer < p_below AND r.priority::integer > p_above
            ORDER BY r.priority::integer DESC, r.eligible_at LIMIT 1;
        ELSIF p_tenant IS NULL AND cardinality(p_queues) = 1 THEN
            SELECT r.priority, r.eligible_at INTO priority, since FROM ready AS r
            WHERE r.queue = p_queues[1] AND r.priority < p_below AND r.priority > p_above
            ORDER BY r.priority DESC, r.eligible_at LIMIT 1;
        ELSIF p_tenant IS NULL THEN
            SELECT t.priority, min(t.eligible_at) INTO priority, since
            FROM unnest(p_queues) AS q (queue) CROSS JOIN LATERAL (
                SELECT r.priority, r.eligible_at FROM ready AS r
                WHERE r.queue = q.queue AND r.priority < p_below AND r.priority > p_above
                ORDER BY r.priority DESC, r.eligible_at LIMIT 1) AS t
            GROUP BY t.priority ORDER BY t.priority DESC LIMIT 1;
        ELSE
            SELECT t.priority, min(t.eligible_at) INTO priority, since
            FROM unnest(p_queues) AS q (queue) CROSS JOIN LATERAL (
                SELECT r.priority, r.eligible_at FROM ready AS r
                WHERE r.tenant || E'\x1f' || r.queue = p_tenant || E'\x1f' || q.queue AND r.tenant <> ''
                    AND r.priority < p_below AND r.priority > p_above
                ORDER BY r.priority DESC, r.eligible_at LIMIT 1) AS t
            GROUP BY t.priority ORDER BY t.priority DESC LIMIT 1;
        END IF;
        EXIT WHEN since <= p_due OR since IS NULL;
        p_below := priority;
    END LOOP;
END $$;

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

CREATE FUNCTION queues_of_all() RETURNS text[] LANGUAGE sql STABLE AS $$
    WITH RECURSIVE found AS (
        (SELECT queue FROM ready ORDER BY queue LIMIT 1)
        UNION ALL
        SELECT (SELECT r.queue FROM ready AS r WHERE r.queue > f.queue ORDER BY r.queue LIMIT 1)
        FROM found AS f WHERE f.queue IS NOT NULL)
    SELECT coalesce(array_agg(queue), '{}') FROM found WHERE queue IS NOT NULL
$$;

CREATE FUNCTION next_eligible(p_tenant text, p_queues text[], p_kinds text[]) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_priority integer := 32768;
    v_first timestamptz;
    v_soonest timestamptz;
    v_paused text[];
    v_lanes text[];
BEGIN
    SELECT d.queues, d.paused INTO p_queues, v_paused FROM dispatch_scope(p_tenant, p_queues) AS d;
    IF p_kinds IS NOT NULL THEN
        v_lanes := kind_lanes(p_tenant, coalesce(p_queues, queues_of_all()), p_kinds);
    END IF;
    LOOP
        SELECT h.priority, h.since INTO v_priority, v_first
        FROM next_head(p_tenant, p_queues, v_lanes, v_priority, -32769, 'infinity') AS h;
        EXIT WHEN v_priority IS NULL;
        IF v_paused IS NOT NULL AND v_lanes IS NOT NULL THEN
            v_first := (SELECT min(t.eligible_at) FROM unnest(v_lanes) AS k (lane) CROSS JOIN LATERAL (
                SELECT r.eligible_at FROM ready AS r
                WHERE r.queue || E'\x1f' || r.kind = k.lane AND r.priority = v_priority AND r.eligible_at >= v_first
                    AND r.tenant || E'\x1f' || r.queue <> ALL (v_paused)
                ORDER BY r.eligible_at LIMIT 1) AS t);
        ELSIF v_paused IS NOT NULL THEN
            v_first := (SELECT min(t.eligible_at) FROM unnest(p_queues) AS q (queue) CROSS JOIN LATERAL (
                SELECT r.eligible_at FROM ready AS r
                WHERE r.queue = q.queue AND r.priority = v_priority AND r.eligible_at >= v_first
                    AND r.tenant || E'\x1f' || r.queue <> ALL (v_paused)
                ORDER BY r.eligible_at LIMIT 1) AS t);
        END IF;
        v_soonest := least(v_soonest, v_first);
        EXIT WHEN v_soonest <= statement_timestamp();
    END LOOP;
    RETURN v_soonest;
END $$;

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

CREATE FUNCTION oldest_eligible(p_tenant text, p_queue text) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_priority integer := 32768;
    v_first timestamptz;
    v_oldest timestamptz;
BEGIN
    LOOP
        SELECT h.priority, h.since INTO v_priority, v_first
        FROM next_head(nullif(p_tenant, ''), ARRAY[p_queue], NULL, v_priority, -32769, statement_timestamp()) AS h;
        EXIT WHEN v_priority IS NULL;
        IF p_tenant = '' THEN
            v_first := (SELECT r.eligible_at FROM ready AS r
                        WHERE r.queue = p_queue AND r.priority = v_priority AND r.eligible_at >= v_first AND r.tenant = ''
                        ORDER BY r.eligible_at LIMIT 1);
        END IF;
        v_oldest := least(v_oldest, v_first);
    END LOOP;
    RETURN CASE WHEN v_oldest <= statement_timestamp() THEN v_oldest END;
END $$;

CREATE FUNCTION rfc3339(moment timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT to_char($1, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;

CREATE FUNCTION refuse(field text, rule text, code text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = field || ' ' || rule, COLUMN = field, DETAIL = code;
END $$;

CREATE FUNCTION check_name(field text, value text, most integer) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF value IS NULL THEN
        PERFORM refuse(field, 'is required', 'BAD_USER_INPUT');
    ELSIF length(value) > most THEN
        PERFORM refuse(field, format('must have at most %s characters, not %s', most, length(value)), 'BAD_USER_INPUT');
    ELSIF value ~ E'^[\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*$' THEN
        PERFORM refuse(field, 'must not be blank', 'BAD_USER_INPUT');
    ELSIF value ~ E'[\u0001-\u001f\u007f-\u009f\u2028\u2029]' THEN
        PERFORM refuse(field, 'must not contain control characters', 'BAD_USER_INPUT');
    END IF;
END $$;

CREATE FUNCTION check_range(field text, value integer, lowest integer, highest integer) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF value NOT BETWEEN lowest AND highest THEN
        PERFORM refuse(field, format('must be from %s to %s, not %s', lowest, highest, value), 'BAD_USER_INPUT');
    END IF;
END $$;

CREATE FUNCTION check_moment(field text, value timestamptz) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF value NOT BETWEEN '1970-01-01T00:00:00Z' AND '9000-01-01T00:00:00Z' THEN
        PERFORM refuse(field, 'must lie between the years 1970 and 9000', 'BAD_USER_INPUT');
    END IF;
END $$;

CREATE FUNCTION is_double(value numeric) RETURNS boolean LANGUAGE sql IMMUTABLE SET extra_float_digits = 1 AS $$
    SELECT $1::float8::text::numeric = $1
$$;

CREATE FUNCTION check_payload(value jsonb) RETURNS void LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_text text := value;
    v_bytes bigint := octet_length(v_text);
    v_most bigint := coalesce(nullif(current_setting('atomo.max_body', true), '')::bigint, 1048576);
    v_number numeric;
BEGIN
    IF length(v_text) - length(translate(v_text, '[{', '')) > 250
        AND jsonb_path_exists(value, 'strict $.**{250} ? (@.type() == "array" || @.type() == "object")') THEN
        PERFORM refuse('payload', 'must not be nested deeper than 250 levels', 'BAD_USER_INPUT');
    END IF;
    IF v_text ~ '[0-9]{19}' THEN
        FOR v_number IN SELECT n::numeric FROM jsonb_path_query(
            value, 'strict $.** ? (@ > 18446744073709551615 || @ < -9223372036854775808)') AS n
        LOOP
            IF abs(v_number) > 1.797693134862315807e308 THEN
                PERFORM refuse('payload', 'must not contain numbers that are not finite', 'BAD_USER_INPUT');
            ELSIF scale(v_number) = 0 AND NOT is_double(v_number) THEN
                PERFORM refuse('payload', 'must not contain whole numbers beyond 64 bits', 'BAD_USER_INPUT');
            END IF;
        END LOOP;
    END IF;
    IF v_bytes > v_most THEN  -- without the spaces that PostgreSQL puts between the parts
        v_text := regexp_replace(v_text, E'"([^"\\\\]|\\\\.)*"', '', 'g');
        v_bytes := v_bytes - length(v_text) + length(replace(v_text, ' ', ''));
        IF v_bytes > v_most THEN
            PERFORM refuse('payload', format('must have at most %s bytes, not %s', v_most, v_bytes), 'PAYLOAD_TOO_LARGE');
        END IF;
    END IF;
END $$;

CREATE FUNCTION enqueue_job(queue text, kind text, payload jsonb DEFAULT '{}', idempotency_key text DEFAULT NULL,
                            max_attempts integer DEFAULT 5, priority integer DEFAULT 0, run_at timestamptz DEFAULT NULL,
                            tenant_id text DEFAULT NULL, timeout_secs integer DEFAULT NULL, deadline timestamptz DEFAULT NULL,
                            actor text DEFAULT NULL, traceparent text DEFAULT NULL)
RETURNS uuid LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = atomo, pg_temp SET timezone = 'UTC' SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_queue CONSTANT text := queue;
    v_key CONSTANT text := idempotency_key;
    v_tenant CONSTANT text := coalesce(tenant_id, '');
    v_payload CONSTANT jsonb := coalesce(payload, 'null');
    v_max_attempts CONSTANT integer := coalesce(max_attempts, 5);
    v_priority CONSTANT integer := coalesce(priority, 0);
    v_actor CONSTANT text := coalesce(actor, 'system:sql ' || session_user);
    v_at CONSTANT timestamptz := clock_timestamp();
    v_id CONSTANT uuid := nth_id((extract(epoch FROM v_at) * 1000000)::bigint, gen_random_uuid(), 0);
    v_job_id uuid;
BEGIN
    IF queue = '*' THEN
        PERFORM refuse('queue', 'must name one queue; "*" stands for all of them', 'BAD_USER_INPUT');
    END IF;
    PERFORM check_name('queue', queue, 200);
    PERFORM check_name('kind', kind, 200);
    IF v_key IS NOT NULL THEN
        PERFORM check_name('idempotencyKey', v_key, 512);
    END IF;
    PERFORM check_range('maxAttempts', v_max_attempts, 1, 1000);
    PERFORM check_range('priority', v_priority, -32767, 32767);
    PERFORM check_range('timeoutSecs', timeout_secs, 1, 604800);
    PERFORM check_moment('runAt', run_at);
    PERFORM check_moment('deadline', deadline);
    IF deadline <= run_at THEN
        PERFORM refuse('deadline', 'must be after runAt', 'BAD_USER_INPUT');
    END IF;
    PERFORM check_payload(v_payload);
    IF tenant_id IS NOT NULL THEN
        PERFORM check_name('tenantId', tenant_id, 200);
    END IF;
    IF octet_length(v_key) + octet_length(v_queue) + octet_length(v_tenant) > 2600 THEN  -- what the index of keys holds
        PERFORM refuse('idempotencyKey', format('must have at most 2600 bytes, together with queue and tenant, not %s',
            octet_length(v_key) + octet_length(v_queue) + octet_length(v_tenant)), 'BAD_USER_INPUT');
    END IF;
    IF actor IS NOT NULL THEN
        PERFORM check_name('actor', actor, 520);
        IF actor !~ '^(user|system):.' THEN
            PERFORM refuse('actor', 'must begin with user: or system:', 'BAD_USER_INPUT');
        END IF;
    END IF;

    IF v_key IS NOT NULL THEN
        SELECT k.job_id INTO v_job_id FROM idempotency_keys AS k
        WHERE k.tenant = v_tenant AND k.queue = v_queue AND k.key = v_key;
        IF v_job_id IS NULL THEN
            INSERT INTO idempotency_keys AS k (tenant, queue, key, job_id) VALUES (v_tenant, v_queue, v_key, v_id)
            ON CONFLICT (tenant, queue, key) DO UPDATE SET job_id = k.job_id
            RETURNING k.job_id INTO v_job_id;
        END IF;
        IF v_job_id <> v_id THEN
            RETURN v_job_id;
        END IF;
    END IF;
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, trace, data)
    VALUES (v_id, 1, v_at, 'Job', 'enqueued', v_tenant, v_actor,
            CASE WHEN traceparent ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$' THEN traceparent END,
            jsonb_build_object('queue', v_queue, 'kind', kind, 'payload', v_payload, 'priority', v_priority,
                               'maxAttempts', v_max_attempts, 'runAt', run_at, 'idempotencyKey', v_key)
            || CASE WHEN timeout_secs IS NULL AND deadline IS NULL THEN '{}'
                    ELSE jsonb_build_object('timeoutSecs', timeout_secs, 'deadline', deadline) END);
    INSERT INTO job_records (id, created_at, run_at, priority, max_attempts, tenant, queue, kind, idempotency_key,
                             timeout_secs, deadline)
    VALUES (v_id, v_at, run_at, v_priority, v_max_attempts, v_tenant, v_queue, kind, v_key, timeout_secs, deadline);
    IF NOT EXISTS (SELECT FROM lanes AS l WHERE l.queue = v_queue AND l.tenant = v_tenant)
        AND pg_try_advisory_xact_lock(hashtextextended('lane ' || v_tenant || E'\x1f' || v_queue, 0)) THEN
        INSERT INTO lanes (tenant, queue) VALUES (v_tenant, v_queue) ON CONFLICT DO NOTHING;
    END IF;
    INSERT INTO ready (id, eligible_at, version, priority, attempts, max_attempts, tenant, queue, kind, deliveries,
                       timeout_secs, deadline)
    VALUES (v_id, greatest(run_at, v_at), 1, v_priority, 0, v_max_attempts, v_tenant, v_queue, kind, 0, timeout_secs, deadline);
    IF coalesce(nullif(current_setting('atomo.wake', true), ''), 'on')::boolean THEN
        PERFORM pg_notify('atomo', json_build_array('sql', json_build_array('q', v_tenant, v_queue))::text);
    END IF;
    RETURN v_id;
END $$;

REVOKE EXECUTE ON FUNCTION enqueue_job(text, text, jsonb, text, integer, integer, timestamptz, text, integer, timestamptz,
                                       text, text) FROM PUBLIC;

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
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', v_name, v_parent);
            IF v_parent = 'events' THEN  -- INCLUDING ALL is all but this
                EXECUTE format('ALTER TABLE %I ALTER COLUMN data SET STATISTICS 0', v_name);
            END IF;
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', v_parent, v_name,
                           first_id_at(v_day), first_id_at(v_day + interval '1 day'));
            v_made := v_made + 1;
        END LOOP;
    END LOOP;
    RETURN v_made;
END $$;

CREATE VIEW partition_days AS
SELECT
    right(c.relname, 8) AS day,
    (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''([^'']+)''\)'))[1]::uuid AS first_id,
    (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''([^'']+)''\)'))[1]::uuid AS end_id
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'job_records'::regclass
ORDER BY 1;

CREATE FUNCTION drop_partition_pair(p_day text, p_succeeded timestamptz, p_dead timestamptz) RETURNS boolean
LANGUAGE plpgsql SET lock_timeout = '2s' AS $$
DECLARE
    v_kept boolean;
    v_first uuid;
    v_end uuid;
BEGIN
    SELECT p.first_id, p.end_id INTO v_first, v_end FROM partition_days AS p WHERE p.day = p_day;
    EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE type = ''succeeded'' AND ($1 IS NULL OR at >= $1))', 'events_' || p_day)
        INTO v_kept USING p_succeeded;
    v_kept := v_kept OR EXISTS (SELECT FROM ready WHERE id >= v_first AND id < v_end)
        OR EXISTS (SELECT FROM leases WHERE id >= v_first AND id < v_end)
        OR EXISTS (SELECT FROM dead WHERE id >= v_first AND id < v_end AND (p_dead IS NULL OR finished_at >= p_dead));
    IF v_kept THEN
        RETURN false;
    END IF;
    EXECUTE format('ALTER TABLE events DETACH PARTITION %I', 'events_' || p_day);
    IF EXISTS (SELECT FROM ready WHERE id >= v_first AND id < v_end) THEN  -- retried by hand while we waited for the table
        RAISE lock_not_available USING MESSAGE = 'a job of that day is queued again';
    END IF;
    EXECUTE format('INSERT INTO events SELECT * FROM %I WHERE stream <> ''Job''', 'events_' || p_day);
    DELETE FROM dead WHERE id >= v_first AND id < v_end;
    EXECUTE format('DROP TABLE %I, %I', 'job_records_' || p_day, 'events_' || p_day);
    RETURN true;
END $$;

CREATE TABLE workflows (
    id                 uuid NOT NULL PRIMARY KEY,  -- names the stream 'Definition'
    tenant             text COLLATE "C" NOT NULL,  -- '' is: of the service, for every tenant
    name               text COLLATE "C" NOT NULL,
    definition_version integer NOT NULL,           -- the newest; runs begin with it
    version            integer NOT NULL,           -- of the stream's newest event
    model              text COLLATE "C",           -- of the events that start it
    event_type         text COLLATE "C",
    timeout_secs       integer,                    -- that a run may take
    since_xid          bigint NOT NULL,            -- events of older transactions do not start it
    next_at            timestamptz,                -- the next tick of its schedule; null: none, or paused
    is_scheduled       boolean NOT NULL,
    paused_at          timestamptz,                -- its schedule, or its trigger
    paused_by          text,
    registered_at      timestamptz NOT NULL,
    registered_by      text NOT NULL,
    source_file        text,                       -- that it was read from; null: registered by a call
    removed_at         timestamptz,                -- no run begins any more; those under way go on
    UNIQUE (tenant, name)
);

CREATE INDEX workflows_due ON workflows (next_at) WHERE next_at IS NOT NULL;  -- schedule_due

CREATE TABLE workflow_definitions (
    workflow_id   uuid NOT NULL,
    version       integer NOT NULL,
    source        json NOT NULL,  -- as it was given; jsonb would put the fields in another order
    registered_at timestamptz NOT NULL,
    registered_by text NOT NULL,
    PRIMARY KEY (workflow_id, version)
);

CREATE TABLE workflow_runs (
    id                 uuid NOT NULL PRIMARY KEY,
    tenant             text COLLATE "C" NOT NULL,
    workflow           text COLLATE "C" NOT NULL,
    workflow_id        uuid NOT NULL,
    definition_version integer NOT NULL,
    status             text NOT NULL,              -- Running, Paused (parked; goes on by itself), Completed, Failed
    steps_run          integer NOT NULL,
    version            integer NOT NULL,
    via                jsonb NOT NULL,             -- the actions and workflows that led to it, the first of them first
    started_at         timestamptz NOT NULL,
    changed_at         timestamptz NOT NULL,
    finished_at        timestamptz,
    timeout_at         timestamptz,
    wake_at            timestamptz,                -- when there is something to do that no job's end tells of
    actor              text NOT NULL,
    trace              text,
    key                text COLLATE "C",           -- the same key is the same run; of a tick, or an event, too
    trigger            jsonb NOT NULL,
    context            jsonb NOT NULL,
    steps              jsonb NOT NULL,             -- the states of those that have begun, by name
    errors             jsonb NOT NULL,
    bytes              integer NOT NULL            -- of context and steps: how many fit into one turn of the engine
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX workflow_runs_due ON workflow_runs (wake_at) WHERE wake_at IS NOT NULL;                   -- run_due
CREATE UNIQUE INDEX workflow_runs_by_key ON workflow_runs (workflow_id, tenant, key) WHERE key IS NOT NULL;
CREATE INDEX workflow_runs_by_workflow ON workflow_runs (workflow, id);                                -- run_page
CREATE INDEX workflow_runs_by_tenant ON workflow_runs (tenant, id) WHERE tenant <> '';                 -- run_page
CREATE INDEX workflow_runs_by_status ON workflow_runs (status, id);                                    -- run_page
CREATE INDEX workflow_runs_ended ON workflow_runs (status, finished_at) WHERE finished_at IS NOT NULL; -- run_forget

CREATE TABLE run_waits (
    job_id    uuid NOT NULL,
    run_id    uuid NOT NULL,
    step      text NOT NULL,
    is_shared boolean NOT NULL,  -- somebody else had enqueued the job: it may have ended unmarked, so it is looked after
    ended_at  timestamptz,
    PRIMARY KEY (job_id, run_id, step)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX run_waits_ended ON run_waits (ended_at) WHERE ended_at IS NOT NULL;  -- run_due
CREATE INDEX run_waits_shared ON run_waits (job_id) WHERE is_shared AND ended_at IS NULL;  -- wait_settle
CREATE INDEX run_waits_by_run ON run_waits (run_id);

CREATE TABLE model_streams (
    tenant    text COLLATE "C" NOT NULL,
    model     text COLLATE "C" NOT NULL,
    entity_id text COLLATE "C" NOT NULL,
    stream_id uuid NOT NULL,
    version   integer NOT NULL,
    PRIMARY KEY (tenant, model, entity_id)
);

CREATE TABLE recorded_ids (
    tenant      text COLLATE "C" NOT NULL,
    event_id    text COLLATE "C" NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, event_id)
);

CREATE INDEX recorded_ids_by_age ON recorded_ids USING brin (recorded_at);  -- record_forget

CREATE TABLE bindings (
    id            uuid NOT NULL PRIMARY KEY,  -- names the stream 'Binding'
    tenant        text COLLATE "C" NOT NULL,  -- '' is: of the service, for every tenant's events
    model         text COLLATE "C" NOT NULL,
    event         text COLLATE "C" NOT NULL,
    action        text COLLATE "C" NOT NULL,
    queue         text COLLATE "C" NOT NULL,
    condition     jsonb,
    input         text[],                     -- the fields of the data that the job gets; null: all
    version       integer NOT NULL,           -- of the stream's newest event
    since_xid     bigint NOT NULL,            -- events of older transactions are not its own
    registered_at timestamptz NOT NULL,
    registered_by text NOT NULL,
    source_file   text,                       -- that it was read from; null: registered by a call
    removed_at    timestamptz,
    set_aside_at  timestamptz,                -- it failed, and fires no more until it is resumed
    error         text,
    at_xid        bigint,
    at_position   bigint
);

CREATE INDEX bindings_alive ON bindings (tenant, model, event, action) WHERE removed_at IS NULL;  -- binding_put

CREATE TABLE checkpoints (
    consumer   text NOT NULL PRIMARY KEY,
    xid        bigint NOT NULL,
    position   bigint NOT NULL,
    changed_at timestamptz NOT NULL
);

INSERT INTO checkpoints (consumer, xid, position, changed_at)
VALUES ('actions', pg_current_xact_id()::text::bigint, 0, statement_timestamp());
