"""Recorded bars served in place of simulated ones.

What belongs here: reading bar files into arrays and serving them as a market. What does not: checks of their
quality (the pipeline makes those on what the server answers, as it would for any venue).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from tracker_pipeline.sandbox.market import QUOTE, Listing, grid_offset_ms
from tracker_pipeline.sandbox.series import MINUTE_MS, NO_BARS, NO_TRADES, Bars, Floats, Trades, roll_up

_TIME_NAMES: Final = ("open_time", "ts", "date")
_TIMEFRAME_NAMES: Final = ("timeframe", "tf")
_UNIT_MINUTES: Final = {"m": 1, "h": 60, "d": 1440, "w": 7 * 1440}
_MAX_DECIMALS: Final = 12


class ReplayBars:
    """Bars read from files, by symbol and length.

    A symbol's bars are served as recorded in the lengths that the files hold, and rolled up from the longest
    of them that fits for every other length; lengths shorter than the shortest recorded one do not exist. A
    recorded bar counts from its open on with its final values: how it looked while it ran was not recorded.

    Args:
        bars: for each (native symbol, minutes of a bar), the bars in ascending order.
    """

    def __init__(self, bars: Mapping[tuple[str, int], Bars]) -> None:
        self._bars = dict(bars)
        self._lengths: dict[str, list[int]] = {}
        for name, minutes in sorted(self._bars):
            self._lengths.setdefault(name, []).append(minutes)
        self._listings = {name: self._listing(name) for name in self._lengths}

    @classmethod
    def from_files(cls, paths: Iterable[Path]) -> "ReplayBars":
        """Read Parquet or CSV files with the columns symbol, a time, open, high, low, close and volume.

        The time is named open_time, ts or date and holds datetimes or epoch milliseconds; symbols are those of
        the venue or unified ones, quoted in USDT. Without a column timeframe or tf, a file's bars all have the
        length of the smallest step between two of them.

        Raises:
            ValueError: a column is absent, or a symbol is not quoted in USDT.
        """
        found: dict[tuple[str, int], list[pl.DataFrame]] = {}
        for path in paths:
            for key, frame in _read(path).partition_by("name", "minutes", as_dict=True).items():
                found.setdefault((str(key[0]), int(key[1])), []).append(frame)
        return cls({key: _to_bars(pl.concat(frames)) for key, frames in found.items()})

    @property
    def listings(self) -> Mapping[str, Listing]:
        """The recorded symbols, by native name."""
        return self._listings

    def finest_minutes(self, name: str) -> int:
        """Length of the shortest recorded bars of a symbol, minutes."""
        return self._lengths[name][0]

    def bars(self, name: str, step_minutes: int, start_ms: int, end_ms: int, now_ms: int) -> Bars:
        """Bars that opened in [start_ms, end_ms) and not after `now_ms`."""
        fitting = [length for length in self._lengths[name] if step_minutes % length == 0]
        if not fitting:
            return NO_BARS
        recorded = self._bars[name, fitting[-1]]
        if fitting[-1] == step_minutes:
            return recorded.between(start_ms, min(end_ms, now_ms + 1))
        step_ms, offset_ms = step_minutes * MINUTE_MS, grid_offset_ms(step_minutes)
        first_ms, stop_ms = (
            -((offset_ms - edge) // step_ms) * step_ms + offset_ms for edge in (start_ms, end_ms)
        )
        return roll_up(recorded.between(first_ms, min(stop_ms, now_ms + 1)), step_ms, offset_ms)

    def trades(self, name: str, start_ms: int, end_ms: int) -> Trades:
        """No trades: bar files hold none."""
        del name, start_ms, end_ms
        return NO_TRADES

    def _listing(self, name: str) -> Listing:
        recorded = [self._bars[name, minutes] for minutes in self._lengths[name]]
        return Listing(
            name=name,
            base=name.removesuffix(QUOTE),
            listed_ms=min(int(bars.open_ms[0]) for bars in recorded),
            price_decimals=max(_decimals(np.r_[b.open, b.high, b.low, b.close]) for b in recorded),
            amount_decimals=max(_decimals(b.volume) for b in recorded),
        )


def _read(path: Path) -> pl.DataFrame:
    """One file's bars with the columns name, minutes, open_ms, open ... turnover."""
    raw = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, try_parse_dates=True)
    time = next((name for name in _TIME_NAMES if name in raw.columns), None)
    absent = {"symbol", "open", "high", "low", "close", "volume"} - set(raw.columns)
    if time is None or absent:
        needed = sorted(absent) or ["open_time, ts or date"]
        raise ValueError(f"{path.name}: a replay file needs the columns {', '.join(needed)}")
    is_epoch = raw.schema[time].is_integer()
    opened = pl.col(time) if is_epoch else pl.col(time).dt.epoch("ms")
    turnover = pl.col("turnover") if "turnover" in raw.columns else pl.col("volume") * pl.col("close")
    frame = raw.select(
        pl.col("symbol")
        .replace_strict({text: _native(text) for text in raw["symbol"].unique().to_list()})
        .alias("name"),
        *(pl.col(name) for name in _TIMEFRAME_NAMES if name in raw.columns),
        opened.cast(pl.Int64).alias("open_ms"),
        *(pl.col(name).cast(pl.Float64) for name in ("open", "high", "low", "close", "volume")),
        turnover.cast(pl.Float64).alias("turnover"),
    ).unique(maintain_order=True)
    return frame.with_columns(_minutes_of(frame))


def _minutes_of(frame: pl.DataFrame) -> pl.Expr:
    named = next((name for name in _TIMEFRAME_NAMES if name in frame.columns), None)
    if named is not None:
        lengths = {text: int(text[:-1]) * _UNIT_MINUTES[text[-1]] for text in frame[named].unique().to_list()}
        return pl.col(named).replace_strict(lengths).alias("minutes")
    steps = frame.sort("name", "open_ms").select(pl.col("open_ms").diff().over("name")).to_series()
    smallest = steps.filter(steps > 0).min()
    if not isinstance(smallest, int):
        raise ValueError("a replay file needs a column timeframe, or two bars of some symbol")
    return pl.lit(smallest // MINUTE_MS).alias("minutes")


def _native(symbol: str) -> str:
    """BTCUSDT for BTCUSDT, BTC/USDT, BTC/USDT:USDT and BTC."""
    pair = symbol.split(":", maxsplit=1)[0].upper()
    joined = pair.replace("/", "").replace("_", "").replace("-", "")
    if joined.endswith(QUOTE):
        return joined
    if joined != pair:
        raise ValueError(f"replay symbol {symbol} is not quoted in {QUOTE}")
    return joined + QUOTE


def _to_bars(frame: pl.DataFrame) -> Bars:
    ordered = frame.sort("open_ms").unique("open_ms", keep="first", maintain_order=True)
    columns = ("open_ms", "open", "high", "low", "close", "volume", "turnover")
    return Bars(*(ordered[name].to_numpy() for name in columns))


def _decimals(values: Floats) -> int:
    """The fewest decimals that write every value exactly."""
    for decimals in range(_MAX_DECIMALS):
        if np.array_equal(np.round(values, decimals), values, equal_nan=True):
            return decimals
    return _MAX_DECIMALS
