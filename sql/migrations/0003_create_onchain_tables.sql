-- Watched addresses, their balances at one pinned block an hour, and the scores made of them.
CREATE SCHEMA IF NOT EXISTS onchain;

CREATE TABLE onchain.whale_universe (
    network text NOT NULL,
    version text NOT NULL,
    whale_address text NOT NULL CHECK (whale_address ~ '^0x[0-9a-f]{40}$'),
    label text,
    category text NOT NULL,
    excluded boolean NOT NULL,
    reason text,
    source text NOT NULL,
    CHECK (NOT excluded OR reason IS NOT NULL),
    PRIMARY KEY (network, version, whale_address)
);

CREATE TABLE onchain.whale_balance_snapshots (
    network text NOT NULL,
    asset text NOT NULL,
    whale_address text NOT NULL CHECK (whale_address ~ '^0x[0-9a-f]{40}$'),
    snapshot_timestamp timestamptz NOT NULL
        CHECK (snapshot_timestamp = date_bin('1 hour', snapshot_timestamp, 'epoch')),
    balance numeric(78, 0) CHECK (balance >= 0),
    status text NOT NULL
        CHECK (status IN ('ok', 'reverted', 'empty_return', 'rpc_error', 'decode_error')),
    rank bigint,
    block_number bigint NOT NULL,
    block_hash text NOT NULL,
    block_timestamp timestamptz NOT NULL,
    run_id text NOT NULL,
    CHECK ((status = 'ok') = (balance IS NOT NULL)),
    PRIMARY KEY (network, asset, whale_address, snapshot_timestamp)
);
-- A snapshot is read by hour, and the key begins with the address.
CREATE INDEX whale_balance_snapshots_by_hour ON onchain.whale_balance_snapshots (snapshot_timestamp);

CREATE TABLE onchain.accumulation_scores (
    network text NOT NULL,
    snapshot_timestamp timestamptz NOT NULL,
    lookback_hours bigint NOT NULL,
    score_pct numeric,
    lst_score_pct numeric,
    trend_score numeric,
    change_wei numeric(78, 0),
    lst_change_wei numeric(78, 0),
    universe bigint NOT NULL,
    matched bigint NOT NULL,
    missing_current bigint NOT NULL,
    missing_historical bigint NOT NULL,
    entrants bigint NOT NULL,
    leavers bigint NOT NULL,
    accumulators bigint NOT NULL,
    distributors bigint NOT NULL,
    neutral bigint NOT NULL,
    median_change_pct numeric,
    mad_pct numeric,
    outlier_threshold_pct numeric,
    outliers bigint NOT NULL,
    driver text,
    is_anomaly boolean NOT NULL,
    gini numeric,
    steth_rate numeric,
    band text,
    tags text[] NOT NULL,
    status text NOT NULL CHECK (status IN ('ok', 'no_baseline', 'low_coverage')),
    baseline_timestamp timestamptz,
    elapsed_seconds bigint,
    run_id text NOT NULL,
    PRIMARY KEY (network, snapshot_timestamp, lookback_hours)
);
