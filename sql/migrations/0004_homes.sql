-- A job's home tells its state, to the end: dead letters have a table of their own, a success is told by its last event,
-- and a job's record is written once.
ALTER TABLE ready ADD COLUMN error text;
ALTER TABLE leases ADD COLUMN error text;
UPDATE ready AS r SET error = j.error FROM job_records AS j WHERE j.id = r.id AND j.error IS NOT NULL;
UPDATE leases AS l SET error = j.error FROM job_records AS j WHERE j.id = l.id AND j.error IS NOT NULL;
CREATE INDEX ready_failed ON ready (id) WHERE error IS NOT NULL;

CREATE TABLE dead (
    id          uuid NOT NULL PRIMARY KEY,  -- job_page, in its order
    finished_at timestamptz NOT NULL,
    version     integer NOT NULL,           -- of the event that ended it
    attempts    smallint NOT NULL,
    deliveries  smallint NOT NULL,          -- leases given, those handed back too
    tenant      text COLLATE "C" NOT NULL,
    queue       text COLLATE "C" NOT NULL,
    error       text NOT NULL
);

CREATE INDEX dead_by_queue ON dead (queue, tenant, id);  -- queue_stats, job_page

INSERT INTO dead (id, finished_at, version, attempts, deliveries, tenant, queue, error)
SELECT id, finished_at, version, attempts, coalesce(deliveries, attempts), tenant, queue, coalesce(error, '')
FROM job_records WHERE outcome = 'dead';

CREATE INDEX events_of_success ON events (stream_id) WHERE type = 'succeeded';

ALTER TABLE lease_requests ADD COLUMN job_ids uuid[] NOT NULL DEFAULT '{}', ADD COLUMN lease_ids uuid[] NOT NULL DEFAULT '{}';
UPDATE lease_requests AS q SET job_ids = l.job_ids, lease_ids = l.lease_ids
FROM (SELECT worker_id, request_id, array_agg(id) AS job_ids, array_agg(lease_id) AS lease_ids
      FROM leases WHERE request_id IS NOT NULL GROUP BY worker_id, request_id) AS l
WHERE l.worker_id = q.worker_id AND l.request_id = q.request_id;
ALTER TABLE lease_requests ALTER COLUMN job_ids DROP DEFAULT, ALTER COLUMN lease_ids DROP DEFAULT;
DROP INDEX leases_by_request;
ALTER TABLE leases DROP COLUMN request_id;

DROP VIEW jobs;
DROP FUNCTION job_matches(job_records, text, text, text, text, timestamptz, timestamptz, timestamptz, timestamptz, text);
DROP INDEX job_records_dead, job_records_dead_by_queue, job_records_failed;
ALTER TABLE job_records DROP COLUMN finished_at, DROP COLUMN version, DROP COLUMN attempts, DROP COLUMN outcome,
    DROP COLUMN error, DROP COLUMN deliveries;
DROP TYPE job_outcome;

CREATE FUNCTION job_matches(j job_records, tenant text, queue text, kind text, key text, created_from timestamptz,
                            created_to timestamptz)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT ($2 IS NULL OR j.tenant = $2)
        AND ($3 IS NULL OR j.queue = $3)
        AND ($4 IS NULL OR j.kind = $4)
        AND ($5 IS NULL OR j.id = ANY (job_ids_of_key($5)))
        AND ($6 IS NULL OR j.created_at >= $6 AND j.id >= first_id_at($6))
        AND ($7 IS NULL OR j.created_at < $7 AND j.id < first_id_at($7 + interval '1 hour'))
$$;

CREATE FUNCTION end_matches(finished_at timestamptz, error text, finished_from timestamptz, finished_to timestamptz, part text)
RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ($3 IS NULL OR $1 >= $3) AND ($4 IS NULL OR $1 < $4) AND ($5 IS NULL OR position(lower($5) IN lower($2)) > 0)
$$;

CREATE VIEW jobs AS
SELECT
    j.id,
    j.tenant,
    j.queue,
    j.kind,
    CASE WHEN r.id IS NOT NULL THEN 'queued' WHEN l.id IS NOT NULL THEN 'leased' WHEN d.id IS NOT NULL THEN 'dead'
         ELSE 'succeeded' END AS status,
    j.priority,
    coalesce(r.attempts, l.attempt, d.attempts, (s.data ->> 'attempt')::smallint) AS attempts,
    j.max_attempts,
    j.run_at,
    j.created_at,
    coalesce(r.eligible_at, l.eligible_at) AS eligible_at,
    coalesce(l.leased_at, h.at) AS leased_at,
    l.lease_id,
    l.expires_at AS lease_expires_at,
    coalesce(l.worker_id, substr(h.actor, 8)::uuid) AS worker_id,
    coalesce(d.finished_at, s.at) AS finished_at,
    coalesce(r.version, l.version, d.version, s.version) AS version,
    j.idempotency_key,
    coalesce(r.error, l.error, d.error) AS error,
    l.progress,
    coalesce(r.deliveries, l.deliveries, d.deliveries, (
        SELECT count(*)::smallint FROM events AS e WHERE e.stream_id = s.stream_id AND e.type = 'leased' AND e.version > coalesce((
            SELECT max(x.version) FROM events AS x WHERE x.stream_id = s.stream_id AND x.type = 'retried'), 0))) AS deliveries,
    j.timeout_secs,
    j.deadline
FROM job_records AS j
LEFT JOIN ready AS r ON r.id = j.id
LEFT JOIN leases AS l ON l.id = j.id
LEFT JOIN dead AS d ON d.id = j.id
LEFT JOIN events AS s ON s.stream_id = j.id AND s.type = 'succeeded'
LEFT JOIN events AS h ON h.stream_id = j.id AND h.type = 'leased' AND h.version = coalesce(d.version, s.version) - 1;

CREATE OR REPLACE FUNCTION take_ready(p_tenant text, p_queues text[], p_kinds text[], p_count integer) RETURNS SETOF ready
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off AS $$
DECLARE
    v_now timestamptz := statement_timestamp();
    v_paused text[];
    v_lanes kind_lane[];
    v_slack CONSTANT integer := 64;  -- candidates beyond the count, in case others are locking the first ones
    v_priority integer := 32768;
    v_left integer := p_count;
    v_taken integer;
    v_candidates uuid[];
    v_held tid[];  -- locked by us, so that they stay where they are
BEGIN
    SELECT d.queues, d.paused INTO p_queues, v_paused FROM dispatch_scope(p_tenant, p_queues) AS d;
    IF p_kinds IS NOT NULL THEN
        v_lanes := kind_lanes(p_tenant, coalesce(p_queues, queues_of_all()), v_paused, p_kinds);
    END IF;
    WHILE v_left > 0 LOOP
        v_priority := next_priority(p_tenant, p_queues, v_lanes, v_priority);
        EXIT WHEN v_priority IS NULL;
        IF v_lanes IS NOT NULL THEN
            v_candidates := ARRAY(
                SELECT c.id FROM unnest(v_lanes) AS k CROSS JOIN LATERAL (
                    SELECT r.id, r.eligible_at FROM ready AS r
                    WHERE r.queue = k.queue AND r.kind = k.kind AND r.tenant = k.tenant AND r.priority = v_priority
                        AND r.eligible_at <= v_now AND (r.deadline IS NULL OR r.deadline > v_now)
                    ORDER BY r.eligible_at, r.id LIMIT v_left + v_slack) AS c
                ORDER BY c.eligible_at, c.id LIMIT v_left + v_slack);
        ELSIF p_queues IS NULL THEN
            v_held := ARRAY(
                SELECT r.ctid FROM ready AS r
                WHERE r.priority::integer = v_priority AND r.eligible_at <= v_now
                    AND (r.deadline IS NULL OR r.deadline > v_now)
                ORDER BY r.eligible_at, r.id LIMIT v_left FOR UPDATE SKIP LOCKED);
        ELSIF p_tenant IS NULL AND cardinality(p_queues) = 1 THEN
            v_held := ARRAY(
                SELECT r.ctid FROM ready AS r
                WHERE r.queue = p_queues[1] AND r.priority = v_priority AND r.eligible_at <= v_now
                    AND (r.deadline IS NULL OR r.deadline > v_now)
                    AND (v_paused IS NULL OR r.tenant || E'\x1f' || r.queue <> ALL (v_paused))
                ORDER BY r.eligible_at, r.id LIMIT v_left FOR UPDATE SKIP LOCKED);
        ELSIF p_tenant IS NULL THEN
            v_candidates := ARRAY(
                SELECT c.id FROM unnest(p_queues) AS q (queue) CROSS JOIN LATERAL (
                    SELECT r.id, r.eligible_at FROM ready AS r
                    WHERE r.queue = q.queue AND r.priority = v_priority AND r.eligible_at <= v_now
                        AND (r.deadline IS NULL OR r.deadline > v_now)
                        AND (v_paused IS NULL OR r.tenant || E'\x1f' || r.queue <> ALL (v_paused))
                    ORDER BY r.eligible_at, r.id LIMIT v_left + v_slack) AS c
                ORDER BY c.eligible_at, c.id LIMIT v_left + v_slack);
        ELSE
            v_candidates := ARRAY(
                SELECT c.id FROM unnest(p_queues) AS q (queue) CROSS JOIN LATERAL (
                    SELECT r.id, r.eligible_at FROM ready AS r
                    WHERE r.tenant || E'\x1f' || r.queue = p_tenant || E'\x1f' || q.queue AND r.tenant <> '' AND r.priority = v_priority
                        AND r.eligible_at <= v_now AND (r.deadline IS NULL OR r.deadline > v_now)
                    ORDER BY r.eligible_at, r.id LIMIT v_left + v_slack) AS c
                ORDER BY c.eligible_at, c.id LIMIT v_left + v_slack);
        END IF;
        IF v_candidates IS NOT NULL THEN
            v_held := ARRAY(
                SELECT r.ctid FROM unnest(v_candidates) AS c (id) CROSS JOIN LATERAL (
                    SELECT w.ctid FROM ready AS w WHERE w.id = c.id FOR UPDATE SKIP LOCKED) AS r
                LIMIT v_left);
        END IF;
        RETURN QUERY DELETE FROM ready AS r WHERE r.ctid = ANY (v_held) RETURNING r.*;
        GET DIAGNOSTICS v_taken = ROW_COUNT;
        v_left := v_left - v_taken;
    END LOOP;
END $$;

DROP FUNCTION hold_leases(uuid[], uuid[], uuid[]);
CREATE FUNCTION hold_leases(p_ids uuid[], p_lease_ids uuid[], p_worker_ids uuid[])
RETURNS TABLE (ord integer, id uuid, place tid) LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    RETURN QUERY
        SELECT i.ord::integer, l.id, l.ctid
        FROM unnest(p_ids, p_lease_ids, p_worker_ids) WITH ORDINALITY AS i (id, lease_id, worker_id, ord)
        JOIN leases AS l ON l.id = i.id AND l.lease_id = i.lease_id
        JOIN worker_tokens AS t ON t.id = i.worker_id
        WHERE token_lives(t) AND token_covers(t, l.tenant, l.queue, l.kind)
        ORDER BY l.id, i.ord
        FOR UPDATE OF l;
END $$;

CREATE OR REPLACE FUNCTION make_partitions(p_ahead integer) RETURNS integer LANGUAGE plpgsql AS $$
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
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', v_parent, v_name,
                           first_id_at(v_day), first_id_at(v_day + interval '1 day'));
            v_made := v_made + 1;
        END LOOP;
    END LOOP;
    RETURN v_made;
END $$;

CREATE OR REPLACE FUNCTION drop_partition_pair(p_day text, p_succeeded timestamptz, p_dead timestamptz) RETURNS boolean
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
