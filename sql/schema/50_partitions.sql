-- Partitions: `events` and `job_records` are split at the same ids, so that the story of a job lies in one pair of
-- partitions (events_<name>, job_records_<name>). The first pair begins at the smallest id there can be.

-- The pairs that are attached.
CREATE TABLE partitions (
    name     text COLLATE "C" NOT NULL PRIMARY KEY,
    first_id uuid NOT NULL UNIQUE,
    end_id   uuid NOT NULL                -- of the first id behind it
);

-- A pair that is being made anew out of one or several that lie side by side, without what has expired. There is one at
-- a time; its tables are there, and not yet attached.
CREATE TABLE partition_rewrites (
    name           text COLLATE "C" NOT NULL PRIMARY KEY,
    first_id       uuid NOT NULL,
    end_id         uuid NOT NULL,
    since_xid      xid8 NOT NULL,         -- an event of such a transaction, or of a later one, may be missing in the copy
    expired_before timestamptz,           -- jobs that succeeded before that are left out; null: none are
    left_out       bigint NOT NULL,       -- how many those are so far
    copied_to      uuid NOT NULL          -- streams below this one are done
);
