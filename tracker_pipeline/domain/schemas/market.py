"""Tables of market data: bars, what corrected them, instruments, regimes."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final, Literal

from tracker_pipeline.domain.schemas.declaration import RUN_ID, SYMBOL, VENUE, Chart, Column, T, Table
from tracker_pipeline.domain.timeframes import TIMEFRAMES

_TS = Column("ts", T.TIME, "open time of the bar, UTC")

_BAR_VALUES: Final = (
    Column("open", T.FLOAT, "first price, quote currency"),
    Column("high", T.FLOAT, "highest price, quote currency"),
    Column("low", T.FLOAT, "lowest price, quote currency"),
    Column("close", T.FLOAT, "last price, quote currency"),
    Column("volume", T.FLOAT, "traded amount, base currency"),
    Column(
        "vwap",
        T.FLOAT,
        "volume-weighted mean price, quote currency; NULL where the source has none",
        nullable=True,
    ),
    Column("trades", T.INT, "number of trades; NULL where the source has none", nullable=True),
    Column("n_src", T.INT, "finer bars this one was rolled up from; NULL for a native bar", nullable=True),
)

BAR_REVISIONS: Final = Table(
    name="market.bar_revisions",
    key=("venue", "symbol", "timeframe", "ts", "revision"),
    time_column="ts",
    write="merge",
    description="Earlier versions of bars that a source corrected afterwards.",
    columns=(
        VENUE,
        SYMBOL,
        Column("timeframe", T.TEXT, "timeframe of the bar"),
        _TS,
        Column("revision", T.INT, "the version these values had"),
        *_BAR_VALUES,
        Column("source", T.TEXT, "where the values came from"),
        Column("replaced_at", T.TIME, "when the newer version was stored", provenance=True),
        RUN_ID,
    ),
)

BAR_QUARANTINE: Final = Table(
    name="market.bar_quarantine",
    key=("venue", "symbol", "timeframe", "ts", "fingerprint"),
    time_column="ts",
    write="merge",
    description="Bars that a source gave and that are not stored as bars, with the reason, as they came.",
    columns=(
        VENUE,
        SYMBOL,
        Column("timeframe", T.TEXT, "timeframe of the bar"),
        _TS,
        Column("fingerprint", T.TEXT, "hash of values and reason: two versions of a bar stand side by side"),
        Column("open", T.FLOAT, "as it came; NULL where it is no number", nullable=True),
        Column("high", T.FLOAT, "as it came; NULL where it is no number", nullable=True),
        Column("low", T.FLOAT, "as it came; NULL where it is no number", nullable=True),
        Column("close", T.FLOAT, "as it came; NULL where it is no number", nullable=True),
        Column("volume", T.FLOAT, "as it came; NULL where it is no number", nullable=True),
        Column("reason", T.TEXT, "what is wrong with it"),
        Column("source", T.TEXT, "where it came from", provenance=True),
        Column("quarantined_at", T.TIME, "when it was first refused", provenance=True),
        RUN_ID,
    ),
)

BAR_INVALIDATIONS: Final = Table(
    name="market.bar_invalidations",
    key=("venue", "symbol", "timeframe", "start_ts", "transaction_id"),
    time_column="start_ts",
    write="merge",
    description="Intervals whose bars were corrected or came late, so that what was made of them is stale.",
    columns=(
        VENUE,
        SYMBOL,
        Column("timeframe", T.TEXT, "timeframe of the bars"),
        Column("start_ts", T.TIME, "open of the first bar concerned"),
        Column("transaction_id", T.INT, "transaction that wrote the bars; a reader sees all of one or none"),
        Column("end_ts", T.TIME, "end of the last bar concerned"),
        Column("bars", T.INT, "how many bars"),
        Column("kind", T.TEXT, "revised or late"),
        Column("recorded_at", T.TIME, "when the bars were written", provenance=True),
        RUN_ID,
    ),
)


# Partitions of about 2,000 to 130,000 rows with 90 symbols. The finer timeframes fill a day well, and a day is what
# the archive moves at once; days of hours would be 730 partitions of 2,160 rows for two years that stay hot.
_PARTITIONS: Final[Mapping[str, Literal["day", "month", "year"]]] = {
    "1m": "day",
    "5m": "day",
    "15m": "day",
    "1h": "month",
    "4h": "month",
    "1d": "year",
}

_CHARTED_BARS: Final = 96  # a day of 15m bars


def _bar_table(timeframe: str) -> Table:
    return Table(
        name=f"market.ohlc_{timeframe}",
        key=("venue", "symbol", "ts"),
        time_column="ts",
        write="merge",
        revisions=BAR_REVISIONS.name,
        partition=_PARTITIONS[timeframe],
        chart=Chart("close", _CHARTED_BARS * TIMEFRAMES[timeframe]),
        description=f"Closed {timeframe} bars.",
        columns=(
            VENUE,
            SYMBOL,
            _TS,
            *_BAR_VALUES,
            Column("source", T.TEXT, "where the bar came from", provenance=True),
            Column("revision", T.INT, "1 when first stored, one more for each correction"),
            RUN_ID,
            Column("fetched_at", T.TIME, "when the source was asked", provenance=True),
            Column("available_at", T.TIME, "from when on the bar may be used: its end plus the grace"),
        ),
    )


BARS: Final = {timeframe: _bar_table(timeframe) for timeframe in _PARTITIONS}

INSTRUMENTS: Final = Table(
    name="market.instruments",
    key=("venue", "symbol"),
    write="merge",
    description="What the universe asks for and the venue lists.",
    columns=(
        VENUE,
        SYMBOL,
        Column("base", T.TEXT, "base currency"),
        Column("quote", T.TEXT, "quote currency"),
        Column("native_symbol", T.TEXT, "the venue's own name"),
        Column("market_type", T.TEXT, "spot or linear"),
        Column("tier", T.TEXT, "large_cap, mid_cap, small_cap or memecoin"),
        Column("liquidity_class", T.TEXT, "liquid or thin, from the fill of 1m bars", nullable=True),
        Column("listed_from", T.TIME, "first moment the venue served it, if known", nullable=True),
        Column("listed_to", T.TIME, "end of listing; NULL while listed", nullable=True),
        Column("alias_of", T.TEXT, "symbol it was renamed to, if any", nullable=True),
        Column("coin", T.TEXT, "coin of the universe; NULL for one that is not in it", nullable=True),
        Column("multiplier", T.INT, "coins in one of the base currency: 1000 for 1000PEPE", nullable=True),
        Column("listings", T.JSON, "every time it was listed, from and to, oldest first", nullable=True),
        Column("seen_on", T.DATE, "day on which it was last on the venue's list", nullable=True),
    ),
)

REGIMES: Final = Table(
    name="market.regimes",
    key=("venue", "ts"),
    time_column="ts",
    description="Trend and stress of the market, judged on BTC, as known at each closed 15m bar.",
    chart=Chart("change_24h_pct", timedelta(days=7)),
    columns=(
        VENUE,
        Column("ts", T.TIME, "open time of the 15m bar at whose close the regime is known"),
        Column("available_at", T.TIME, "from when on the regime may be used"),
        Column("trend", T.TEXT, "BULL, BEAR, NEUTRAL or UNKNOWN"),
        Column("stress", T.TEXT, "PANIC, CAUTION, EUPHORIA, NORMAL or UNKNOWN"),
        Column("daily_close", T.FLOAT, "close of the last known daily bar, quote currency", nullable=True),
        Column("sma_50d", T.FLOAT, "mean of the last 50 daily closes, quote currency", nullable=True),
        Column("sma_200d", T.FLOAT, "mean of the last 200 daily closes, quote currency", nullable=True),
        Column("change_1h_pct", T.FLOAT, "price change over 1 h, %", nullable=True),
        Column("change_4h_pct", T.FLOAT, "price change over 4 h, %", nullable=True),
        Column("change_24h_pct", T.FLOAT, "price change over 24 h, %", nullable=True),
        Column("range_24h_pct", T.FLOAT, "(highest - lowest) / first over 24 h, %", nullable=True),
        Column("drawdown_24h_pct", T.FLOAT, "distance from the 24 h peak, 0 or negative, %", nullable=True),
        Column("drawdown_48h_pct", T.FLOAT, "distance from the 48 h peak, 0 or negative, %", nullable=True),
    ),
)
