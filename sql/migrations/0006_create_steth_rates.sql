-- What one stETH was worth in ether at the pinned block of each hour, and where it was not known, why.
CREATE TABLE onchain.steth_rates (
    network text NOT NULL,
    snapshot_timestamp timestamptz NOT NULL
        CHECK (snapshot_timestamp = date_bin('1 hour', snapshot_timestamp, 'epoch')),
    rate numeric CHECK (rate > 0),
    status text NOT NULL CHECK (status IN ('ok', 'no_feed', 'no_answer', 'stale', 'out_of_range')),
    answered_at timestamptz,
    block_number bigint NOT NULL,
    block_hash text NOT NULL,
    block_timestamp timestamptz NOT NULL,
    run_id text NOT NULL,
    CHECK ((status IN ('ok', 'out_of_range')) = (rate IS NOT NULL)),
    CHECK (answered_at <= block_timestamp),
    PRIMARY KEY (network, snapshot_timestamp)
);
