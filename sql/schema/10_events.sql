-- The event store: the truth. Everything else in this schema can be derived from it.
--
-- Each thing that has a life (a job, a pause of a queue, a worker token, a run of a workflow) is a stream; each transition
-- of it is one event, numbered 1, 2, 3 … without gaps by the primary key. An event is written in the statement that changes the projection, so neither exists without
-- the other. Nothing ever updates an event; retention drops whole partitions.
--
-- Streams are named by UUIDv7 (see new_id), which begins with its time: `events` and `job_records` are partitioned by
-- the same ranges of ids, so that one job's whole story lies in one pair of partitions (50_partitions.sql).

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
    -- A reader that tails the log goes by (xid, position) and stops below the oldest running transaction: positions are
    -- handed out before commit, so by position alone a late commit would be missed. Where the schema came from another
    -- cluster, whose ids were higher, a constant is added to xid by default (functions/60_order.sql).
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

-- Large payloads are compressed; with LZ4, where this PostgreSQL was built with it, several times faster than otherwise.
DO $$ BEGIN
    ALTER TABLE events ALTER COLUMN data SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL;
END $$;

CREATE INDEX events_in_commit_order ON events (xid, position);  -- event_tail
CREATE INDEX events_recorded ON events (xid, position) WHERE stream = 'Model';  -- dispatch_read, record_forget

-- No plan depends on what is in an event's data, and to sort a sample of it was most of what analyzing the table cost.
ALTER TABLE events ALTER COLUMN data SET STATISTICS 0;
