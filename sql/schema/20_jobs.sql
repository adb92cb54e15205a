-- The projection of the job streams: a job's home tells its state.
--
--   ready        queued: one narrow row per job that waits for a worker, for its time or for its retry
--   leases       leased: one narrow row per job that is with a worker
--   dead         dead: one row per dead letter
--   (none)       succeeded: its last event says how, and is the only thing that a success writes
--   job_records  every job: what was enqueued, written once
--
-- The hot two stay as small as the work at hand however long the history grows, and dispatch reads nothing else. Nothing
-- that grows is ever rewritten. Payload and result are in no row of the projection at all: each is kept once, in its event.

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
-- job_page, by when they ended. Events come nearly in the order of time, so a few bytes for each 32 pages say enough.
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

-- One index for each way a lease asks (40_dispatch.sql). Within a queue and a priority the rows that are due come first,
-- so those that are not due yet are never in the way. The expressions are there to keep the planner from answering one
-- way with the index of another and a filter, which is fast on a small table and a scan of everybody's backlog on a big
-- one. U+001F occurs in no tenant's, no queue's and no kind's name.
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

-- Lease requests that were answered, so that the same one again gets the same leases, and no others, long after those
-- have ended. Kept as long as the leases it gave could live unattended, and ten minutes at least.
CREATE TABLE lease_requests (
    worker_id  uuid NOT NULL,
    request_id text NOT NULL,
    expires_at timestamptz NOT NULL,
    leased_at  timestamptz NOT NULL,  -- by it and the worker the leases are known that are still those
    job_ids    uuid[] NOT NULL,       -- a hundred of them stay below the two kilobytes from which a row is taken apart
    PRIMARY KEY (worker_id, request_id)
);

CREATE INDEX lease_requests_by_end ON lease_requests (expires_at);  -- lease_requests_forget

-- The same tenant, queue and key is the same job. Kept apart from the jobs, because a partitioned table can hold no
-- uniqueness across its partitions.
CREATE TABLE idempotency_keys (
    tenant text COLLATE "C" NOT NULL,
    queue  text COLLATE "C" NOT NULL,
    key    text COLLATE "C" NOT NULL,
    job_id uuid NOT NULL,
    PRIMARY KEY (tenant, queue, key)
);

CREATE INDEX idempotency_keys_by_key ON idempotency_keys (key);     -- job_page
CREATE INDEX idempotency_keys_by_job ON idempotency_keys (job_id);  -- retention_forget_keys

-- The projection in one piece, a row per job: what queries read, and what a rebuild compares, column for column. The
-- lease under which a job ended is the event before its end.
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
