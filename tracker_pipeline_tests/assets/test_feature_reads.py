"""What the features read of storage is all that they look at."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from tracker_pipeline.assets.features import features_between
from tracker_pipeline.domain.feature_catalogue import OF_BARS
from tracker_pipeline.domain.features import features_15m
from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.domain.market import START, random_bars

DAYS = 34
NAMES = ["venue", "symbol", "ts", "available_at", *OF_BARS, "vol_7d", "vol_30d"]


@pytest.fixture
def stored(own_database: str) -> pl.DataFrame:
    bars = pl.concat(
        [
            random_bars(DAYS * 96, seed=1, symbol="ETH/USDT"),
            random_bars(DAYS * 96, seed=2, symbol="SOL/USDT", holes=0.05),
        ]
    ).with_columns(
        open=pl.col("close"),
        available_at=pl.col("ts") + timedelta(minutes=17),
        revision=pl.lit(1, pl.Int64),
        source=pl.lit("test"),
        run_id=pl.lit("r"),
        fetched_at=pl.lit(datetime(2025, 1, 1, tzinfo=UTC)),
    )
    with connect() as connection:
        write_window(connection, BARS["15m"], bars, (START, START + timedelta(days=DAYS)), run_id="r")
    return bars


@pytest.mark.parametrize(("day", "hour", "hours"), [(32, 0, 24), (33, 0, 1), (33, 13, 1), (33, 23, 1)])
def test_a_span_read_from_storage_equals_the_same_rows_of_all_bars(
    stored: pl.DataFrame, day: int, hour: int, hours: int
) -> None:
    start = START + timedelta(days=day, hours=hour)
    end = start + timedelta(hours=hours)
    of_all = features_15m(stored).filter(pl.col("ts").is_between(start, end, closed="left"))
    assert features_between(start, end).select(NAMES).equals(of_all.select(NAMES))


def test_a_bar_of_the_burn_in_that_was_not_known_yet_is_not_seen(stored: pl.DataFrame) -> None:
    start = START + timedelta(days=33)
    late = start - timedelta(days=4)
    with connect() as connection:
        connection.execute("UPDATE market.ohlc_15m SET available_at = now() WHERE ts = %s", [late])
    then = start + timedelta(hours=1, minutes=20)
    of_all = features_15m(stored.filter(pl.col("ts") != late), as_of=then).filter(pl.col("ts") >= start)
    found = features_between(start, start + timedelta(hours=2), as_of=then)
    assert found.height == of_all.height > 0
    assert found.select(NAMES).equals(of_all.select(NAMES))
