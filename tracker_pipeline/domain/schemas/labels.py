"""Tables of setups, their labels, and the training set made of both."""

from typing import Final

from tracker_pipeline.domain import feature_catalogue
from tracker_pipeline.domain.schemas.declaration import SYMBOL, VENUE, Column, T, Table

SETUPS: Final = Table(
    name="labels.strategy_setups",
    key=("setup_id",),
    time_column="signal_ts",
    description="Moments at which a strategy would buy, each event once.",
    columns=(
        Column("setup_id", T.TEXT, "hash of strategy, venue, symbol, signal time and configuration version"),
        Column("strategy", T.TEXT, "dca, swing or channel"),
        VENUE,
        SYMBOL,
        Column("timeframe", T.TEXT, "timeframe of the signal bar"),
        Column("signal_ts", T.TIME, "open time of the signal bar; the signal is known at its close"),
        Column("side", T.TEXT, "BUY: the only tradable side"),
        Column("ref_price", T.FLOAT, "close of the signal bar, quote currency"),
        Column("tp_pct", T.FLOAT, "take profit above the entry, %; of a channel above ref_price"),
        Column("sl_pct", T.FLOAT, "stop loss below the entry, positive, %; of a channel below ref_price"),
        Column("horizon_hours", T.INT, "longest holding time, hours"),
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
    Column("entry_price", T.FLOAT, "average entry price, before costs, quote currency", nullable=True),
    Column("exit_ts", T.TIME, "open time of the bar left in", nullable=True),
    Column("exit_price", T.FLOAT, "exit price, before costs, quote currency", nullable=True),
    Column("gross_return_pct", T.FLOAT, "return before costs, %", nullable=True),
    Column("actual_return", T.FLOAT, "net return after fees and slippage, %", nullable=True),
    Column(
        "mfe_pct", T.FLOAT, "maximum favourable excursion: best price seen while holding, %", nullable=True
    ),
    Column(
        "mae_pct",
        T.FLOAT,
        "maximum adverse excursion: worst price seen while holding, 0 or negative, %",
        nullable=True,
    ),
    Column("hold_time_hours", T.FLOAT, "entry to exit, hours", nullable=True),
    Column("fills", T.INT, "grid levels filled", nullable=True),
    Column("ambiguous", T.BOOL, "one bar touched both barriers and no finer bar decided", nullable=True),
    Column("coverage_frac", T.FLOAT, "present bars of the label interval / expected, 0 to 1", nullable=True),
    Column("label_version", T.TEXT, "version of the labelling rules and their configuration"),
)

DCA_LABELS: Final = Table(
    name="labels.strategy_dca_labels",
    key=("setup_id",),
    time_column="timestamp",
    description="What became of each DCA setup, net of costs; PENDING until its horizon has passed.",
    columns=(
        Column("setup_id", T.TEXT, "the setup"),
        VENUE,
        SYMBOL,
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
        VENUE,
        SYMBOL,
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
        VENUE,
        SYMBOL,
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
        VENUE,
        SYMBOL,
        Column("signal_ts", T.TIME, "open time of the signal bar"),
        Column("known_at", T.TIME, "when the features, and with them the signal, were known"),
        Column("tier", T.TEXT, "tier of the symbol at the signal"),
        Column("trend", T.TEXT, "trend regime at the signal"),
        Column("stress", T.TEXT, "stress regime at the signal"),
        Column("score", T.FLOAT, "strength of the setup, 0 to 100", nullable=True),
        Column("config_version", T.TEXT, "hash of the strategy's configuration"),
        *(
            Column(feature.name, T.FLOAT, feature.description, nullable=True)
            for feature in feature_catalogue.CATALOGUE
            if not feature.is_text  # tier and regime of the signal are the setup's own
        ),
        Column("null_reasons", T.JSON, "reason code for each feature that is NULL"),
        Column("feature_set_version", T.TEXT, "version of the feature definitions"),
        Column("outcome", T.TEXT, "WIN, LOSS, BREAKEVEN or TIMEOUT"),
        Column("exit_reason", T.TEXT, "TP, SL, TRAIL or TIME", nullable=True),
        Column("is_win", T.BOOL, "the binary target"),
        Column("gross_return_pct", T.FLOAT, "return before costs, %"),
        Column("actual_return", T.FLOAT, "net return after fees and slippage, %"),
        Column("label_start", T.TIME, "first bar that decided the label"),
        Column("label_end", T.TIME, "end of the last one; purge what overlaps [label_start, label_end)"),
        Column("weight", T.FLOAT, "average uniqueness among labels of its strategy and symbol, 0 to 1"),
        Column("label_version", T.TEXT, "version of the labelling rules and their configuration"),
    ),
)
