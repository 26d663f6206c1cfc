"""The declared schema of every table: columns, types, keys, units. The one source of truth.

Postgres migrations must equal it (a test applies them and compares), the blocking schema checks are generated
from it, the Dagster UI shows it, and the IO managers write by it.

What belongs here: declarations. What does not: SQL that creates tables (`sql/migrations`), formulas.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal

import polars as pl

from tracker_pipeline.domain import feature_catalogue


class ColumnType(Enum):
    """A logical type, with its form in a Polars frame and in Postgres.

    Exact numbers (`NUMERIC`, `WEI`) travel through frames as decimal text: no Arrow decimal holds the 78 digits
    of a uint256, and a float would round.
    """

    TEXT = "text"
    FLOAT = "double precision"
    INT = "bigint"
    BOOL = "boolean"
    TIME = "timestamp with time zone"
    DATE = "date"
    NUMERIC = "numeric"
    WEI = "numeric(78,0)"
    JSON = "jsonb"
    TEXT_LIST = "text[]"

    @property
    def polars(self) -> pl.DataType:
        """The type of the column in a frame."""
        return _POLARS[self]

    @property
    def postgres(self) -> str:
        """The type of the column in Postgres, as `format_type` spells it."""
        return self.value

    @property
    def staged(self) -> str:
        """The type in the staging table of a COPY: what the frame's type encodes to."""
        return {"numeric": "text", "numeric(78,0)": "text", "jsonb": "text"}.get(self.value, self.value)


_POLARS: Final[Mapping[ColumnType, pl.DataType]] = {
    ColumnType.TEXT: pl.String(),
    ColumnType.FLOAT: pl.Float64(),
    ColumnType.INT: pl.Int64(),
    ColumnType.BOOL: pl.Boolean(),
    ColumnType.TIME: pl.Datetime("us", "UTC"),
    ColumnType.DATE: pl.Date(),
    ColumnType.NUMERIC: pl.String(),
    ColumnType.WEI: pl.String(),
    ColumnType.JSON: pl.String(),
    ColumnType.TEXT_LIST: pl.List(pl.String()),
}


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: its name, with the unit where that is not obvious.
        type: the logical type.
        description: what a reader of the UI should know.
        nullable: whether unknown is allowed; unknown is NULL, never 0.
        provenance: says when and by whom a row was written. Two rows that differ in provenance alone are the
            same row, so writing the second changes nothing.
    """

    name: str
    type: ColumnType
    description: str
    nullable: bool = False
    provenance: bool = False


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: schema and table, also the asset key and the lake folder.
        key: the natural key that storage enforces.
        columns: in order, key first.
        time_column: the column that partitions are cut by; None where the table has no time.
        store: where rows are written first. Rows of a `postgres` table may move to the lake later.
        write: `replace` makes a partition's window equal to what was computed; `merge` adds and corrects but
            never removes, for rows that come from outside.
        revisions: the table that keeps previous versions of corrected rows, if any.
    """

    name: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    description: str
    time_column: str | None = None
    store: Literal["postgres", "lake"] = "postgres"
    write: Literal["replace", "merge"] = "replace"
    revisions: str | None = None
    column_by_name: Mapping[str, Column] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index the columns and refuse a key or time column that is not declared."""
        object.__setattr__(self, "column_by_name", {column.name: column for column in self.columns})
        undeclared = {*self.key, *([self.time_column] if self.time_column else [])} - set(self.column_by_name)
        if undeclared:
            raise ValueError(f"{self.name}: {sorted(undeclared)} are not declared columns")

    @property
    def schema(self) -> str:
        """The Postgres schema."""
        return self.name.split(".")[0]

    @property
    def table(self) -> str:
        """The name within its schema."""
        return self.name.split(".")[1]

    @property
    def polars_schema(self) -> pl.Schema:
        """Column names and types of a frame of this table."""
        return pl.Schema({column.name: column.type.polars for column in self.columns})

    @property
    def compared(self) -> tuple[str, ...]:
        """The columns that decide whether a stored row has changed: all but the key, provenance, revision."""
        return tuple(
            column.name
            for column in self.columns
            if column.name not in self.key and not column.provenance and column.name != "revision"
        )

    def conform(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return `frame` with exactly the declared columns in order and type, sorted by key.

        Nullable columns that are absent are added as NULL; columns not declared are refused.

        Raises:
            ValueError: a column is unknown, a required column is absent, or a type does not cast exactly.
        """
        unknown = set(frame.columns) - set(self.column_by_name)
        absent = [c.name for c in self.columns if c.name not in frame.columns and not c.nullable]
        if unknown or absent:
            raise ValueError(f"{self.name}: unknown columns {sorted(unknown)}, absent columns {absent}")
        inexact = [
            f"{c.name} is {frame.schema[c.name]}, not {c.type.polars}"
            for c in self.columns
            if c.name in frame.columns and not _casts_exactly(frame.schema[c.name], c.type.polars)
        ]
        if inexact:
            raise ValueError(f"{self.name}: columns without their declared type: {', '.join(inexact)}")
        columns = [
            (pl.col(c.name) if c.name in frame.columns else pl.lit(None)).cast(c.type.polars).alias(c.name)
            for c in self.columns
        ]
        return frame.select(columns).sort(self.key)


def _casts_exactly(given: pl.DataType, declared: pl.DataType) -> bool:
    """Whether no value can change in the cast. A time without zone has no exact meaning, so it is refused."""
    if given in (declared, pl.Null):
        return True
    if isinstance(declared, pl.Datetime):
        return isinstance(given, pl.Datetime) and given.time_zone is not None
    if isinstance(declared, pl.String):
        return isinstance(given, (pl.Categorical, pl.Enum))
    if isinstance(declared, pl.List):
        return given == pl.List(pl.Null)
    if isinstance(declared, pl.Float64):
        return given == pl.Float32 or given.is_integer()
    return isinstance(declared, pl.Int64) and given.is_integer()


T = ColumnType

_VENUE = Column("venue", T.TEXT, "ccxt exchange id")
_SYMBOL = Column("symbol", T.TEXT, "ccxt unified symbol, such as BTC/USDT")
_TS = Column("ts", T.TIME, "open time of the bar, UTC")
_RUN_ID = Column("run_id", T.TEXT, "Dagster run that wrote the row", provenance=True)
_NETWORK = Column("network", T.TEXT, "network name of the configuration")

_BAR_VALUES: Final = (
    Column("open", T.FLOAT, "first price, quote currency"),
    Column("high", T.FLOAT, "highest price, quote currency"),
    Column("low", T.FLOAT, "lowest price, quote currency"),
    Column("close", T.FLOAT, "last price, quote currency"),
    Column("volume", T.FLOAT, "traded amount, base currency"),
    Column("vwap", T.FLOAT, "volume-weighted mean price; NULL where the source has none", nullable=True),
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
        _VENUE,
        _SYMBOL,
        Column("timeframe", T.TEXT, "timeframe of the bar"),
        _TS,
        Column("revision", T.INT, "the version these values had"),
        *_BAR_VALUES,
        Column("source", T.TEXT, "where the values came from"),
        Column("replaced_at", T.TIME, "when the newer version was stored", provenance=True),
        _RUN_ID,
    ),
)

BAR_INVALIDATIONS: Final = Table(
    name="market.bar_invalidations",
    key=("venue", "symbol", "timeframe", "start_ts", "transaction_id"),
    time_column="start_ts",
    write="merge",
    description="Intervals whose bars were corrected or came late, so that what was made of them is stale.",
    columns=(
        _VENUE,
        _SYMBOL,
        Column("timeframe", T.TEXT, "timeframe of the bars"),
        Column("start_ts", T.TIME, "open of the first bar concerned"),
        Column("transaction_id", T.INT, "transaction that wrote the bars; a reader sees all of one or none"),
        Column("end_ts", T.TIME, "end of the last bar concerned"),
        Column("bars", T.INT, "how many bars"),
        Column("kind", T.TEXT, "revised or late"),
        Column("recorded_at", T.TIME, "when the bars were written", provenance=True),
        _RUN_ID,
    ),
)


def _bar_table(timeframe: str) -> Table:
    return Table(
        name=f"market.ohlc_{timeframe}",
        key=("venue", "symbol", "ts"),
        time_column="ts",
        write="merge",
        revisions=BAR_REVISIONS.name,
        description=f"Closed {timeframe} bars.",
        columns=(
            _VENUE,
            _SYMBOL,
            _TS,
            *_BAR_VALUES,
            Column("source", T.TEXT, "where the bar came from", provenance=True),
            Column("revision", T.INT, "1 when first stored, one more for each correction"),
            _RUN_ID,
            Column("fetched_at", T.TIME, "when the source was asked", provenance=True),
            Column("available_at", T.TIME, "from when on the bar may be used: its end plus the grace"),
        ),
    )


BARS: Final = {timeframe: _bar_table(timeframe) for timeframe in ("1m", "5m", "15m", "1h", "4h", "1d")}

INSTRUMENTS: Final = Table(
    name="market.instruments",
    key=("venue", "symbol"),
    write="merge",
    description="What the universe asks for and the venue lists.",
    columns=(
        _VENUE,
        _SYMBOL,
        Column("base", T.TEXT, "base currency"),
        Column("quote", T.TEXT, "quote currency"),
        Column("native_symbol", T.TEXT, "the venue's own name"),
        Column("market_type", T.TEXT, "spot or linear"),
        Column("tier", T.TEXT, "large_cap, mid_cap, small_cap or memecoin"),
        Column("liquidity_class", T.TEXT, "liquid or thin, from the fill of 1m bars", nullable=True),
        Column("listed_from", T.TIME, "first moment the venue served it, if known", nullable=True),
        Column("listed_to", T.TIME, "end of listing; NULL while listed", nullable=True),
        Column("alias_of", T.TEXT, "symbol it was renamed to, if any", nullable=True),
    ),
)

REGIMES: Final = Table(
    name="market.regimes",
    key=("venue", "ts"),
    time_column="ts",
    description="Trend and stress of the market, judged on BTC, as known at each closed 15m bar.",
    columns=(
        _VENUE,
        Column("ts", T.TIME, "open time of the 15m bar at whose close the regime is known"),
        Column("available_at", T.TIME, "from when on the regime may be used"),
        Column("trend", T.TEXT, "BULL, BEAR, NEUTRAL or UNKNOWN"),
        Column("stress", T.TEXT, "PANIC, CAUTION, EUPHORIA, NORMAL or UNKNOWN"),
        Column("daily_close", T.FLOAT, "close of the last known daily bar", nullable=True),
        Column("sma_50d", T.FLOAT, "mean of the last 50 daily closes", nullable=True),
        Column("sma_200d", T.FLOAT, "mean of the last 200 daily closes", nullable=True),
        Column("change_1h_pct", T.FLOAT, "price change over 1 h", nullable=True),
        Column("change_4h_pct", T.FLOAT, "price change over 4 h", nullable=True),
        Column("change_24h_pct", T.FLOAT, "price change over 24 h", nullable=True),
        Column("range_24h_pct", T.FLOAT, "(highest - lowest) / first over 24 h", nullable=True),
        Column("drawdown_24h_pct", T.FLOAT, "distance from the 24 h peak, 0 or negative", nullable=True),
        Column("drawdown_48h_pct", T.FLOAT, "distance from the 48 h peak, 0 or negative", nullable=True),
    ),
)

ML_FEATURES_15M: Final = Table(
    name="features.ml_features_15m",
    key=("venue", "symbol", "ts"),
    time_column="ts",
    store="lake",
    description="Point-in-time features at each closed 15m bar, NULL with a reason where history is short.",
    columns=(
        _VENUE,
        _SYMBOL,
        Column("ts", T.TIME, "open time of the bar; the features are known at available_at"),
        Column("available_at", T.TIME, "from when on the row may be used"),
        *(
            Column(feature.name, T.FLOAT, feature.description, nullable=True)
            for feature in feature_catalogue.CATALOGUE
        ),
        Column("null_reasons", T.JSON, "reason code for each feature that is NULL"),
        Column("feature_set_version", T.TEXT, "version of the feature definitions"),
        Column(
            "input_revision",
            T.INT,
            "sum of revisions - 1 over the input bars of the row's window: 0 if never corrected",
        ),
    ),
)

SETUPS: Final = Table(
    name="labels.strategy_setups",
    key=("setup_id",),
    time_column="signal_ts",
    description="Moments at which a strategy would buy, each event once.",
    columns=(
        Column("setup_id", T.TEXT, "hash of strategy, venue, symbol, signal time and configuration version"),
        Column("strategy", T.TEXT, "dca, swing or channel"),
        _VENUE,
        _SYMBOL,
        Column("timeframe", T.TEXT, "timeframe of the signal bar"),
        Column("signal_ts", T.TIME, "open time of the signal bar; the signal is known at its close"),
        Column("side", T.TEXT, "BUY: the only tradable side"),
        Column("ref_price", T.FLOAT, "close of the signal bar"),
        Column("tp_pct", T.FLOAT, "take profit above the entry; of a channel above ref_price"),
        Column("sl_pct", T.FLOAT, "stop loss below the entry, positive; of a channel below ref_price"),
        Column("horizon_hours", T.INT, "longest holding time"),
        Column("tier", T.TEXT, "tier of the symbol when detected"),
        Column("trend", T.TEXT, "trend regime at the signal"),
        Column("stress", T.TEXT, "stress regime at the signal"),
        Column("score", T.FLOAT, "strength, 0 to 100", nullable=True),
        Column("evidence", T.JSON, "the figures that made the setup"),
        Column("config_version", T.TEXT, "hash of the strategy's configuration"),
    ),
)

_LABEL_RESULT: Final = (
    Column("outcome", T.TEXT, "WIN, LOSS, BREAKEVEN, TIMEOUT, PENDING, UNRESOLVED"),
    Column("exit_reason", T.TEXT, "TP, SL, TRAIL, TIME; NULL while pending", nullable=True),
    Column("entry_ts", T.TIME, "open of the bar entered", nullable=True),
    Column("entry_price", T.FLOAT, "average entry price, before costs", nullable=True),
    Column("exit_ts", T.TIME, "open time of the bar left in", nullable=True),
    Column("exit_price", T.FLOAT, "exit price, before costs", nullable=True),
    Column("gross_return_pct", T.FLOAT, "return before costs", nullable=True),
    Column("actual_return", T.FLOAT, "net return after fees and slippage, %", nullable=True),
    Column("mfe_pct", T.FLOAT, "maximum favourable excursion", nullable=True),
    Column("mae_pct", T.FLOAT, "maximum adverse excursion, 0 or negative", nullable=True),
    Column("hold_time_hours", T.FLOAT, "entry to exit", nullable=True),
    Column("fills", T.INT, "grid levels filled", nullable=True),
    Column("ambiguous", T.BOOL, "one bar touched both barriers and no finer bar decided", nullable=True),
    Column("coverage_frac", T.FLOAT, "present bars of the label interval / expected", nullable=True),
    Column("label_version", T.TEXT, "version of the labelling rules and their configuration"),
)

DCA_LABELS: Final = Table(
    name="labels.strategy_dca_labels",
    key=("setup_id",),
    time_column="timestamp",
    description="What became of each DCA setup, net of costs; PENDING until its horizon has passed.",
    columns=(
        Column("setup_id", T.TEXT, "the setup"),
        _VENUE,
        _SYMBOL,
        Column("timestamp", T.TIME, "signal time of the setup"),
        Column("setup_detected", T.BOOL, "true: kept for readers of the earlier table"),
        Column(
            "drop_percentage", T.FLOAT, "close against the 4 h high at the signal, negative, %", nullable=True
        ),
        Column("rsi", T.FLOAT, "RSI 14 at the signal", nullable=True),
        Column("volume_ratio", T.FLOAT, "volume / mean of the 96 bars before", nullable=True),
        Column("btc_regime", T.TEXT, "trend regime at the signal", nullable=True),
        *_LABEL_RESULT,
    ),
)

SWING_LABELS: Final = Table(
    name="labels.strategy_swing_labels",
    key=("setup_id",),
    time_column="timestamp",
    description="What became of each SWING setup, net of costs; PENDING until its horizon has passed.",
    columns=(
        Column("setup_id", T.TEXT, "the setup"),
        _VENUE,
        _SYMBOL,
        Column("timestamp", T.TIME, "signal time of the setup"),
        Column("breakout_detected", T.BOOL, "true: kept for readers of the earlier table"),
        Column(
            "breakout_strength",
            T.FLOAT,
            "close above the highest high of the 20 bars before, %",
            nullable=True,
        ),
        Column("volume_surge", T.FLOAT, "volume / mean of the 20 bars before", nullable=True),
        Column("momentum_score", T.FLOAT, "points for momentum, 0 to 15", nullable=True),
        Column(
            "trend_alignment", T.TEXT, "UPTREND, DOWNTREND or SIDEWAYS: close, SMA20, SMA50", nullable=True
        ),
        *_LABEL_RESULT,
    ),
)

CHANNEL_LABELS: Final = Table(
    name="labels.strategy_channel_labels",
    key=("setup_id",),
    time_column="timestamp",
    description="What became of each CHANNEL setup, net of costs; PENDING until its horizon has passed.",
    columns=(
        Column("setup_id", T.TEXT, "the setup"),
        _VENUE,
        _SYMBOL,
        Column("timestamp", T.TIME, "signal time of the setup"),
        Column("channel_position", T.TEXT, "BOTTOM, MIDDLE or TOP: the close in the channel", nullable=True),
        Column("channel_strength", T.FLOAT, "strength of the channel, 0 to 100", nullable=True),
        Column("channel_width", T.FLOAT, "upper line above the lower one, %", nullable=True),
        Column("optimal_entry", T.FLOAT, "lower line at the signal, quote currency", nullable=True),
        Column(
            "optimal_exit",
            T.FLOAT,
            "target, 90 % of the way to the upper line, quote currency",
            nullable=True,
        ),
        *_LABEL_RESULT,
    ),
)

TRAINING_SET: Final = Table(
    name="labels.training_set",
    key=("setup_id",),
    time_column="signal_ts",
    store="lake",
    description="Entered setups with the features known at their signal and their final label.",
    columns=(
        Column("setup_id", T.TEXT, "the setup"),
        Column("strategy", T.TEXT, "dca, swing or channel"),
        _VENUE,
        _SYMBOL,
        Column("signal_ts", T.TIME, "open time of the signal bar"),
        Column("known_at", T.TIME, "when the features, and with them the signal, were known"),
        Column("tier", T.TEXT, "tier of the symbol at the signal"),
        Column("trend", T.TEXT, "trend regime at the signal"),
        Column("stress", T.TEXT, "stress regime at the signal"),
        Column("score", T.FLOAT, "strength of the setup", nullable=True),
        Column("config_version", T.TEXT, "hash of the strategy's configuration"),
        *(
            Column(feature.name, T.FLOAT, feature.description, nullable=True)
            for feature in feature_catalogue.CATALOGUE
        ),
        Column("null_reasons", T.JSON, "reason code for each feature that is NULL"),
        Column("feature_set_version", T.TEXT, "version of the feature definitions"),
        Column("outcome", T.TEXT, "WIN, LOSS, BREAKEVEN or TIMEOUT"),
        Column("exit_reason", T.TEXT, "TP, SL, TRAIL or TIME", nullable=True),
        Column("is_win", T.BOOL, "the binary target"),
        Column("gross_return_pct", T.FLOAT, "return before costs"),
        Column("actual_return", T.FLOAT, "net return after fees and slippage, %"),
        Column("label_start", T.TIME, "first bar that decided the label"),
        Column("label_end", T.TIME, "end of the last one; purge what overlaps [label_start, label_end)"),
        Column("weight", T.FLOAT, "average uniqueness among labels of its strategy and symbol, 0 to 1"),
        Column("label_version", T.TEXT, "version of the labelling rules and their configuration"),
    ),
)

WHALE_UNIVERSE: Final = Table(
    name="onchain.whale_universe",
    key=("network", "version", "whale_address"),
    description="Addresses that are watched, and those that are not with the reason, by version.",
    write="merge",
    columns=(
        _NETWORK,
        Column("version", T.TEXT, "hash of the list's content"),
        Column("whale_address", T.TEXT, "lower-case address"),
        Column("label", T.TEXT, "public name, if known", nullable=True),
        Column("category", T.TEXT, "exchange, bridge, contract, burn, staking, whale or unknown"),
        Column("excluded", T.BOOL, "true where the address is listed but not watched"),
        Column("reason", T.TEXT, "why it is excluded", nullable=True),
        Column("source", T.TEXT, "the list it came from"),
    ),
)

WHALE_BALANCE_SNAPSHOTS: Final = Table(
    name="onchain.whale_balance_snapshots",
    key=("network", "asset", "whale_address", "snapshot_timestamp"),
    time_column="snapshot_timestamp",
    description="Balance of every watched address at one pinned block for each hour.",
    columns=(
        _NETWORK,
        Column("asset", T.TEXT, "ETH or a configured token"),
        Column("whale_address", T.TEXT, "lower-case address"),
        Column("snapshot_timestamp", T.TIME, "the hour"),
        Column("balance", T.WEI, "smallest unit of the asset; NULL is unknown, never 0", nullable=True),
        Column("status", T.TEXT, "ok, reverted, empty_return, rpc_error or decode_error"),
        Column("rank", T.INT, "1 is the largest known balance of the asset; ties by address", nullable=True),
        Column("block_number", T.INT, "the pinned block"),
        Column("block_hash", T.TEXT, "its hash"),
        Column("block_timestamp", T.TIME, "its time"),
        _RUN_ID,
    ),
)

STETH_RATES: Final = Table(
    name="onchain.steth_rates",
    key=("network", "snapshot_timestamp"),
    time_column="snapshot_timestamp",
    description="Ether for one stETH at the pinned block of each hour, from the configured price feed.",
    columns=(
        _NETWORK,
        Column("snapshot_timestamp", T.TIME, "the hour"),
        Column("rate", T.NUMERIC, "ETH per stETH; NULL is unknown, never 1", nullable=True),
        Column("status", T.TEXT, "ok, no_feed, no_answer, stale or out_of_range (0.90 to 1.10)"),
        Column("answered_at", T.TIME, "when the feed was last given a price", nullable=True),
        Column("block_number", T.INT, "the pinned block"),
        Column("block_hash", T.TEXT, "its hash"),
        Column("block_timestamp", T.TIME, "its time"),
        _RUN_ID,
    ),
)

ACCUMULATION_SCORES: Final = Table(
    name="onchain.accumulation_scores",
    key=("network", "snapshot_timestamp", "lookback_hours"),
    time_column="snapshot_timestamp",
    description="Whether the watched addresses gained or lost over a look-back, on the matched cohort.",
    columns=(
        _NETWORK,
        Column("snapshot_timestamp", T.TIME, "the hour"),
        Column("lookback_hours", T.INT, "24, 168 or 720"),
        Column("score_pct", T.NUMERIC, "change of the summed native balance, %", nullable=True),
        Column(
            "lst_score_pct",
            T.NUMERIC,
            "change of native + WETH + stETH, one rate on both legs, %",
            nullable=True,
        ),
        Column("trend_score", T.NUMERIC, "0 to 1; 0.5 is flat", nullable=True),
        Column("change_wei", T.WEI, "change of the summed native balance", nullable=True),
        Column("lst_change_wei", T.WEI, "change of the summed wealth", nullable=True),
        Column("universe", T.INT, "addresses in either snapshot"),
        Column("matched", T.INT, "addresses known on both sides"),
        Column("missing_current", T.INT, "unknown now"),
        Column("missing_historical", T.INT, "unknown then"),
        Column("entrants", T.INT, "only in the current snapshot"),
        Column("leavers", T.INT, "only in the baseline"),
        Column("accumulators", T.INT, "addresses that gained"),
        Column("distributors", T.INT, "addresses that lost"),
        Column("neutral", T.INT, "addresses within tolerance"),
        Column("median_change_pct", T.NUMERIC, "median change per address", nullable=True),
        Column("mad_pct", T.NUMERIC, "median absolute deviation of the changes", nullable=True),
        Column("outlier_threshold_pct", T.NUMERIC, "max(3 x MAD, 1 point)", nullable=True),
        Column("outliers", T.INT, "addresses beyond the threshold"),
        Column("driver", T.TEXT, "the outlier with the largest change of wealth", nullable=True),
        Column("is_anomaly", T.BOOL, "the driver holds at least half of all movement"),
        Column("gini", T.NUMERIC, "concentration of positive current wealth, 0 to 1", nullable=True),
        Column(
            "steth_rate", T.NUMERIC, "ETH per stETH used on both legs; NULL when not known", nullable=True
        ),
        Column("band", T.TEXT, "verdict on score_pct", nullable=True),
        Column("tags", T.TEXT_LIST, "what stands out"),
        Column("status", T.TEXT, "ok, no_baseline or low_coverage"),
        Column("baseline_timestamp", T.TIME, "the snapshot compared with", nullable=True),
        Column("elapsed_seconds", T.INT, "true distance of the two snapshots' blocks", nullable=True),
        _RUN_ID,
    ),
)

ARCHIVE_BATCHES: Final = Table(
    name="archive.batches",
    key=("batch_id",),
    description="The manifest of the lake: a file that is not here does not exist for any reader.",
    write="merge",
    columns=(
        Column("batch_id", T.TEXT, "identity of the part"),
        Column("table_name", T.TEXT, "schema and table"),
        Column("data_day", T.DATE, "UTC day of the rows"),
        Column("path", T.TEXT, "file, relative to the lake"),
        Column("rows", T.INT, "rows in the file"),
        Column("bytes", T.INT, "size of the file"),
        Column("sha256", T.TEXT, "hash of the file"),
        Column("content_hash", T.TEXT, "order-independent hash of the rows"),
        Column("min_ts", T.TIME, "earliest row", nullable=True),
        Column("max_ts", T.TIME, "latest row", nullable=True),
        Column("cut", T.TIME, "rows before this moment were eligible", nullable=True),
        Column("schema", T.JSON, "columns and types of the file"),
        Column("state", T.TEXT, "live or superseded"),
        Column("created_at", T.TIME, "when the file was written", provenance=True),
        Column("verified_at", T.TIME, "when the file was read back and compared", provenance=True),
        Column("superseded_by", T.TEXT, "the part that replaced it", nullable=True),
        _RUN_ID,
    ),
)

TABLES: Final[Mapping[str, Table]] = {
    table.name: table
    for table in (
        INSTRUMENTS,
        *BARS.values(),
        BAR_REVISIONS,
        BAR_INVALIDATIONS,
        REGIMES,
        ML_FEATURES_15M,
        SETUPS,
        DCA_LABELS,
        SWING_LABELS,
        CHANNEL_LABELS,
        TRAINING_SET,
        WHALE_UNIVERSE,
        WHALE_BALANCE_SNAPSHOTS,
        STETH_RATES,
        ACCUMULATION_SCORES,
        ARCHIVE_BATCHES,
    )
}
