-- Queues have no life of their own: one is there because a job was put into it.

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
