-- The order of events: (xid, position), which is safe to tail (schema/10_events.sql). Transaction ids belong to a cluster, and
-- a dump may be restored into another one, whose ids are lower. So a constant, installation.xid_offset, is added to them: an
-- event of the new cluster comes after all that were restored, and places that readers have kept stay good.

-- The id of this transaction, as the events that it writes have it.
CREATE OR REPLACE FUNCTION event_xid() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT pg_current_xact_id()::text::bigint + (SELECT i.xid_offset FROM installation AS i)
$$;

-- Every event with a lower id than this is there, or will never be: each transaction before it has ended.
CREATE OR REPLACE FUNCTION complete_event_xid() RETURNS xid8 LANGUAGE sql STABLE AS $$
    SELECT (pg_snapshot_xmin(pg_current_snapshot())::text::bigint + (SELECT i.xid_offset FROM installation AS i))::text::xid8
$$;

-- Where the ids come from: the PostgreSQL cluster's identifier and, behind the /, its timeline, which changes when a backup
-- is restored to a point in time and when a standby takes over. Where these may not be read: the numbers of the database
-- and of a table, which are others in most places that a dump is restored to.
CREATE OR REPLACE FUNCTION cluster_id() RETURNS text LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = atomo, pg_temp AS $$
DECLARE
    v_timeline text := '';
BEGIN
    BEGIN
        v_timeline := left(pg_walfile_name(pg_current_wal_lsn()), 8);
    EXCEPTION WHEN insufficient_privilege OR feature_not_supported OR object_not_in_prerequisite_state THEN
        NULL;
    END;
    RETURN (SELECT c.system_identifier::text FROM pg_control_system() AS c) || '/' || v_timeline;
EXCEPTION WHEN insufficient_privilege OR feature_not_supported THEN
    RETURN (SELECT format('database %s table %s/', d.oid, 'installation'::regclass::oid) FROM pg_database AS d
            WHERE d.datname = current_database()) || v_timeline;
END $$;

-- A row's xmin as the 64 bits that pg_current_xact_id() said then. It is wrong for rows that are older than four thousand
-- million transactions.
CREATE OR REPLACE FUNCTION full_xid(id xid) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT n.id - ((n.id - $1::text::bigint) & 4294967295)
    FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 1000000 AS id) AS n
$$;

-- Go on with the order of events in this cluster, if the schema has come here from another one: by a dump, by logical
-- replication, by a copy of its tables. Answers what was done, or null: nothing had to be. It gives up soon where others
-- hold `events`, and is to be called again.
--
-- Ids that are stored come from the cluster that they were restored from. The offset is raised, so that what is written
-- from now on comes after all of them; by a thousand million more, so that it also comes after what readers saw of events
-- that the dump does not hold.
CREATE OR REPLACE FUNCTION adopt_cluster() RETURNS text LANGUAGE plpgsql SET lock_timeout = '300ms' AS $$
DECLARE
    v_cluster CONSTANT text := cluster_id();
    v_known installation;
    v_first CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    v_recent CONSTANT uuid := (
        SELECT p.first_id FROM partitions AS p WHERE p.first_id <= new_id() ORDER BY p.first_id DESC OFFSET 2 LIMIT 1);
    v_newest bigint;
    v_highest bigint;     -- id that anything refers to
    v_next bigint;        -- and that will be given out next
    v_offset bigint;
    v_is_elsewhere boolean;
    v_is_locked boolean := false;
    v_moved integer;
BEGIN
    IF pg_is_in_recovery() THEN  -- a standby; nothing can be written
        RETURN NULL;
    END IF;
    LOOP
        SELECT * INTO v_known FROM installation;
        -- As long as nothing is wrong, a look at the newest partitions is enough, however many there are.
        EXECUTE format('SELECT xid::text::bigint FROM events WHERE stream_id >= %L ORDER BY xid DESC, position DESC LIMIT 1',
                       CASE WHEN v_is_locked THEN v_first ELSE coalesce(v_recent, v_first) END) INTO v_newest;
        v_highest := greatest(
            0,
            v_newest,
            (SELECT max(greatest(b.since_xid, b.at_xid)) FROM bindings AS b),
            (SELECT max(w.since_xid) FROM workflows AS w),
            (SELECT max(c.xid) FROM checkpoints AS c));
        v_next := pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
        v_is_elsewhere := v_highest >= v_next + v_known.xid_offset
            OR split_part(v_known.cluster_id, '/', 1) <> split_part(v_cluster, '/', 1);
        IF NOT v_is_elsewhere AND v_known.cluster_id = v_cluster THEN
            RETURN NULL;
        END IF;
        EXIT WHEN v_is_locked;
        IF NOT pg_try_advisory_xact_lock(hashtextextended('atomo.adopt', 0)) THEN
            RETURN NULL;  -- others wait behind who waits for the lock, so one is enough
        END IF;
        LOCK TABLE ONLY events IN ACCESS EXCLUSIVE MODE;  -- not its partitions: autovacuum is at them after a restore
        v_is_locked := true;  -- look again: somebody may have done it meanwhile
    END LOOP;
    v_next := pg_current_xact_id()::text::bigint;
    v_offset := greatest(v_highest, v_next + v_known.xid_offset) + 1000000000
        - pg_snapshot_xmin(pg_current_snapshot())::text::bigint;
    UPDATE installation SET cluster_id = v_cluster, xid_offset = v_offset;
    EXECUTE format('ALTER TABLE ONLY events ALTER COLUMN xid SET DEFAULT (pg_current_xact_id()::text::bigint + %s)::text::xid8', v_offset);
    IF NOT v_is_elsewhere THEN
        RETURN 'PostgreSQL has gone back to an earlier moment, or a standby has taken over; the order of events goes on '
            'behind all that readers may have seen';
    END IF;
    PERFORM abandon_rewrite();
    v_moved := move_early_events(v_known.xid_offset, v_next + v_offset);
    RETURN format('the schema has come from another PostgreSQL cluster; the order of events goes on behind what came with it, '
                  'and %s events written here since then were moved behind it', v_moved);
END $$;

-- Give this transaction id to the events that were written in this cluster before it was adopted, and had the old offset
-- added to their ids. Answers how many there were.
--
-- They are known by their rows' xmin. In a restored schema such a row is younger than the newest index of its partition. A
-- restore makes all indexes, and atomo-gql move makes one, after the rows were loaded. Where the rows came after the indexes
-- (logical replication, the data of a dump alone), its xmin is the event's own id, and the sequence here gave out its
-- position.
CREATE OR REPLACE FUNCTION move_early_events(p_offset bigint, p_xid bigint) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    v_near CONSTANT bigint := pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 1000000;
    v_has_rows_first boolean;  -- and then indexes
    v_given bigint;            -- the last position that the sequence gave out
    v_newest bigint;           -- position that came with the events
    v_partition regclass;
    v_since bigint;
    v_count integer;
    v_moved integer := 0;
BEGIN
    SELECT full_xid(s.xmin) <= (SELECT min(full_xid(i.xmin)) FROM pg_index AS i WHERE i.indrelid = s.tableoid)
    INTO v_has_rows_first FROM schema_versions AS s ORDER BY s.version LIMIT 1;
    SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END INTO v_given FROM event_position AS s;
    SELECT max(e.position) INTO v_newest
    FROM (SELECT n.position FROM events AS n ORDER BY n.xid DESC, n.position DESC LIMIT 10000) AS e;
    FOR v_partition, v_since IN
        SELECT p.inhrelid, (SELECT max(full_xid(i.xmin)) FROM pg_index AS i WHERE i.indrelid = p.inhrelid)
        FROM pg_inherits AS p WHERE p.inhparent = 'events'::regclass
    LOOP
        EXECUTE format(
            -- A row's xmin is higher than the event's id where a subtransaction wrote it.
            'UPDATE %1$s SET xid = %2$L::xid8
             WHERE xid >= %3$L::xid8 AND xid < %9$L::xid8 AND position <= %4$s
                 AND %5$s - ((%5$s - xmin::text::bigint) & 4294967295) > %6$s
                 AND %5$s - ((%5$s - xmin::text::bigint) & 4294967295) %7$s xid::text::bigint - %8$s',
            v_partition, p_xid, greatest(0, v_since + p_offset - 1000000), v_given, v_near, v_since,
            CASE WHEN v_has_rows_first THEN '>=' ELSE '=' END, p_offset, v_near + p_offset);
        GET DIAGNOSTICS v_count = ROW_COUNT;
        v_moved := v_moved + v_count;
    END LOOP;
    IF v_newest > v_given THEN  -- logical replication leaves sequences as they were
        PERFORM setval('event_position', v_newest + 1000000);
    END IF;
    RETURN v_moved;
END $$;
