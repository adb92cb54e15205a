-- Workflows and actions.
CREATE INDEX events_recorded ON events (xid, position) WHERE stream = 'Model';

ALTER TABLE job_records ADD COLUMN run_id uuid;
CREATE INDEX job_records_by_run ON job_records (run_id, id) WHERE run_id IS NOT NULL;

CREATE OR REPLACE VIEW jobs AS
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

-- Workflows: definitions in versions, and runs. A run is a stream of its own; the engine (service/workflows/engine.py)
-- decides which events follow, and writes them together with the run's row, the jobs its steps enqueue and what it
-- then waits for, in one transaction.

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

-- Every version there has been: a run keeps the one it began with.
CREATE TABLE workflow_definitions (
    workflow_id   uuid NOT NULL,
    version       integer NOT NULL,
    source        json NOT NULL,  -- as it was given; jsonb would put the fields in another order
    registered_at timestamptz NOT NULL,
    registered_by text NOT NULL,
    PRIMARY KEY (workflow_id, version)
);

-- The projection of the streams 'Workflow'.
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

-- The jobs whose end runs wait for. Whatever ends a job marks its rows, in the same statement; the engine takes them
-- away when the run has gone on. Apart from the runs, so that the two never wait for each other.
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

-- Actions: what applications record of their models, and the bindings that make jobs of it.

-- One stream for each thing that something was recorded of, so that its events have an order of their own.
CREATE TABLE model_streams (
    tenant    text COLLATE "C" NOT NULL,
    model     text COLLATE "C" NOT NULL,
    entity_id text COLLATE "C" NOT NULL,
    stream_id uuid NOT NULL,
    version   integer NOT NULL,
    PRIMARY KEY (tenant, model, entity_id)
);

-- The same event id of a tenant is the same event.
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
    -- Where it is in the log while it is set aside, or behind the others after that; null: with the others.
    at_xid        bigint,
    at_position   bigint
);

CREATE INDEX bindings_alive ON bindings (tenant, model, event, action) WHERE removed_at IS NULL;  -- binding_put

-- How far a consumer of the log is: all before that place is done. Whoever goes on with it holds the row's lock.
CREATE TABLE checkpoints (
    consumer   text NOT NULL PRIMARY KEY,
    xid        bigint NOT NULL,
    position   bigint NOT NULL,
    changed_at timestamptz NOT NULL
);

INSERT INTO checkpoints (consumer, xid, position, changed_at)
VALUES ('actions', pg_current_xact_id()::text::bigint, 0, statement_timestamp());
