-- Strong random bytes are dear, so a statement draws one uuid and derives the others that it needs: nobody can tell one of
-- them from another without the one it was drawn from, which nobody is told.
CREATE OR REPLACE FUNCTION derived(secret uuid, n bigint, bytes integer) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT substr(sha256(uuid_send($1) || int8send($2)), 1, $3)
$$;

-- The n-th of a secret's ids, with the marks of a random one (RFC 9562 §5.4); 112 of its bits nobody can tell.
CREATE OR REPLACE FUNCTION nth_secret_id(secret uuid, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT encode(set_byte(set_byte(derived($1, $2, 16), 6, 64), 8, 128), 'hex')::uuid
$$;

CREATE OR REPLACE FUNCTION microseconds_now() RETURNS bigint LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
$$;

-- A time-ordered id, after RFC 9562 §5.7 and §6.2 method 3: 48 bits of milliseconds, 12 bits of their fraction, then 8
-- fixed bits for the cell (a shard; 0 today) and 48 random ones. A statement that needs many takes the n-th of a moment,
-- a microsecond apart, and they keep their order.
CREATE OR REPLACE FUNCTION nth_id(us bigint, secret uuid, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT encode(int8send((($1 + $3) / 1000) << 16 | 28672 | ($1 + $3) % 1000 * 4096 / 1000)
                  || set_byte(set_byte(derived($2, $3, 8), 0, 128), 1, 0), 'hex')::uuid
$$;

CREATE OR REPLACE FUNCTION new_id() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT nth_id(microseconds_now(), gen_random_uuid(), 0)
$$;

-- The smallest id of a moment: where a partition begins, and where a range of time begins in a query.
CREATE OR REPLACE FUNCTION first_id_at(moment timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid
$$;

-- The moment, to the millisecond, at which an id was made.
CREATE OR REPLACE FUNCTION moment_of(id uuid) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT to_timestamp(('x' || substr(replace($1::text, '-', ''), 1, 12))::bit(48)::bigint / 1000.0)
$$;
