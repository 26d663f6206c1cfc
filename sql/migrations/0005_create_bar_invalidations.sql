-- What was made of bars is stale where they were corrected or came late. Sensors read this table to recompute it.
CREATE TABLE market.bar_invalidations (
    venue text NOT NULL,
    symbol text NOT NULL,
    timeframe text NOT NULL,
    start_ts timestamptz NOT NULL,
    transaction_id bigint NOT NULL,
    end_ts timestamptz NOT NULL CHECK (end_ts > start_ts),
    bars bigint NOT NULL,
    kind text NOT NULL CHECK (kind IN ('revised', 'late')),
    recorded_at timestamptz NOT NULL,
    run_id text NOT NULL,
    PRIMARY KEY (venue, symbol, timeframe, start_ts, transaction_id)
);
-- A sensor reads on from the last transaction it has seen.
CREATE INDEX bar_invalidations_by_transaction ON market.bar_invalidations (transaction_id);
