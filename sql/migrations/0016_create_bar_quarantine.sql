-- Bars that were refused, with the reason, so that nothing a source gave is lost and someone can look into it.
CREATE TABLE market.bar_quarantine (
    venue text NOT NULL,
    symbol text NOT NULL,
    timeframe text NOT NULL,
    ts timestamptz NOT NULL,
    fingerprint text NOT NULL,
    open double precision,
    high double precision,
    low double precision,
    close double precision,
    volume double precision,
    reason text NOT NULL,
    source text NOT NULL,
    quarantined_at timestamptz NOT NULL,
    run_id text NOT NULL,
    PRIMARY KEY (venue, symbol, timeframe, ts, fingerprint)
);
