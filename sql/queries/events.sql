-- name: event_stream(stream_ids uuid[], after integer, most integer, most_bytes bigint) :many
-- The events of these streams in their order, each stream from after its version, at most so many of each. Of those
-- beyond so many bytes of data in all, the first is said to be, and the others are left out.
SELECT stream_id, position, xid::text::bigint AS xid, at, version, stream::text, type::text, tenant, actor, trace,
    CASE WHEN bytes <= $4::bigint THEN data END AS data, size, bytes > $4::bigint AS is_beyond
FROM (
    SELECT e.*, sum(e.size) OVER (ORDER BY e.stream_id, e.version) AS bytes
    FROM unnest($1::uuid[]) AS i (id)
    CROSS JOIN LATERAL (
        SELECT s.*, octet_length(s.data::text) AS size FROM events AS s
        WHERE s.stream_id = i.id AND s.version > $2::integer ORDER BY s.version LIMIT $3::integer) AS e) AS e
WHERE bytes - size <= $4::bigint
ORDER BY stream_id, version;

-- name: event_attempts(stream_ids uuid[], most integer, most_bytes bigint) :many
-- What happened to jobs under a lease, without what was sent and what came back. More than so many rows, or bytes of
-- errors, are cut off; one row more says so.
SELECT e.stream_id, e.version, e.at, e.type::text, e.actor, t.name AS worker_name, e.attempt, e.error,
    coalesce(e.worker_id, t.id) AS worker_id, e.rows > $2::integer OR e.bytes > $3::bigint AS is_beyond
FROM (
    SELECT e.*, row_number() OVER w AS rows, sum(coalesce(octet_length(e.error), 0)) OVER w AS bytes
    FROM (
        SELECT e.stream_id, e.version, e.at, e.type, e.actor, (e.data ->> 'attempt')::integer AS attempt,
            e.data ->> 'error' AS error, (e.data ->> 'workerId')::uuid AS worker_id
        FROM unnest($1::uuid[]) AS i (id) JOIN events AS e ON e.stream_id = i.id
        WHERE e.type NOT IN ('enqueued', 'retried')) AS e
    WINDOW w AS (ORDER BY e.stream_id, e.version)) AS e
LEFT JOIN worker_tokens AS t ON t.id = CASE WHEN e.actor LIKE 'worker:%' THEN substr(e.actor, 8)::uuid END
WHERE e.rows <= $2::integer + 1 AND e.bytes - coalesce(octet_length(e.error), 0) <= $3::bigint
ORDER BY e.stream_id, e.version;

-- name: event_tail(xid bigint, position bigint, tenant text, streams text[], stream_id uuid, queue text, kind text, types text[], most integer, most_bytes bigint) :many
-- What was committed after that place in the log, in an order that is safe to resume from: nothing with a smaller
-- (xid, position) can appear later, because every older transaction has ended. At most so many events are looked at;
-- those that match come back, and the last one looked at, which says how far the reader is. Conditions may be null. It
-- stops early when there have been so many bytes of data.
WITH looked AS MATERIALIZED (
    SELECT e.*, row_number() OVER (ORDER BY e.xid, e.position) AS place
    FROM (
        SELECT * FROM events AS e
        WHERE (e.xid, e.position) > ($1::bigint::text::xid8, $2::bigint)
            AND e.xid < (SELECT complete_event_xid())
            AND ($5::uuid IS NULL OR e.stream_id = $5)
        ORDER BY e.xid, e.position LIMIT $9::integer) AS e
),
judged AS (
    SELECT l.*, j.queue, j.kind,
        l.stream::text = ANY ($4::text[])
        AND ($3::text IS NULL OR l.tenant = $3)
        AND ($6::text IS NULL OR j.queue = $6)
        AND ($7::text IS NULL OR j.kind = $7)
        AND ($8::text[] IS NULL OR l.type::text = ANY ($8)) AS is_match
    FROM looked AS l LEFT JOIN LATERAL (
        SELECT r.queue, r.kind FROM job_records AS r WHERE r.id = l.stream_id AND l.stream = 'Job' LIMIT 1) AS j ON true
),
sized AS MATERIALIZED (SELECT *, CASE WHEN is_match THEN octet_length(data::text) ELSE 0 END AS size FROM judged),
kept AS MATERIALIZED (
    SELECT * FROM (SELECT *, sum(size) OVER (ORDER BY place) AS bytes FROM sized) AS s WHERE bytes - size < $10::bigint
)
SELECT stream_id, position, xid::text::bigint AS xid, at, version, stream::text, type::text, tenant, actor, trace,
    CASE WHEN is_match THEN data END AS data, queue, kind, is_match, size,
    place >= $9::integer OR place < (SELECT count(*) FROM looked) AS has_more
FROM kept WHERE is_match OR place = (SELECT max(place) FROM kept)
ORDER BY xid, position;

-- name: event_head() :one
-- The place after everything that is committed, and below what may still be.
SELECT complete_event_xid()::text::bigint - 1 AS xid, 9223372036854775807 AS position;
