-- A search among errors looks at no other tenant's jobs that wait for their retry, and a page of what was made before a
-- moment begins there. A lease passes priorities of which nothing is due with one look at each.
CREATE INDEX ready_failed_by_tenant ON ready (tenant, id) WHERE error IS NOT NULL;

-- The first id that no job made before a moment has: an id is made in the same moment as its job's created_at, up to the
-- microseconds that tell those of one statement apart. Up to migration 12 it was made a little later; an hour is plenty.
-- What it tells changes with that migration alone, so that plans may hold it for a constant.
CREATE FUNCTION end_id_at(moment timestamptz) RETURNS uuid LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN first_id_at(moment + CASE WHEN EXISTS (
        SELECT FROM migrations AS m WHERE m.version = 12 AND m.name <> 'schema' AND m.finished_at > moment - interval '1 hour')
        THEN interval '1 hour' ELSE interval '10 milliseconds' END);
END $$;

CREATE OR REPLACE FUNCTION id_matches(id uuid, key text, created_from timestamptz, created_to timestamptz, above uuid, below uuid)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT ($2 IS NULL OR $1 = ANY (job_ids_of_key($2)))
        AND ($3 IS NULL OR $1 >= first_id_at($3)) AND ($4 IS NULL OR $1 < end_id_at($4))
        AND ($5 IS NULL OR $1 > $5) AND ($6 IS NULL OR $1 < $6)
$$;

CREATE OR REPLACE FUNCTION job_matches(j job_records, tenant text, queue text, kind text, created_from timestamptz, created_to timestamptz)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT ($2 IS NULL OR j.tenant = $2)
        AND ($3 IS NULL OR j.queue = $3)
        AND ($4 IS NULL OR j.kind = $4)
        AND ($5 IS NULL OR j.created_at >= $5 AND j.id >= first_id_at($5))
        AND ($6 IS NULL OR j.created_at < $6 AND j.id < end_id_at($6))
$$;

CREATE OR REPLACE FUNCTION take_ready(p_tenant text, p_queues text[], p_kinds text[], p_count integer, p_priority integer,
                           p_since timestamptz) RETURNS SETOF ready
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off AS $$
DECLARE
    v_now timestamptz := statement_timestamp();
    v_paused text[];
    v_lanes text[];
    v_slack CONSTANT integer := 64;   -- candidates beyond what is needed: others may be taking the first ones
    v_few CONSTANT integer := 64;     -- queues, to be looked for among all that waits
    v_sample CONSTANT integer := 32;  -- rows that tell whether it is worth it
    v_least CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    v_greatest CONSTANT uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
    v_is_wide boolean;
    v_is_told boolean := p_priority IS NOT NULL;  -- begin where the caller says
    v_priority integer := 32768;
    v_since timestamptz; -- what stands up to here, in this priority, is taken, held, or not wanted; null: a new priority
    v_after uuid;
    v_until timestamptz; -- how far to look
    v_last uuid;
    v_left integer := p_count;
    v_taken integer;
    v_most integer;      -- candidates to look at: more each time
    v_reach integer;     -- as far as this goes, queues are looked into deeper
    v_depths integer[];  -- rows to look at in each queue, or lane; null: not merging
    v_places tid[];      -- candidates in order (null: a paused one), and where they stand
    v_sinces timestamptz[];
    v_ids uuid[];
    v_ends integer[];    -- the queues whose last row seen is among them, in their order: there may be more of those
    v_cuts integer[];    -- and where that row stands
    v_held tid[];        -- locked by us, so that they stay where they are
BEGIN
    IF p_queues IS NULL AND p_tenant IS NOT NULL OR EXISTS (SELECT FROM queue_pauses) THEN  -- else it is as it says
        SELECT d.queues, d.paused INTO p_queues, v_paused FROM dispatch_scope(p_tenant, p_queues) AS d;
    END IF;
    IF p_kinds IS NOT NULL THEN
        v_lanes := kind_lanes(p_tenant, coalesce(p_queues, queues_of_all()), p_kinds);
    END IF;
    v_is_wide := v_lanes IS NULL AND cardinality(p_queues) BETWEEN 2 AND v_few;
    IF v_is_told THEN
        v_is_told := (SELECT h.priority IS NULL FROM next_head(p_tenant, p_queues, v_lanes, 32768, p_priority) AS h);
    END IF;
    WHILE v_left > 0 LOOP
        IF v_since IS NULL THEN
            IF v_is_told THEN
                v_priority := p_priority;
                v_since := p_since;
            ELSIF v_is_wide THEN
                SELECT h.priority, h.since INTO v_priority, v_since FROM next_head(NULL, NULL, NULL, v_priority, -32769) AS h;
            ELSE
                SELECT h.priority, h.since INTO v_priority, v_since
                FROM next_head(p_tenant, p_queues, v_lanes, v_priority, -32769) AS h;
            END IF;
            EXIT WHEN v_priority IS NULL;
            IF NOT v_is_wide AND v_since > v_now THEN  -- nothing of this priority is due
                v_since := NULL;
                CONTINUE;
            END IF;
            v_after := v_least;
            v_most := v_left + v_left / 4 + v_slack;
            v_depths := NULL;
        END IF;
        IF v_is_wide THEN
            SELECT count(*) > 0
                AND 2 * count(*) FILTER (WHERE w.queue = ANY (p_queues) AND (p_tenant IS NULL OR w.tenant = p_tenant)) >= count(*)
            INTO v_is_wide FROM (
                SELECT r.queue, r.tenant FROM ready AS r
                WHERE r.priority::integer = v_priority AND (r.eligible_at, r.id) > (v_since, v_after) AND r.eligible_at <= v_now
                ORDER BY r.eligible_at, r.id LIMIT v_sample) AS w;
            IF NOT v_is_wide THEN
                v_priority := v_priority + 1;  -- that was the first of all of them: once more, of the scope's own
                v_since := NULL;
                CONTINUE;
            END IF;
            SELECT r.eligible_at, r.id INTO v_until, v_last FROM ready AS r
            WHERE r.priority::integer = v_priority AND (r.eligible_at, r.id) > (v_since, v_after) AND r.eligible_at <= v_now
            ORDER BY r.eligible_at, r.id OFFSET v_most - 1 LIMIT 1;
            v_held := ARRAY(
                SELECT r.ctid FROM ready AS r
                WHERE r.priority::integer = v_priority AND (r.eligible_at, r.id) > (v_since, v_after)
                    AND (r.eligible_at, r.id) <= (coalesce(v_until, v_now), coalesce(v_last, v_greatest))
                    AND (r.deadline IS NULL OR r.deadline > v_now)
                    AND r.queue || '' = ANY (p_queues) AND (p_tenant IS NULL OR r.tenant = p_tenant)
                    AND (v_paused IS NULL OR r.tenant || E'\x1f' || r.queue <> ALL (v_paused))
                ORDER BY r.eligible_at, r.id LIMIT v_left FOR UPDATE SKIP LOCKED);
        ELSIF v_lanes IS NULL AND p_queues IS NULL THEN
            v_held := ARRAY(
                SELECT r.ctid FROM ready AS r
                WHERE r.priority::integer = v_priority AND r.eligible_at BETWEEN v_since AND v_now
                    AND (r.deadline IS NULL OR r.deadline > v_now)
                ORDER BY r.eligible_at, r.id LIMIT v_left FOR UPDATE SKIP LOCKED);
        ELSIF v_lanes IS NULL AND p_tenant IS NULL AND cardinality(p_queues) = 1 THEN
            v_held := ARRAY(
                SELECT r.ctid FROM ready AS r
                WHERE r.queue = p_queues[1] AND r.priority = v_priority AND r.eligible_at BETWEEN v_since AND v_now
                    AND (r.deadline IS NULL OR r.deadline > v_now)
                    AND (v_paused IS NULL OR r.tenant || E'\x1f' || r.queue <> ALL (v_paused))
                ORDER BY r.eligible_at, r.id LIMIT v_left FOR UPDATE SKIP LOCKED);
        ELSE
            v_depths := coalesce(v_depths, array_fill(
                least(v_most, v_left / greatest(1, coalesce(cardinality(v_lanes), cardinality(p_queues))) + 8),
                ARRAY[coalesce(cardinality(v_lanes), cardinality(p_queues))]));
            IF v_lanes IS NOT NULL AND p_tenant IS NULL THEN
                SELECT array_agg(m.place), array_agg(m.eligible_at), array_agg(m.id),
                    array_agg(m.ord) FILTER (WHERE m.is_last), array_agg(m.at) FILTER (WHERE m.is_last)
                INTO v_places, v_sinces, v_ids, v_ends, v_cuts FROM (
                    SELECT c.*, k.ord, c.nth = k.depth AS is_last, row_number() OVER (ORDER BY c.eligible_at, c.id) AS at
                    FROM unnest(v_lanes, v_depths) WITH ORDINALITY AS k (lane, depth, ord) CROSS JOIN LATERAL (
                        SELECT CASE WHEN v_paused IS NULL OR r.tenant || E'\x1f' || r.queue <> ALL (v_paused) THEN r.ctid END AS place,
                            r.eligible_at, r.id, row_number() OVER (ORDER BY r.eligible_at, r.id) AS nth
                        FROM ready AS r
                        WHERE r.queue || E'\x1f' || r.kind = k.lane AND r.priority = v_priority
                            AND (r.eligible_at, r.id) > (v_since, v_after) AND r.eligible_at <= v_now
                            AND (r.deadline IS NULL OR r.deadline > v_now)
                        ORDER BY r.eligible_at, r.id LIMIT k.depth) AS c
                    ORDER BY c.eligible_at, c.id LIMIT v_most) AS m;
            ELSIF v_lanes IS NOT NULL THEN
                SELECT array_agg(m.place), array_agg(m.eligible_at), array_agg(m.id),
                    array_agg(m.ord) FILTER (WHERE m.is_last), array_agg(m.at) FILTER (WHERE m.is_last)
                INTO v_places, v_sinces, v_ids, v_ends, v_cuts FROM (
                    SELECT c.*, k.ord, c.nth = k.depth AS is_last, row_number() OVER (ORDER BY c.eligible_at, c.id) AS at
                    FROM unnest(v_lanes, v_depths) WITH ORDINALITY AS k (lane, depth, ord) CROSS JOIN LATERAL (
                        SELECT r.ctid AS place, r.eligible_at, r.id, row_number() OVER (ORDER BY r.eligible_at, r.id) AS nth
                        FROM ready AS r
                        WHERE r.tenant || E'\x1f' || r.queue || E'\x1f' || r.kind = k.lane AND r.tenant <> '' AND r.priority = v_priority
                            AND (r.eligible_at, r.id) > (v_since, v_after) AND r.eligible_at <= v_now
                            AND (r.deadline IS NULL OR r.deadline > v_now)
                        ORDER BY r.eligible_at, r.id LIMIT k.depth) AS c
                    ORDER BY c.eligible_at, c.id LIMIT v_most) AS m;
            ELSIF p_tenant IS NULL THEN
                SELECT array_agg(m.place), array_agg(m.eligible_at), array_agg(m.id),
                    array_agg(m.ord) FILTER (WHERE m.is_last), array_agg(m.at) FILTER (WHERE m.is_last)
                INTO v_places, v_sinces, v_ids, v_ends, v_cuts FROM (
                    SELECT c.*, k.ord, c.nth = k.depth AS is_last, row_number() OVER (ORDER BY c.eligible_at, c.id) AS at
                    FROM unnest(p_queues, v_depths) WITH ORDINALITY AS k (queue, depth, ord) CROSS JOIN LATERAL (
                        SELECT CASE WHEN v_paused IS NULL OR r.tenant || E'\x1f' || r.queue <> ALL (v_paused) THEN r.ctid END AS place,
                            r.eligible_at, r.id, row_number() OVER (ORDER BY r.eligible_at, r.id) AS nth
                        FROM ready AS r
                        WHERE r.queue = k.queue AND r.priority = v_priority
                            AND (r.eligible_at, r.id) > (v_since, v_after) AND r.eligible_at <= v_now
                            AND (r.deadline IS NULL OR r.deadline > v_now)
                        ORDER BY r.eligible_at, r.id LIMIT k.depth) AS c
                    ORDER BY c.eligible_at, c.id LIMIT v_most) AS m;
            ELSE
                SELECT array_agg(m.place), array_agg(m.eligible_at), array_agg(m.id),
                    array_agg(m.ord) FILTER (WHERE m.is_last), array_agg(m.at) FILTER (WHERE m.is_last)
                INTO v_places, v_sinces, v_ids, v_ends, v_cuts FROM (
                    SELECT c.*, k.ord, c.nth = k.depth AS is_last, row_number() OVER (ORDER BY c.eligible_at, c.id) AS at
                    FROM unnest(p_queues, v_depths) WITH ORDINALITY AS k (queue, depth, ord) CROSS JOIN LATERAL (
                        SELECT r.ctid AS place, r.eligible_at, r.id, row_number() OVER (ORDER BY r.eligible_at, r.id) AS nth
                        FROM ready AS r
                        WHERE r.tenant || E'\x1f' || r.queue = p_tenant || E'\x1f' || k.queue AND r.tenant <> ''
                            AND r.priority = v_priority
                            AND (r.eligible_at, r.id) > (v_since, v_after) AND r.eligible_at <= v_now
                            AND (r.deadline IS NULL OR r.deadline > v_now)
                        ORDER BY r.eligible_at, r.id LIMIT k.depth) AS c
                    ORDER BY c.eligible_at, c.id LIMIT v_most) AS m;
            END IF;
            v_places := v_places[:coalesce(v_cuts[1], v_most)];
            v_held := ARRAY(
                SELECT r.ctid FROM unnest(v_places) AS c (place) CROSS JOIN LATERAL (
                    SELECT w.ctid FROM ready AS w WHERE w.ctid = c.place FOR UPDATE SKIP LOCKED) AS r
                LIMIT v_left);
        END IF;
        RETURN QUERY DELETE FROM ready AS r WHERE r.ctid = ANY (v_held) RETURNING r.*;
        GET DIAGNOSTICS v_taken = ROW_COUNT;
        IF v_is_wide THEN
            v_since := v_until;
            v_after := v_last;
        ELSIF v_depths IS NULL OR v_ends IS NULL AND coalesce(cardinality(v_places), 0) < v_most THEN
            v_since := NULL;  -- all of this priority was seen
        ELSE
            v_since := v_sinces[cardinality(v_places)];
            v_after := v_ids[cardinality(v_places)];
            v_reach := CASE WHEN v_taken < cardinality(v_places) THEN greatest(v_left, v_most / 2) ELSE v_left END;
            FOR i IN 1 .. coalesce(cardinality(v_ends), 0) LOOP
                EXIT WHEN i > 1 AND v_cuts[i] > v_reach;
                v_depths[v_ends[i]] := least(v_most, 8 * v_depths[v_ends[i]]);
            END LOOP;
        END IF;
        v_left := v_left - v_taken;
        v_most := least(2 * v_most, 1000000);
        IF v_since IS NULL AND v_is_told THEN
            v_is_told := false;
            v_priority := 32768;  -- too little from there on: begin at the true head
        END IF;
    END LOOP;
END $$;
