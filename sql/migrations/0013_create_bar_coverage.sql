-- How complete bars are: counts by day, each run of absent bars with its state, and outages of venues.
CREATE TABLE market.bar_coverage (
    venue text NOT NULL,
    symbol text NOT NULL,
    timeframe text NOT NULL,
    day timestamptz NOT NULL CHECK (day = date_bin('1 day', day, 'epoch')),
    expected bigint NOT NULL,
    present bigint NOT NULL,
    empty bigint NOT NULL,
    outage bigint NOT NULL,
    missing bigint NOT NULL,
    first_ts timestamptz,
    last_ts timestamptz,
    PRIMARY KEY (venue, symbol, timeframe, day),
    CONSTRAINT every_expected_bar_is_accounted_for CHECK (expected = present + empty + outage + missing)
);
-- The UI, the checks and `tracker gaps` read a few days of all symbols.
CREATE INDEX bar_coverage_by_day ON market.bar_coverage (day);

CREATE TABLE market.bar_gaps (
    venue text NOT NULL,
    symbol text NOT NULL,
    timeframe text NOT NULL,
    gap_start timestamptz NOT NULL,
    gap_end timestamptz NOT NULL CHECK (gap_end > gap_start),
    bars bigint NOT NULL CHECK (bars > 0),
    state text NOT NULL CHECK (state IN ('missing', 'empty', 'outage', 'unlisted')),
    attempts bigint NOT NULL,
    next_attempt_at timestamptz,
    detected_at timestamptz NOT NULL,
    resolved_at timestamptz,
    confirmed_by text,
    last_error text,
    PRIMARY KEY (venue, symbol, timeframe, gap_start),
    CHECK (resolved_at IS NULL OR next_attempt_at IS NULL)
);
-- A review of a window reads the gaps that touch it; a window is days, a gap mostly minutes.
CREATE INDEX bar_gaps_by_end ON market.bar_gaps (timeframe, gap_end);
-- The sensor asks each minute whether anything is due; few gaps ever are.
CREATE INDEX bar_gaps_due ON market.bar_gaps (next_attempt_at) WHERE next_attempt_at IS NOT NULL;

CREATE TABLE market.outages (
    venue text NOT NULL,
    outage_start timestamptz NOT NULL,
    outage_end timestamptz NOT NULL CHECK (outage_end > outage_start),
    timeframe text NOT NULL,
    symbols_absent bigint NOT NULL,
    symbols_expected bigint NOT NULL,
    confirmed_by text,
    detected_at timestamptz NOT NULL,
    resolved_at timestamptz,
    run_id text NOT NULL,
    PRIMARY KEY (venue, outage_start)
);
