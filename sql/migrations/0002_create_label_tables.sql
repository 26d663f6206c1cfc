-- Setups and what became of them.
CREATE SCHEMA IF NOT EXISTS labels;

CREATE TABLE labels.strategy_setups (
    setup_id text PRIMARY KEY,
    strategy text NOT NULL CHECK (strategy IN ('dca', 'swing', 'channel')),
    venue text NOT NULL,
    symbol text NOT NULL,
    timeframe text NOT NULL,
    signal_ts timestamptz NOT NULL,
    side text NOT NULL CHECK (side = 'BUY'),
    ref_price double precision NOT NULL,
    tp_pct double precision NOT NULL,
    sl_pct double precision NOT NULL,
    horizon_hours bigint NOT NULL,
    tier text NOT NULL,
    trend text NOT NULL,
    stress text NOT NULL,
    score double precision,
    evidence jsonb NOT NULL,
    config_version text NOT NULL
);

CREATE TABLE labels.strategy_dca_labels (
    setup_id text PRIMARY KEY,
    venue text NOT NULL,
    symbol text NOT NULL,
    timestamp timestamptz NOT NULL,
    setup_detected boolean NOT NULL,
    drop_percentage double precision,
    rsi double precision,
    volume_ratio double precision,
    btc_regime text,
    outcome text NOT NULL
        CHECK (outcome IN ('WIN', 'LOSS', 'BREAKEVEN', 'TIMEOUT', 'PENDING', 'UNRESOLVED')),
    exit_reason text CHECK (exit_reason IN ('TP', 'SL', 'TRAIL', 'TIME')),
    entry_ts timestamptz,
    entry_price double precision,
    exit_ts timestamptz,
    exit_price double precision,
    gross_return_pct double precision,
    actual_return double precision,
    mfe_pct double precision,
    mae_pct double precision,
    hold_time_hours double precision,
    fills bigint,
    ambiguous boolean,
    coverage_frac double precision,
    label_version text NOT NULL
);

CREATE TABLE labels.strategy_swing_labels (
    setup_id text PRIMARY KEY,
    venue text NOT NULL,
    symbol text NOT NULL,
    timestamp timestamptz NOT NULL,
    breakout_detected boolean NOT NULL,
    breakout_strength double precision,
    volume_surge double precision,
    momentum_score double precision,
    trend_alignment text,
    outcome text NOT NULL
        CHECK (outcome IN ('WIN', 'LOSS', 'BREAKEVEN', 'TIMEOUT', 'PENDING', 'UNRESOLVED')),
    exit_reason text CHECK (exit_reason IN ('TP', 'SL', 'TRAIL', 'TIME')),
    entry_ts timestamptz,
    entry_price double precision,
    exit_ts timestamptz,
    exit_price double precision,
    gross_return_pct double precision,
    actual_return double precision,
    mfe_pct double precision,
    mae_pct double precision,
    hold_time_hours double precision,
    fills bigint,
    ambiguous boolean,
    coverage_frac double precision,
    label_version text NOT NULL
);

CREATE TABLE labels.strategy_channel_labels (
    setup_id text PRIMARY KEY,
    venue text NOT NULL,
    symbol text NOT NULL,
    timestamp timestamptz NOT NULL,
    channel_position text,
    channel_strength double precision,
    channel_width double precision,
    optimal_entry double precision,
    optimal_exit double precision,
    outcome text NOT NULL
        CHECK (outcome IN ('WIN', 'LOSS', 'BREAKEVEN', 'TIMEOUT', 'PENDING', 'UNRESOLVED')),
    exit_reason text CHECK (exit_reason IN ('TP', 'SL', 'TRAIL', 'TIME')),
    entry_ts timestamptz,
    entry_price double precision,
    exit_ts timestamptz,
    exit_price double precision,
    gross_return_pct double precision,
    actual_return double precision,
    mfe_pct double precision,
    mae_pct double precision,
    hold_time_hours double precision,
    fills bigint,
    ambiguous boolean,
    coverage_frac double precision,
    label_version text NOT NULL
);
