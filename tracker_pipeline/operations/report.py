"""The figures of a report over a span of time. Each is read from the tables; none is a constant.

A report joins the market's chain with the on-chain one, so it looks itself whether its inputs are there and names
what is missing.

What belongs here: reads. What does not: Markdown (`domain.report_text`), when a report is due (`automation`).
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tracker_pipeline.domain.report_text import Facts
from tracker_pipeline.operations import alerts, instance_state
from tracker_pipeline.settings import get_config
from tracker_pipeline.storage.database import Connection

_HOUR: Final = timedelta(hours=1)
_BAR: Final = timedelta(minutes=15)
_SETTLED: Final = timedelta(minutes=70)  # the hourly run at five past brings what closed before the hour
_NAMED: Final = 8

_COVERED: Final = """
SELECT i.symbol, (SELECT count(*) FROM market.ohlc_15m b
                  WHERE b.venue = i.venue AND b.symbol = i.symbol AND b.ts >= %(start)s AND b.ts < %(end)s)
FROM market.instruments i
WHERE i.venue = %(venue)s AND i.listed_to IS NULL ORDER BY i.symbol
"""
_MOVE: Final = """
SELECT (array_agg(open ORDER BY ts))[1], (array_agg(close ORDER BY ts DESC))[1], max(high), min(low)
FROM market.ohlc_15m WHERE venue = %(venue)s AND symbol LIKE %(reference)s AND ts >= %(start)s AND ts < %(end)s
"""
_REGIME: Final = """
SELECT trend, stress FROM market.regimes WHERE venue = %(venue)s AND ts < %(end)s ORDER BY ts DESC LIMIT 1
"""
_SCORES: Final = """
SELECT snapshot_timestamp, lookback_hours, score_pct, band, status, accumulators, distributors, tags
FROM onchain.accumulation_scores
WHERE network = %(network)s AND snapshot_timestamp = (
    SELECT max(snapshot_timestamp) FROM onchain.accumulation_scores
    WHERE network = %(network)s AND snapshot_timestamp < %(end)s)
ORDER BY lookback_hours
"""
_SCORED_HOURS: Final = """
SELECT DISTINCT snapshot_timestamp FROM onchain.accumulation_scores
WHERE network = %(network)s AND snapshot_timestamp >= %(start)s AND snapshot_timestamp < %(end)s
"""
_SETUPS: Final = """
SELECT strategy, count(*) FROM labels.strategy_setups WHERE signal_ts >= %(start)s AND signal_ts < %(end)s GROUP BY 1
ORDER BY 1
"""
_LABELS: Final = """
SELECT '{0}', outcome, count(*), avg(actual_return) FROM labels.strategy_{0}_labels
WHERE exit_ts >= %(start)s AND exit_ts < %(end)s GROUP BY 2
"""
_ARCHIVED: Final = """
SELECT coalesce(sum(rows), 0)::bigint, coalesce(sum(bytes), 0)::bigint, count(*)
FROM archive.batches WHERE state = 'live' AND created_at >= %(start)s AND created_at < %(end)s
"""


def gather(connection: Connection, *, start: datetime, end: datetime, now: datetime) -> Facts:
    """The figures of [start, end) as they are at `now`."""
    config = get_config()
    values = {
        "start": start, "end": end, "venue": config.market.venue, "network": config.chain.network,
        "reference": f"{config.market.reference}/%",
    }  # fmt: skip
    settled = min(end, now - _SETTLED)
    covered, lacking = _coverage(connection, values, start, settled)
    missing = [*lacking, *_missing_hours(connection, values, start, settled)]
    scores = _rows(connection, _SCORES, values)
    move = _rows(connection, _MOVE, values)[0]
    regime = _rows(connection, _REGIME, values)
    missing += [] if scores else ["no accumulation score has been made yet"]
    missing += [] if regime else ["no market regime has been judged yet"]
    missing += [] if move[0] else [f"no bars of {config.market.reference} in this span"]
    there = instance_state.is_there(connection)
    return Facts(
        start=start,
        end=end,
        rendered_at=now,
        states=dict(_rows(connection, "SELECT state, count(*) FROM operations.freshness GROUP BY 1", {})),
        alerts=[(a.cause.severity, a.cause.title, a.opened_at) for a in alerts.open_alerts(connection)],
        alerts_over=_rows(connection, _OVER, values),
        runs=_runs(connection, start, end) if there else {},
        coverage_pct=covered,
        reference=config.market.reference,
        move=move if move[0] else None,
        regime=regime[0] if regime else None,
        scores=scores,
        setups=dict(_rows(connection, _SETUPS, values)),
        labels=_labels(connection, values),
        archived=_rows(connection, _ARCHIVED, values)[0],
        instance_bytes=sum(instance_state.database_bytes(connection).values()),
        missing=missing,
    )


_OVER: Final = """
SELECT title, opened_at, resolved_at FROM operations.alerts
WHERE resolved_at >= %(start)s AND resolved_at < %(end)s ORDER BY resolved_at
"""


def _rows(connection: Connection, statement: str, values: dict[str, Any]) -> list[Any]:
    return connection.execute(statement, values or None).fetchall()


def _coverage(
    connection: Connection, values: dict[str, Any], start: datetime, settled: datetime
) -> tuple[float | None, list[str]]:
    """Share of the 15m bars expected so far that are stored, in %, and the symbols that lack some."""
    expected = int((settled - start) / _BAR)
    rows = _rows(connection, _COVERED, {**values, "end": settled})
    if not rows or expected <= 0:
        return None, [] if rows else ["no instruments are recorded"]
    lacking = [symbol for symbol, bars in rows if bars < expected]
    share = 100 * sum(min(bars, expected) for _, bars in rows) / (expected * len(rows))
    if not lacking:
        return share, []
    more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
    return share, [f"15m bars of {', '.join(lacking[:_NAMED])}{more}"]


def _missing_hours(
    connection: Connection, values: dict[str, Any], start: datetime, settled: datetime
) -> list[str]:
    scored = {row[0] for row in _rows(connection, _SCORED_HOURS, values)}
    hour = start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    lacking = []
    while hour + _HOUR <= settled:
        if hour >= start and hour not in scored:
            lacking.append(hour)
        hour += _HOUR
    if not lacking:
        return []
    shown = ", ".join(f"{hour:%d %H:00}" for hour in lacking[:_NAMED])
    more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
    return [f"scores of {len(lacking)} hours: {shown}{more}"]


def _runs(connection: Connection, start: datetime, end: datetime) -> dict[str, int]:
    rows = connection.execute(
        "SELECT status, count(*) FROM dagster.runs WHERE create_timestamp >= %s AND create_timestamp < %s GROUP BY 1",
        [start.astimezone(UTC).replace(tzinfo=None), end.astimezone(UTC).replace(tzinfo=None)],
    ).fetchall()
    return dict(rows)


def _labels(connection: Connection, values: dict[str, Any]) -> list[tuple[str, str, int, float | None]]:
    found = []
    for strategy in ("dca", "swing", "channel"):
        found += _rows(connection, _LABELS.format(strategy), values)
    return found
