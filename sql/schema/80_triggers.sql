-- Retention deletes from these tables while a rewrite of partitions (functions/50_partitions.sql) may be copying them.
CREATE TRIGGER follow_deletion AFTER DELETE ON events
REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION follow_deletion();

CREATE TRIGGER follow_deletion AFTER DELETE ON job_records
REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION follow_deletion();
