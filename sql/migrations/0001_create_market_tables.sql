-- Bars, what corrected them, the instruments they belong to, and the regimes read from them.
CREATE SCHEMA IF NOT EXISTS market;

CREATE TABLE market.instruments (
    venue text NOT NULL,
    symbol text NOT NULL,
    base text NOT NULL,
    quote text NOT NULL,
    native_symbol text NOT NULL,
    market_type text NOT NULL CHECK (market_type IN ('spot', 'linear')),
    tier text NOT NULL,
    liquidity_class text CHECK (liquidity_class IN ('liquid', 'thin')),
    listed_from timestamptz,
    listed_to timestamptz,
    alias_of text,
    PRIMARY KEY (venue, symbol)
);

-- The six bar tables are alike but for the alignment of ts. The origin 1970-01-01 makes days, hours and
-- minutes fall on their UTC boundaries, so a bar stamped 12:07 cannot enter a 15m table.
CREATE TABLE market.ohlc_1m (
    venue text NOT NULL,
    symbol text NOT NULL,
    ts timestamptz NOT NULL CHECK (ts = date_bin('1 minute', ts, 'epoch')),
    open double precision NOT NULL,
    high double precision NOT NULL,
    low double precision NOT NULL,
    close double precision NOT NULL,
    volume double precision NOT NULL,
    vwap double precision,
    trades bigint,
    n_src bigint,
    source text NOT NULL,
    revision bigint NOT NULL,
    run_id text NOT NULL,
    fetched_at timestamptz NOT NULL,
    available_at timestamptz NOT NULL,
    PRIMARY KEY (venue, symbol, ts)
);
CREATE TABLE market.ohlc_5m (
    LIKE market.ohlc_1m INCLUDING INDEXES,
    CHECK (ts = date_bin('5 minutes', ts, 'epoch'))
);
CREATE TABLE market.ohlc_15m (
    LIKE market.ohlc_1m INCLUDING INDEXES,
    CHECK (ts = date_bin('15 minutes', ts, 'epoch'))
);
CREATE TABLE market.ohlc_1h (
    LIKE market.ohlc_1m INCLUDING INDEXES,
    CHECK (ts = date_bin('1 hour', ts, 'epoch'))
);
CREATE TABLE market.ohlc_4h (
    LIKE market.ohlc_1m INCLUDING INDEXES,
    CHECK (ts = date_bin('4 hours', ts, 'epoch'))
);
CREATE TABLE market.ohlc_1d (
    LIKE market.ohlc_1m INCLUDING INDEXES,
    CHECK (ts = date_bin('1 day', ts, 'epoch'))
);

CREATE TABLE market.bar_revisions (
    venue text NOT NULL,
    symbol text NOT NULL,
    timeframe text NOT NULL,
    ts timestamptz NOT NULL,
    revision bigint NOT NULL,
    open double precision NOT NULL,
    high double precision NOT NULL,
    low double precision NOT NULL,
    close double precision NOT NULL,
    volume double precision NOT NULL,
    vwap double precision,
    trades bigint,
    n_src bigint,
    source text NOT NULL,
    replaced_at timestamptz NOT NULL,
    run_id text NOT NULL,
    PRIMARY KEY (venue, symbol, timeframe, ts, revision)
);

CREATE TABLE market.regimes (
    venue text NOT NULL,
    ts timestamptz NOT NULL,
    available_at timestamptz NOT NULL,
    trend text NOT NULL CHECK (trend IN ('BULL', 'BEAR', 'NEUTRAL', 'UNKNOWN')),
    stress text NOT NULL CHECK (stress IN ('PANIC', 'CAUTION', 'EUPHORIA', 'NORMAL', 'UNKNOWN')),
    daily_close double precision,
    sma_50d double precision,
    sma_200d double precision,
    change_1h_pct double precision,
    change_4h_pct double precision,
    change_24h_pct double precision,
    range_24h_pct double precision,
    drawdown_24h_pct double precision,
    drawdown_48h_pct double precision,
    PRIMARY KEY (venue, ts)
);
