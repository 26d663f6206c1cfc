"""Tables of operations: how fresh data is, what is wrong, what was said about it, and the size of the instance."""

from typing import Final

from tracker_pipeline.domain.schemas.declaration import RUN_ID, Column, T, Table

FRESHNESS: Final = Table(
    name="operations.freshness",
    key=("table_name", "venue", "symbol"),
    description="How old the newest row of each series is by the clock of the exchange, judged outside of any run.",
    write="merge",
    columns=(
        Column("table_name", T.TEXT, "schema and table"),
        Column("venue", T.TEXT, "exchange, or network of on-chain tables"),
        Column("symbol", T.TEXT, "unified symbol; * where the table is judged as a whole"),
        Column("newest_at", T.TIME, "end of the newest bar, or time of the newest row", nullable=True),
        Column("age_seconds", T.INT, "from newest_at to the exchange's clock", nullable=True),
        Column("late_after_seconds", T.INT, "older than this is late, than twice this stale"),
        Column("state", T.TEXT, "fresh, late, stale, or recovered for an hour after either"),
        Column("since", T.TIME, "when the state began"),
        Column("checked_at", T.TIME, "exchange's clock at the check", provenance=True),
    ),
)

ALERTS: Final = Table(
    name="operations.alerts",
    key=("cause", "opened_at"),
    description="What was wrong, from when to when, grouped by cause.",
    write="merge",
    columns=(
        Column("cause", T.TEXT, "such as source/bybit or run/market_day"),
        Column("opened_at", T.TIME, "first seen"),
        Column("severity", T.TEXT, "warning or critical"),
        Column("title", T.TEXT, "one line"),
        Column("text", T.TEXT, "what a person should know and do"),
        Column("last_seen_at", T.TIME, "last time that it was still so"),
        Column("resolved_at", T.TIME, "when it was no longer so", nullable=True),
        Column("notified_at", T.TIME, "last message", nullable=True),
        Column("notifications", T.INT, "messages so far"),
    ),
)

DELIVERIES: Final = Table(
    name="operations.deliveries",
    key=("message", "channel"),
    description="What was sent where: each message goes to each channel at most once.",
    write="merge",
    columns=(
        Column("message", T.TEXT, "identity, such as report/morning/2026-03-02"),
        Column("channel", T.TEXT, "kind and number of the channel, without its secrets; none where unset"),
        Column("title", T.TEXT, "one line"),
        Column("status", T.TEXT, "sending, sent, failed or skipped"),
        Column("attempts", T.INT, "tries so far"),
        Column("at", T.TIME, "last try"),
        Column("reason", T.TEXT, "why it was skipped or failed", nullable=True),
        Column(
            "body", T.TEXT, "Markdown, sent again where a channel refused it; NULL: skipped", nullable=True
        ),
    ),
)

INSTANCE_RETENTION: Final = Table(
    name="operations.instance_retention",
    key=("day",),
    description="What was removed from Dagster's own records each day, and how large they are afterwards.",
    write="merge",
    columns=(
        Column("day", T.DATE, "UTC day of the removal"),
        Column("runs_deleted", T.INT, "runs older than their retention"),
        Column("events_deleted", T.INT, "events removed, with their runs or as superseded materializations"),
        Column("ticks_deleted", T.INT, "ticks of schedules and sensors"),
        Column("log_files_deleted", T.INT, "what steps of removed runs printed"),
        Column("runs", T.INT, "runs kept"),
        Column("events", T.INT, "events kept"),
        Column("database_bytes", T.INT, "size of the schema dagster"),
        Column("log_bytes", T.INT, "size of what steps printed"),
        RUN_ID,
    ),
)


def _report(name: str, what: str) -> Table:
    return Table(
        name=f"operations.report_{name}",
        key=("period",),
        description=f"{what}, as Markdown with the figures that it was made of.",
        time_column="period",
        write="merge",
        columns=(
            Column("period", T.TIME, "start of the partition that the report is of"),
            Column("title", T.TEXT, "one line"),
            Column("markdown", T.TEXT, "the report"),
            Column("healthy_pct", T.FLOAT, "share of series that are fresh or recovered", nullable=True),
            Column("missing", T.TEXT_LIST, "inputs that were not there"),
            Column("rendered_at", T.TIME, "when it was made", provenance=True),
            RUN_ID,
        ),
    )


REPORTS: Final = {
    "morning": _report("morning", "The morning report: what happened overnight and what is wrong"),
    "midday": _report("midday", "The midday report: how the day's data comes in"),
    "evening": _report("evening", "The evening report: what the day brought"),
    "weekly": _report("weekly", "The weekly report: what the week brought, from bars to labels"),
}
