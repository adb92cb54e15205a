-- name: job_get(ids uuid[], tenant text) :many
-- The jobs of these ids that the tenant may see ('': those without one; null: all), with their result.
SELECT j.*, e.data -> 'result' AS result
FROM unnest($1::uuid[]) AS i (id)
JOIN jobs AS j ON j.id = i.id
LEFT JOIN events AS e ON e.stream_id = j.id AND e.version = j.version AND j.status = 'succeeded'
WHERE $2::text IS NULL OR j.tenant = $2;

-- name: job_payload(ids uuid[]) :many
SELECT e.stream_id AS id, e.data -> 'payload' AS payload
FROM unnest($1::uuid[]) AS i (id) JOIN events AS e ON e.stream_id = i.id AND e.version = 1;

-- name: job_page(tenant text, status text, queue text, kind text, before uuid, most integer) :many
-- A page of jobs, newest first, below an id. Every filter may be null.
SELECT j.*, e.data -> 'result' AS result
FROM (
    SELECT * FROM jobs
    WHERE ($1::text IS NULL OR tenant = $1)
        AND ($2::text IS NULL OR status = $2)
        AND ($3::text IS NULL OR queue = $3)
        AND ($4::text IS NULL OR kind = $4)
        AND ($5::uuid IS NULL OR id < $5)
    ORDER BY id DESC LIMIT $6::integer
) AS j
LEFT JOIN events AS e ON e.stream_id = j.id AND e.version = j.version AND j.status = 'succeeded'
ORDER BY j.id DESC;
