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
