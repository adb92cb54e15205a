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

-- The name of this PostgreSQL cluster; '': its owner does not tell us.
CREATE OR REPLACE FUNCTION cluster_id() RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT c.system_identifier::text FROM pg_control_system() AS c);
EXCEPTION WHEN insufficient_privilege THEN
    RETURN '';
END $$;

-- Whether a row of `events` was written in this cluster, and not restored into it: its own xmin is the event's transaction,
-- or a subtransaction of it, and is younger than the indexes, which a restore makes after the data.
CREATE OR REPLACE FUNCTION is_written_here(row_xmin xid, event_xid xid8, xid_offset bigint) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT age($1) < (SELECT age(i.xmin) FROM pg_index AS i WHERE i.indexrelid = 'events_in_commit_order'::regclass)
        AND pg_snapshot_xmax(pg_current_snapshot())::text::bigint - age($1) - ($2::text::bigint - $3) BETWEEN -1000 AND 1000000
$$;

-- Go on with the order of events in this cluster, if the schema has come here from another one: by a dump, by logical
-- replication, by a copy of its tables. Answers what was done, or null: nothing had to be.
--
-- Ids that are stored come from the cluster that they were restored from, and may be higher than those given out here. Then
-- the offset is raised, so that what is written from now on comes after all of them; by a thousand million more, so that
-- it comes after what readers saw of events that the dump does not hold. An event that was written here before this was
-- called (by enqueue_job, say) gets a new id.
CREATE OR REPLACE FUNCTION adopt_cluster() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_cluster CONSTANT text := cluster_id();
    v_next CONSTANT bigint := pg_snapshot_xmin(pg_current_snapshot())::text::bigint;
    v_known installation;
    v_newest events;
    v_places bigint;      -- the highest id that anything but an event refers to
    v_restored bigint;    -- and the highest of an event that was restored
    v_position bigint;
    v_rewritten integer := 0;
    v_done text := '';
BEGIN
    SELECT * INTO v_known FROM installation;
    SELECT * INTO v_newest FROM events ORDER BY xid DESC, position DESC LIMIT 1;
    v_places := greatest(
        0,
        (SELECT max(greatest(b.since_xid, b.at_xid)) FROM bindings AS b),
        (SELECT max(w.since_xid) FROM workflows AS w),
        (SELECT max(c.xid) FROM checkpoints AS c));
    IF v_known.cluster_id = v_cluster
        AND greatest(v_places, v_newest.xid::text::bigint) < pg_snapshot_xmax(pg_current_snapshot())::text::bigint + v_known.xid_offset
        AND coalesce(v_newest.position, 0) <= (SELECT last_value FROM event_position) THEN
        RETURN NULL;
    END IF;
    LOCK TABLE events IN ACCESS EXCLUSIVE MODE;
    PERFORM abandon_rewrite();
    SELECT max(e.xid::text::bigint) FILTER (WHERE NOT is_written_here(e.xmin, e.xid, v_known.xid_offset)), max(e.position)
    INTO v_restored, v_position FROM events AS e;
    v_restored := greatest(v_places, v_restored);
    IF v_restored >= v_next + v_known.xid_offset
        OR EXISTS (SELECT FROM events AS e
                   WHERE e.xid::text::bigint <= v_restored AND is_written_here(e.xmin, e.xid, v_known.xid_offset)) THEN
        UPDATE installation SET xid_offset = v_restored + 1000000000 - v_next;
        UPDATE events AS e SET xid = event_xid()::text::xid8 WHERE is_written_here(e.xmin, e.xid, v_known.xid_offset);
        GET DIAGNOSTICS v_rewritten = ROW_COUNT;
        v_done := format('; the order of events goes on behind %s, and %s events written since then were moved behind it',
                         v_restored, v_rewritten);
    END IF;
    IF EXISTS (SELECT FROM installation WHERE xid_offset <> 0) THEN  -- a copy of the tables alone lacks the default, too
        EXECUTE format('ALTER TABLE events ALTER COLUMN xid SET DEFAULT (pg_current_xact_id()::text::bigint + %s)::text::xid8',
                       (SELECT i.xid_offset FROM installation AS i));
    END IF;
    IF v_position > (SELECT last_value FROM event_position) THEN
        PERFORM setval('event_position', v_position);
    END IF;
    UPDATE installation SET cluster_id = v_cluster;
    RETURN 'the schema has come from another PostgreSQL cluster' || v_done;
END $$;
