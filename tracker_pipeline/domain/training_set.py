"""What models learn from: each entered setup with the features known at its signal and its final label.

What belongs here: the join, the interval to purge around, and weights. What does not: features and labels themselves,
splits into folds, models.
"""

from datetime import timedelta
from typing import Final

import numpy as np
import polars as pl

from tracker_pipeline.domain import feature_catalogue
from tracker_pipeline.domain.schemas import TRAINING_SET
from tracker_pipeline.domain.timeframes import TIMEFRAMES, duration

_FINAL: Final = ("WIN", "LOSS", "BREAKEVEN", "TIMEOUT")
_BAR: Final = duration("15m")
_SERIES: Final = ("strategy", "venue", "symbol")
_FEATURES: Final = feature_catalogue.NUMBERS


def training_set(setups: pl.DataFrame, labels: pl.DataFrame, features: pl.DataFrame) -> pl.DataFrame:
    """Join setups with the features of their moment and their final labels.

    The features are those of the 15m bar with which the signal's bar closes, so they were known when the signal was.
    A setup whose label is not final, or that was never entered, is not learned from; nor is one without features.

    `label_start` and `label_end` bound the bars that decided the label: who splits by time purges training rows
    whose interval overlaps a test row's. `weight` is the label's average uniqueness (Lopez de Prado 2018, Advances
    in Financial Machine Learning, ch. 4): the mean over its bars of 1 / (labels of its strategy and symbol alive
    then), so that ten labels over one move count as about one. To be right at the edges it needs the labels of a
    horizon before and after.

    Args:
        setups: rows of `labels.strategy_setups`.
        labels: rows of the label tables; columns beside those used are ignored.
        features: rows of `features.ml_features_15m` at the signals' closes.

    Returns:
        The columns of `labels.training_set`, sorted by key.
    """
    lengths = {name: length for name, length in TIMEFRAMES.items() if length >= _BAR}
    signal_length = pl.col("timeframe").replace_strict(lengths, return_dtype=pl.Duration("us"))
    final = (
        labels.filter(pl.col("outcome").is_in(_FINAL), pl.col("actual_return").is_not_null())
        .select(
            "setup_id",
            "outcome",
            "exit_reason",
            "gross_return_pct",
            "actual_return",
            "label_version",
            label_start=pl.col("entry_ts"),
            label_end=pl.col("exit_ts") + _BAR,
        )
        .with_columns(is_win=(pl.col("outcome") == "WIN"))
    )
    moments = setups.with_columns(features_ts=pl.col("signal_ts") + signal_length - _BAR)
    known = features.select(
        "venue",
        "symbol",
        "available_at",
        "null_reasons",
        "feature_set_version",
        *_FEATURES,
        features_ts=pl.col("ts"),
    ).rename({"available_at": "known_at"})
    rows = with_uniqueness(moments.join(final, on="setup_id")).join(
        known, on=["venue", "symbol", "features_ts"]
    )
    return TRAINING_SET.conform(rows.select(TRAINING_SET.polars_schema.names()))


def with_uniqueness(rows: pl.DataFrame) -> pl.DataFrame:
    """Add `weight`, the average uniqueness of each label among those of its strategy and symbol.

    Args:
        rows: strategy, venue, symbol, label_start and label_end on the 15m grid.
    """
    parts = [
        part.with_columns(weight=pl.Series(_uniqueness(part)))
        for part in rows.partition_by(_SERIES, maintain_order=True)
    ]
    return pl.concat(parts) if parts else rows.with_columns(weight=pl.lit(None, pl.Float64))


def _uniqueness(part: pl.DataFrame) -> np.ndarray:
    """Mean over each interval of 1 / concurrency, by one cumulative sum over the bars of the series."""
    origin = part.get_column("label_start").min()
    step = _BAR / timedelta(microseconds=1)
    start, end = (
        ((part.get_column(name) - origin).dt.total_microseconds().to_numpy() // step).astype(int)
        for name in ("label_start", "label_end")
    )
    alive = np.zeros(end.max() + 1)
    np.add.at(alive, start, 1)
    np.add.at(alive, end, -1)
    alive = np.cumsum(alive)
    share = np.divide(1.0, alive, out=np.zeros_like(alive), where=alive > 0)
    total = np.concatenate([[0.0], np.cumsum(share)])
    return (total[end] - total[start]) / (end - start)
