"""Completeness on what exchanges really served: minutes rolled up, an outage, new listings, thin coins."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tracker_pipeline import keys
from tracker_pipeline.assets.bar_review import review, review_all
from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.domain.timeframes import GRACE, TIMEFRAMES
from tracker_pipeline.resources.clients import ExchangeResource
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.assets.market_runs import failure, record_instruments, run

VALUES = ["open", "high", "low", "close", "volume"]
DAY = timedelta(days=1)
FEBRUARY = datetime(2026, 2, 10, tzinfo=UTC)
RUN = {"run_id": "test"}


def store(raw: pl.DataFrame, timeframe: str, source: str = "file:bars.parquet") -> None:
    """Store bars as an import does."""
    opened = pl.col("ts").dt.convert_time_zone("UTC").cast(pl.Datetime("us", "UTC"))
    bars = raw.select(
        pl.lit("binance").alias("venue"),
        "symbol",
        opened,
        *(pl.col(name).cast(pl.Float64) for name in VALUES),
        pl.lit(source).alias("source"),
        pl.lit(1, pl.Int64).alias("revision"),
        pl.lit("import").alias("run_id"),
        pl.lit(datetime.now(UTC)).alias("fetched_at"),
        (opened + TIMEFRAMES[timeframe] + GRACE[timeframe]).alias("available_at"),
    )
    times = bars.get_column("ts")
    with connect() as connection:
        window = (times.min(), times.max() + timedelta(microseconds=1))
        write_window(connection, BARS[timeframe], bars, window, run_id="import")
    record_instruments(tuple(s.split("/")[0] for s in bars.get_column("symbol").unique()), venue="binance")


def minutes(shared_data: Path, native: str, days: int = 2) -> pl.DataFrame:
    raw = pl.read_csv(shared_data / "ohlcv_raw_binance_vision_1m" / f"{native}-1m-2026-02.csv.gz")
    opened = pl.from_epoch("open_time", "ms").dt.replace_time_zone("UTC").alias("ts")
    named = raw.select(opened, *VALUES, pl.lit(native.replace("USDT", "/USDT")).alias("symbol"))
    return named.filter(pl.col("ts").is_between(FEBRUARY, FEBRUARY + days * DAY, closed="left"))


def sums(rows: pl.DataFrame) -> tuple[int, ...]:
    return rows.select(pl.col("expected", "present", "empty", "outage", "missing").sum()).row(0)


def test_minutes_of_dumps_become_every_longer_bar_as_the_exchange_has_it(own_database, shared_data):
    natives = ("DOTUSDT", "LTCUSDT", "NEARUSDT")
    for native in natives:
        store(minutes(shared_data, native), "1m", f"file:{native}-1m-2026-02.csv.gz")
    away = ExchangeResource(venue="bybit", market_type="spot", url="http://127.0.0.1:9")
    longer = [keys.BARS[name] for name in ("5m", "15m", "1h", "4h", "1d")]
    result = run(away, [*longer, keys.BAR_COVERAGE], (FEBRUARY, FEBRUARY + DAY))
    assert result.success, failure(result)
    truth = pl.read_parquet(shared_data / "ohlcv_truth" / "binance_um_rollup_truth_2026-02.parquet")
    for timeframe, count in {"5m": 576, "15m": 192, "1h": 48, "4h": 12, "1d": 2}.items():
        bars = scan(BARS[timeframe].name).collect()
        assert bars.height == 3 * count
        assert bars.get_column("n_src").unique().to_list() == [TIMEFRAMES[timeframe] // timedelta(minutes=1)]
        wanted = truth.filter(pl.col("tf") == timeframe).with_columns(
            pl.col("symbol").str.replace("USDT", "/USDT"), pl.col("open_time").cast(pl.Datetime("us", "UTC"))
        )
        if timeframe in ("1h", "4h"):
            pairs = bars.join(
                wanted, left_on=["symbol", "ts"], right_on=["symbol", "open_time"], suffix="_theirs"
            )
            assert pairs.height == bars.height
            assert pairs.select(VALUES).equals(pairs.select(pl.col(f"{v}_theirs").alias(v) for v in VALUES))
    covered = scan("market.bar_coverage").collect()
    assert covered.get_column("timeframe").n_unique() == 6
    assert covered.filter(pl.col("present") != pl.col("expected")).is_empty()


def test_the_outage_of_2023_03_24_is_one_outage_and_no_gap_of_ours(own_database, shared_data):
    raw = pl.read_parquet(shared_data / "ohlcv" / "binance_spot_5m_outage_2023-03-24.parquet")
    store(raw.rename({"open_time": "ts"}).with_columns(pl.col("symbol").str.replace("USDT", "/USDT")), "5m")
    day = datetime(2023, 3, 24, tzinfo=UTC)
    rows = review_all(day - DAY, day + 2 * DAY, **RUN)
    (outage,) = scan("market.outages").collect().to_dicts()
    down = (day + timedelta(hours=12, minutes=40), day + timedelta(hours=14))
    assert (outage["outage_start"], outage["outage_end"]) == down
    assert (outage["symbols_absent"], outage["symbols_expected"], outage["timeframe"]) == (10, 10, "5m")
    assert sums(rows) == (10 * 3 * 288, 10 * (3 * 288 - 16), 0, 160, 0)
    gaps = scan("market.bar_gaps").collect()
    assert gaps.get_column("state").unique().to_list() == ["outage"]
    assert gaps.select("gap_start", "gap_end").unique().rows() == [down]
    assert gaps.get_column("next_attempt_at").null_count() == 10, (
        "nobody can be asked for what came from a file"
    )
    for one in range(3):
        review("5m", day + (one - 1) * DAY, day + one * DAY, **RUN)
    assert scan("market.outages").collect().height == 1
    assert scan("market.bar_gaps").collect().equals(gaps)


def test_a_new_listing_has_no_gap_before_its_first_bar(own_database, shared_data):
    raw = pl.read_parquet(shared_data / "ohlcv" / "binance_um_1h_new_listings.parquet")
    named = raw.rename({"open_time": "ts"}).with_columns(pl.col("symbol").str.replace("USDT$", "/USDT"))
    start = datetime(2025, 9, 1, tzinfo=UTC)
    store(named.filter(pl.col("ts") >= start - DAY), "1h")
    rows = review("1h", start, datetime(2025, 10, 25, tzinfo=UTC), **RUN)
    assert rows.get_column("symbol").n_unique() == 26
    assert rows.filter(pl.col("present") != pl.col("expected")).is_empty()
    newest = rows.filter(pl.col("symbol") == "币安人生/USDT").sort("day")
    assert newest.get_column("expected").to_list() == [13, 24, 24, 8]
    assert scan("market.bar_gaps").collect().is_empty()


@pytest.mark.parametrize(
    ("source", "state", "hour_bars"),
    [("file:DOTUSDT-1m-2026-02.csv.gz", "empty", 24), ("file:export.parquet", "missing", 23)],
)
def test_a_minute_that_a_dump_lacks_had_no_trade_and_one_that_a_mere_file_lacks_is_missing(
    own_database, shared_data, source, state, hour_bars
):
    gone = [FEBRUARY + timedelta(hours=5, minutes=m) for m in (7, 8, 30)]
    store(minutes(shared_data, "DOTUSDT", days=1).filter(~pl.col("ts").is_in(gone)), "1m", source)
    rows = review_all(FEBRUARY, FEBRUARY + DAY, **RUN)
    assert rows.select("expected", "present", state).row(0) == (1440, 1437, 3)
    gaps = scan("market.bar_gaps").filter(pl.col("timeframe") == "1m").collect()
    assert gaps.get_column("bars").to_list() == [2, 1]
    assert gaps.get_column("confirmed_by").to_list() == [source if state == "empty" else None] * 2
    away = ExchangeResource(venue="bybit", market_type="spot", url="http://127.0.0.1:9")
    assert run(away, [keys.BARS["1h"]], (FEBRUARY, FEBRUARY)).success
    hours = scan(BARS["1h"].name).collect()
    assert hours.height == hour_bars
    assert set(hours.get_column("n_src")) == ({57, 60} if state == "empty" else {60})


def test_minutes_of_a_thin_coin_are_absent_in_hundreds_of_runs(own_database, shared_data):
    raw = pl.read_ipc(shared_data / "ohlcv_freqtrade" / "UNITTEST_BTC-1m.feather").rename({"date": "ts"})
    store(raw.with_columns(symbol=pl.lit("UNITTEST/BTC")), "1m", "file:UNITTEST_BTC-1m.feather")
    first = datetime(2017, 11, 4, tzinfo=UTC)
    rows = review("1m", first, first + 11 * DAY, **RUN)
    assert sums(rows) == (13681 + 717, 13681, 0, 0, 717)
    assert scan("market.bar_gaps").collect().height == 538
    assert scan("market.outages").collect().is_empty()
