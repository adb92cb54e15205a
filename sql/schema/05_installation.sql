-- What the schema knows of itself: what was done to it, and where it lives.

-- One row for each version that this schema has had, or one row for the version it was made as.
CREATE TABLE schema_versions (
    version       integer NOT NULL PRIMARY KEY,
    name          text NOT NULL,         -- of the step; 'schema': made whole
    began_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at   timestamptz,           -- null: an online step is under way, or was interrupted and goes on at the next start
    checksum      text,                  -- SHA-256 of the step's text; null: not known
    oldest_server integer NOT NULL,      -- a server whose own schema version is lower cannot work with this schema
    made_by       text                   -- the version of atomo-gql that did it
);

-- The files of sql/functions as they are in the database.
CREATE TABLE schema_functions (
    file       text NOT NULL PRIMARY KEY,
    checksum   text NOT NULL,            -- SHA-256 of its text
    applied_at timestamptz NOT NULL
);

-- One row.
CREATE TABLE installation (
    is_only        boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (is_only),
    cluster_id     text NOT NULL,        -- of the PostgreSQL cluster that gave out the newest transaction ids (functions/60_order.sql)
    xid_offset     bigint NOT NULL,      -- what is added to them, so that they go on where those of another cluster ended
    partition_days integer NOT NULL      -- how many days the next partitions span (functions/50_partitions.sql)
);
