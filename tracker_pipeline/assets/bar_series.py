"""Which series of bars are tracked, and from when to when a bar of them is expected.

Symbols of the configured exchange are tracked in the timeframes that it is asked for and in those made of them,
while they are listed. A series that came from files is tracked from its first bar to its last: when its symbol was
listed is not known from a file.
"""

from collections.abc import Sequence
from typing import Final

import polars as pl
from psycopg import sql

from tracker_pipeline.configuration import Market
from tracker_pipeline.domain.bar_slots import SERIES, TIME
from tracker_pipeline.domain.instruments import listing_intervals
from tracker_pipeline.domain.schemas import BAR_COVERAGE, BARS
from tracker_pipeline.domain.timeframes import TIMEFRAMES, duration
from tracker_pipeline.settings import get_config
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.database import Connection, identifier

SERIES_COLUMNS: Final = pl.Schema(
    {
        "venue": pl.String(),
        "symbol": pl.String(),
        "listed_from": TIME,
        "listed_to": TIME,
        "first_bar": TIME,
        "askable": pl.Boolean(),
    }
)


def finer_timeframes(timeframe: str) -> list[str]:
    """Timeframes that are finer, the finest first."""
    order = list(TIMEFRAMES)
    return order[: order.index(timeframe)]


def is_native(timeframe: str) -> bool:
    """Whether the exchange is asked for bars of this timeframe."""
    return timeframe in get_config().market.native_timeframes


def is_tracked(timeframe: str) -> bool:
    """Whether every symbol of the exchange should have bars of this timeframe: asked for, or made of such."""
    return is_native(timeframe) or any(is_native(finer) for finer in finer_timeframes(timeframe))


def own_instruments() -> pl.DataFrame:
    """What is tracked of the configured exchange and market: venue, symbol, listed_from, listed_to.

    A symbol that was delisted and came back has several rows.
    """
    return listing_intervals(scan("market.instruments").filter(_is_own(get_config().market)).collect())


def listing_unknown(listed: pl.DataFrame) -> set[str]:
    """The symbols of which it is not known since when they are listed."""
    return set(listed.filter(pl.col("listed_from").is_null()).get_column("symbol"))


def delisted(listed: pl.DataFrame) -> set[str]:
    """The symbols that are not listed any more: whoever asks for their past may be told that they are unknown."""
    still = listed.filter(pl.col("listed_to").is_null())
    return set(listed.get_column("symbol")) - set(still.get_column("symbol"))


def _is_own(market: Market) -> pl.Expr:
    return (pl.col("venue") == market.venue) & (pl.col("market_type") == market.market_type)


def tracked_series(
    connection: Connection, timeframe: str, bars: pl.DataFrame, symbols: Sequence[str] = ()
) -> pl.DataFrame:
    """The series of a timeframe, with where bars of them are expected.

    Args:
        connection: to the database.
        timeframe: one of ours.
        bars: venue, symbol, ts of the stored bars around the window that is judged.
        symbols: of the exchange, all if none is given.

    Returns:
        Frame of `SERIES_COLUMNS`; null bounds are open. `first_bar` is the first that is known of the series,
        `askable` tells whether the exchange is asked for the bars.
    """
    extents = _extents(connection, timeframe, bars)
    if not is_tracked(timeframe):
        return _from_first_to_last_bar(extents)
    own = own_instruments()
    others = extents.join(own, on=SERIES, how="anti")
    if symbols:
        own = own.filter(pl.col("symbol").is_in(list(symbols)))
    first_bars = extents.select(*SERIES, first_bar="listed_from")
    listed = own.join(first_bars, on=SERIES, how="left").with_columns(askable=pl.lit(is_native(timeframe)))
    return pl.concat([listed.select(SERIES_COLUMNS.keys()), _from_first_to_last_bar(others)])


def _from_first_to_last_bar(extents: pl.DataFrame) -> pl.DataFrame:
    askable = pl.col("venue") == get_config().market.venue
    return extents.with_columns(first_bar="listed_from", askable=askable).select(SERIES_COLUMNS.keys())


def _extents(connection: Connection, timeframe: str, bars: pl.DataFrame) -> pl.DataFrame:
    """From the first to the last stored bar of each series, as far as is known without reading the archive."""
    around = bars.group_by(SERIES).agg(
        pl.col("ts").min().alias("listed_from"), (pl.col("ts").max() + duration(timeframe)).alias("listed_to")
    )
    # Lookups by key: each takes the first and the last entry of the symbol from the index.
    hot = _rows(
        connection,
        sql.SQL(
            "SELECT venue, symbol, (SELECT min(ts) FROM {bars} b WHERE b.venue = i.venue AND b.symbol = i.symbol),"
            " (SELECT max(ts) FROM {bars} b WHERE b.venue = i.venue AND b.symbol = i.symbol) + %s"
            " FROM market.instruments i"
        ).format(bars=identifier(BARS[timeframe])),
        [duration(timeframe)],
    )
    judged = _rows(
        connection,
        sql.SQL(
            "SELECT venue, symbol, min(first_ts), max(last_ts) + %s FROM {} WHERE timeframe = %s"
            " GROUP BY venue, symbol"
        ).format(identifier(BAR_COVERAGE)),
        [duration(timeframe), timeframe],
    )
    known = pl.concat([around, hot, judged], how="diagonal_relaxed").drop_nulls("listed_from")
    return known.group_by(SERIES).agg(pl.col("listed_from").min(), pl.col("listed_to").max())


def _rows(connection: Connection, statement: sql.Composed, values: list[object]) -> pl.DataFrame:
    schema = {name: SERIES_COLUMNS[name] for name in (*SERIES, "listed_from", "listed_to")}
    return pl.DataFrame(connection.execute(statement, values).fetchall(), schema=schema, orient="row")
