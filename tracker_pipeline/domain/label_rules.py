"""How each strategy's setups are traded, and the columns of its own that a label has.

What belongs here: from setups and the bars of their horizons to trades. What does not: what all labels share
(`labels.py`), and the trades (`grid_trades.py`, `barrier_trades.py`).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

from tracker_pipeline.domain.dca import DcaConfig
from tracker_pipeline.domain.schemas import CHANNEL_LABELS, DCA_LABELS, SWING_LABELS, Table
from tracker_pipeline.domain.strategy_config import StrategyConfig
from tracker_pipeline.domain.trade import Path, Trades
from tracker_pipeline.domain.windows import FloatArray, IntArray


def _numbers(*names: str) -> pl.Struct:
    return pl.Struct(dict.fromkeys(names, pl.Float64))


_TRAILING: Final = _numbers("trail_pct", "trail_from_pct")


@dataclass(frozen=True)
class Held:
    """The bars that the trades of a series are held over.

    Attributes:
        path: the bars of the series.
        start: bar that each trade is entered at.
        end: end of its horizon.
        fine: finer bars of the series, perhaps none.
        bar_us: length of a bar.
    """

    path: Path
    start: IntArray
    end: IntArray
    fine: Path
    bar_us: int

    @property
    def entry(self) -> FloatArray:
        """The open that each trade is entered at, or waits from."""
        return self.path.prices[self.start, 0]

    @property
    def has_fine(self) -> bool:
        """Whether any finer bars are known."""
        return bool(self.fine.ts_us.size)

    def finer(self, index: int) -> Path:
        """The finer bars within the bar at an index of the path."""
        opened_us = int(self.path.ts_us[index])
        return self.fine.between(opened_us, opened_us + self.bar_us)


@dataclass(frozen=True)
class LabelRules:
    """How the setups of one strategy are labelled.

    Attributes:
        table: its table.
        replay: setups of one series, the bars that they are held over and configuration to their trades.
        described: the table's columns that come from the setup, from columns of `labels.strategy_setups` and the
            fields of `evidence`, decoded under their names.
        evidence: the fields that `described` needs.
    """

    table: Table
    replay: Callable[..., Trades]
    described: tuple[pl.Expr, ...]
    evidence: pl.Struct


def _replay_dca(setups: pl.DataFrame, held: Held, config: DcaConfig) -> Trades:
    """Orders of the grid below the first open; target and stop hang from the average of what was filled."""
    from tracker_pipeline.domain.grid_trades import replay_all  # imports numba

    return replay_all(
        held.path,
        held.start,
        held.end,
        config.grid.prices(held.entry),
        tp_frac=setups["tp_pct"].to_numpy() / 100,
        sl_frac=setups["sl_pct"].to_numpy() / 100,
        finer=held.finer if held.has_fine else None,
    )


def _replay_swing(setups: pl.DataFrame, held: Held, _: StrategyConfig) -> Trades:
    """Bought at the first open, from which target, stop and the trailing stop of the evidence hang."""
    from tracker_pipeline.domain.barrier_trades import replay_all  # imports numba

    trailing = setups["evidence"].str.json_decode(_TRAILING).struct
    return replay_all(
        held.path,
        held.start,
        held.end,
        held.entry * (1 - setups["sl_pct"].to_numpy() / 100),
        held.entry * (1 + setups["tp_pct"].to_numpy() / 100),
        trail_frac=trailing.field("trail_pct").fill_null(math.nan).to_numpy() / 100,
        trail_from_frac=trailing.field("trail_from_pct").fill_null(math.nan).to_numpy() / 100,
        finer=held.finer if held.has_fine else None,
    )


def _replay_channel(setups: pl.DataFrame, held: Held, _: StrategyConfig) -> Trades:
    """Bought at the first open; target and stop are prices of the channel, so they hang from the signal's close."""
    from tracker_pipeline.domain.barrier_trades import replay_all  # imports numba

    close, tp_pct, sl_pct = (setups[name].to_numpy() for name in ("ref_price", "tp_pct", "sl_pct"))
    return replay_all(
        held.path,
        held.start,
        held.end,
        close * (1 - sl_pct / 100),
        close * (1 + tp_pct / 100),
        finer=held.finer if held.has_fine else None,
    )


_UPTREND: Final = (pl.col("ref_price") > pl.col("sma_20")) & (pl.col("sma_20") > pl.col("sma_50"))
_DOWNTREND: Final = (pl.col("ref_price") < pl.col("sma_20")) & (pl.col("sma_20") < pl.col("sma_50"))
_POSITION: Final = pl.col("position_frac")
_DETECTED: Final = pl.lit(value=True)

RULES: Final[Mapping[str, LabelRules]] = {
    "dca": LabelRules(
        DCA_LABELS,
        _replay_dca,
        (
            _DETECTED.alias("setup_detected"),
            pl.col("drop_pct").alias("drop_percentage"),
            pl.col("rsi_14").alias("rsi"),
            pl.col("volume_ratio"),
            pl.col("trend").alias("btc_regime"),
        ),
        _numbers("drop_pct", "rsi_14", "volume_ratio"),
    ),
    "swing": LabelRules(
        SWING_LABELS,
        _replay_swing,
        (
            _DETECTED.alias("breakout_detected"),
            pl.col("breakout_pct").alias("breakout_strength"),
            pl.col("volume_surge"),
            pl.col("momentum_points").alias("momentum_score"),
            pl.when(pl.col("sma_50").is_null())
            .then(None)
            .when(_UPTREND)
            .then(pl.lit("UPTREND"))
            .when(_DOWNTREND)
            .then(pl.lit("DOWNTREND"))
            .otherwise(pl.lit("SIDEWAYS"))
            .alias("trend_alignment"),
        ),
        _numbers("breakout_pct", "volume_surge", "momentum_points", "sma_20", "sma_50"),
    ),
    "channel": LabelRules(
        CHANNEL_LABELS,
        _replay_channel,
        (
            pl.when(_POSITION <= 0.15)
            .then(pl.lit("BOTTOM"))
            .when(_POSITION >= 0.85)
            .then(pl.lit("TOP"))
            .when(_POSITION.is_not_null())
            .then(pl.lit("MIDDLE"))
            .alias("channel_position"),
            (100 * pl.col("strength")).alias("channel_strength"),
            (100 * pl.col("width_frac")).alias("channel_width"),
            pl.col("lower").alias("optimal_entry"),
            pl.col("target_price").alias("optimal_exit"),
        ),
        _numbers("position_frac", "strength", "width_frac", "lower", "target_price"),
    ),
}
