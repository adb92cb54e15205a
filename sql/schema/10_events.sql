-- The event store: the truth. Everything else in this schema can be derived from it.
--
-- Each thing that has a life (a job, a pause of a queue, a worker token, a run of a workflow) is a stream; each transition
-- of it is one event, numbered 1, 2, 3 … without gaps by the primary key. An event is written in the statement that changes the projection, so neither exists without
-- the other. Nothing ever updates an event; retention drops whole partitions.
--
-- Streams are named by UUIDv7 (see new_id), which begins with its time: `events` and `job_records` are partitioned by
-- the same ranges of ids, one pair a day, so that one job's whole story lies in one pair (partitions.sql).

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

-- Large payloads are compressed; with LZ4, where this PostgreSQL was built with it, several times faster than otherwise.
DO $$ BEGIN
    ALTER TABLE events ALTER COLUMN data SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL;
END $$;

CREATE INDEX events_in_commit_order ON events (xid, position);  -- event_tail
CREATE INDEX events_recorded ON events (xid, position) WHERE stream = 'Model';  -- dispatch_read, record_forget

-- Pauses and tokens may outlive the day they began on: when retention drops that day, their events go here, and so does
-- what happens to them after it.
CREATE TABLE events_kept PARTITION OF events DEFAULT;

-- No plan depends on what is in an event's data, and to sort a sample of it was most of what analyzing the table cost.
ALTER TABLE events ALTER COLUMN data SET STATISTICS 0;

-- Strong random bytes are dear, so a statement draws one uuid and derives the others that it needs: nobody can tell one of
-- them from another without the one it was drawn from, which nobody is told.
CREATE FUNCTION derived(secret uuid, n bigint, bytes integer) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT substr(sha256(uuid_send($1) || int8send($2)), 1, $3)
$$;

-- The n-th of a secret's ids, with the marks of a random one (RFC 9562 §5.4); 112 of its bits nobody can tell.
CREATE FUNCTION nth_secret_id(secret uuid, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT encode(set_byte(set_byte(derived($1, $2, 16), 6, 64), 8, 128), 'hex')::uuid
$$;

CREATE FUNCTION microseconds_now() RETURNS bigint LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
$$;

-- A time-ordered id, after RFC 9562 §5.7 and §6.2 method 3: 48 bits of milliseconds, 12 bits of their fraction, then 8
-- fixed bits for the cell (a shard; 0 today) and 48 random ones. A statement that needs many takes the n-th of a moment,
-- a microsecond apart, and they keep their order.
CREATE FUNCTION nth_id(us bigint, secret uuid, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT encode(int8send((($1 + $3) / 1000) << 16 | 28672 | ($1 + $3) % 1000 * 4096 / 1000)
                  || set_byte(set_byte(derived($2, $3, 8), 0, 128), 1, 0), 'hex')::uuid
$$;

CREATE FUNCTION new_id() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT nth_id(microseconds_now(), gen_random_uuid(), 0)
$$;

-- The smallest id of a moment: where a partition begins, and where a range of time begins in a query.
CREATE FUNCTION first_id_at(moment timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid
$$;
