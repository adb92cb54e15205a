-- Enqueueing from any session, as part of its transaction: what domain/rules.py is to the servers, these functions are to
-- SQL, in the same words and the same order. docs/transactional-enqueue.md tells their story.

-- A refusal: SQLSTATE 22023, the sentence, the field's name on the wire as COLUMN, and a code of docs/errors.md as DETAIL.
CREATE OR REPLACE FUNCTION refuse(field text, rule text, code text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = field || ' ' || rule, COLUMN = field, DETAIL = code;
END $$;

-- Blank is what Python's str.strip() takes away.
CREATE OR REPLACE FUNCTION check_name(field text, value text, most integer) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF value IS NULL THEN
        PERFORM refuse(field, 'is required', 'BAD_USER_INPUT');
    ELSIF length(value) > most THEN
        PERFORM refuse(field, format('must have at most %s characters, not %s', most, length(value)), 'BAD_USER_INPUT');
    ELSIF value ~ E'^[\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*$' THEN
        PERFORM refuse(field, 'must not be blank', 'BAD_USER_INPUT');
    ELSIF value ~ E'[\u0001-\u001f\u007f-\u009f\u2028\u2029]' THEN
        PERFORM refuse(field, 'must not contain control characters', 'BAD_USER_INPUT');
    END IF;
END $$;

CREATE OR REPLACE FUNCTION check_range(field text, value integer, lowest integer, highest integer) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF value NOT BETWEEN lowest AND highest THEN
        PERFORM refuse(field, format('must be from %s to %s, not %s', lowest, highest, value), 'BAD_USER_INPUT');
    END IF;
END $$;

CREATE OR REPLACE FUNCTION check_moment(field text, value timestamptz) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF value NOT BETWEEN '1970-01-01T00:00:00Z' AND '9000-01-01T00:00:00Z' THEN
        PERFORM refuse(field, 'must lie between the years 1970 and 9000', 'BAD_USER_INPUT');
    END IF;
END $$;

-- Whether it is what some double is written as. PostgreSQL keeps no difference between 1e20 and a 1 with twenty zeros.
CREATE OR REPLACE FUNCTION is_double(value numeric) RETURNS boolean LANGUAGE sql IMMUTABLE SET extra_float_digits = 1 AS $$
    SELECT $1::float8::text::numeric = $1
$$;

-- What jsonb itself refuses (NUL, lone surrogates, no JSON at all) does not come here. Each look that is dear follows one
-- at the text that is cheap and rarely in need of it.
CREATE OR REPLACE FUNCTION check_payload(value jsonb) RETURNS void LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_text text := value;
    v_bytes bigint := octet_length(v_text);
    v_most bigint := coalesce(nullif(current_setting('atomo.max_body', true), '')::bigint, 1048576);
    v_number numeric;
BEGIN
    IF length(v_text) - length(translate(v_text, '[{', '')) > 250
        AND jsonb_path_exists(value, 'strict $.**{250} ? (@.type() == "array" || @.type() == "object")') THEN
        PERFORM refuse('payload', 'must not be nested deeper than 250 levels', 'BAD_USER_INPUT');
    END IF;
    IF v_text ~ '[0-9]{19}' THEN
        FOR v_number IN SELECT n::numeric FROM jsonb_path_query(
            value, 'strict $.** ? (@ > 18446744073709551615 || @ < -9223372036854775808)') AS n
        LOOP
            IF abs(v_number) > 1.797693134862315807e308 THEN
                PERFORM refuse('payload', 'must not contain numbers that are not finite', 'BAD_USER_INPUT');
            ELSIF scale(v_number) = 0 AND NOT is_double(v_number) THEN
                PERFORM refuse('payload', 'must not contain whole numbers beyond 64 bits', 'BAD_USER_INPUT');
            END IF;
        END LOOP;
    END IF;
    IF v_bytes > v_most THEN  -- without the spaces that PostgreSQL puts between the parts
        v_text := regexp_replace(v_text, E'"([^"\\\\]|\\\\.)*"', '', 'g');
        v_bytes := v_bytes - length(v_text) + length(replace(v_text, ' ', ''));
        IF v_bytes > v_most THEN
            PERFORM refuse('payload', format('must have at most %s bytes, not %s', v_most, v_bytes), 'PAYLOAD_TOO_LARGE');
        END IF;
    END IF;
END $$;

-- Make a job, or find the one its idempotency key names; its id. The same rows as the statement job_enqueue writes, and a
-- test holds the two together. The job is there when the caller's transaction commits.
--
-- It runs with the rights of its owner, so that an application's role needs USAGE on the schema and EXECUTE on this
-- function, and nothing more. The time is the clock's: the caller's statement may be long.
CREATE OR REPLACE FUNCTION enqueue_job(queue text, kind text, payload jsonb DEFAULT '{}', idempotency_key text DEFAULT NULL,
                            max_attempts integer DEFAULT 5, priority integer DEFAULT 0, run_at timestamptz DEFAULT NULL,
                            tenant_id text DEFAULT NULL, timeout_secs integer DEFAULT NULL, deadline timestamptz DEFAULT NULL,
                            actor text DEFAULT NULL, traceparent text DEFAULT NULL)
RETURNS uuid LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = atomo, pg_temp SET timezone = 'UTC' SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_queue CONSTANT text := queue;
    v_key CONSTANT text := idempotency_key;
    v_tenant CONSTANT text := coalesce(tenant_id, '');
    v_payload CONSTANT jsonb := coalesce(payload, 'null');
    v_max_attempts CONSTANT integer := coalesce(max_attempts, 5);
    v_priority CONSTANT integer := coalesce(priority, 0);
    v_actor CONSTANT text := coalesce(actor, 'system:sql ' || session_user);
    v_at CONSTANT timestamptz := clock_timestamp();
    v_id CONSTANT uuid := nth_id((extract(epoch FROM v_at) * 1000000)::bigint, gen_random_uuid(), 0);
    v_job_id uuid;
BEGIN
    IF queue = '*' THEN
        PERFORM refuse('queue', 'must name one queue; "*" stands for all of them', 'BAD_USER_INPUT');
    END IF;
    PERFORM check_name('queue', queue, 200);
    PERFORM check_name('kind', kind, 200);
    IF v_key IS NOT NULL THEN
        PERFORM check_name('idempotencyKey', v_key, 512);
    END IF;
    PERFORM check_range('maxAttempts', v_max_attempts, 1, 1000);
    PERFORM check_range('priority', v_priority, -32767, 32767);
    PERFORM check_range('timeoutSecs', timeout_secs, 1, 604800);
    PERFORM check_moment('runAt', run_at);
    PERFORM check_moment('deadline', deadline);
    IF deadline <= run_at THEN
        PERFORM refuse('deadline', 'must be after runAt', 'BAD_USER_INPUT');
    END IF;
    PERFORM check_payload(v_payload);
    IF tenant_id IS NOT NULL THEN
        PERFORM check_name('tenantId', tenant_id, 200);
    END IF;
    IF octet_length(v_key) + octet_length(v_queue) + octet_length(v_tenant) > 2600 THEN  -- what the index of keys holds
        PERFORM refuse('idempotencyKey', format('must have at most 2600 bytes, together with queue and tenant, not %s',
            octet_length(v_key) + octet_length(v_queue) + octet_length(v_tenant)), 'BAD_USER_INPUT');
    END IF;
    IF actor IS NOT NULL THEN
        PERFORM check_name('actor', actor, 520);
        IF actor !~ '^(user|system):.' THEN
            PERFORM refuse('actor', 'must begin with user: or system:', 'BAD_USER_INPUT');
        END IF;
    END IF;

    IF v_key IS NOT NULL THEN
        -- A key that is there already is only read, so that nobody waits for the end of this transaction.
        SELECT k.job_id INTO v_job_id FROM idempotency_keys AS k
        WHERE k.tenant = v_tenant AND k.queue = v_queue AND k.key = v_key;
        IF v_job_id IS NULL THEN
            INSERT INTO idempotency_keys AS k (tenant, queue, key, job_id) VALUES (v_tenant, v_queue, v_key, v_id)
            ON CONFLICT (tenant, queue, key) DO UPDATE SET job_id = k.job_id
            RETURNING k.job_id INTO v_job_id;
        END IF;
        IF v_job_id <> v_id THEN
            RETURN v_job_id;
        END IF;
    END IF;
    IF NOT is_partitioned(v_at) THEN  -- no server has run for some days
        PERFORM make_partitions(4);
    END IF;
    INSERT INTO events (stream_id, version, at, stream, type, tenant, actor, trace, data)
    VALUES (v_id, 1, v_at, 'Job', 'enqueued', v_tenant, v_actor,
            CASE WHEN traceparent ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$' THEN traceparent END,
            jsonb_build_object('queue', v_queue, 'kind', kind, 'payload', v_payload, 'priority', v_priority,
                               'maxAttempts', v_max_attempts, 'runAt', run_at, 'idempotencyKey', v_key)
            || CASE WHEN timeout_secs IS NULL AND deadline IS NULL THEN '{}'
                    ELSE jsonb_build_object('timeoutSecs', timeout_secs, 'deadline', deadline) END);
    INSERT INTO job_records (id, created_at, run_at, priority, max_attempts, tenant, queue, kind, idempotency_key,
                             timeout_secs, deadline)
    VALUES (v_id, v_at, run_at, v_priority, v_max_attempts, v_tenant, v_queue, kind, v_key, timeout_secs, deadline);
    -- Whoever comes first; others do not wait for this transaction, and go without.
    IF NOT EXISTS (SELECT FROM lanes AS l WHERE l.queue = v_queue AND l.tenant = v_tenant)
        AND pg_try_advisory_xact_lock(hashtextextended('lane ' || v_tenant || E'\x1f' || v_queue, 0)) THEN
        INSERT INTO lanes (tenant, queue) VALUES (v_tenant, v_queue) ON CONFLICT DO NOTHING;
    END IF;
    INSERT INTO ready (id, eligible_at, version, priority, attempts, max_attempts, tenant, queue, kind, deliveries,
                       timeout_secs, deadline)
    VALUES (v_id, greatest(run_at, v_at), 1, v_priority, 0, v_max_attempts, v_tenant, v_queue, kind, 0, timeout_secs, deadline);
    -- A hint as realtime/hub.py sends them, heard at the commit; several of one lane are one. Two names of 200 characters
    -- are far below the 8,000 bytes that NOTIFY takes. NOTIFY has transactions commit one after the other, so whoever loads
    -- many jobs turns it off (SET LOCAL atomo.wake = off), and long polls find them at their next look.
    IF coalesce(nullif(current_setting('atomo.wake', true), ''), 'on')::boolean THEN
        PERFORM pg_notify('atomo', json_build_array('sql', json_build_array('q', v_tenant, v_queue))::text);
    END IF;
    RETURN v_id;
END $$;

REVOKE EXECUTE ON FUNCTION enqueue_job(text, text, jsonb, text, integer, integer, timestamptz, text, integer, timestamptz,
                                       text, text) FROM PUBLIC;
