-- A search among errors looks at a bounded number of jobs; dead letters of a queue, and of a tenant, come in their order;
-- and so do jobs of a kind, whosever they are.
ALTER INDEX dead_by_queue RENAME TO dead_by_lane;
CREATE INDEX dead_by_queue ON dead (queue, id);
CREATE INDEX dead_by_tenant ON dead (tenant, id);

DROP INDEX ready_by_kind;
CREATE INDEX ready_by_kind ON ready ((queue || E'\x1f' || kind), priority DESC, eligible_at, id);
CREATE INDEX ready_by_tenant_kind ON ready ((tenant || E'\x1f' || queue || E'\x1f' || kind), priority DESC, eligible_at, id)
    WHERE tenant <> '';

DROP FUNCTION end_matches(timestamptz, text, timestamptz, timestamptz, text);
DROP FUNCTION job_matches(job_records, text, text, text, text, timestamptz, timestamptz);
DROP FUNCTION kind_lanes(text, text[], text[], text[]);
DROP FUNCTION next_head(text, text[], kind_lane[], integer, integer);
DROP TYPE kind_lane;

-- Whether a job is one of those asked for; every condition may be null. Inlined into the queries, so that what is null
-- vanishes and what is not can use an index. First what its id tells: an id is made a little after its job's created_at,
-- an hour is plenty. A join hands on no such bound from one side to the other, so job_matches says it too.
CREATE FUNCTION id_matches(id uuid, key text, created_from timestamptz, created_to timestamptz, above uuid, below uuid)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT ($2 IS NULL OR $1 = ANY (job_ids_of_key($2)))
        AND ($3 IS NULL OR $1 >= first_id_at($3)) AND ($4 IS NULL OR $1 < first_id_at($4 + interval '1 hour'))
        AND ($5 IS NULL OR $1 > $5) AND ($6 IS NULL OR $1 < $6)
$$;

-- What its record tells.
CREATE FUNCTION job_matches(j job_records, tenant text, queue text, kind text, created_from timestamptz, created_to timestamptz)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT ($2 IS NULL OR j.tenant = $2)
        AND ($3 IS NULL OR j.queue = $3)
        AND ($4 IS NULL OR j.kind = $4)
        AND ($5 IS NULL OR j.created_at >= $5 AND j.id >= first_id_at($5))
        AND ($6 IS NULL OR j.created_at < $6 AND j.id < first_id_at($6 + interval '1 hour'))
$$;

-- When it ended. What ended before a moment was made before it, give or take a clock that was set.
CREATE FUNCTION end_matches(id uuid, finished_at timestamptz, finished_from timestamptz, finished_to timestamptz)
RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT ($3 IS NULL OR $2 >= $3) AND ($4 IS NULL OR $2 < $4 AND $1 < first_id_at($4 + interval '1 minute'))
$$;

-- The text of its error, in any case.
CREATE FUNCTION error_matches(error text, part text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT position(lower($2) IN lower($1)) > 0
$$;

-- What a worker of few kinds may have is asked for lane by lane: the jobs of one kind in one queue, of one tenant or of any.
-- The lanes are: queue, U+001F, kind; or of a tenant: tenant, U+001F, queue, U+001F, kind. Of many, those in which a job
-- is queued; the limit and the order keep the planner from a hash of all that waits.
CREATE FUNCTION kind_lanes(p_tenant text, p_queues text[], p_kinds text[]) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT coalesce(array_agg(l.lane), '{}')
    FROM (SELECT coalesce(p_tenant || E'\x1f', '') || q.queue || E'\x1f' || k.kind AS lane
          FROM unnest(p_queues) AS q (queue) CROSS JOIN unnest(p_kinds) AS k (kind)) AS l
    WHERE CASE WHEN cardinality(p_queues) * cardinality(p_kinds) <= 64 THEN true
        WHEN p_tenant IS NULL THEN (
            SELECT true FROM ready AS r WHERE r.queue || E'\x1f' || r.kind = l.lane
            ORDER BY r.priority DESC, r.eligible_at, r.id LIMIT 1)
        ELSE (
            SELECT true FROM ready AS r WHERE r.tenant || E'\x1f' || r.queue || E'\x1f' || r.kind = l.lane AND r.tenant <> ''
            ORDER BY r.priority DESC, r.eligible_at, r.id LIMIT 1) END
$$;

-- Take up to p_count eligible jobs out of `ready`: highest priority first, then the one that has been eligible longest,
-- the same across queues. p_tenant null: any tenant; p_queues null: any queue; p_kinds null: any kind.
--
-- It walks down the priorities that are there, and asks within each for rows that are due; so a backlog in other queues,
-- of other tenants, of other kinds, or of jobs whose time has not come costs one index descent and no more. Rows that
-- another transaction holds are skipped, never waited for. Planner switches pin the index walk: a plan cached while the
-- table was empty must not scan it when it is full.
--
-- Several queues are merged: of each the first few rows, about its share. What stands before the last row seen of any
-- queue is in order for sure, and is tried; the next look begins behind that, and goes deeper where that was too little,
-- or was held. So it reads a few times as many rows as it takes and as others hold, whether the queues were filled in turn
-- or one after the other. Where a sample of what is due shows that it is mostly of these queues anyway, one walk among all
-- of it does.
--
-- p_priority, p_since: where the first job of the scope stood a moment ago, of which the caller has reason to think that
-- much is dead before it; null: it knows of no such place. The walk begins there, if nothing of a higher priority waits,
-- and at the true head again when that yields too little. What was put back before that place waits until the caller
-- forgets it.
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

-- The highest priority below p_below, and above p_above, at which a job is queued in that scope, or in those lanes, and
-- when the first of it becomes, or became, eligible: whoever reads on from there need not pass what is dead before it,
-- which is much while a transaction somewhere keeps it from being cleaned away. Null: there is none.
CREATE FUNCTION next_head(p_tenant text, p_queues text[], p_lanes text[], p_below integer, p_above integer,
                          OUT priority integer, OUT since timestamptz)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    IF p_lanes IS NOT NULL AND p_tenant IS NULL THEN
        SELECT t.priority, min(t.eligible_at) INTO priority, since
        FROM unnest(p_lanes) AS k (lane) CROSS JOIN LATERAL (
            SELECT r.priority, r.eligible_at FROM ready AS r
            WHERE r.queue || E'\x1f' || r.kind = k.lane
                AND r.priority < p_below AND r.priority > p_above
            ORDER BY r.priority DESC, r.eligible_at LIMIT 1) AS t
        GROUP BY t.priority ORDER BY t.priority DESC LIMIT 1;
    ELSIF p_lanes IS NOT NULL THEN
        SELECT t.priority, min(t.eligible_at) INTO priority, since
        FROM unnest(p_lanes) AS k (lane) CROSS JOIN LATERAL (
            SELECT r.priority, r.eligible_at FROM ready AS r
            WHERE r.tenant || E'\x1f' || r.queue || E'\x1f' || r.kind = k.lane AND r.tenant <> ''
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

-- When the next job of that scope becomes, or became, eligible; null when none is queued. Long polls sleep until then.
CREATE OR REPLACE FUNCTION next_eligible(p_tenant text, p_queues text[], p_kinds text[]) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_priority integer := 32768;
    v_first timestamptz;
    v_soonest timestamptz;
    v_paused text[];
    v_lanes text[];
BEGIN
    SELECT d.queues, d.paused INTO p_queues, v_paused FROM dispatch_scope(p_tenant, p_queues) AS d;
    IF p_kinds IS NOT NULL THEN
        v_lanes := kind_lanes(p_tenant, coalesce(p_queues, queues_of_all()), p_kinds);
    END IF;
    LOOP
        SELECT h.priority, h.since INTO v_priority, v_first FROM next_head(p_tenant, p_queues, v_lanes, v_priority, -32769) AS h;
        EXIT WHEN v_priority IS NULL;
        IF v_paused IS NOT NULL AND v_lanes IS NOT NULL THEN
            v_first := (SELECT min(t.eligible_at) FROM unnest(v_lanes) AS k (lane) CROSS JOIN LATERAL (
                SELECT r.eligible_at FROM ready AS r
                WHERE r.queue || E'\x1f' || r.kind = k.lane AND r.priority = v_priority AND r.eligible_at >= v_first
                    AND r.tenant || E'\x1f' || r.queue <> ALL (v_paused)
                ORDER BY r.eligible_at LIMIT 1) AS t);
        ELSIF v_paused IS NOT NULL THEN
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
