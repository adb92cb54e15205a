-- Dispatch: who gets which job. Functions, because each needs a loop or a lock that a plain statement would repeat.

-- A scope without the queues that are paused for it. `queues` null: any, and nothing is paused anywhere. `paused`, for
-- scopes of any tenant: the lanes (tenant, U+001F, queue) that a tenant's own pause takes out; null: none.
CREATE OR REPLACE FUNCTION dispatch_scope(p_tenant text, p_queues text[], OUT queues text[], OUT paused text[])
LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
BEGIN
    queues := p_queues;
    IF p_queues IS NULL AND p_tenant IS NOT NULL THEN
        queues := queues_of_tenant(p_tenant);
    END IF;
    IF NOT EXISTS (SELECT FROM queue_pauses) THEN
        RETURN;
    END IF;
    IF queues IS NULL THEN
        queues := queues_of_all();
    END IF;
    queues := ARRAY(
        SELECT q.queue FROM unnest(queues) AS q (queue) WHERE NOT EXISTS (
            SELECT FROM queue_pauses AS p WHERE p.queue = q.queue AND (p.tenant = E'\x1f' OR p.tenant = p_tenant)));
    IF p_tenant IS NULL THEN
        paused := (SELECT array_agg(p.tenant || E'\x1f' || p.queue) FROM queue_pauses AS p WHERE p.tenant <> E'\x1f');
    END IF;
END $$;

-- What a worker of few kinds may have is asked for lane by lane: the jobs of one kind in one queue, of one tenant or of any.
-- The lanes are: queue, U+001F, kind; or of a tenant: tenant, U+001F, queue, U+001F, kind. Of many, those in which a job
-- is queued; the limit and the order keep the planner from a hash of all that waits.
CREATE OR REPLACE FUNCTION kind_lanes(p_tenant text, p_queues text[], p_kinds text[]) RETURNS text[] LANGUAGE sql STABLE AS $$
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
        v_is_told := (SELECT h.priority IS NULL FROM next_head(p_tenant, p_queues, v_lanes, 32768, p_priority, v_now) AS h);
    END IF;
    WHILE v_left > 0 LOOP
        IF v_since IS NULL THEN
            IF v_is_told THEN
                v_priority := p_priority;
                v_since := p_since;
            ELSIF v_is_wide THEN  -- due or not: others may have thousands of priorities that are not
                SELECT h.priority, h.since INTO v_priority, v_since FROM next_head(NULL, NULL, NULL, v_priority, -32769, 'infinity') AS h;
            ELSE
                SELECT h.priority, h.since INTO v_priority, v_since
                FROM next_head(p_tenant, p_queues, v_lanes, v_priority, -32769, v_now) AS h;
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

-- The highest priority below p_below, and above p_above, at which a job is queued in that scope, or in those lanes, that is
-- eligible by p_due, and when the first of it becomes, or became, eligible: whoever reads on from there need not pass what
-- is dead before it, which is much while a transaction somewhere keeps it from being cleaned away. Null: there is none.
--
-- It costs one index descent for each priority that it passes, and has no planner switches of its own, which would cost as
-- much again: whoever calls it has them.
CREATE OR REPLACE FUNCTION next_head(p_tenant text, p_queues text[], p_lanes text[], p_below integer, p_above integer,
                          p_due timestamptz, OUT priority integer, OUT since timestamptz)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    LOOP
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
        ELSIF p_tenant IS NULL AND cardinality(p_queues) = 1 THEN
            SELECT r.priority, r.eligible_at INTO priority, since FROM ready AS r
            WHERE r.queue = p_queues[1] AND r.priority < p_below AND r.priority > p_above
            ORDER BY r.priority DESC, r.eligible_at LIMIT 1;
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
        EXIT WHEN since <= p_due OR since IS NULL;
        p_below := priority;
    END LOOP;
END $$;

-- The queues in which a tenant has jobs queued, found by skipping along the index from one to the next.
CREATE OR REPLACE FUNCTION queues_of_tenant(p_tenant text) RETURNS text[] LANGUAGE sql STABLE AS $$
    WITH RECURSIVE found AS (
        (SELECT queue FROM ready WHERE tenant <> '' AND tenant || E'\x1f' || queue > p_tenant || E'\x1f'
            AND tenant || E'\x1f' || queue < p_tenant || E'\x20' ORDER BY tenant || E'\x1f' || queue LIMIT 1)
        UNION ALL
        SELECT (SELECT r.queue FROM ready AS r WHERE r.tenant <> ''
                AND r.tenant || E'\x1f' || r.queue > p_tenant || E'\x1f' || f.queue
                AND r.tenant || E'\x1f' || r.queue < p_tenant || E'\x20' ORDER BY r.tenant || E'\x1f' || r.queue LIMIT 1)
        FROM found AS f WHERE f.queue IS NOT NULL)
    SELECT coalesce(array_agg(queue), '{}') FROM found WHERE queue IS NOT NULL
$$;

-- Every queue in which a job is queued, found by skipping along the index from one to the next.
CREATE OR REPLACE FUNCTION queues_of_all() RETURNS text[] LANGUAGE sql STABLE AS $$
    WITH RECURSIVE found AS (
        (SELECT queue FROM ready ORDER BY queue LIMIT 1)
        UNION ALL
        SELECT (SELECT r.queue FROM ready AS r WHERE r.queue > f.queue ORDER BY r.queue LIMIT 1)
        FROM found AS f WHERE f.queue IS NOT NULL)
    SELECT coalesce(array_agg(queue), '{}') FROM found WHERE queue IS NOT NULL
$$;

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
        SELECT h.priority, h.since INTO v_priority, v_first
        FROM next_head(p_tenant, p_queues, v_lanes, v_priority, -32769, 'infinity') AS h;
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

-- The leases that the callers really hold: the lease's id is the current one, and the worker's token lives and covers the
-- job. `place` is where the statement that asks finds its row; whoever changes it meanwhile changes it for the same lease,
-- or ends it. They come in one order for all, and the statements go through them in that order, so that two batches never
-- wait for each other in a ring. The ids are parted by commas; p_worker_ids has one for each, or one for all.
CREATE OR REPLACE FUNCTION held_leases(p_ids text, p_lease_ids text, p_worker_ids uuid[])
RETURNS TABLE (ord integer, id uuid, place tid, reporter uuid) LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_ids CONSTANT uuid[] := string_to_array(p_ids, ',');
    v_lease_ids CONSTANT uuid[] := string_to_array(p_lease_ids, ',');
    v_tenant text;
    v_queues text[];
    v_kinds text[];
BEGIN
    IF cardinality(p_worker_ids) = 1 THEN
        SELECT w.tenant, w.queues, w.kinds INTO v_tenant, v_queues, v_kinds
        FROM worker_tokens AS w WHERE w.id = p_worker_ids[1] AND token_lives(w);
        IF v_tenant IS NULL THEN
            RETURN;
        END IF;
        RETURN QUERY
            SELECT r.ord::integer, r.id, l.ctid, p_worker_ids[1]
            FROM (SELECT * FROM unnest(v_ids, v_lease_ids) WITH ORDINALITY AS r (id, lease_id, ord) ORDER BY 1, 3) AS r
            CROSS JOIN LATERAL (  -- with a limit, so that no plan begins at the leases
                SELECT w.ctid FROM leases AS w
                WHERE w.id = r.id AND w.lease_id = r.lease_id AND covers(v_tenant, v_queues, v_kinds, w.tenant, w.queue, w.kind)
                LIMIT 1) AS l;
    ELSE
        RETURN QUERY
            SELECT r.ord::integer, r.id, l.ctid, r.worker_id
            FROM (SELECT * FROM unnest(v_ids, v_lease_ids, p_worker_ids)
                  WITH ORDINALITY AS r (id, lease_id, worker_id, ord) ORDER BY 1, 4) AS r
            CROSS JOIN LATERAL (
                SELECT w.ctid FROM leases AS w
                WHERE w.id = r.id AND w.lease_id = r.lease_id AND EXISTS (
                    SELECT FROM worker_tokens AS t WHERE t.id = r.worker_id AND token_lives(t)
                        AND covers(t.tenant, t.queues, t.kinds, w.tenant, w.queue, w.kind))
                LIMIT 1) AS l;
    END IF;
END $$;

-- Since when the longest waiting eligible job of a queue has been eligible; null when none is. p_tenant null: anybody's.
CREATE OR REPLACE FUNCTION oldest_eligible(p_tenant text, p_queue text) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_priority integer := 32768;
    v_first timestamptz;
    v_oldest timestamptz;
BEGIN
    LOOP
        SELECT h.priority, h.since INTO v_priority, v_first
        FROM next_head(nullif(p_tenant, ''), ARRAY[p_queue], NULL, v_priority, -32769, statement_timestamp()) AS h;
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

-- A moment with the Z that all answers have, and PostgreSQL's own JSON has not. The session's time zone is UTC.
CREATE OR REPLACE FUNCTION rfc3339(moment timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT to_char($1, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
$$;
