-- Both sides of large transfers, and whether the blocks of the snapshots are still part of the chain.
CREATE TABLE onchain.whale_candidates (
    network text NOT NULL,
    snapshot_timestamp timestamptz NOT NULL
        CHECK (snapshot_timestamp = date_bin('1 hour', snapshot_timestamp, 'epoch')),
    asset text NOT NULL,
    whale_address text NOT NULL CHECK (whale_address ~ '^0x[0-9a-f]{40}$'),
    received numeric(78, 0) NOT NULL CHECK (received >= 0),
    sent numeric(78, 0) NOT NULL CHECK (sent >= 0),
    largest numeric(78, 0) NOT NULL CHECK (largest > 0),
    transfers bigint NOT NULL CHECK (transfers > 0),
    first_block bigint NOT NULL,
    last_block bigint NOT NULL CHECK (last_block >= first_block),
    kind text NOT NULL CHECK (kind IN ('account', 'delegated', 'contract')),
    excluded boolean NOT NULL,
    reason text,
    run_id text NOT NULL,
    CHECK (excluded = (reason IS NOT NULL)),
    PRIMARY KEY (network, snapshot_timestamp, asset, whale_address)
);

CREATE TABLE onchain.snapshot_rechecks (
    network text NOT NULL,
    snapshot_timestamp timestamptz NOT NULL
        CHECK (snapshot_timestamp = date_bin('1 hour', snapshot_timestamp, 'epoch')),
    block_number bigint NOT NULL,
    block_hash text NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'final', 'reorganised')),
    replaced_hash text,
    repairs bigint NOT NULL CHECK (repairs >= 0),
    run_id text NOT NULL,
    CHECK ((repairs = 0) = (replaced_hash IS NULL) OR state = 'reorganised'),
    PRIMARY KEY (network, snapshot_timestamp)
);

-- Without a baseline there is no figure, and no baseline to name.
ALTER TABLE onchain.accumulation_scores
    ADD CHECK (status <> 'no_baseline' OR (baseline_timestamp IS NULL AND score_pct IS NULL AND band IS NULL));
