-- Partitions (schema/50_partitions.sql): making those ahead, and making old ones anew as fewer, or smaller, ones.
--
-- There is no default partition. So attaching a new pair waits for no reader, and no reader waits for it. A statement that
-- finds no partition for an id fails, and whoever sent it calls make_partitions and tries again.

-- Whether that partition of `events` or `job_records` is attached now, whatever the snapshot of the caller shows.
CREATE OR REPLACE FUNCTION is_attached(parent text, name text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT coalesce(pg_partition_root(to_regclass($1 || '_' || $2)) = to_regclass($1), false)
$$;

-- A name for a pair of partitions that spans these ids: the days on which it begins and ends, and a number where tables of
-- that name are there.
CREATE OR REPLACE FUNCTION partition_name(first_id uuid, end_id uuid) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT n.name
    FROM (SELECT to_char(moment_of($1), 'YYYYMMDD') || '_' || to_char(moment_of($2), 'YYYYMMDD')
              || CASE WHEN i > 1 THEN '_' || i ELSE '' END AS name, i
          FROM generate_series(1, 1000) AS i) AS n
    WHERE to_regclass('events_' || n.name) IS NULL AND to_regclass('job_records_' || n.name) IS NULL
    ORDER BY n.i LIMIT 1
$$;

-- Make a table for a partition of `events` or `job_records`, not attached. The check constraint says what the bounds of the
-- partition will say, so that attaching it reads no row.
CREATE OR REPLACE FUNCTION make_partition(p_parent text, p_name text, p_first uuid, p_end uuid) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_table CONSTANT text := p_parent || '_' || p_name;
    v_key CONSTANT text := CASE p_parent WHEN 'events' THEN 'stream_id' ELSE 'id' END;
BEGIN
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', v_table, p_parent);
    EXECUTE format('ALTER TABLE %I ADD CONSTRAINT within CHECK (%I >= %L AND %I < %L)', v_table, v_key, p_first, v_key, p_end);
    IF p_parent = 'events' THEN  -- INCLUDING ALL is all but this
        EXECUTE format('ALTER TABLE %I ALTER COLUMN data SET STATISTICS 0', v_table);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION attach_partition(p_parent text, p_name text, p_first uuid, p_end uuid) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_table CONSTANT text := p_parent || '_' || p_name;
BEGIN
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', p_parent, v_table, p_first, p_end);
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT within', v_table);
END $$;

CREATE OR REPLACE FUNCTION make_pair(p_name text, p_first uuid, p_end uuid) RETURNS void LANGUAGE sql AS $$
    SELECT make_partition('events', p_name, p_first, p_end);
    SELECT make_partition('job_records', p_name, p_first, p_end);
$$;

CREATE OR REPLACE FUNCTION attach_pair(p_name text, p_first uuid, p_end uuid) RETURNS void LANGUAGE sql AS $$
    SELECT attach_partition('events', p_name, p_first, p_end);
    SELECT attach_partition('job_records', p_name, p_first, p_end);
    INSERT INTO partitions (name, first_id, end_id) VALUES (p_name, p_first, p_end);
$$;

-- What is attached, by PostgreSQL's own catalogue: each pair, and whether it is one.
CREATE OR REPLACE VIEW attached_partitions AS
SELECT a.name, a.first_id, a.end_id, bool_or(a.parent = 'events') AS has_events, bool_or(a.parent = 'job_records') AS has_records
FROM (
    SELECT r.relname AS parent, substr(c.relname, length(r.relname) + 2)::text COLLATE "C" AS name,
        (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''([^'']+)''\)'))[1]::uuid AS first_id,
        (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''([^'']+)''\)'))[1]::uuid AS end_id
    FROM pg_inherits AS i
    JOIN pg_class AS c ON c.oid = i.inhrelid
    JOIN pg_class AS r ON r.oid = i.inhparent
    WHERE i.inhparent IN ('events'::regclass, 'job_records'::regclass)
        AND pg_get_expr(c.relpartbound, c.oid) LIKE 'FOR VALUES FROM (''%') AS a
GROUP BY a.name, a.first_id, a.end_id;

-- Have `partitions` say what is attached, and make what is missing of a pair: somebody may have dropped tables by hand.
CREATE OR REPLACE FUNCTION mend_partitions() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_pair record;
    v_parent text;
BEGIN
    IF NOT EXISTS (SELECT FROM attached_partitions WHERE NOT (has_events AND has_records))
        AND NOT EXISTS (TABLE partitions EXCEPT SELECT name, first_id, end_id FROM attached_partitions)
        AND NOT EXISTS (SELECT name, first_id, end_id FROM attached_partitions EXCEPT TABLE partitions) THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('atomo.partitions', 0));
    FOR v_pair IN SELECT * FROM attached_partitions WHERE NOT (has_events AND has_records) LOOP
        v_parent := CASE WHEN v_pair.has_events THEN 'job_records' ELSE 'events' END;
        BEGIN  -- it may have been detached by hand
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                           v_parent, v_parent || '_' || v_pair.name, v_pair.first_id, v_pair.end_id);
        EXCEPTION WHEN undefined_table THEN
            PERFORM make_partition(v_parent, v_pair.name, v_pair.first_id, v_pair.end_id);
            PERFORM attach_partition(v_parent, v_pair.name, v_pair.first_id, v_pair.end_id);
        END;
    END LOOP;
    DELETE FROM partitions AS p WHERE NOT EXISTS (
        SELECT FROM attached_partitions AS a WHERE (a.name, a.first_id, a.end_id) = (p.name, p.first_id, p.end_id));
    INSERT INTO partitions (name, first_id, end_id) SELECT name, first_id, end_id FROM attached_partitions ON CONFLICT DO NOTHING;
END $$;

-- Make the pairs that are missing from yesterday to p_ahead days ahead, and answer how many were made. Each spans
-- installation.partition_days, or the gap between its neighbours.
CREATE OR REPLACE FUNCTION make_partitions(p_ahead integer) RETURNS integer LANGUAGE plpgsql SET timezone = 'UTC' AS $$
DECLARE
    v_today CONSTANT timestamptz := date_trunc('day', clock_timestamp());
    v_until CONSTANT uuid := first_id_at(v_today + make_interval(days => p_ahead + 1));
    v_first uuid := first_id_at(v_today - interval '1 day');
    v_end uuid;
    v_name text;
    v_is_locked boolean := false;
    v_made integer := 0;
BEGIN
    PERFORM mend_partitions();
    WHILE v_first < v_until LOOP
        SELECT p.end_id INTO v_end FROM partitions AS p WHERE p.first_id <= v_first AND p.end_id > v_first;
        IF NOT FOUND AND NOT v_is_locked THEN
            PERFORM pg_advisory_xact_lock(hashtextextended('atomo.partitions', 0));
            v_is_locked := true;  -- look again: somebody may have made it meanwhile
            CONTINUE;
        ELSIF NOT FOUND THEN
            IF NOT EXISTS (SELECT FROM partitions) THEN  -- the first pair holds all that is older
                v_end := v_first;
                v_first := '00000000-0000-0000-0000-000000000000';
            ELSE
                v_end := least(
                    first_id_at(moment_of(v_first) + make_interval(days => (SELECT i.partition_days FROM installation AS i))),
                    (SELECT p.first_id FROM partitions AS p WHERE p.first_id > v_first ORDER BY p.first_id LIMIT 1));
            END IF;
            v_name := to_char(moment_of(v_first), 'YYYYMMDD') || '_' || to_char(moment_of(v_end), 'YYYYMMDD');
            IF NOT (is_attached('events', v_name) AND is_attached('job_records', v_name)) THEN
                v_name := partition_name(v_first, v_end);
                PERFORM make_pair(v_name, v_first, v_end);
                PERFORM attach_pair(v_name, v_first, v_end);
                v_made := v_made + 1;
            END IF;  -- else it is there, and newer than the snapshot of the caller's transaction
        END IF;
        v_first := v_end;
    END LOOP;
    RETURN v_made;
END $$;

-- Whether ids of this moment have their partitions.
CREATE OR REPLACE FUNCTION is_partitioned(moment timestamptz) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM partitions AS p WHERE p.first_id <= first_id_at($1) AND p.end_id > first_id_at($1)
            AND is_attached('events', p.name) AND is_attached('job_records', p.name))
$$;

-- Whether the partition in which that id lies holds ids from there on.
CREATE OR REPLACE FUNCTION is_beyond(p_id uuid) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_end uuid;
    v_is_there boolean;
BEGIN
    SELECT p.end_id INTO v_end FROM partitions AS p WHERE p.first_id < p_id AND p.end_id > p_id;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    EXECUTE format('SELECT EXISTS (SELECT FROM events WHERE stream_id >= %1$L AND stream_id < %2$L)
                        OR EXISTS (SELECT FROM job_records WHERE id >= %1$L AND id < %2$L)', p_id, v_end) INTO v_is_there;
    RETURN v_is_there;
END $$;

-- Begin to make one pair out of those that span these ids; the last of them may go on behind these, if nothing lies there.
-- Jobs that succeeded before p_expired (null: none) are left out. Answers whether it began: no, where another rewrite is
-- under way.
--
-- A rewrite is three steps, each of which may be killed and called again: this one; copy_partitions, as often as it
-- answers that there is more; and swap_partitions. Readers and writers go on until the last.
CREATE OR REPLACE FUNCTION rewrite_partitions(p_first uuid, p_end uuid, p_expired timestamptz) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_name CONSTANT text := partition_name(p_first, p_end);
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('atomo.partitions', 0));
    IF EXISTS (SELECT FROM partition_rewrites) OR is_beyond(p_end) THEN
        RETURN false;
    END IF;
    PERFORM make_pair(v_name, p_first, p_end);
    INSERT INTO partition_rewrites (name, first_id, end_id, since_xid, expired_before, left_out, copied_to)
    VALUES (v_name, p_first, p_end, complete_event_xid(), p_expired, 0, p_first);
    RETURN true;
END $$;

-- Give a rewrite up. What it has copied is thrown away.
CREATE OR REPLACE FUNCTION abandon_rewrite() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_name text;
BEGIN
    FOR v_name IN DELETE FROM partition_rewrites RETURNING name LOOP
        EXECUTE format('DROP TABLE IF EXISTS %I, %I', 'events_' || v_name, 'job_records_' || v_name);
    END LOOP;
END $$;

-- Bring the copy of a rewrite from its since_xid on up to another transaction id, and answer how many events there were.
-- Whoever changes a job's record leaves an event, so the records of their jobs are copied again.
CREATE OR REPLACE FUNCTION catch_up(p_work partition_rewrites, p_until xid8) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_changed uuid[];
    v_count integer;
BEGIN
    EXECUTE format('INSERT INTO %I SELECT * FROM events
                    WHERE xid >= %L AND xid < %L AND stream_id >= %L AND stream_id < %L ON CONFLICT DO NOTHING',
                   'events_' || p_work.name, p_work.since_xid, p_until, p_work.first_id, p_work.end_id);
    EXECUTE format('SELECT coalesce(array_agg(DISTINCT stream_id), ''{}''), count(*) FROM events
                    WHERE xid >= %L AND xid < %L AND stream_id >= %L AND stream_id < %L',
                   p_work.since_xid, p_until, p_work.first_id, p_work.end_id) INTO v_changed, v_count;
    EXECUTE format('DELETE FROM %I WHERE id = ANY ($1)', 'job_records_' || p_work.name) USING v_changed;
    EXECUTE format('INSERT INTO %I SELECT * FROM job_records WHERE id = ANY ($1) AND id >= %L AND id < %L',
                   'job_records_' || p_work.name, p_work.first_id, p_work.end_id) USING v_changed;
    UPDATE partition_rewrites SET since_xid = p_until WHERE name = p_work.name;
    RETURN v_count;
END $$;

-- Copy the next streams of a rewrite, which hold p_events events or a few more; and when all are copied, what has happened
-- to them since. Answers whether there is much more to copy; null: there is no rewrite, or somebody else is at it.
--
-- The lock makes this and follow_deletion take turns: a stream that is being deleted is copied before, and then deleted
-- from the copy, too, or after, and then not found.
CREATE OR REPLACE FUNCTION copy_partitions(p_events integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_work partition_rewrites;
    v_to uuid;
    v_expired uuid[] := '{}';
BEGIN
    SELECT * INTO v_work FROM partition_rewrites FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF to_regclass('events_' || v_work.name) IS NULL OR to_regclass('job_records_' || v_work.name) IS NULL THEN
        PERFORM abandon_rewrite();  -- somebody has dropped a table of it by hand
        RETURN NULL;
    END IF;
    IF v_work.copied_to >= v_work.end_id THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('atomo.rewrite', 0));
        RETURN catch_up(v_work, complete_event_xid()) > p_events / 10;
    END IF;
    -- The bounds are literals, so that the plans hold no other partitions.
    EXECUTE format('SELECT stream_id FROM events WHERE stream_id >= %L AND stream_id < %L ORDER BY stream_id, version OFFSET %s LIMIT 1',
                   v_work.copied_to, v_work.end_id, p_events) INTO v_to;
    IF v_to = v_work.copied_to THEN  -- a stream with more events than that is copied as a whole
        EXECUTE format('SELECT stream_id FROM events WHERE stream_id > %L AND stream_id < %L ORDER BY stream_id LIMIT 1',
                       v_work.copied_to, v_work.end_id) INTO v_to;
    END IF;
    v_to := coalesce(v_to, v_work.end_id);
    IF v_work.expired_before IS NOT NULL THEN
        EXECUTE format('SELECT coalesce(array_agg(stream_id), ''{}'') FROM events AS e
                        WHERE stream_id >= %L AND stream_id < %L AND type = ''succeeded'' AND at < %L
                            AND NOT EXISTS (SELECT FROM run_waits AS w WHERE w.job_id = e.stream_id)',
                       v_work.copied_to, v_to, v_work.expired_before) INTO v_expired;
        DELETE FROM idempotency_keys AS k WHERE k.job_id = ANY (v_expired);  -- a key ends with its job
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('atomo.rewrite', 0));  -- after the keys, as retention_delete does
    EXECUTE format('INSERT INTO %I SELECT * FROM events WHERE stream_id >= %L AND stream_id < %L AND stream_id <> ALL ($1)',
                   'events_' || v_work.name, v_work.copied_to, v_to) USING v_expired;
    EXECUTE format('INSERT INTO %I SELECT * FROM job_records WHERE id >= %L AND id < %L AND id <> ALL ($1)',
                   'job_records_' || v_work.name, v_work.copied_to, v_to) USING v_expired;
    UPDATE partition_rewrites AS w SET copied_to = v_to, left_out = w.left_out + cardinality(v_expired) WHERE w.name = v_work.name;
    IF v_to = v_work.end_id THEN
        EXECUTE format('ANALYZE %I, %I', 'events_' || v_work.name, 'job_records_' || v_work.name);
    END IF;
    RETURN true;
END $$;

-- Put the copy in the place of what it was copied from, with what has happened since. Answers how many pairs it stands for,
-- and how many jobs were left out; null: there is no finished copy, it is too far behind, or somebody else is at it.
--
-- All who read or write wait while this waits for them, so it gives up soon, and is to be called again. What it does then
-- takes some milliseconds: to drop the old tables is left to drop_detached.
CREATE OR REPLACE FUNCTION swap_partitions(OUT replaced integer, OUT left_out bigint) LANGUAGE plpgsql
SET lock_timeout = '300ms' AS $$
DECLARE
    v_work partition_rewrites;
    v_old partitions;
    v_parent text;
    v_behind integer;
BEGIN
    SELECT * INTO v_work FROM partition_rewrites WHERE copied_to >= end_id FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('atomo.partitions', 0));
    -- While an old transaction anywhere holds the end of the events, much may have come that copy_partitions could not see.
    EXECUTE format('SELECT count(*) FROM (SELECT FROM events WHERE xid >= %L AND stream_id >= %L AND stream_id < %L LIMIT 10001) AS e',
                   v_work.since_xid, v_work.first_id, v_work.end_id) INTO v_behind;
    IF v_behind > 10000 THEN
        RETURN;
    END IF;
    LOCK TABLE ONLY events, ONLY job_records IN ACCESS EXCLUSIVE MODE;
    IF is_beyond(v_work.end_id) THEN  -- the clock has gone on very far since it began
        PERFORM abandon_rewrite();
        RETURN;
    END IF;
    replaced := 0;
    left_out := v_work.left_out;
    PERFORM catch_up(v_work, '18446744073709551615');
    FOR v_old IN DELETE FROM partitions WHERE first_id < v_work.end_id AND end_id > v_work.first_id RETURNING * LOOP
        FOREACH v_parent IN ARRAY ARRAY['events', 'job_records'] LOOP
            EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', v_parent, v_parent || '_' || v_old.name);
            EXECUTE format('ALTER TABLE %I RENAME TO %I', v_parent || '_' || v_old.name,
                           'detached_' || to_regclass(v_parent || '_' || v_old.name)::oid);
        END LOOP;
        replaced := replaced + 1;
    END LOOP;
    PERFORM attach_pair(v_work.name, v_work.first_id, v_work.end_id);
    DELETE FROM partition_rewrites AS w WHERE w.name = v_work.name;
    PERFORM make_partitions(4);  -- where the last of the old ones went on behind it
END $$;

-- Drop what swap_partitions has detached; answers how many tables there were.
CREATE OR REPLACE FUNCTION drop_detached() RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_name text;
    v_dropped integer := 0;
BEGIN
    FOR v_name IN SELECT c.relname FROM pg_class AS c
                  WHERE c.relkind = 'r' AND c.relname ~ '^detached_[0-9]+$'
                      AND c.relnamespace = (SELECT e.relnamespace FROM pg_class AS e WHERE e.oid = 'events'::regclass) LOOP
        EXECUTE format('DROP TABLE IF EXISTS %I', v_name);
        v_dropped := v_dropped + 1;
    END LOOP;
    RETURN v_dropped;
END $$;

-- What is deleted is deleted from the copy that is being made, too.
CREATE OR REPLACE FUNCTION follow_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_name text;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('atomo.rewrite', 0));
    SELECT name INTO v_name FROM partition_rewrites;
    IF FOUND AND TG_TABLE_NAME = 'events' THEN
        EXECUTE format('DELETE FROM %I AS c USING gone AS g WHERE c.stream_id = g.stream_id AND c.version = g.version', 'events_' || v_name);
    ELSIF FOUND THEN
        EXECUTE format('DELETE FROM %I AS c USING gone AS g WHERE c.id = g.id', 'job_records_' || v_name);
    END IF;
    RETURN NULL;
END $$;
