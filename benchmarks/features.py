"""The full feature set over 90 symbols x 180 days of 15m bars, beside TA-Lib, pandas, and one new hour.

Run: .venv/bin/python -m benchmarks.features   (pip install -e '.[dev,benchmarks]')
"""

import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import talib

from benchmarks.feature_peers import in_pandas
from benchmarks.market import BARS, DAYS, START, SYMBOLS, bars, medians, medians_by, verdict
from benchmarks.memory import growth_mb
from benchmarks.stored import Stored
from tracker_pipeline.assets.features import features_between
from tracker_pipeline.domain.feature_surroundings import Surroundings
from tracker_pipeline.domain.features import feature_blocks, features_15m
from tracker_pipeline.domain.regimes import regimes
from tracker_pipeline.storage import lake

ROUNDS = 7
PEER_ROUNDS = 3  # of several seconds each
END = START + timedelta(days=DAYS)


def reference_of(frame: pl.DataFrame) -> pl.DataFrame:
    """Daily bars of the first symbol, as if it were BTC."""
    first = frame.filter(pl.col("symbol") == frame.item(0, "symbol"))
    return first.group_by(pl.col("ts").dt.truncate("1d"), maintain_order=True).agg(pl.col("close").last())


def with_talib(frame: pl.DataFrame) -> Callable[[], None]:
    """Eight indicators of TA-Lib, symbol by symbol on arrays, their results thrown away."""
    close, high, low = (frame[name].to_numpy().reshape(SYMBOLS, BARS) for name in ("close", "high", "low"))

    def run() -> None:
        for c, h, l in zip(close, high, low, strict=True):  # noqa: E741
            talib.RSI(c, 14)
            talib.MACD(c, 12, 26, 9)
            talib.BBANDS(c, 20)
            talib.ATR(h, l, c, 14)
            talib.SMA(c, 20)
            talib.EMA(c, 20)
            talib.STOCH(h, l, c)
            talib.ROC(c, 12)

    return run


def beside(frame: pl.DataFrame, reference: pl.DataFrame) -> Surroundings:
    """All that features look at beside the bars: BTC's bars, a 5m bar for each, the regimes, tiers."""
    btc = frame.filter(pl.col("symbol") == frame.item(0, "symbol"))
    fine = frame.select(
        "venue", "symbol", pl.col("ts") + timedelta(minutes=5), "available_at", "revision", close="open"
    )
    daily = reference.with_columns(pl.lit(frame.item(0, "venue")).alias("venue"))
    tiers = {symbol.split("/")[0]: "mid_cap" for symbol in frame["symbol"].unique()}
    return Surroundings(reference_15m=btc, fine_bars=fine, regimes=regimes(daily, btc), tiers=tiers)


def ours(frame: pl.DataFrame, reference: pl.DataFrame, surroundings: Surroundings) -> int:
    """Every row, a block of days at a time: 1.55 M rows in one frame would be 560 MB by themselves."""
    return sum(
        block.height for block in feature_blocks(frame, reference_bars=reference, surroundings=surroundings)
    )


def prepared() -> Callable[[], int]:
    """The same, with everything that goes in made and the kernel compiled."""
    frame = bars()
    reference = reference_of(frame)
    others = beside(frame, reference)
    features_15m(frame.head(BARS), reference_bars=reference)
    return lambda: ours(frame, reference, others)


def agree(frame: pl.DataFrame, reference: pl.DataFrame) -> None:
    """Refuse to compare with a peer that computes something else."""
    few = frame.filter(pl.col("symbol").is_in(["C00/USDT", "C01/USDT"]))
    mine = features_15m(few, reference_bars=reference).to_pandas()
    theirs = in_pandas(few.to_pandas(), reference.to_pandas())
    late = mine["ts"] >= START + timedelta(days=60)
    for name in theirs.columns:
        np.testing.assert_allclose(mine[name][late], theirs[name][late], rtol=1e-6, atol=1e-7, err_msg=name)


def compute(frame: pl.DataFrame, reference: pl.DataFrame) -> list[bool]:
    """Speed of the full set, and its memory."""
    agree(frame, reference)
    wide, daily = frame.to_pandas(), reference.to_pandas()
    others = beside(frame, reference)
    cases = {
        "TA-Lib, 8 indicators": with_talib(frame),
        "ours, in blocks": lambda: ours(frame, reference, others),
        "ours, bars alone": lambda: ours(frame, reference, Surroundings()),
    }
    clocks = (time.perf_counter, time.process_time)
    peer = {"pandas group-by": lambda: in_pandas(wide, daily)}
    taken, busy = (
        many | once
        for many, once in zip(
            medians_by(cases, ROUNDS, *clocks), medians_by(peer, PEER_ROUNDS, *clocks), strict=True
        )
    )
    show(taken)
    show({f"{name} (processor)": seconds for name, seconds in busy.items()})
    grown = growth_mb(prepared)
    full = taken["ours, in blocks"]
    return [
        verdict("time on the wall of eight TA-Lib indicators", full / taken["TA-Lib, 8 indicators"], 10),
        verdict("faster than pandas group-by", taken["pandas group-by"] / full, 6, at_least=True),
        verdict("growth of memory", grown, 400, unit="MB"),
    ]


def show(taken: dict[str, float]) -> None:
    """Print what each case took."""
    for name, seconds in taken.items():
        print(f"{name:34} {seconds * 1000:9.1f} ms")


def write(frame: pl.DataFrame, reference: pl.DataFrame) -> list[bool]:
    """Speed and size of one stored day."""
    day = features_15m(
        frame, reference_bars=reference, surroundings=beside(frame, reference), since=END - timedelta(days=1)
    )
    wide: pd.DataFrame = day.to_pandas()
    with tempfile.TemporaryDirectory() as folder:
        ours_path, theirs = Path(folder) / "ours.parquet", Path(folder) / "pandas.parquet"
        taken = medians(
            {
                "pandas with snappy": lambda: wide.to_parquet(theirs, compression="snappy", index=False),
                "lake": lambda: lake.write_parquet(day, ours_path),
            },
            3 * ROUNDS,
            clock=time.perf_counter,
        )
        assert pl.read_parquet(ours_path).equals(day)
        size = ours_path.stat().st_size / theirs.stat().st_size
    show(taken)
    return [
        verdict(
            "faster than pandas with snappy", taken["pandas with snappy"] / taken["lake"], 2, at_least=True
        ),
        verdict("size of pandas with snappy", size, 0.6),
    ]


def one_hour(frame: pl.DataFrame) -> list[bool]:
    """One new hour of all symbols from storage, against everything from storage, both as the asset reads it."""
    hour = END - timedelta(hours=1)

    def all_rows() -> None:
        starts = [START + timedelta(days=day) for day in range(0, DAYS, 31)]
        for start, end in zip(starts, [*starts[1:], END], strict=True):
            features_between(start, end)

    def new_rows() -> None:
        assert features_between(hour, END).height == 4 * SYMBOLS

    with Stored(frame):
        taken = medians(
            {"180 days from storage": all_rows, "one hour from storage": new_rows}, 3, clock=time.perf_counter
        )
    show(taken)
    share = taken["180 days from storage"] / taken["one hour from storage"]
    return [verdict("of the full time, for one hour: 1 /", share, 50, at_least=True)]


def main() -> int:
    """Compare, print, and say by the exit code whether all targets are met."""
    frame = bars()
    reference = reference_of(frame)
    met = [*compute(frame, reference), *write(frame, reference), *one_hour(frame)]
    return not all(met)


if __name__ == "__main__":
    sys.exit(main())
