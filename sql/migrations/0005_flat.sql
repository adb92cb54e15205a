-- What ended in a stretch of time is found by an index; several queues are merged by their first rows.
CREATE INDEX events_by_success ON events USING brin (at) WITH (pages_per_range = 32, autosummarize = on)
    WHERE type = 'succeeded';
CREATE INDEX dead_by_end ON dead (finished_at);

DROP FUNCTION take_ready(text, text[], text[], integer);
CREATE FUNCTION take_ready(p_tenant text, p_queues text[], p_kinds text[], p_count integer, p_priority integer,
                           p_since timestamptz) RETURNS SETOF ready
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off AS $$
DECLARE
    v_now timestamptz := statement_timestamp();
    v_paused text[];
    v_lanes kind_lane[];
    v_slack CONSTANT integer := 64;  -- candidates beyond twice the count: others may be taking the first ones
    v_few CONSTANT integer := 64;    -- queues, to be looked for among the first of all
    v_priority integer := 32768;
    v_since timestamptz;
    v_is_told boolean := p_priority IS NOT NULL;  -- begin where the caller says
    v_left integer := p_count;
    v_most integer;      -- candidates wanted
    v_depths integer[];  -- rows to look at in each queue, or lane
    v_places tid[];      -- candidates in order
    v_ends integer[];    -- the queues whose last row seen is among them, in their order: there may be more of those
    v_cuts integer[];    -- and where that row stands
    v_taken integer;
    v_held tid[];        -- locked by us, so that they stay where they are
BEGIN
    SELECT d.queues, d.paused INTO p_queues, v_paused FROM dispatch_scope(p_tenant, p_queues) AS d;
    IF p_kinds IS NOT NULL THEN
        v_lanes := kind_lanes(p_tenant, coalesce(p_queues, queues_of_all()), v_paused, p_kinds);
    END IF;
    IF v_is_told THEN
        v_is_told := (SELECT h.priority IS NULL FROM next_head(p_tenant, p_queues, v_lanes, 32768, p_priority) AS h);
    END IF;
    IF NOT v_is_told AND p_kinds IS NULL AND cardinality(p_queues) BETWEEN 2 AND v_few THEN
        SELECT array_agg(f.place) INTO v_places FROM next_head(NULL, NULL, NULL, v_priority, -32769) AS h CROSS JOIN LATERAL (
            SELECT r.ctid AS place, r.queue, r.tenant FROM ready AS r
            WHERE r.priority::integer = h.priority AND r.eligible_at BETWEEN h.since AND v_now AND (r.deadline IS NULL OR r.deadline > v_now)
            ORDER BY r.eligible_at, r.id LIMIT 2 * v_left + v_slack) AS f
        WHERE f.queue = ANY (p_queues) AND (p_tenant IS NULL OR f.tenant = p_tenant)
            AND (v_paused IS NULL OR f.tenant || E'\x1f' || f.queue <> ALL (v_paused));
        IF cardinality(v_places) >= v_left THEN
            v_held := ARRAY(
                SELECT r.ctid FROM unnest(v_places) AS c (place) CROSS JOIN LATERAL (
                    SELECT w.ctid FROM ready AS w WHERE w.ctid = c.place FOR UPDATE SKIP LOCKED) AS r
                LIMIT v_left);
            RETURN QUERY DELETE FROM ready AS r WHERE r.ctid = ANY (v_held) RETURNING r.*;
            GET DIAGNOSTICS v_taken = ROW_COUNT;
            v_left := v_left - v_taken;
        END IF;
        v_places := NULL;
    END IF;
    WHILE v_left > 0 LOOP
        IF v_depths IS NULL THEN
            IF v_is_told THEN
                v_priority := p_priority;
                v_since := p_since;
            ELSE
                SELECT h.priority, h.since INTO v_priority, v_since
                FROM next_head(p_tenant, p_queues, v_lanes, v_priority, -32769) AS h;
                EXIT WHEN v_priority IS NULL;
            END IF;
            v_most := 2 * v_left + v_slack;
            v_depths := array_fill(least(v_most, v_left / greatest(1, coalesce(cardinality(v_lanes), cardinality(p_queues))) + 8),
                                   ARRAY[coalesce(cardinality(v_lanes), cardinality(p_queues), 0)]);
        END IF;
        IF v_lanes IS NOT NULL THEN
            SELECT coalesce(array_agg(m.place), '{}'), array_agg(m.ord) FILTER (WHERE m.is_last),
                array_agg(m.at) FILTER (WHERE m.is_last)
            INTO v_places, v_ends, v_cuts FROM (
                SELECT c.place, k.ord, c.nth = k.depth AS is_last, row_number() OVER (ORDER BY c.eligible_at, c.id) AS at
                FROM unnest(v_lanes, v_depths) WITH ORDINALITY AS k (tenant, queue, kind, depth, ord)
                CROSS JOIN LATERAL (
                    SELECT r.ctid AS place, r.eligible_at, r.id, row_number() OVER (ORDER BY r.eligible_at, r.id) AS nth
                    FROM ready AS r
                    WHERE r.queue = k.queue AND r.kind = k.kind AND r.tenant = k.tenant AND r.priority = v_priority
                        AND r.eligible_at BETWEEN v_since AND v_now AND (r.deadline IS NULL OR r.deadline > v_now)
                    ORDER BY r.eligible_at, r.id LIMIT k.depth) AS c
                ORDER BY c.eligible_at, c.id LIMIT v_most) AS m;
        ELSIF p_queues IS NULL THEN
            v_held := ARRAY(
                SELECT r.ctid FROM ready AS r
                WHERE r.priority::integer = v_priority AND r.eligible_at BETWEEN v_since AND v_now
                    AND (r.deadline IS NULL OR r.deadline > v_now)
                ORDER BY r.eligible_at, r.id LIMIT v_left FOR UPDATE SKIP LOCKED);
        ELSIF p_tenant IS NULL AND cardinality(p_queues) = 1 THEN
            v_held := ARRAY(
                SELECT r.ctid FROM ready AS r
                WHERE r.queue = p_queues[1] AND r.priority = v_priority AND r.eligible_at BETWEEN v_since AND v_now
                    AND (r.deadline IS NULL OR r.deadline > v_now)
                    AND (v_paused IS NULL OR r.tenant || E'\x1f' || r.queue <> ALL (v_paused))
                ORDER BY r.eligible_at, r.id LIMIT v_left FOR UPDATE SKIP LOCKED);
        ELSIF p_tenant IS NULL THEN
            SELECT coalesce(array_agg(m.place), '{}'), array_agg(m.ord) FILTER (WHERE m.is_last),
                array_agg(m.at) FILTER (WHERE m.is_last)
            INTO v_places, v_ends, v_cuts FROM (
                SELECT c.place, k.ord, c.nth = k.depth AS is_last, row_number() OVER (ORDER BY c.eligible_at, c.id) AS at
                FROM unnest(p_queues, v_depths) WITH ORDINALITY AS k (queue, depth, ord) CROSS JOIN LATERAL (
                    SELECT r.ctid AS place, r.eligible_at, r.id, row_number() OVER (ORDER BY r.eligible_at, r.id) AS nth
                    FROM ready AS r
                    WHERE r.queue = k.queue AND r.priority = v_priority AND r.eligible_at BETWEEN v_since AND v_now
                        AND (r.deadline IS NULL OR r.deadline > v_now)
                        AND (v_paused IS NULL OR r.tenant || E'\x1f' || r.queue <> ALL (v_paused))
                    ORDER BY r.eligible_at, r.id LIMIT k.depth) AS c
                ORDER BY c.eligible_at, c.id LIMIT v_most) AS m;
        ELSE
            SELECT coalesce(array_agg(m.place), '{}'), array_agg(m.ord) FILTER (WHERE m.is_last),
                array_agg(m.at) FILTER (WHERE m.is_last)
            INTO v_places, v_ends, v_cuts FROM (
                SELECT c.place, k.ord, c.nth = k.depth AS is_last, row_number() OVER (ORDER BY c.eligible_at, c.id) AS at
                FROM unnest(p_queues, v_depths) WITH ORDINALITY AS k (queue, depth, ord) CROSS JOIN LATERAL (
                    SELECT r.ctid AS place, r.eligible_at, r.id, row_number() OVER (ORDER BY r.eligible_at, r.id) AS nth
                    FROM ready AS r
                    WHERE r.tenant || E'\x1f' || r.queue = p_tenant || E'\x1f' || k.queue AND r.tenant <> ''
                        AND r.priority = v_priority AND r.eligible_at BETWEEN v_since AND v_now
                        AND (r.deadline IS NULL OR r.deadline > v_now)
                    ORDER BY r.eligible_at, r.id LIMIT k.depth) AS c
                ORDER BY c.eligible_at, c.id LIMIT v_most) AS m;
        END IF;
        IF v_places IS NOT NULL THEN
            v_held := ARRAY(
                SELECT r.ctid FROM unnest(v_places[:coalesce(v_cuts[1], v_most)]) AS c (place) CROSS JOIN LATERAL (
                    SELECT w.ctid FROM ready AS w WHERE w.ctid = c.place FOR UPDATE SKIP LOCKED) AS r
                LIMIT v_left);
        END IF;
        RETURN QUERY DELETE FROM ready AS r WHERE r.ctid = ANY (v_held) RETURNING r.*;
        GET DIAGNOSTICS v_taken = ROW_COUNT;
        v_left := v_left - v_taken;
        IF v_ends IS NULL AND coalesce(cardinality(v_places), 0) < v_most THEN
            v_depths := NULL;  -- all of this priority was seen
            IF v_is_told THEN
                v_is_told := false;
                v_priority := 32768;  -- too little from there on: begin at the true head
            END IF;
        ELSE
            IF cardinality(v_places) = v_most THEN
                v_most := 4 * v_most;  -- others hold the first ones
            END IF;
            FOR i IN 1 .. coalesce(cardinality(v_ends), 0) LOOP
                EXIT WHEN i > 1 AND v_cuts[i] > v_left + v_taken;
                v_depths[v_ends[i]] := least(v_most, 8 * v_depths[v_ends[i]]);
            END LOOP;
        END IF;
    END LOOP;
END $$;

-- Strong random bytes are dear, so a statement draws one uuid and derives the others that it needs: nobody can tell one of
-- them from another without the one it was drawn from, which nobody is told.
CREATE FUNCTION derived(secret uuid, n bigint, bytes integer) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT substr(sha256(uuid_send($1) || int8send($2)), 1, $3)
$$;

-- The n-th of a secret's ids, with the marks of a random one (RFC 9562 §5.4); 112 of its bits nobody can tell.
CREATE FUNCTION nth_secret_id(secret uuid, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT encode(set_byte(set_byte(derived($1, $2, 16), 6, 64), 8, 128), 'hex')::uuid
$$;

CREATE FUNCTION microseconds_now() RETURNS bigint LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
$$;

-- A time-ordered id, after RFC 9562 §5.7 and §6.2 method 3: 48 bits of milliseconds, 12 bits of their fraction, then 8
-- fixed bits for the cell (a shard; 0 today) and 48 random ones. A statement that needs many takes the n-th of a moment,
-- a microsecond apart, and they keep their order.
CREATE FUNCTION nth_id(us bigint, secret uuid, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT encode(int8send((($1 + $3) / 1000) << 16 | 28672 | ($1 + $3) % 1000 * 4096 / 1000)
                  || set_byte(set_byte(derived($2, $3, 8), 0, 128), 1, 0), 'hex')::uuid
$$;

CREATE OR REPLACE FUNCTION new_id() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT nth_id(microseconds_now(), gen_random_uuid(), 0)
$$;

DROP FUNCTION hold_leases(uuid[], uuid[], uuid[]);
CREATE FUNCTION hold_leases(p_ids text, p_lease_ids text, p_worker_ids uuid[])
RETURNS TABLE (ord integer, id uuid, place tid, reporter uuid) LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_is_one boolean := cardinality(p_worker_ids) = 1;
    v_token worker_tokens;
BEGIN
    IF v_is_one THEN
        SELECT w.* INTO v_token FROM worker_tokens AS w WHERE w.id = p_worker_ids[1] AND token_lives(w);
    END IF;
    RETURN QUERY
        SELECT i.ord::integer, l.id, l.ctid, (i.token).id
        FROM (
            SELECT r.ord, r.id, r.lease_id, CASE WHEN v_is_one THEN v_token ELSE (
                SELECT w FROM worker_tokens AS w WHERE w.id = r.worker_id AND token_lives(w)) END AS token
            FROM unnest(string_to_array(p_ids, ',')::uuid[], string_to_array(p_lease_ids, ',')::uuid[], p_worker_ids)
                WITH ORDINALITY AS r (id, lease_id, worker_id, ord)
            ORDER BY r.id, r.ord) AS i
        CROSS JOIN LATERAL (  -- as a subquery that locks, so that no plan begins at the leases
            SELECT w.id, w.ctid FROM leases AS w
            WHERE w.id = i.id AND w.lease_id = i.lease_id AND token_covers(i.token, w.tenant, w.queue, w.kind)
            FOR UPDATE) AS l
        WHERE (i.token).id IS NOT NULL;
END $$;

-- Large payloads are compressed; with LZ4, where this PostgreSQL was built with it, several times faster than otherwise.
DO $$ BEGIN
    ALTER TABLE events ALTER COLUMN data SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL;
END $$;

DROP FUNCTION next_priority(text, text[], kind_lane[], integer);
CREATE FUNCTION next_head(p_tenant text, p_queues text[], p_lanes kind_lane[], p_below integer, p_above integer,
                          OUT priority integer, OUT since timestamptz)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    IF p_lanes IS NOT NULL THEN
        SELECT t.priority, min(t.eligible_at) INTO priority, since
        FROM unnest(p_lanes) AS k CROSS JOIN LATERAL (
            SELECT r.priority, r.eligible_at FROM ready AS r
            WHERE r.queue = k.queue AND r.kind = k.kind AND r.tenant = k.tenant
                AND r.priority < p_below AND r.priority > p_above
            ORDER BY r.priority DESC, r.eligible_at LIMIT 1) AS t
        GROUP BY t.priority ORDER BY t.priority DESC LIMIT 1;
    ELSIF p_queues IS NULL THEN
        SELECT r.priority::integer, r.eligible_at INTO priority, since FROM ready AS r
        WHERE r.priority::integer < p_below AND r.priority::integer > p_above
        ORDER BY r.priority::integer DESC, r.eligible_at LIMIT 1;
    ELSIF p_tenant IS NULL THEN
        SELECT t.priority, min(t.eligible_at) INTO priority, since
        FROM unnest(p_queues) AS q (queue) CROSS JOIN LATERAL (
            SELECT r.priority, r.eligible_at FROM ready AS r
            WHERE r.queue = q.queue AND r.priority < p_below AND r.priority > p_above
            ORDER BY r.priority DESC, r.eligible_at LIMIT 1) AS t
        GROUP BY t.priority ORDER BY t.priority DESC LIMIT 1;
    ELSE
        SELECT t.priority, min(t.eligible_at) INTO priority, since
        FROM unnest(p_queues) AS q (queue) CROSS JOIN LATERAL (
            SELECT r.priority, r.eligible_at FROM ready AS r
            WHERE r.tenant || E'\x1f' || r.queue = p_tenant || E'\x1f' || q.queue AND r.tenant <> ''
                AND r.priority < p_below AND r.priority > p_above
            ORDER BY r.priority DESC, r.eligible_at LIMIT 1) AS t
        GROUP BY t.priority ORDER BY t.priority DESC LIMIT 1;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION next_eligible(p_tenant text, p_queues text[], p_kinds text[]) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_priority integer := 32768;
    v_first timestamptz;
    v_soonest timestamptz;
    v_paused text[];
    v_lanes kind_lane[];
BEGIN
    SELECT d.queues, d.paused INTO p_queues, v_paused FROM dispatch_scope(p_tenant, p_queues) AS d;
    IF p_kinds IS NOT NULL THEN
        v_lanes := kind_lanes(p_tenant, coalesce(p_queues, queues_of_all()), v_paused, p_kinds);
    END IF;
    LOOP
        SELECT h.priority, h.since INTO v_priority, v_first FROM next_head(p_tenant, p_queues, v_lanes, v_priority, -32769) AS h;
        EXIT WHEN v_priority IS NULL;
        IF v_paused IS NOT NULL AND v_lanes IS NULL THEN
            v_first := (SELECT min(t.eligible_at) FROM unnest(p_queues) AS q (queue) CROSS JOIN LATERAL (
                SELECT r.eligible_at FROM ready AS r
                WHERE r.queue = q.queue AND r.priority = v_priority AND r.eligible_at >= v_first
                    AND r.tenant || E'\x1f' || r.queue <> ALL (v_paused)
                ORDER BY r.eligible_at LIMIT 1) AS t);
        END IF;
        v_soonest := least(v_soonest, v_first);
        EXIT WHEN v_soonest <= statement_timestamp();
    END LOOP;
    RETURN v_soonest;
END $$;

CREATE OR REPLACE FUNCTION oldest_eligible(p_tenant text, p_queue text) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_priority integer := 32768;
    v_first timestamptz;
    v_oldest timestamptz;
BEGIN
    LOOP
        SELECT h.priority, h.since INTO v_priority, v_first
        FROM next_head(nullif(p_tenant, ''), ARRAY[p_queue], NULL, v_priority, -32769) AS h;
        EXIT WHEN v_priority IS NULL;
        IF p_tenant = '' THEN
            v_first := (SELECT r.eligible_at FROM ready AS r
                        WHERE r.queue = p_queue AND r.priority = v_priority AND r.eligible_at >= v_first AND r.tenant = ''
                        ORDER BY r.eligible_at LIMIT 1);
        END IF;
        v_oldest := least(v_oldest, v_first);
    END LOOP;
    RETURN CASE WHEN v_oldest <= statement_timestamp() THEN v_oldest END;
END $$;
