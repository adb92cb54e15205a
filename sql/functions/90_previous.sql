-- What servers of schema version 13 ask for, and this version does not. The next version drops it (docs/adr/0014).

-- They know no version but their own.
CREATE OR REPLACE VIEW migrations AS
SELECT least(version, 13) AS version, name, began_at, coalesce(finished_at, began_at) AS finished_at FROM schema_versions;

-- Retention is left to servers of this version.
CREATE OR REPLACE VIEW partition_days AS
SELECT NULL::text COLLATE "C" AS day, NULL::uuid AS first_id, NULL::uuid AS end_id WHERE false;

CREATE OR REPLACE FUNCTION drop_partition_pair(p_day text, p_succeeded timestamptz, p_dead timestamptz) RETURNS boolean
LANGUAGE sql AS $$
    SELECT false
$$;
