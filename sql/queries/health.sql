-- name: health_look() :one
-- Whether a job could be enqueued and leased now, as far as a read can tell.
SELECT pg_is_in_recovery() AS is_standby,
    current_setting('transaction_read_only')::boolean AS is_read_only,
    is_partitioned(now()) AS has_partition,
    (SELECT bool_and(has_table_privilege(n.name, 'SELECT') AND has_table_privilege(n.name, 'INSERT'))
     FROM unnest(ARRAY['events', 'job_records', 'ready', 'leases']) AS n (name)) AS may_write,
    -- Commits of ours that wait for a standby; of other roles' sessions we may not see this.
    EXISTS (
        SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event = 'SyncRep' AND query_start < now() - interval '1.5 seconds')
        AS is_standby_missing;

-- name: backends_idle(pids integer[]) :one
-- Of these processes of the server, those at work, and since when the others are not; and whether any process of this
-- role in this database has been at work on one statement for a while.
WITH ours AS MATERIALIZED (
    SELECT pid, state, state_change, query_start FROM pg_stat_activity
    WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
)
SELECT
    coalesce(array_agg(pid) FILTER (WHERE state = 'active' AND pid = ANY ($1::integer[])), '{}') AS active,
    coalesce(array_agg(pid) FILTER (WHERE state <> 'active' AND pid = ANY ($1)), '{}') AS pids,
    coalesce(array_agg(state_change) FILTER (WHERE state <> 'active' AND pid = ANY ($1)), '{}') AS idle_since,
    coalesce(bool_or(state = 'active' AND query_start < now() - interval '1 second'), false) AS is_any_active
FROM ours;

-- name: horizon_holder() :many
-- What keeps the end of the log from moving on: the oldest transaction of the whole cluster, open or prepared, that has
-- an id. Of other roles' sessions, PostgreSQL shows less to a role without pg_read_all_stats.
SELECT * FROM (
    (SELECT l.transactionid AS xid, l.pid, NULL::text AS prepared, a.datname::text AS database, a.usename::text AS role,
        a.application_name AS application, extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds
    FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
    WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted AND l.pid IS NOT NULL
        AND l.pid <> pg_backend_pid()
    ORDER BY age(l.transactionid) DESC LIMIT 1)
    UNION ALL
    (SELECT transaction, NULL, gid, database::text, owner::text, NULL,
        extract(epoch FROM clock_timestamp() - prepared)::float8
    FROM pg_prepared_xacts ORDER BY age(transaction) DESC LIMIT 1)) AS held
ORDER BY age(xid) DESC LIMIT 1;
