"""The records of gaps and outages: read by window or by what is due, changed only where they differ.

What belongs here: their SQL. What does not: what state a gap is in (`domain.gap_states`), asking the source (the
assets).
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import polars as pl
from psycopg import sql

from tracker_pipeline.domain.gap_states import GAP_COLUMNS, OUTAGE, bars_in, next_attempt
from tracker_pipeline.domain.outages import joined
from tracker_pipeline.domain.schemas import BAR_GAPS, OUTAGES
from tracker_pipeline.domain.timeframes import TIMEFRAMES
from tracker_pipeline.storage.database import Connection, identifier, lock_table, names

_COLUMNS = tuple(GAP_COLUMNS)
_KEY = ("venue", "symbol", "gap_start")


def gaps_touching(connection: Connection, timeframe: str, start: datetime, end: datetime) -> pl.DataFrame:
    """Gaps of a timeframe that overlap [start, end) or end where it begins, resolved ones included.

    Returns:
        Frame of `GAP_COLUMNS`.
    """
    statement = sql.SQL(
        "SELECT {} FROM {} WHERE timeframe = %s AND gap_end >= %s AND gap_start <= %s"
    ).format(names(_COLUMNS), identifier(BAR_GAPS))
    return _frame(connection, statement, [timeframe, start, end])


def open_gaps(
    connection: Connection, timeframe: str, start: datetime, end: datetime, *, nonexistent: bool = False
) -> pl.DataFrame:
    """Gaps that overlap [start, end) and are not resolved; on demand only those whose bars do not exist."""
    rows = gaps_touching(connection, timeframe, start, end).filter(pl.col("resolved_at").is_null())
    rows = rows.filter(pl.col("gap_end") > start, pl.col("gap_start") < end)
    return (
        rows.filter(pl.col("confirmed_by").is_not_null() | (pl.col("state") == "unlisted"))
        if nonexistent
        else rows
    )


def due_gaps(connection: Connection, venue: str, now: datetime, *, most: int) -> pl.DataFrame:
    """Gaps of a venue whose next attempt has come, oldest attempt first: `GAP_COLUMNS` and timeframe."""
    statement = sql.SQL(
        "SELECT {}, timeframe FROM {} WHERE venue = %s AND next_attempt_at <= %s"
        " ORDER BY next_attempt_at, gap_start, symbol LIMIT %s"
    ).format(names(_COLUMNS), identifier(BAR_GAPS))
    return _frame(
        connection, statement, [venue, now, most], pl.Schema({**GAP_COLUMNS, "timeframe": pl.String()})
    )


def absent_bars(connection: Connection) -> dict[str, int]:
    """How many bars are absent now, by the state of their gaps."""
    statement = sql.SQL(
        "SELECT state, sum(bars)::bigint FROM {} WHERE resolved_at IS NULL GROUP BY 1 ORDER BY 1"
    )
    return dict(connection.execute(statement.format(identifier(BAR_GAPS))).fetchall())


def replace_gaps(connection: Connection, timeframe: str, old: pl.DataFrame, new: pl.DataFrame) -> int:
    """Put `new` in the place of `old` and return how many rows that wrote or removed; equal rows are left alone.

    The caller holds the lock of the table since before it read `old`.
    """
    columns = list(_COLUMNS)
    gone = old.join(new, on=columns, how="anti", nulls_equal=True)
    added = new.join(old, on=columns, how="anti", nulls_equal=True)
    with connection.cursor() as cursor:
        if gone.height:
            condition = sql.SQL(" AND ").join(
                sql.SQL("{} = %s").format(sql.Identifier(name)) for name in _KEY
            )
            cursor.executemany(
                sql.SQL("DELETE FROM {} WHERE timeframe = %s AND {}").format(identifier(BAR_GAPS), condition),
                [(timeframe, *row) for row in gone.select(_KEY).iter_rows()],
            )
        if added.height:
            inserted = (*_COLUMNS, "bars", "timeframe")
            rows = added.select(*_COLUMNS, bars_in(timeframe), pl.lit(timeframe).alias("timeframe"))
            cursor.executemany(
                sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                    identifier(BAR_GAPS),
                    names(inserted),
                    sql.SQL(", ").join([sql.Placeholder()] * len(inserted)),
                ),
                list(rows.iter_rows()),
            )
    return gone.height + added.height


def lock_gaps(connection: Connection) -> None:
    """Be the only one that changes gaps until the transaction ends."""
    lock_table(connection, BAR_GAPS)


def record_attempt(
    connection: Connection,
    gap: dict[str, object],
    *,
    now: datetime,
    error: str | None,
    again: bool = True,
) -> None:
    """Count one attempt to get the bars of a gap, and say when the next one is.

    Args:
        connection: to the database.
        gap: a row of `due_gaps`.
        now: when the source was asked.
        error: why it did not give them; None where it answered.
        again: False where asking again is of no use.
    """
    attempts = int(str(gap["attempts"])) + 1
    following = next_attempt(attempts, now, state=str(gap["state"])) if again else None
    connection.execute(
        sql.SQL(
            "UPDATE {} SET attempts = %s, next_attempt_at = %s, last_error = %s"
            " WHERE venue = %s AND symbol = %s AND timeframe = %s AND gap_start = %s AND resolved_at IS NULL"
        ).format(identifier(BAR_GAPS)),
        [attempts, following, error, gap["venue"], gap["symbol"], gap["timeframe"], gap["gap_start"]],
    )


def next_due(connection: Connection, venue: str) -> datetime | None:
    """The earliest time at which a gap of a venue is to be asked for; None where none is."""
    row = connection.execute(
        sql.SQL("SELECT min(next_attempt_at) FROM {} WHERE venue = %s").format(identifier(BAR_GAPS)), [venue]
    ).fetchone()
    return row[0] if row else None


def record_outages(connection: Connection, found: pl.DataFrame, timeframe: str, *, run_id: str) -> None:
    """Record outages, each once: one that touches a recorded outage of its venue is the same outage.

    Args:
        connection: inside a transaction that holds the lock of the gaps.
        found: venue, outage_start, outage_end, symbols_absent, symbols_expected, confirmed_by.
        timeframe: that shows them.
        run_id: of the writer.
    """
    for row in found.iter_rows(named=True):
        known = connection.execute(
            sql.SQL(
                "SELECT outage_start, outage_end, timeframe, symbols_absent, symbols_expected, confirmed_by,"
                " detected_at FROM {} WHERE venue = %s AND outage_end >= %s AND outage_start <= %s"
            ).format(identifier(OUTAGES)),
            [row["venue"], row["outage_start"], row["outage_end"]],
        ).fetchall()
        start, end, finest, replaced = joined(
            [one[:3] for one in known],
            (row["outage_start"], row["outage_end"], timeframe),
            finest_first=list(TIMEFRAMES),
        )
        counts = max(((one[3], one[4]) for one in known), default=(0, 0))
        counts = max(counts, (row["symbols_absent"], row["symbols_expected"]))
        confirmed_by = next((one[5] for one in known if one[5]), row["confirmed_by"])
        if [one[:6] for one in known] == [(start, end, finest, *counts, confirmed_by)]:
            continue
        detected_at = min((one[6] for one in known), default=datetime.now(UTC))
        _replace_outage(
            connection,
            row["venue"],
            replaced,
            (start, end, finest, *counts, confirmed_by, detected_at, run_id),
        )


def _replace_outage(
    connection: Connection, venue: str, replaced: Sequence[datetime], values: tuple[object, ...]
) -> None:
    connection.execute(
        sql.SQL("DELETE FROM {} WHERE venue = %s AND outage_start = ANY(%s)").format(identifier(OUTAGES)),
        [venue, list(replaced)],
    )
    connection.execute(
        sql.SQL(
            "INSERT INTO {} (venue, outage_start, outage_end, timeframe, symbols_absent, symbols_expected,"
            " confirmed_by, detected_at, run_id) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
        ).format(identifier(OUTAGES)),
        [venue, *values],
    )


def resolve_outages(connection: Connection, start: datetime, end: datetime, now: datetime) -> None:
    """Mark the outages of a window as resolved whose bars have all come after all."""
    connection.execute(
        sql.SQL(
            "UPDATE {outages} o SET resolved_at = %s WHERE resolved_at IS NULL AND outage_end > %s"
            " AND outage_start < %s AND NOT EXISTS (SELECT FROM {gaps} g WHERE g.venue = o.venue"
            " AND g.timeframe = o.timeframe AND g.state = %s AND g.resolved_at IS NULL"
            " AND g.gap_end > o.outage_start AND g.gap_start < o.outage_end)"
        ).format(outages=identifier(OUTAGES), gaps=identifier(BAR_GAPS)),
        [now, start, end, OUTAGE],
    )


def _frame(
    connection: Connection,
    statement: sql.Composed,
    values: list[object],
    schema: pl.Schema = GAP_COLUMNS,
) -> pl.DataFrame:
    return pl.DataFrame(connection.execute(statement, values).fetchall(), schema=schema, orient="row")
