-- The manifest of the lake. A file without a row here does not exist for any reader.
CREATE SCHEMA IF NOT EXISTS archive;

CREATE TABLE archive.batches (
    batch_id text PRIMARY KEY,
    table_name text NOT NULL,
    data_day date NOT NULL,
    path text NOT NULL UNIQUE,
    rows bigint NOT NULL CHECK (rows >= 0),
    bytes bigint NOT NULL,
    sha256 text NOT NULL,
    content_hash text NOT NULL,
    min_ts timestamptz,
    max_ts timestamptz,
    cut timestamptz,
    schema jsonb NOT NULL,
    state text NOT NULL CHECK (state IN ('live', 'superseded')),
    created_at timestamptz NOT NULL,
    verified_at timestamptz NOT NULL,
    superseded_by text REFERENCES archive.batches (batch_id) DEFERRABLE INITIALLY DEFERRED,
    run_id text NOT NULL,
    CHECK ((state = 'superseded') = (superseded_by IS NOT NULL))
);
-- At most one live part for a table's day: a key can then stand in at most one file that readers see.
CREATE UNIQUE INDEX batches_live_day ON archive.batches (table_name, data_day) WHERE state = 'live';
