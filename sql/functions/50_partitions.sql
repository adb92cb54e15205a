-- Partitions (schema/50_partitions.sql): making those ahead, and making old ones anew as fewer, or smaller, ones.
--
-- There is no default partition. So attaching a new pair waits for no reader, and no reader waits for it. A statement that
-- finds no partition for an id fails, and whoever sent it calls make_partitions and tries again.

-- The name of a pair of partitions that spans these ids: the days on which it begins and ends, and a 2 where a pair of
-- that name is there.
CREATE OR REPLACE FUNCTION partition_name(first_id uuid, end_id uuid) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT n.name || CASE WHEN to_regclass('events_' || n.name) IS NULL THEN '' ELSE '_2' END
    FROM (SELECT to_char(moment_of($1), 'YYYYMMDD') || '_' || to_char(moment_of($2), 'YYYYMMDD') AS name) AS n
$$;

-- Make the two tables of a pair, not attached. The check constraints say what the bounds of the partitions will say, so
-- that attaching them reads no row.
CREATE OR REPLACE FUNCTION make_pair(p_name text, p_first uuid, p_end uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_parent text;
    v_key text;
BEGIN
    FOREACH v_parent IN ARRAY ARRAY['events', 'job_records'] LOOP
        v_key := CASE v_parent WHEN 'events' THEN 'stream_id' ELSE 'id' END;
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', v_parent || '_' || p_name, v_parent);
        EXECUTE format('ALTER TABLE %I ADD CONSTRAINT within CHECK (%I >= %L AND %I < %L)',
                       v_parent || '_' || p_name, v_key, p_first, v_key, p_end);
    END LOOP;
    EXECUTE format('ALTER TABLE %I ALTER COLUMN data SET STATISTICS 0', 'events_' || p_name);  -- INCLUDING ALL is all but this
END $$;

CREATE OR REPLACE FUNCTION attach_pair(p_name text, p_first uuid, p_end uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_parent text;
BEGIN
    FOREACH v_parent IN ARRAY ARRAY['events', 'job_records'] LOOP
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                       v_parent, v_parent || '_' || p_name, p_first, p_end);
        EXECUTE format('ALTER TABLE %I DROP CONSTRAINT within', v_parent || '_' || p_name);
    END LOOP;
    INSERT INTO partitions (name, first_id, end_id) VALUES (p_name, p_first, p_end);
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
            v_name := partition_name(v_first, v_end);
            IF right(v_name, 2) <> '_2' THEN  -- else it is there, and newer than the snapshot of the caller's transaction
                PERFORM make_pair(v_name, v_first, v_end);
                PERFORM attach_pair(v_name, v_first, v_end);
                v_made := v_made + 1;
            END IF;
        END IF;
        v_first := v_end;
    END LOOP;
    RETURN v_made;
END $$;

-- Whether ids of this moment have a partition.
CREATE OR REPLACE FUNCTION is_partitioned(moment timestamptz) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM partitions AS p WHERE p.first_id <= first_id_at($1) AND p.end_id > first_id_at($1))
$$;

-- Begin to make one pair out of those that span these ids. Jobs that succeeded before p_expired (null: none) are left out.
-- Answers whether it began: no, where another rewrite is under way.
--
-- A rewrite is three steps, each of which may be killed and called again: this one; copy_partitions, as often as it
-- answers that there is more; and swap_partitions. Readers and writers go on until the last.
CREATE OR REPLACE FUNCTION rewrite_partitions(p_first uuid, p_end uuid, p_expired timestamptz) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    v_name CONSTANT text := partition_name(p_first, p_end);
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('atomo.partitions', 0));
    IF EXISTS (SELECT FROM partition_rewrites) THEN
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

-- Copy the next streams of a rewrite, which hold p_events events or a few more. Answers whether there are more to copy;
-- null: there is no rewrite, or somebody else is at it.
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
    ELSIF v_work.copied_to >= v_work.end_id THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('atomo.rewrite', 0));
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
    EXECUTE format('INSERT INTO %I SELECT * FROM events WHERE stream_id >= %L AND stream_id < %L AND stream_id <> ALL ($1)',
                   'events_' || v_work.name, v_work.copied_to, v_to) USING v_expired;
    EXECUTE format('INSERT INTO %I SELECT * FROM job_records WHERE id >= %L AND id < %L AND id <> ALL ($1)',
                   'job_records_' || v_work.name, v_work.copied_to, v_to) USING v_expired;
    UPDATE partition_rewrites AS w SET copied_to = v_to, left_out = w.left_out + cardinality(v_expired) WHERE w.name = v_work.name;
    IF v_to = v_work.end_id THEN
        EXECUTE format('ANALYZE %I, %I', 'events_' || v_work.name, 'job_records_' || v_work.name);
    END IF;
    RETURN v_to < v_work.end_id;
END $$;

-- Put the copy in the place of what it was copied from, with what has happened since. Answers how many pairs it stands for,
-- and how many jobs were left out; null: there is no finished copy, or somebody else is at it.
--
-- All who read or write wait while this waits for them, so it gives up soon, and is to be called again. What it does then
-- takes some milliseconds: to drop the old tables is left to drop_detached.
CREATE OR REPLACE FUNCTION swap_partitions(OUT replaced integer, OUT left_out bigint) LANGUAGE plpgsql
SET lock_timeout = '300ms' AS $$
DECLARE
    v_work partition_rewrites;
    v_old partitions;
    v_parent text;
    v_changed uuid[];
BEGIN
    SELECT * INTO v_work FROM partition_rewrites WHERE copied_to >= end_id FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    replaced := 0;
    left_out := v_work.left_out;
    PERFORM pg_advisory_xact_lock(hashtextextended('atomo.partitions', 0));
    LOCK TABLE ONLY events, ONLY job_records IN ACCESS EXCLUSIVE MODE;
    -- Whoever changes a job's record leaves an event.
    EXECUTE format('SELECT coalesce(array_agg(DISTINCT stream_id), ''{}'') FROM events
                    WHERE xid >= %L AND stream_id >= %L AND stream_id < %L',
                   v_work.since_xid, v_work.first_id, v_work.end_id) INTO v_changed;
    EXECUTE format('INSERT INTO %I SELECT * FROM events
                    WHERE stream_id = ANY ($1) AND stream_id >= %L AND stream_id < %L ON CONFLICT DO NOTHING',
                   'events_' || v_work.name, v_work.first_id, v_work.end_id) USING v_changed;
    EXECUTE format('DELETE FROM %I WHERE id = ANY ($1)', 'job_records_' || v_work.name) USING v_changed;
    EXECUTE format('INSERT INTO %I SELECT * FROM job_records WHERE id = ANY ($1) AND id >= %L AND id < %L',
                   'job_records_' || v_work.name, v_work.first_id, v_work.end_id) USING v_changed;
    FOR v_old IN DELETE FROM partitions WHERE first_id >= v_work.first_id AND end_id <= v_work.end_id RETURNING * LOOP
        FOREACH v_parent IN ARRAY ARRAY['events', 'job_records'] LOOP
            EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', v_parent, v_parent || '_' || v_old.name);
            EXECUTE format('ALTER TABLE %I RENAME TO %I', v_parent || '_' || v_old.name, 'detached_' || v_parent || '_' || v_old.name);
        END LOOP;
        replaced := replaced + 1;
    END LOOP;
    PERFORM attach_pair(v_work.name, v_work.first_id, v_work.end_id);
    DELETE FROM partition_rewrites AS w WHERE w.name = v_work.name;
END $$;

-- Drop what swap_partitions has detached; answers how many tables there were.
CREATE OR REPLACE FUNCTION drop_detached() RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_name text;
    v_dropped integer := 0;
BEGIN
    FOR v_name IN SELECT c.relname FROM pg_class AS c
                  WHERE c.relkind = 'r' AND c.relname LIKE 'detached\_%'
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
