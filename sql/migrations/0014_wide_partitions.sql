-- oldest server: 13
--
-- Partitions may span many days, and there is no default partition. What needs an exclusive lock on the events takes
-- milliseconds, unless the default partition has become large: attaching it anew reads it once.

ALTER TABLE migrations RENAME TO schema_versions;
ALTER INDEX migrations_pkey RENAME TO schema_versions_pkey;
ALTER TABLE schema_versions ADD COLUMN checksum text, ADD COLUMN oldest_server integer NOT NULL DEFAULT 1,
    ADD COLUMN made_by text;
ALTER TABLE schema_versions ALTER COLUMN oldest_server DROP DEFAULT;

CREATE TABLE schema_functions (
    file       text NOT NULL PRIMARY KEY,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL
);

CREATE TABLE installation (
    is_only        boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (is_only),
    cluster_id     text NOT NULL,
    xid_offset     bigint NOT NULL,
    partition_days integer NOT NULL
);

CREATE TABLE partitions (
    name     text COLLATE "C" NOT NULL PRIMARY KEY,
    first_id uuid NOT NULL UNIQUE,
    end_id   uuid NOT NULL
);

CREATE TABLE partition_rewrites (
    name           text COLLATE "C" NOT NULL PRIMARY KEY,
    first_id       uuid NOT NULL,
    end_id         uuid NOT NULL,
    since_xid      xid8 NOT NULL,
    expired_before timestamptz,
    left_out       bigint NOT NULL,
    copied_to      uuid NOT NULL
);

DO $$
DECLARE
    v_lowest uuid;  -- the first id of the oldest partition
    v_day timestamptz;
    v_name text;
    v_first uuid;
    v_end uuid;
BEGIN
    v_lowest := coalesce((
        SELECT (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''([^'']+)''\)'))[1]::uuid AS first_id
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent IN ('events'::regclass, 'job_records'::regclass) AND pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT'
        ORDER BY 1 LIMIT 1), first_id_at(date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'));
    LOCK TABLE ONLY events, ONLY job_records IN ACCESS EXCLUSIVE MODE;
    ALTER TABLE events DETACH PARTITION events_kept;
    -- Days that no server had made a partition for before something was written: it lies in the default partition.
    FOR v_day IN
        SELECT DISTINCT date_trunc('day', to_timestamp(('x' || substr(replace(stream_id::text, '-', ''), 1, 12))::bit(48)::bigint / 1000.0)
                                          AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
        FROM events_kept WHERE stream_id >= v_lowest
    LOOP
        v_name := to_char(v_day AT TIME ZONE 'UTC', 'YYYYMMDD');
        IF to_regclass('events_' || v_name) IS NOT NULL THEN  -- it was detached by hand
            v_name := v_name || '_2';
        END IF;
        v_first := first_id_at(v_day);
        v_end := first_id_at(v_day + interval '1 day');
        EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING ALL)', 'events_' || v_name);
        EXECUTE format('ALTER TABLE %I ALTER COLUMN data SET STATISTICS 0', 'events_' || v_name);
        EXECUTE format('INSERT INTO %I SELECT * FROM events_kept WHERE stream_id >= %L AND stream_id < %L', 'events_' || v_name, v_first, v_end);
        DELETE FROM events_kept WHERE stream_id >= v_first AND stream_id < v_end;
        EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', 'events_' || v_name, v_first, v_end);
    END LOOP;
    -- The first pair begins at the smallest id there can be.
    v_first := '00000000-0000-0000-0000-000000000000';
    v_name := '19700101_' || to_char(to_timestamp(('x' || substr(replace(v_lowest::text, '-', ''), 1, 12))::bit(48)::bigint / 1000.0)
                                     AT TIME ZONE 'UTC', 'YYYYMMDD');
    EXECUTE format('ALTER TABLE events_kept RENAME TO %I', 'events_' || v_name);
    EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', 'events_' || v_name, v_first, v_lowest);
END $$;

-- with the functions

SELECT mend_partitions();  -- makes what is missing of job_records, and notes the pairs

CREATE TRIGGER follow_deletion AFTER DELETE ON events
REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION follow_deletion();

CREATE TRIGGER follow_deletion AFTER DELETE ON job_records
REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION follow_deletion();
