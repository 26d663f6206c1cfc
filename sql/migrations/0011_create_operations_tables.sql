-- How fresh data is, what is wrong, what was said about it, reports, and the size of Dagster's own records.
CREATE SCHEMA IF NOT EXISTS operations;

CREATE TABLE operations.freshness (
    table_name text NOT NULL,
    venue text NOT NULL,
    symbol text NOT NULL,
    newest_at timestamptz,
    age_seconds bigint,
    late_after_seconds bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('fresh', 'late', 'stale', 'recovered')),
    since timestamptz NOT NULL,
    checked_at timestamptz NOT NULL,
    PRIMARY KEY (table_name, venue, symbol)
);

CREATE TABLE operations.alerts (
    cause text NOT NULL,
    opened_at timestamptz NOT NULL,
    severity text NOT NULL CHECK (severity IN ('warning', 'critical')),
    title text NOT NULL,
    text text NOT NULL,
    last_seen_at timestamptz NOT NULL,
    resolved_at timestamptz,
    notified_at timestamptz,
    notifications bigint NOT NULL,
    PRIMARY KEY (cause, opened_at)
);
-- A cause is open at most once.
CREATE UNIQUE INDEX alerts_open ON operations.alerts (cause) WHERE resolved_at IS NULL;

CREATE TABLE operations.deliveries (
    message text NOT NULL,
    channel text NOT NULL,
    title text NOT NULL,
    status text NOT NULL CHECK (status IN ('sending', 'sent', 'failed', 'skipped')),
    attempts bigint NOT NULL,
    at timestamptz NOT NULL,
    reason text,
    PRIMARY KEY (message, channel)
);

CREATE TABLE operations.instance_retention (
    day date PRIMARY KEY,
    runs_deleted bigint NOT NULL,
    events_deleted bigint NOT NULL,
    ticks_deleted bigint NOT NULL,
    log_files_deleted bigint NOT NULL,
    runs bigint NOT NULL,
    events bigint NOT NULL,
    database_bytes bigint NOT NULL,
    log_bytes bigint NOT NULL,
    run_id text NOT NULL
);

CREATE TABLE operations.report_morning (
    period timestamptz PRIMARY KEY,
    title text NOT NULL,
    markdown text NOT NULL,
    healthy_pct double precision,
    missing text[] NOT NULL,
    rendered_at timestamptz NOT NULL,
    run_id text NOT NULL
);
CREATE TABLE operations.report_midday (LIKE operations.report_morning INCLUDING ALL);
CREATE TABLE operations.report_evening (LIKE operations.report_morning INCLUDING ALL);
CREATE TABLE operations.report_weekly (LIKE operations.report_morning INCLUDING ALL);
