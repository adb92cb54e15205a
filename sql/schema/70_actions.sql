-- Actions: what applications record of their models, and the bindings that make jobs of it.

-- One stream for each thing that something was recorded of, so that its events have an order of their own.
CREATE TABLE model_streams (
    tenant    text COLLATE "C" NOT NULL,
    model     text COLLATE "C" NOT NULL,
    entity_id text COLLATE "C" NOT NULL,
    stream_id uuid NOT NULL,
    version   integer NOT NULL,
    PRIMARY KEY (tenant, model, entity_id)
);

-- The same event id of a tenant is the same event.
CREATE TABLE recorded_ids (
    tenant      text COLLATE "C" NOT NULL,
    event_id    text COLLATE "C" NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, event_id)
);

CREATE INDEX recorded_ids_by_age ON recorded_ids USING brin (recorded_at);  -- record_forget

CREATE TABLE bindings (
    id            uuid NOT NULL PRIMARY KEY,  -- names the stream 'Binding'
    tenant        text COLLATE "C" NOT NULL,  -- '' is: of the service, for every tenant's events
    model         text COLLATE "C" NOT NULL,
    event         text COLLATE "C" NOT NULL,
    action        text COLLATE "C" NOT NULL,
    queue         text COLLATE "C" NOT NULL,
    condition     jsonb,
    input         text[],                     -- the fields of the data that the job gets; null: all
    version       integer NOT NULL,           -- of the stream's newest event
    since_xid     bigint NOT NULL,            -- events of older transactions are not its own
    registered_at timestamptz NOT NULL,
    registered_by text NOT NULL,
    source_file   text,                       -- that it was read from; null: registered by a call
    removed_at    timestamptz,
    set_aside_at  timestamptz,                -- it failed, and fires no more until it is resumed
    error         text,
    -- Where it is in the log while it is set aside, or behind the others after that; null: with the others.
    at_xid        bigint,
    at_position   bigint
);

CREATE INDEX bindings_alive ON bindings (tenant, model, event, action) WHERE removed_at IS NULL;  -- binding_put

-- How far a consumer of the log is: all before that place is done. Whoever goes on with it holds the row's lock.
CREATE TABLE checkpoints (
    consumer   text NOT NULL PRIMARY KEY,
    xid        bigint NOT NULL,
    position   bigint NOT NULL,
    changed_at timestamptz NOT NULL
);

INSERT INTO checkpoints (consumer, xid, position, changed_at)
VALUES ('actions', pg_current_xact_id()::text::bigint, 0, statement_timestamp());
