from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker_pipeline.domain import bars as rules
from tracker_pipeline.domain.timeframes import GRACE, TIMEFRAMES, available_at

START = datetime(2024, 3, 1, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
TWO_MINUTES = timedelta(minutes=2)
TIME = pl.Datetime("us", "UTC")


def frame(
    opens: list[datetime], timeframe: str = "15m", symbol: str = "BTC/USDT", **columns: Any
) -> pl.DataFrame:
    """Bars with all columns of the bar tables; the values can be given."""
    count = len(opens)
    values = {
        "venue": "bybit",
        "symbol": symbol,
        "open": 10.0,
        "high": 12.0,
        "low": 9.0,
        "close": 11.0,
        "volume": 5.0,
        "vwap": None,
        "trades": None,
        "n_src": None,
        "source": "rest",
        "revision": 1,
        "run_id": "run",
    } | columns
    rows = {name: value if isinstance(value, list) else [value] * count for name, value in values.items()}
    ends = [available_at(opened, timeframe) for opened in opens]
    return pl.DataFrame(rows, schema_overrides={"vwap": pl.Float64, "trades": pl.Int64}).with_columns(
        ts=pl.Series(opens, dtype=TIME),
        fetched_at=pl.Series([START] * count, dtype=TIME),
        available_at=pl.Series(ends, dtype=TIME),
    )


def listing(*rows: tuple[str, datetime | None, datetime | None]) -> pl.DataFrame:
    schema = {"venue": pl.String, "symbol": pl.String, "listed_from": TIME, "listed_to": TIME}
    return pl.DataFrame([("bybit", *row) for row in rows], schema=schema, orient="row")


# Closed bars


@pytest.mark.parametrize("timeframe", list(TIMEFRAMES))
def test_a_single_bar_is_closed_when_its_end_and_the_grace_have_passed(timeframe: str) -> None:
    bar = frame([START], timeframe)
    final = START + TIMEFRAMES[timeframe] + GRACE[timeframe]
    assert rules.closed(bar, now=final, grace=GRACE[timeframe]).height == 1
    assert rules.closed(bar, now=final - timedelta(microseconds=1), grace=GRACE[timeframe]).height == 0


def test_the_grace_that_is_passed_decides_and_not_available_at() -> None:
    bar = frame([START])
    assert rules.closed(bar, now=START + QUARTER, grace=timedelta(0)).height == 1
    assert rules.closed(bar, now=START + QUARTER + TWO_MINUTES, grace=timedelta(minutes=3)).height == 0


def test_closed_bars_come_back_sorted_with_all_their_columns_whatever_their_order() -> None:
    opens = [START + QUARTER * i for i in (3, 0, 4, 1)]
    bars = frame(opens)
    found = rules.closed(bars, now=START + QUARTER * 4 + TWO_MINUTES, grace=TWO_MINUTES)
    assert found["ts"].to_list() == [START, START + QUARTER, START + QUARTER * 3]
    assert set(found.columns) == set(bars.columns)


def test_without_available_at_the_smallest_step_and_the_alignment_tell_the_timeframe() -> None:
    opens = [START + QUARTER * i for i in (0, 2, 6)]  # every step is a multiple of 30 min
    bars = frame(opens).drop("available_at")
    assert rules.timeframe_of(bars) == "15m"
    assert rules.timeframe_of(pl.concat([bars, bars])) == "15m"
    day_apart = frame([START, START + timedelta(days=1)], "1d").drop("available_at")
    assert rules.timeframe_of(day_apart) == "1d"


def test_the_step_is_taken_within_a_symbol() -> None:
    hourly = frame([START, START + timedelta(hours=1)], "1h").drop("available_at")
    other = frame([START + timedelta(hours=5)], "1h", symbol="ETH/USDT").drop("available_at")
    assert rules.timeframe_of(pl.concat([hourly, other])) == "1h"


def test_a_timeframe_that_cannot_be_told_must_be_named() -> None:
    bar = frame([START]).drop("available_at")
    with pytest.raises(ValueError, match="name it"):
        rules.closed(bar, now=START, grace=TWO_MINUTES)
    assert rules.closed(bar, now=START + QUARTER, grace=timedelta(0), timeframe="15m").height == 1


def test_no_bars_are_closed_of_none() -> None:
    assert rules.closed(frame([]), now=START, grace=TWO_MINUTES).is_empty()


def test_naive_times_are_refused() -> None:
    naive = frame([START]).with_columns(pl.col("ts").dt.replace_time_zone(None))
    with pytest.raises(ValueError, match="aware"):
        rules.closed(naive, now=START, grace=TWO_MINUTES)
    with pytest.raises(ValueError, match="aware"):
        rules.closed(frame([START]), now=datetime(2024, 1, 1), grace=TWO_MINUTES)  # noqa: DTZ001


def test_a_partial_last_candle_of_a_real_fetch_is_not_closed(shared_data: Path) -> None:
    fetched = pl.read_parquet(shared_data / "ohlcv" / "binance_um_1h_365d.parquet")
    bars = fetched.rename({"open_time": "ts"}).with_columns(venue=pl.lit("binance"))
    last = pl.col("ts") == pl.col("ts").max().over("symbol")
    for symbol in ("BTCUSDT", "LRCUSDT"):
        one = bars.filter(pl.col("symbol") == symbol)
        asked_at = one["ts"].max() + timedelta(minutes=20)
        assert rules.closed(one, now=asked_at, grace=TWO_MINUTES).height == one.height - 1
    assert bars.filter(last).height == 42


# Roll-up


def test_minutes_roll_up_as_the_golden_example_says() -> None:
    opens = [START + timedelta(minutes=m) for m in (14, 0, 2)]
    values = {
        "open": [14.0, 10.0, 11.0],
        "high": [14.0, 12.0, 15.0],
        "low": [8.0, 9.0, 11.0],
        "close": [9.0, 11.0, 14.0],
        "volume": [50.0, 100.0, 300.0],
        "vwap": [10.0, 10.5, 13.0],
        "trades": [2, 5, 7],
    }
    row = rules.resample(frame(opens, "1m", **values), "15m").row(0, named=True)
    assert (row["open"], row["high"], row["low"], row["close"]) == (10, 15, 8, 9)
    assert (row["volume"], row["trades"], row["n_src"]) == (450, 14, 3)
    assert row["vwap"] == pytest.approx(12.111111, abs=1e-6)
    assert row["ts"] == START
    assert row["available_at"] == START + QUARTER + TWO_MINUTES
    assert row["source"] == "rollup"


def test_an_unknown_vwap_or_count_makes_that_of_the_bucket_unknown() -> None:
    opens = [START, START + timedelta(minutes=1)]
    rolled = rules.resample(frame(opens, "1m", vwap=[10.0, None], trades=[3, None]), "5m")
    assert rolled.select("vwap", "trades", "n_src").row(0) == (None, None, 2)


def test_minutes_without_volume_do_not_spoil_the_vwap() -> None:
    opens = [START, START + timedelta(minutes=1)]
    rolled = rules.resample(frame(opens, "1m", vwap=[10.0, None], volume=[2.0, 0.0]), "5m")
    assert rolled["vwap"].to_list() == [10.0]
    nothing = rules.resample(frame(opens, "1m", vwap=None, volume=0.0), "5m")
    assert nothing["vwap"].to_list() == [None]


def test_absent_optional_columns_stay_absent() -> None:
    bare = frame([START], "1m").select("symbol", "ts", "open", "high", "low", "close", "volume")
    rolled = rules.resample(bare, "1h")
    assert set(rolled.columns) == {*bare.columns, "n_src", "available_at"}


def test_a_bar_given_twice_counts_once_and_a_contradicted_one_is_refused() -> None:
    bar = frame([START], "1m")
    assert rules.resample(pl.concat([bar, bar]), "5m")["volume"].to_list() == [5.0]
    with pytest.raises(ValueError, match="different values"):
        rules.resample(pl.concat([bar, bar.with_columns(close=pl.lit(11.5))]), "5m")


def test_bars_do_not_roll_up_to_a_timeframe_that_is_not_coarser() -> None:
    with pytest.raises(ValueError, match="1h bars do not roll up"):
        rules.resample(frame([START], "1h"), "15m")


@given(
    minutes=st.lists(st.integers(0, 600), min_size=1, max_size=60, unique=True),
    cents=st.lists(st.integers(1, 10_000), min_size=60, max_size=60),
)
def test_a_roll_up_of_a_roll_up_is_the_direct_one(minutes: list[int], cents: list[int]) -> None:
    count = len(minutes)
    prices = [cents[i] / 100 for i in range(count)]
    fine = frame(
        [START + timedelta(minutes=m) for m in minutes],
        "1m",
        open=prices,
        high=[price + 0.5 for price in prices],
        low=[price / 2 for price in prices],
        close=prices,
        volume=prices,
    )
    direct = rules.resample(fine, "1h")
    stepwise = rules.resample(rules.resample(fine, "5m"), "1h")
    compared = ["ts", "open", "high", "low", "close", "volume"]
    assert direct.select(compared).equals(stepwise.select(compared))
    assert direct["n_src"].sum() == count
    assert rules.resample(fine.sample(fraction=1, shuffle=True, seed=1), "1h").equals(direct)


@pytest.mark.parametrize("timeframe", ["1h", "4h"])
def test_real_minutes_roll_up_to_the_bars_of_an_independent_source(shared_data: Path, timeframe: str) -> None:
    truth = pl.read_parquet(shared_data / "ohlcv_truth" / "binance_um_rollup_truth_2026-02.parquet")
    for symbol in ("DOTUSDT", "LTCUSDT", "NEARUSDT"):
        raw = pl.read_csv(shared_data / "ohlcv_raw_binance_vision_1m" / f"{symbol}-1m-2026-02.csv.gz")
        fine = raw.select(
            pl.lit("binance").alias("venue"),
            pl.lit(symbol).alias("symbol"),
            pl.from_epoch("open_time", "ms").dt.replace_time_zone("UTC").cast(TIME).alias("ts"),
            *(pl.col(name).cast(pl.Float64) for name in ("open", "high", "low", "close", "volume")),
        )
        wanted = truth.filter(pl.col("symbol") == symbol, pl.col("tf") == timeframe).sort("open_time")
        values = ["open", "high", "low", "close", "volume"]
        assert rules.resample(fine, timeframe).select(values).equals(wanted.select(values))


# Gaps


def test_head_interior_and_tail_gaps_and_an_absent_symbol_are_found_with_exact_counts() -> None:
    present = [START + QUARTER * i for i in range(100) if not (i < 10 or 40 <= i < 43 or i >= 96)]
    gaps = rules.find_gaps(
        frame(present),
        timeframe="15m",
        start=START,
        end=START + QUARTER * 100,
        listed=listing(("ETH/USDT", None, None), ("BTC/USDT", None, None)),
    )
    assert gaps.columns == ["venue", "symbol", "gap_start", "gap_end", "bars"]
    expected = [("BTC/USDT", 0, 10), ("BTC/USDT", 40, 43), ("BTC/USDT", 96, 100), ("ETH/USDT", 0, 100)]
    assert gaps.rows() == [
        ("bybit", symbol, START + QUARTER * first, START + QUARTER * last, last - first)
        for symbol, first, last in expected
    ]


def test_nothing_is_expected_while_a_coin_is_not_listed() -> None:
    gaps = rules.find_gaps(
        frame([START + QUARTER * i for i in range(10, 20)]),
        timeframe="15m",
        start=START,
        end=START + QUARTER * 100,
        listed=listing(
            ("BTC/USDT", START + QUARTER * 8, START + QUARTER * 20),
            ("BTC/USDT", START + QUARTER * 90, None),
            ("OLD/USDT", None, START - QUARTER),
        ),
    )
    found = [((s - START) // QUARTER, (e - START) // QUARTER, n) for _, _, s, e, n in gaps.rows()]
    assert found == [(8, 10, 2), (90, 100, 10)]


def test_a_bar_that_is_only_partly_listed_or_asked_for_is_not_expected() -> None:
    gaps = rules.find_gaps(
        frame([]),
        timeframe="15m",
        start=START + timedelta(minutes=1),
        end=START + QUARTER * 10 - timedelta(minutes=1),
        listed=listing(("BTC/USDT", START + timedelta(minutes=20), START + timedelta(minutes=100))),
    )
    assert gaps.rows() == [("bybit", "BTC/USDT", START + QUARTER * 2, START + QUARTER * 6, 4)]


def test_bars_off_the_grid_and_repeated_bars_fill_nothing_and_break_nothing() -> None:
    opens = [START, START, START + timedelta(minutes=22), START + QUARTER * 2]
    gaps = rules.find_gaps(
        frame(opens),
        timeframe="15m",
        start=START,
        end=START + QUARTER * 3,
        listed=listing(("BTC/USDT", None, None)),
    )
    assert gaps.rows() == [("bybit", "BTC/USDT", START + QUARTER, START + QUARTER * 2, 1)]


def test_listings_may_be_null_throughout_and_overlap() -> None:
    untyped = pl.DataFrame({"venue": ["bybit"] * 2, "symbol": ["BTC/USDT"] * 2, "listed_from": [None] * 2})
    gaps = rules.find_gaps(
        frame([]),
        timeframe="1h",
        start=START,
        end=START + timedelta(days=1),
        listed=untyped.with_columns(listed_to=None),
    )
    assert gaps["bars"].to_list() == [24]


@given(present=st.sets(st.integers(0, 49)), window=st.tuples(st.integers(0, 50), st.integers(0, 50)))
def test_gaps_and_bars_together_tile_the_window(present: set[int], window: tuple[int, int]) -> None:
    first, last = min(window), max(window)
    gaps = rules.find_gaps(
        frame([START + QUARTER * i for i in present]),
        timeframe="15m",
        start=START + QUARTER * first,
        end=START + QUARTER * last,
        listed=listing(("BTC/USDT", None, None)),
    )
    missing = [
        i for _, _, s, e, _ in gaps.rows() for i in range((s - START) // QUARTER, (e - START) // QUARTER)
    ]
    assert sorted(missing) == [i for i in range(first, last) if i not in present]
    assert gaps["bars"].sum() == len(missing)


def test_a_real_outage_is_one_gap_in_every_pair(shared_data: Path) -> None:
    raw = pl.read_parquet(shared_data / "ohlcv" / "binance_spot_5m_outage_2023-03-24.parquet")
    bars = raw.rename({"open_time": "ts"}).with_columns(venue=pl.lit("binance"))
    listed = bars.select("venue", "symbol").unique().with_columns(listed_from=None, listed_to=None)
    day = datetime(2023, 3, 24, tzinfo=UTC)
    gaps = rules.find_gaps(bars, timeframe="5m", start=day, end=day + timedelta(days=1), listed=listed)
    assert gaps["symbol"].n_unique() == gaps.height == 10
    assert set(gaps["bars"]) == {16}
    assert set(gaps["gap_start"]) == {day + timedelta(hours=12, minutes=40)}


# Sanity


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"high": 8.0}, "do not span"),
        ({"low": 10.5}, "do not span"),
        ({"low": 0.0}, "not positive"),
        ({"close": float("nan")}, "unknown"),
        ({"volume": None}, "unknown"),
        ({"volume": -1.0}, "negative"),
    ],
)
def test_an_impossible_bar_is_rejected_with_its_reason(values: dict[str, float], reason: str) -> None:
    bars = pl.concat([frame([START], **values), frame([START + QUARTER])], how="vertical_relaxed")
    refused = rules.rejected(bars, timeframe="15m")
    assert refused["ts"].to_list() == [START]
    assert reason in refused["reason"].item()
    assert rules.sane(bars, timeframe="15m")["ts"].to_list() == [START + QUARTER]


def test_a_bar_off_the_grid_or_out_of_time_is_rejected() -> None:
    off_grid = START + timedelta(hours=12, minutes=7)
    future, ancient = START + timedelta(days=1), datetime(1970, 1, 20, tzinfo=UTC)
    refused = rules.rejected(
        frame([off_grid, future, ancient]), timeframe="15m", now=START + timedelta(hours=20)
    )
    reasons = dict(zip(refused["ts"], refused["reason"], strict=True))
    assert reasons == {
        off_grid: "it does not open on the 15m grid",
        future: "it opens in the future",
        ancient: "it opens before 2010",
    }


def test_flat_bars_without_volume_and_sub_cent_prices_are_sane() -> None:
    flat = frame([START], open=1.234e-8, high=1.234e-8, low=1.234e-8, close=1.234e-8, volume=0.0)
    assert rules.sane(flat, timeframe="15m").height == 1
