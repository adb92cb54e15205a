-- The event store: the truth. Everything else in this schema can be derived from it.
--
-- Each thing that has a life (a job, a pause of a queue, a worker token) is a stream; each transition of it is one event, numbered 1, 2, 3 … without
-- gaps by the primary key. An event is written in the statement that changes the projection, so neither exists without
-- the other. Nothing ever updates an event; retention drops whole partitions.
--
-- Streams are named by UUIDv7 (see new_id), which begins with its time: `events` and `job_records` are partitioned by
-- the same ranges of ids, one pair a day, so that one job's whole story lies in one pair (partitions.sql).

CREATE TYPE stream_type AS ENUM ('Job', 'Queue', 'WorkerToken');

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
    'revoked'
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

-- Pauses and tokens may outlive the day they began on: when retention drops that day, their events go here, and so does
-- what happens to them after it.
CREATE TABLE events_kept PARTITION OF events DEFAULT;

-- A time-ordered id, after RFC 9562 §5.7 and §6.2 method 3: 48 bits of milliseconds, 12 bits of their fraction, then 8
-- fixed bits for the cell (a shard; 0 today) between random ones. Ids made in one statement keep their order.
CREATE FUNCTION new_id() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT (lpad(to_hex(us / 1000), 12, '0') || '7' || lpad(to_hex((us % 1000) * 4096 / 1000), 3, '0')
            || substr(r, 20, 2) || '00' || right(r, 12))::uuid
    FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS us, gen_random_uuid()::text AS r) AS t
$$;

-- The smallest id of a moment: where a partition begins, and where a range of time begins in a query.
CREATE FUNCTION first_id_at(moment timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid
$$;
