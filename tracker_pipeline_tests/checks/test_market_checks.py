"""Bars that cannot be true fail a blocking check, each kind its own; incomplete ones are said."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from tracker_pipeline.checks.market_checks import ALL, ROWS, differing_bars, unsound
from tracker_pipeline.checks.row_checks import blocking_checks
from tracker_pipeline.checks.schema_checks import as_declared
from tracker_pipeline.domain.bars import KEY, resample
from tracker_pipeline.domain.coverage import incomplete, liquidity_classes
from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.keys import key_of
from tracker_pipeline_tests.frames import bars

NOW = datetime(2024, 5, 3, tzinfo=UTC)
DAY = datetime(2024, 5, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
BLOCKING = {"aligned", "no_duplicates", "sane", "nothing_from_the_future", "nothing_unfinished"}


def failing(rows: pl.DataFrame) -> set[str]:
    return {name for name, wrong in unsound(rows, "15m", NOW).items() if wrong.height}


def at(row: int, **values: object) -> pl.DataFrame:
    """Bars of which one has these values."""
    frame = bars(count=4).with_row_index()
    hit = pl.col("index") == row
    return frame.with_columns(
        pl.when(hit).then(pl.lit(value, frame.schema[name])).otherwise(name).alias(name)
        for name, value in values.items()
    ).drop("index")


def test_good_bars_pass_every_check():
    assert unsound(bars(count=96), "15m", NOW).keys() == BLOCKING
    assert failing(bars(count=90)) == set()


@pytest.mark.parametrize(
    ("rows", "check"),
    [
        (at(1, ts=DAY + timedelta(minutes=17)), "aligned"),
        (pl.concat([bars(count=4), bars(count=1, price=99.0)]), "no_duplicates"),
        (at(2, high=1.0), "sane"),
        (at(2, low=float("nan")), "sane"),
        (at(2, volume=-1.0), "sane"),
        (bars(start=NOW + timedelta(hours=1), count=1), "nothing_from_the_future"),
        (at(3, fetched_at=DAY + timedelta(minutes=50)), "nothing_unfinished"),
        (at(3, fetched_at=DAY + timedelta(minutes=61)), "nothing_unfinished"),
    ],
)
def test_a_bar_that_cannot_be_true_fails_the_check_that_names_it(rows, check):
    assert failing(rows) == {check}


def test_the_checks_of_what_cannot_be_true_block_what_is_made_of_the_bars():
    for timeframe in ("1m", "5m", "15m", "1h", "4h", "1d"):
        table = BARS[timeframe]
        blocking = list(blocking_checks(table, [as_declared(table), ROWS[table.name]]).check_specs)
        assert all(spec.blocking and spec.asset_key == key_of(table) for spec in blocking)
        assert {spec.name for spec in blocking} == {*BLOCKING, "stored_as_declared"}
        others = [spec for one in ALL for spec in one.check_specs if spec.asset_key == key_of(table)]
        assert "fresh" in {spec.name for spec in others if not spec.blocking}


def test_native_bars_may_differ_a_little_from_their_rollup_and_not_more():
    fine = bars(count=8)
    rolled = resample(fine, "1h")
    for factor, differing in ((1.0, 0), (1.0005, 0), (1.002, 2)):
        native = rolled.with_columns(pl.col("close") * factor)
        assert differing_bars(native.join(rolled, on=KEY, suffix="_rolled")).height == differing
    more = rolled.with_columns(pl.col("volume") * 1.03)
    assert differing_bars(more.join(rolled, on=KEY, suffix="_rolled")).height == 2


def covered(symbol: str, timeframe: str, present: int, expected: int, **other: int) -> dict[str, object]:
    rest = {"empty": expected - present, "outage": 0, "missing": 0} | other
    return {"venue": "bybit", "symbol": symbol, "timeframe": timeframe, "day": DAY, "expected": expected,
            "present": present, **rest}  # fmt: skip


def test_a_thin_coin_may_lack_what_a_liquid_one_may_not():
    rows = pl.DataFrame(
        [
            covered("BTC/USDT", "1m", 1435, 1440),
            covered("BTC/USDT", "15m", 94, 96),
            covered("BONK/USDT", "1m", 900, 1440),
            covered("BONK/USDT", "15m", 94, 96),
            covered("MOG/USDT", "1m", 900, 1440),
            covered("MOG/USDT", "15m", 80, 96),
        ]
    )
    classes = liquidity_classes(rows)
    assert dict(classes.select("symbol", "liquidity_class").iter_rows()) == {
        "BTC/USDT": "liquid",
        "BONK/USDT": "thin",
        "MOG/USDT": "thin",
    }
    lacking = incomplete(rows, classes).select("symbol", "timeframe").rows()
    assert sorted(lacking) == [("BTC/USDT", "15m"), ("MOG/USDT", "15m")]


def test_what_an_outage_took_is_not_held_against_a_symbol():
    rows = pl.DataFrame([covered("BTC/USDT", "15m", 80, 96, empty=0, outage=16)])
    assert incomplete(rows, liquidity_classes(rows)).is_empty()
