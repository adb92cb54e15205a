-- Partitions: one pair (events_YYYYMMDD, job_records_YYYYMMDD) a UTC day. A housekeeping loop of every replica asks for
-- the days ahead, and retention drops pairs.

-- Make the pairs from yesterday to p_ahead days ahead that are missing; answers how many were made. A partition is made
-- aside and attached, which does not wait for, or block, readers and writers of the parent.
CREATE FUNCTION make_partitions(p_ahead integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_day timestamptz;
    v_name text;
    v_parent text;
    v_made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('atomo.make_partitions', 0));
    FOR v_day IN
        SELECT d AT TIME ZONE 'UTC' FROM generate_series(
            date_trunc('day', now() AT TIME ZONE 'UTC') - interval '1 day',
            date_trunc('day', now() AT TIME ZONE 'UTC') + make_interval(days => p_ahead), interval '1 day') AS d
    LOOP
        FOREACH v_parent IN ARRAY ARRAY['events', 'job_records'] LOOP
            v_name := v_parent || '_' || to_char(v_day AT TIME ZONE 'UTC', 'YYYYMMDD');
            CONTINUE WHEN to_regclass(v_name) IS NOT NULL;
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', v_name, v_parent);
            IF v_parent = 'events' THEN  -- INCLUDING ALL is all but this
                EXECUTE format('ALTER TABLE %I ALTER COLUMN data SET STATISTICS 0', v_name);
            END IF;
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', v_parent, v_name,
                           first_id_at(v_day), first_id_at(v_day + interval '1 day'));
            v_made := v_made + 1;
        END LOOP;
    END LOOP;
    RETURN v_made;
END $$;

-- The pairs, oldest first, with the ids they begin and end at.
CREATE VIEW partition_days AS
SELECT
    right(c.relname, 8) AS day,
    (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''([^'']+)''\)'))[1]::uuid AS first_id,
    (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''([^'']+)''\)'))[1]::uuid AS end_id
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'job_records'::regclass
ORDER BY 1;

-- Drop one day's pair, if nothing in it needs to be kept: every job of it ended before p_succeeded or, dead, before
-- p_dead (null: keep those for ever). Events of pauses and tokens are kept. Answers whether it did. It gives way when
-- the tables are busy.
CREATE FUNCTION drop_partition_pair(p_day text, p_succeeded timestamptz, p_dead timestamptz) RETURNS boolean
LANGUAGE plpgsql SET lock_timeout = '2s' AS $$
DECLARE
    v_kept boolean;
    v_first uuid;
    v_end uuid;
BEGIN
    SELECT p.first_id, p.end_id INTO v_first, v_end FROM partition_days AS p WHERE p.day = p_day;
    EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE type = ''succeeded'' AND ($1 IS NULL OR at >= $1))', 'events_' || p_day)
        INTO v_kept USING p_succeeded;
    v_kept := v_kept OR EXISTS (SELECT FROM ready WHERE id >= v_first AND id < v_end)
        OR EXISTS (SELECT FROM leases WHERE id >= v_first AND id < v_end)
        OR EXISTS (SELECT FROM dead WHERE id >= v_first AND id < v_end AND (p_dead IS NULL OR finished_at >= p_dead));
    IF v_kept THEN
        RETURN false;
    END IF;
    EXECUTE format('ALTER TABLE events DETACH PARTITION %I', 'events_' || p_day);
    IF EXISTS (SELECT FROM ready WHERE id >= v_first AND id < v_end) THEN  -- retried by hand while we waited for the table
        RAISE lock_not_available USING MESSAGE = 'a job of that day is queued again';
    END IF;
    EXECUTE format('INSERT INTO events SELECT * FROM %I WHERE stream <> ''Job''', 'events_' || p_day);
    DELETE FROM dead WHERE id >= v_first AND id < v_end;
    EXECUTE format('DROP TABLE %I, %I', 'job_records_' || p_day, 'events_' || p_day);
    RETURN true;
END $$;
