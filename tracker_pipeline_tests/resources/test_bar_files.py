import gzip
import zipfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tracker_pipeline.domain.bars import resample
from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.resources.bar_files import BarFileOptions, FileBars, read_bar_file
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.resources.symbols import facts_of_name, unified_symbol

START = datetime(2024, 3, 1, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
BYBIT_SPOT = BarFileOptions(venue="bybit", market_type="spot")


def rows(count: int, **columns: Any) -> pl.DataFrame:
    """Quarter-hour bars of BTCUSDT from START on; columns can be given."""
    values = {
        "symbol": "BTCUSDT",
        "ts": [START + QUARTER * i for i in range(count)],
        "open": 10.0,
        "high": 12.0,
        "low": 9.0,
        "close": 11.0,
        "volume": [float(i + 1) for i in range(count)],
    } | columns
    return pl.DataFrame({k: v if isinstance(v, list) else [v] * count for k, v in values.items()})


def only(path: Path, options: BarFileOptions | None = None) -> FileBars:
    parts = list(read_bar_file(path, options))
    assert len(parts) == 1
    return parts[0]


def whole(path: Path, options: BarFileOptions | None = None) -> dict[str, FileBars]:
    """The parts of a file put together, by timeframe."""
    found: dict[str, FileBars] = {}
    for part in read_bar_file(path, options):
        before = found.get(part.timeframe)
        found[part.timeframe] = (
            part
            if before is None
            else replace(
                part,
                frame=pl.concat([before.frame, part.frame]),
                left_out=pl.concat([before.left_out, part.left_out]),
            )
        )
    return found


def dump(path: Path, opens: list[int], header: bool = False) -> Path:
    """A file as Binance publishes them."""
    lines = [f"{t},1.0,2.0,0.5,1.5,10.0,{t + 59_999},15.0,7,1,1,0" for t in opens]
    names = "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,x,ignore"
    text = "\n".join([names, *lines] if header else lines) + "\n"
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(path.stem + ".csv", text)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


# What may be loaded


def test_a_frame_has_the_columns_of_the_bar_table_but_those_that_storage_adds(tmp_path: Path) -> None:
    rows(3).write_parquet(tmp_path / "bars.parquet")
    found = only(tmp_path / "bars.parquet", BYBIT_SPOT)
    declared = BARS["15m"].polars_schema
    assert found.frame.schema == pl.Schema(
        {k: v for k, v in declared.items() if k not in ("revision", "run_id")}
    )
    assert found.frame["symbol"].to_list() == ["BTC/USDT"] * 2
    assert found.frame["available_at"].to_list()[0] == START + QUARTER + timedelta(minutes=2)
    assert found.frame["source"].to_list()[0] == "file:bars.parquet"


def test_the_last_bar_of_each_symbol_is_left_out_and_reported(tmp_path: Path) -> None:
    both = pl.concat([rows(3), rows(5, symbol="ETHUSDT")])
    both.write_parquet(tmp_path / "bars.parquet")
    found = only(tmp_path / "bars.parquet", BYBIT_SPOT)
    assert not found.complete
    assert found.frame.height == 6
    assert found.left_out.select("symbol", "ts").rows() == [
        ("BTC/USDT", START + QUARTER * 2),
        ("ETH/USDT", START + QUARTER * 4),
    ]
    assert "may not have been closed" in found.left_out["reason"][0]


def test_a_time_of_fetching_proves_bars_closed_or_not(tmp_path: Path) -> None:
    rows(4).write_parquet(tmp_path / "bars.parquet")

    def loaded(fetched_at: datetime) -> int:
        options = BarFileOptions(venue="bybit", market_type="spot", fetched_at=fetched_at)
        return only(tmp_path / "bars.parquet", options).frame.height

    assert loaded(START + QUARTER * 4 + timedelta(minutes=2)) == 4
    assert loaded(START + QUARTER * 4 + timedelta(seconds=119)) == 3
    assert loaded(START + QUARTER * 2) == 1
    with pytest.raises(PermanentError, match="time zone"):
        loaded(datetime(2024, 3, 2))  # noqa: DTZ001


def test_identical_repeats_count_once_and_contradictions_are_left_out(tmp_path: Path) -> None:
    bars = rows(6)
    contradiction = bars[3].with_columns(close=pl.lit(10.5))
    pl.concat([bars, bars[1:2], contradiction]).write_parquet(tmp_path / "bars.parquet")
    found = only(tmp_path / "bars.parquet", BYBIT_SPOT)
    assert found.frame["ts"].to_list() == [START + QUARTER * i for i in (0, 1, 2, 4)]
    disputed = found.left_out.filter(pl.col("reason").str.contains("different values"))
    assert sorted(disputed["close"]) == [10.5, 11.0]


def test_insane_bars_are_left_out_with_their_reason(tmp_path: Path) -> None:
    opens = [START, START + timedelta(hours=12, minutes=7), START + QUARTER * 100]
    rows(3, ts=opens, low=[0.0, 9.0, 9.0]).write_parquet(tmp_path / "bars.parquet")
    options = BarFileOptions(venue="bybit", market_type="spot", timeframe="15m")
    found = only(tmp_path / "bars.parquet", options)
    assert found.frame.is_empty()
    reasons = found.left_out["reason"].to_list()
    assert "not positive" in reasons[0]
    assert "15m grid" in reasons[1]


# Formats


@pytest.mark.parametrize(
    "name", ["BTCUSDT-1m-2024-03.csv", "BTCUSDT-1m-2024-03.csv.gz", "BTCUSDT-1m-2024-03.zip"]
)
def test_a_dump_is_complete_whatever_its_wrapping(tmp_path: Path, name: str) -> None:
    ms = int(START.timestamp() * 1000)
    found = only(dump(tmp_path / name, [ms, ms + 60_000]))
    assert found.complete
    assert found.timeframe == "1m"
    assert found.frame.select("venue", "symbol", "ts", "vwap", "trades").row(0) == (
        "binance",
        "BTC/USDT",
        START,
        1.5,
        7,
    )
    assert found.frame.height == 2


def test_a_dump_with_a_header_row_is_of_futures(tmp_path: Path) -> None:
    ms = int(START.timestamp() * 1000)
    found = only(dump(tmp_path / "1000PEPEUSDT-1m-2024-03-01.csv", [ms], header=True))
    assert found.frame["symbol"].to_list() == ["1000PEPE/USDT:USDT"]


def test_the_unit_of_time_is_told_row_by_row(tmp_path: Path) -> None:
    ms = int(START.timestamp() * 1000)
    mixed = [ms, (ms + 60_000) * 1000]
    found = only(dump(tmp_path / "BTCUSDT-1m-2024-03.csv", mixed))
    assert found.frame["ts"].to_list() == [START, START + timedelta(minutes=1)]


@pytest.mark.parametrize(
    "form",
    [
        "%Y-%m-%d %H:%M:%S",
        "%Y-%m-%dT%H:%M:%SZ",
        "%Y-%m-%d %H:%M:%S+00:00",
        "%Y-%m-%dT%H:%M:%S.000000",
        "%s",
        "%s000",
    ],
)
def test_times_as_text_are_read_and_are_utc_without_a_zone(tmp_path: Path, form: str) -> None:
    def text(moment: datetime) -> str:
        return moment.strftime(form.replace("%s", str(int(moment.timestamp()))))

    texts = [text(START + QUARTER * i) for i in range(3)]
    rows(3, ts=texts).rename({"ts": "date"}).write_csv(tmp_path / "bars.csv")
    assert only(tmp_path / "bars.csv", BYBIT_SPOT).frame["ts"].to_list() == [START, START + QUARTER]


def test_a_time_with_another_zone_is_converted(tmp_path: Path) -> None:
    rows(2, ts=["2024-03-01T02:00:00+02:00", "2024-03-01T02:15:00+02:00"]).write_csv(tmp_path / "bars.csv")
    assert only(tmp_path / "bars.csv", BYBIT_SPOT).frame["ts"].to_list() == [START]


def test_decimal_text_becomes_the_nearest_float_and_rubbish_is_left_out(tmp_path: Path) -> None:
    text = ["0.00001234", "rubbish", "0.1"]
    rows(3, open="0.00001", high="0.2", low="0.00001", close=text).write_csv(tmp_path / "bars.csv")
    found = only(tmp_path / "bars.csv", BYBIT_SPOT)
    assert found.frame["close"].to_list() == [0.00001234]
    assert "unknown" in found.left_out["reason"][0]


def test_feather_files_and_naive_datetimes_are_read(tmp_path: Path) -> None:
    naive = rows(3).with_columns(pl.col("ts").dt.replace_time_zone(None))
    naive.drop("symbol").rename({"ts": "date"}).write_ipc(tmp_path / "ADA_BTC-15m.feather")
    found = only(tmp_path / "ADA_BTC-15m.feather", BarFileOptions(venue="binance"))
    assert found.frame["symbol"].to_list() == ["ADA/BTC"] * 2
    assert found.frame["ts"][0] == START


def test_several_timeframes_come_one_after_another_and_foreign_ones_are_reported(tmp_path: Path) -> None:
    week = rows(2, ts=[datetime(2024, 2, 26, tzinfo=UTC), datetime(2024, 3, 4, tzinfo=UTC)], tf="1w")
    pl.concat([rows(3, tf="15m"), week]).write_parquet(tmp_path / "bars.parquet")
    found = {part.timeframe: part for part in read_bar_file(tmp_path / "bars.parquet", BYBIT_SPOT)}
    assert found["15m"].frame.height == 2
    assert found["1w"].frame.is_empty()
    assert found["1w"].left_out.height == 2
    assert "not one of the timeframes" in found["1w"].left_out["reason"][0]


def test_the_smallest_spacing_tells_the_timeframe_where_nothing_else_does(tmp_path: Path) -> None:
    hours = [START + timedelta(hours=i) for i in (0, 1, 5)]
    rows(3, ts=hours).write_parquet(tmp_path / "bars.parquet")
    assert only(tmp_path / "bars.parquet", BYBIT_SPOT).timeframe == "1h"
    half_hours = [START + timedelta(minutes=30 * i) for i in range(3)]
    rows(3, ts=half_hours).write_parquet(tmp_path / "bars.parquet")
    assert only(tmp_path / "bars.parquet", BYBIT_SPOT).timeframe == "30m"


def test_a_large_file_comes_in_parts_of_whole_symbols(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker_pipeline.resources.bar_files._BATCH_ROWS", 5)
    names = ["AUSDT", "BUSDT", "CUSDT", "DUSDT"]
    pl.concat([rows(3, symbol=name) for name in names]).write_parquet(tmp_path / "bars.parquet")
    parts = list(read_bar_file(tmp_path / "bars.parquet", BYBIT_SPOT))
    assert len(parts) == 2
    assert [row for part in parts for row in part.frame["symbol"].unique().sort()] == [
        f"{name[0]}/USDT" for name in names
    ]


# Refusals


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.csv", b"ts,symbol,open,high,low,close\n1,A,1,1,1,1\n", "no column volume"),
        ("a.csv", b"1709251200000,1,1,1,1,1\n", "no header row"),
        ("a.parquet", b"PAR1 this is none", "cannot be read"),
        ("a.csv.gz", b"no gzip", "cannot be read"),
        ("a.zip", b"no zip", "cannot be read"),
        ("a.json", b"[]", "is not CSV"),
        (
            "a.csv",
            b"ts,symbol,open,high,low,close,volume\n01/02/2024,BTCUSDT,1,1,1,1,1\n",
            "times that are none",
        ),
    ],
    ids=["column", "header", "parquet", "gzip", "zip", "json", "time"],
)
def test_a_file_that_cannot_be_read_is_refused_in_words(
    tmp_path: Path, name: str, content: bytes, text: str
) -> None:
    (tmp_path / name).write_bytes(content)
    options = BarFileOptions(venue="bybit", market_type="spot", timeframe="1m")
    with pytest.raises(PermanentError, match=text):
        list(read_bar_file(tmp_path / name, options))


def test_what_a_file_does_not_tell_is_asked_for(tmp_path: Path) -> None:
    rows(3).write_parquet(tmp_path / "bars.parquet")
    with pytest.raises(PermanentError, match="--venue"):
        list(read_bar_file(tmp_path / "bars.parquet"))
    with pytest.raises(PermanentError, match="--market"):
        list(read_bar_file(tmp_path / "bars.parquet", BarFileOptions(venue="bybit")))
    rows(3).drop("symbol").write_parquet(tmp_path / "bars.parquet")
    with pytest.raises(PermanentError, match="--symbol"):
        list(read_bar_file(tmp_path / "bars.parquet", BYBIT_SPOT))
    with pytest.raises(PermanentError, match="not there"):
        list(read_bar_file(tmp_path / "absent.parquet"))


def test_mark_prices_are_not_taken_for_trades(tmp_path: Path) -> None:
    rows(3).write_ipc(tmp_path / "XRP_USDT_USDT-1h-mark.feather")
    with pytest.raises(PermanentError, match="mark prices"):
        list(read_bar_file(tmp_path / "XRP_USDT_USDT-1h-mark.feather", BYBIT_SPOT))


# Names


@pytest.mark.parametrize(
    ("native", "market", "unified"),
    [
        ("BTCUSDT", "spot", "BTC/USDT"),
        ("btcusdt", "linear", "BTC/USDT:USDT"),
        ("1000PEPEUSDT", "linear", "1000PEPE/USDT:USDT"),
        ("币安人生USDT", "linear", "币安人生/USDT:USDT"),
        ("0GUSDT", "linear", "0G/USDT:USDT"),
        ("ETHBTC", "spot", "ETH/BTC"),
        ("BTCFDUSD", "spot", "BTC/FDUSD"),
        ("ADA_BTC", None, "ADA/BTC"),
        ("BTC-USDT", "linear", "BTC/USDT:USDT"),
        ("XRP_USDT_USDT", None, "XRP/USDT:USDT"),
        ("BTC/USDT", None, "BTC/USDT"),
        ("BTC/USDT:USDT", None, "BTC/USDT:USDT"),
        ("BTC/USDT:USDT", "spot", None),
        ("BTCUSDT", None, None),
        ("BTC-PERP", "linear", None),
        ("USDT", "spot", None),
    ],
)
def test_native_symbols_become_unified_ones(native: str, market: Any, unified: str | None) -> None:
    assert unified_symbol(native, market) == unified


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("spot/BTCUSDT-1h-2024-11.csv.gz", ("binance", "spot", "BTCUSDT", "1h", True)),
        (
            "futures/um/monthly/币安人生USDT-1m-2025-10-20.zip",
            ("binance", "linear", "币安人生USDT", "1m", True),
        ),
        ("ADA_BTC-5m.feather", (None, None, "ADA_BTC", "5m", False)),
        ("XRP_USDT_USDT-5m-futures.feather", (None, "linear", "XRP_USDT_USDT", "5m", False)),
        ("binance_um_15m_365d.parquet", ("binance", "linear", None, "15m", False)),
        ("bybit_linear_multi_tf_1000bars.parquet", ("bybit", "linear", None, None, False)),
    ],
)
def test_file_names_tell_what_they_tell(path: str, told: tuple[Any, ...]) -> None:
    facts = facts_of_name(Path(path))
    assert (facts.venue, facts.market_type, facts.symbol, facts.timeframe, facts.is_dump) == told


# Real files


def test_a_real_year_of_quarters_gives_all_bars_but_the_last_of_each_symbol(shared_data: Path) -> None:
    (found,) = whole(shared_data / "ohlcv" / "binance_um_15m_365d.parquet").values()
    assert (found.frame.height, found.left_out.height) == (280_312, 8)
    assert found.timeframe == "15m"
    assert set(found.frame["venue"]) == {"binance"}


def test_real_spot_dumps_in_ms_and_us_join_without_hole(shared_data: Path) -> None:
    folder = shared_data / "ohlcv_raw_binance_vision_spot_1h"
    frames = [only(path).frame for path in sorted(folder.glob("BTCUSDT-1h-*.csv.gz"))]
    joined = pl.concat(frames)
    assert joined["symbol"].unique().to_list() == ["BTC/USDT"]
    assert joined["ts"].diff().drop_nulls().unique().to_list() == [timedelta(hours=1)]


def test_real_minutes_from_dumps_roll_up_to_the_bars_of_another_source(shared_data: Path) -> None:
    truth = shared_data / "ohlcv_truth" / "binance_um_rollup_truth_2026-02.parquet"
    options = BarFileOptions(venue="binance", market_type="linear")
    hours = whole(truth, options)["1h"].frame
    values = ["symbol", "ts", "open", "high", "low", "close", "volume"]
    for base in ("DOT", "LTC", "NEAR"):
        path = shared_data / "ohlcv_raw_binance_vision_1m" / f"{base}USDT-1m-2026-02.csv.gz"
        rolled = resample(whole(path)["1m"].frame, "1h")
        assert rolled[:-1].select(values).equals(hours.filter(symbol=f"{base}/USDT:USDT").select(values))


def test_the_repeated_day_and_the_listing_bar_of_real_bybit_bars_are_sorted_out(shared_data: Path) -> None:
    found = whole(shared_data / "ohlcv" / "bybit_linear_1d_5y.parquet")["1d"]
    assert found.frame.select(pl.struct("symbol", "ts").is_unique().all()).item()
    assert found.frame.height == 85_951 - 42 - 82 - 1
    refused = found.left_out.filter(~pl.col("reason").str.contains("last bar"))
    assert refused.select("symbol", "reason").rows() == [("BCH/USDT:USDT", "a price is not positive")]


def test_real_weekly_bars_are_reported_and_the_rest_of_the_file_is_read(shared_data: Path) -> None:
    parts = whole(shared_data / "ohlcv" / "bybit_linear_multi_tf_1000bars.parquet")
    loaded = {timeframe: part.frame.height for timeframe, part in parts.items()}
    assert loaded == {"5m": 24_976, "1h": 23_430, "1d": 15_670, "30m": 0, "1w": 0}
    assert sum(part.frame.height + part.left_out.height for part in parts.values()) == 91_309
