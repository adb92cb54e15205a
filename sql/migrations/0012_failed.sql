-- A search among errors looks at no other tenant's jobs that wait for their retry.
CREATE INDEX ready_failed_by_tenant ON ready (tenant, id) WHERE error IS NOT NULL;
