-- name: event_stream(stream_ids uuid[], after integer, most integer) :many
-- The events of these streams in their order, each stream from after its version, at most so many of each.
SELECT e.stream_id, e.position, e.xid::text::bigint AS xid, e.at, e.version, e.stream::text, e.type::text, e.tenant, e.actor, e.trace, e.data
FROM unnest($1::uuid[]) AS i (id)
CROSS JOIN LATERAL (
    SELECT * FROM events AS s WHERE s.stream_id = i.id AND s.version > $2::integer ORDER BY s.version LIMIT $3::integer
) AS e
ORDER BY e.stream_id, e.version;

-- name: event_tail(xid bigint, position bigint, most integer) :many
-- What was committed after that place in the log, in an order that is safe to resume: nothing with a smaller
-- (xid, position) can appear later, because every older transaction has ended.
SELECT e.stream_id, e.position, e.xid::text::bigint AS xid, e.at, e.version, e.stream::text, e.type::text, e.tenant, e.actor, e.trace, e.data
FROM events AS e
WHERE (e.xid, e.position) > ($1::bigint::text::xid8, $2::bigint)
    AND e.xid < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY e.xid, e.position LIMIT $3::integer;
