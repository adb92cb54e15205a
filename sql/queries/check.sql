-- What `atomo-gql check` and each start look at before anything else. They read catalogs and views of PostgreSQL alone,
-- so that they say what is wrong where there is no schema yet, or one of another version.

-- name: check_server() :one
SELECT
    current_setting('server_version_num')::integer AS version_number,
    current_setting('server_version') AS version,
    current_database()::text AS database,
    current_user::text AS role,
    current_setting('server_encoding') AS encoding,
    current_setting('default_transaction_isolation') AS isolation,
    pg_is_in_recovery() AS is_standby,
    current_setting('default_transaction_read_only')::boolean AS is_read_only,
    has_database_privilege(current_database(), 'CREATE') AS may_create_schema,
    clock_timestamp() AS clock;

-- name: check_connections() :one
-- reserved_connections is there from PostgreSQL 16 on. `others`: clients of the whole server that are not this service.
SELECT
    least(
        current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
            - coalesce(current_setting('reserved_connections', true), '0')::integer,
        (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),
        (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database())) AS allowed,
    (SELECT count(*)::integer FROM pg_stat_activity
     WHERE backend_type = 'client backend' AND application_name NOT LIKE 'atomo-gql%') AS others;

-- name: check_schema(schema text) :one
-- One row, whether there is such a schema or not.
SELECT
    n.oid IS NOT NULL AS is_there,
    coalesce(has_schema_privilege(n.oid, 'USAGE'), false) AS may_use,
    coalesce(has_schema_privilege(n.oid, 'CREATE'), false) AS may_create,
    count(c.oid)::integer AS tables,
    coalesce(bool_or(c.relname = 'schema_versions'), false) AS has_journal,
    coalesce(bool_or(c.relname = 'schema_versions' AND has_table_privilege(c.oid, 'SELECT')), false) AS may_read_journal,
    coalesce(bool_or(c.relname = 'migrations'), false) AS is_of_before,
    count(c.oid) FILTER (WHERE NOT pg_has_role(c.relowner, 'USAGE'))::integer AS foreign_tables,
    min(pg_get_userbyid(c.relowner)::text) FILTER (WHERE NOT pg_has_role(c.relowner, 'USAGE')) AS foreign_owner
FROM (SELECT to_regnamespace($1::text)::oid AS oid) AS n
LEFT JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p')
GROUP BY n.oid;

-- name: check_versions() :one
-- Only where the schema has its journal.
SELECT v.version, v.made_by, (SELECT max(o.oldest_server) FROM schema_versions AS o) AS oldest_server
FROM schema_versions AS v ORDER BY v.version DESC LIMIT 1;

-- name: check_partitions(schema text) :many
-- The bounds of every partition that is not the default one.
SELECT p.relname::text AS parent, pg_get_expr(c.relpartbound, c.oid) AS bounds
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
JOIN pg_class AS p ON p.oid = i.inhparent
WHERE p.relnamespace = to_regnamespace($1::text) AND p.relkind = 'p' AND c.relkind IN ('r', 'p')
    AND pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT'
ORDER BY p.relname;
