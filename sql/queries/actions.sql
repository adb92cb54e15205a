-- Events of models, bindings, and what the action dispatcher needs (service/actions/dispatcher.py).

-- name: event_record(tenants text[], models text[], entity_ids text[], event_ids text[], actors text[], traces text[], data jsonb[]) :many
-- Append to the streams of these things, in the order given; answers the ordinals of those that were new. Within one call
-- an event id may occur once per tenant. Ids, then streams, are claimed in one order, so that replicas never wait in a
-- ring. Before that whoever is at the same streams is waited for: who waits has no transaction id yet, so the log, which is
-- in the order of these ids, has a stream's events in the order of their versions.
WITH input AS MATERIALIZED (
    SELECT i.*, nth_id(o.us, o.secret, i.ord) AS new_stream
    FROM (SELECT microseconds_now() AS us, gen_random_uuid() AS secret OFFSET 0) AS o,
        unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::jsonb[])
        WITH ORDINALITY AS i (tenant, model, entity_id, event_id, actor, trace, data, ord)
),
alone AS MATERIALIZED (
    -- Some streams share a lock, so that a large lot does not need more of them than PostgreSQL has room for.
    SELECT count(*) AS locks FROM (
        SELECT pg_advisory_xact_lock(hashtext('model stream'), s.lock) FROM (
            SELECT DISTINCT hashtext(tenant || E'\x1f' || model || E'\x1f' || entity_id) & 255 AS lock FROM input
            ORDER BY lock) AS s) AS l
),
claimed AS (
    INSERT INTO recorded_ids (tenant, event_id, recorded_at)
    SELECT tenant, event_id, statement_timestamp() FROM alone, input WHERE locks > 0 ORDER BY tenant, event_id
    ON CONFLICT DO NOTHING
    RETURNING tenant, event_id
),
fresh AS MATERIALIZED (
    SELECT i.*, row_number() OVER (PARTITION BY i.tenant, i.model, i.entity_id ORDER BY i.ord) AS nth,
        count(*) OVER (PARTITION BY i.tenant, i.model, i.entity_id) AS count
    FROM input AS i JOIN claimed AS c ON c.tenant = i.tenant AND c.event_id = i.event_id
),
counted AS (
    INSERT INTO model_streams AS s (tenant, model, entity_id, stream_id, version)
    SELECT tenant, model, entity_id, new_stream, count FROM fresh WHERE nth = 1 ORDER BY tenant, model, entity_id
    ON CONFLICT (tenant, model, entity_id) DO UPDATE SET version = s.version + EXCLUDED.version
    RETURNING s.*
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, trace, data)
    SELECT c.stream_id, c.version - f.count + f.nth, statement_timestamp(), 'Model', 'recorded', f.tenant, f.actor,
        f.trace, f.data
    FROM fresh AS f JOIN counted AS c ON c.tenant = f.tenant AND c.model = f.model AND c.entity_id = f.entity_id
    ORDER BY f.ord
)
SELECT ord::integer AS ord FROM fresh ORDER BY ord;

-- name: record_forget(before timestamptz, most integer) :one
-- Delete recorded events, and the memory of their ids, that are older than that; a bounded lot. Their streams' versions
-- go on.
WITH old AS MATERIALIZED (
    SELECT stream_id, version FROM (
        SELECT stream_id, version, at FROM events WHERE stream = 'Model' ORDER BY xid, position LIMIT $2::integer) AS e
    WHERE at < $1::timestamptz
),
gone AS (DELETE FROM events AS e USING old AS o WHERE e.stream_id = o.stream_id AND e.version = o.version RETURNING 1),
forgotten AS (
    DELETE FROM recorded_ids AS r
    USING (SELECT tenant, event_id FROM recorded_ids WHERE recorded_at < $1::timestamptz LIMIT $2::integer) AS o
    WHERE r.tenant = o.tenant AND r.event_id = o.event_id
    RETURNING 1
)
SELECT greatest((SELECT count(*) FROM gone), (SELECT count(*) FROM forgotten))::integer AS deleted;

-- name: binding_lock(tenant text, model text) :one
-- Whoever registers bindings for a model waits here for the others, in a statement of its own: the next one sees theirs.
SELECT pg_advisory_xact_lock(hashtextextended('binding ' || $1::text || E'\x1f' || $2::text, 0))::text AS lock;

-- name: binding_put(tenant text, model text, event text, action text, queue text, condition jsonb, input text[], actor text, trace text, source_file text) :one
-- Register a binding; the same one again is the same binding.
WITH there AS (
    UPDATE bindings AS b SET source_file = coalesce($10::text, b.source_file)  -- a file takes over what it names
    WHERE b.removed_at IS NULL AND b.tenant = $1 AND b.model = $2 AND b.event = $3::text AND b.action = $4::text
        AND b.queue = $5::text AND b.condition IS NOT DISTINCT FROM $6::jsonb AND b.input IS NOT DISTINCT FROM $7::text[]
    RETURNING b.*
),
put AS (
    INSERT INTO bindings (id, tenant, model, event, action, queue, condition, input, version, since_xid, registered_at,
                          registered_by, source_file)
    SELECT new_id(), $1, $2, $3, $4, $5, $6, $7, 1, event_xid(), statement_timestamp(), $8::text,
        $10::text
    WHERE NOT EXISTS (SELECT FROM there)
    RETURNING *
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, trace, data)
    SELECT id, 1, registered_at, 'Binding', 'registered', tenant, registered_by, $9::text, jsonb_strip_nulls(
        jsonb_build_object('model', model, 'event', event, 'action', action, 'queue', queue, 'condition', condition,
                           'input', to_jsonb(input)))
    FROM put
)
SELECT *, true AS is_new FROM put UNION ALL SELECT *, false FROM there;

-- name: binding_list(tenant text) :many
-- Those of the tenant ('': none), and of the service, oldest first; null: every one.
SELECT * FROM bindings WHERE removed_at IS NULL AND ($1::text IS NULL OR tenant = ANY (ARRAY['', $1])) ORDER BY id;

-- name: binding_page(tenant text, above uuid, below uuid, descending boolean, most integer) :many
-- The same in pages, by id.
SELECT * FROM bindings
WHERE removed_at IS NULL AND ($1::text IS NULL OR tenant = ANY (ARRAY['', $1]))
    AND ($2::uuid IS NULL OR id > $2) AND ($3::uuid IS NULL OR id < $3)
ORDER BY CASE WHEN $4::boolean THEN id END DESC, CASE WHEN NOT $4 THEN id END LIMIT $5::integer;

-- name: binding_change(ids uuid[], tenant text, type text, actor text, trace text, error text, at_xids bigint[], at_positions bigint[], skips boolean) :many
-- Remove, set aside or resume bindings of that tenant (null: anybody's). What is set aside keeps its place in the log,
-- and goes on from there when it is resumed, or, where it shall skip, with the others. Answers those that were changed.
WITH changed AS (
    UPDATE bindings AS b SET version = version + 1,
        removed_at = CASE WHEN $3::text = 'removed' THEN statement_timestamp() END,
        set_aside_at = CASE WHEN $3 = 'set_aside' THEN statement_timestamp() END,
        error = CASE WHEN $3 = 'set_aside' THEN $6::text END,
        at_xid = CASE WHEN $3 = 'set_aside' THEN i.at_xid WHEN NOT $9::boolean THEN b.at_xid END,
        at_position = CASE WHEN $3 = 'set_aside' THEN i.at_position WHEN NOT $9 THEN b.at_position END
    FROM unnest($1::uuid[], $7::bigint[], $8::bigint[]) AS i (id, at_xid, at_position)
    WHERE b.id = i.id AND b.removed_at IS NULL AND ($2::text IS NULL OR b.tenant = $2)
        AND ($3 = 'removed' OR (b.set_aside_at IS NULL) = ($3 = 'set_aside'))
    RETURNING b.*
),
logged AS (
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, trace, data)
    SELECT id, version, statement_timestamp(), 'Binding', $3::event_type, tenant, $4::text, $5::text,
        jsonb_strip_nulls(jsonb_build_object('action', action, 'error', $6::text))
    FROM changed
)
SELECT * FROM changed;

-- name: binding_move(ids uuid[], at_xids bigint[], at_positions bigint[]) :many
-- Where these bindings, that are behind the others, are in the log now; null: with the others. Without answer.
UPDATE bindings AS b SET at_xid = i.at_xid, at_position = i.at_position
FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS i (id, at_xid, at_position) WHERE b.id = i.id;

-- name: checkpoint_take(consumer text) :one
-- How far that consumer is, for whoever goes on; no row: somebody else is at it.
SELECT xid, position FROM checkpoints WHERE consumer = $1::text FOR UPDATE SKIP LOCKED;

-- name: checkpoint_move(consumer text, xid bigint, position bigint) :one
UPDATE checkpoints SET xid = $2::bigint, position = $3::bigint, changed_at = statement_timestamp()
WHERE consumer = $1::text RETURNING consumer;

-- name: recorded_tail(xid bigint, position bigint, most integer, most_bytes bigint) :many
-- As event_tail, of what applications have recorded alone.
WITH looked AS MATERIALIZED (
    SELECT e.*, octet_length(e.data::text) AS size, row_number() OVER (ORDER BY e.xid, e.position) AS place
    FROM (
        SELECT * FROM events AS e
        WHERE e.stream = 'Model' AND (e.xid, e.position) > ($1::bigint::text::xid8, $2::bigint)
            AND e.xid < (SELECT complete_event_xid())
        ORDER BY e.xid, e.position LIMIT $3::integer) AS e
),
kept AS MATERIALIZED (
    SELECT * FROM (SELECT *, sum(size) OVER (ORDER BY place) AS bytes FROM looked) AS s WHERE bytes - size < $4::bigint
)
SELECT stream_id, position, xid::text::bigint AS xid, at, version, stream::text, type::text, tenant, actor, trace, data,
    size, place >= $3::integer OR place < (SELECT count(*) FROM looked) AS has_more
FROM kept ORDER BY xid, position;

-- name: job_beginnings(ids uuid[]) :many
-- What these jobs were enqueued as, without their payloads.
SELECT stream_id, data - 'payload' AS data FROM events WHERE stream_id = ANY ($1::uuid[]) AND version = 1;

-- name: dispatch_lag(is_all boolean) :one
-- What is behind the dispatcher's checkpoint: whether there is anything, and how many seconds ago the first of it
-- happened. Of recorded events, or of all.
SELECT extract(epoch FROM clock_timestamp() - e.at)::float8 AS seconds
FROM checkpoints AS c
LEFT JOIN LATERAL (
    (SELECT e.at FROM events AS e
     WHERE NOT $1::boolean AND e.stream = 'Model' AND (e.xid, e.position) > (c.xid::text::xid8, c.position)
     ORDER BY e.xid, e.position LIMIT 1)
    UNION ALL
    (SELECT e.at FROM events AS e
     WHERE $1 AND (e.xid, e.position) > (c.xid::text::xid8, c.position)
     ORDER BY e.xid, e.position LIMIT 1)) AS e ON true
WHERE c.consumer = 'actions';

-- name: trigger_list() :many
-- The workflows that events start.
SELECT w.id, w.tenant, w.name, w.definition_version, w.model, w.event_type, w.since_xid, w.timeout_secs
FROM workflows AS w
WHERE w.model IS NOT NULL AND w.removed_at IS NULL AND w.paused_at IS NULL;
