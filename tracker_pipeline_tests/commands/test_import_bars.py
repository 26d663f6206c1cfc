"""Bar files are loaded once and wholly, or not at all; what is refused is kept with its reason."""

import gzip
import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from tracker_pipeline.commands.import_bars import Imported, import_files
from tracker_pipeline.commands.project import shared_instance
from tracker_pipeline.resources.bar_files import BarFileOptions
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.writing import Written
from tracker_pipeline_tests.frames import bars

VALUES = ("ts", "symbol", "open", "high", "low", "close", "volume")
START = datetime(2024, 5, 1, tzinfo=UTC)


def file_of(folder: Path, name: str = "bybit_spot_15m.parquet", **columns: object) -> Path:
    frame = bars(count=10).select(VALUES).with_columns(**columns)
    frame.write_parquet(folder / name)
    return folder / name


def minutes(path: Path, opens: range, *, header: bool = False) -> Path:
    """A dump as Binance publishes them, times in the unit of `opens`."""
    length = 59_999 if opens.start < 10**14 else 59_999_999
    lines = [f"{t},1.0,2.0,0.5,1.5,10.0,{t + length},15.0,7,1,1,0" for t in opens]
    names = "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,x,ignore"
    path.write_bytes(gzip.compress(("\n".join([names] * header + lines) + "\n").encode()))
    return path


def stored(timeframe: str) -> pl.DataFrame:
    return scan(f"market.ohlc_{timeframe}").collect().sort("symbol", "ts")


def totals(imported: Imported, timeframe: str) -> tuple[int, int, int, int]:
    written = imported.written.get(timeframe, Written())
    return written.inserted, written.unchanged, written.updated, imported.rejected[timeframe]


def test_a_second_import_finds_everything_identical_and_a_corrected_file_revises(own_database, tmp_path):
    path = file_of(tmp_path)
    assert totals(import_files([path]), "15m") == (9, 0, 0, 0)
    assert totals(import_files([path]), "15m") == (0, 9, 0, 0)
    file_of(tmp_path, close=pl.when(pl.col("ts") == START).then(100.5).otherwise("close"))
    assert totals(import_files([path]), "15m") == (0, 8, 1, 0)
    assert stored("15m").row(0, named=True)["revision"] == 2
    assert scan("market.bar_revisions").collect().get_column("close").to_list() == [101.0]
    assert scan("market.bar_invalidations").collect().get_column("kind").to_list() == ["revised"]


def test_refused_bars_are_in_quarantine_once_with_their_values_and_reason(own_database, tmp_path):
    first = pl.col("ts") == START
    path = file_of(tmp_path, high=pl.when(first).then(0.5).otherwise("high"))
    assert totals(import_files([path]), "15m") == (8, 0, 0, 1)
    assert totals(import_files([path]), "15m") == (0, 8, 0, 1)
    (row,) = scan("market.bar_quarantine").collect().iter_rows(named=True)
    assert (row["symbol"], row["timeframe"], row["ts"], row["high"]) == ("BTC/USDT", "15m", START, 0.5)
    assert "do not span" in row["reason"]
    assert row["source"] == "file:bybit_spot_15m.parquet"


def test_both_versions_of_a_bar_that_contradict_each_other_are_in_quarantine_and_none_is_stored(
    own_database, tmp_path
):
    frame = bars(count=10).select(VALUES)
    twice = pl.concat([frame, frame.head(1).with_columns(close=pl.lit(100.5))])
    twice.write_parquet(tmp_path / "bybit_spot_15m.parquet")
    assert totals(import_files([tmp_path / "bybit_spot_15m.parquet"]), "15m") == (8, 0, 0, 2)
    assert sorted(scan("market.bar_quarantine").collect().get_column("close")) == [100.5, 101.0]


@pytest.mark.parametrize("damage", ["text", "cut short", "wrong checksum", "no time"])
def test_one_bad_file_among_many_leaves_nothing_of_any_of_them(own_database, tmp_path, damage):
    good = file_of(tmp_path)
    ms = int(START.timestamp() * 1000)
    bad = minutes(tmp_path / "BTCUSDT-1m-2024-05.csv.gz", range(ms, ms + 3_000 * 60_000, 60_000))
    match damage:
        case "text":
            bad.write_bytes(b"<html>not found</html>")
        case "cut short":
            bad.write_bytes(bad.read_bytes()[:-2_000])
        case "wrong checksum":
            bad.with_name(f"{bad.name}.CHECKSUM").write_text(f"{'0' * 64}  {bad.name}\n")
        case "no time":
            lines = gzip.decompress(bad.read_bytes()).replace(b"\n1714", b"\nnone", 1)
            bad.write_bytes(gzip.compress(lines))
    with pytest.raises(PermanentError, match=r"^BTCUSDT-1m-2024-05\.csv\.gz [^\n]+$"):
        import_files([good, bad])
    assert stored("15m").is_empty()
    assert stored("1m").is_empty()
    assert scan("market.instruments").collect().is_empty()


def test_a_file_that_matches_its_checksum_is_loaded(own_database, tmp_path):
    ms = int(START.timestamp() * 1000)
    path = minutes(tmp_path / "BTCUSDT-1m-2024-05.csv.gz", range(ms, ms + 600_000, 60_000))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.CHECKSUM").write_text(f"{digest}  {path.name}\n")
    assert totals(import_files([path]), "1m") == (10, 0, 0, 0)


def test_dumps_in_ms_and_in_microseconds_with_header_and_without_give_the_same_bars(own_database, tmp_path):
    ms = int(START.timestamp() * 1000)
    options = BarFileOptions(market_type="linear")
    path = tmp_path / "BTCUSDT-1m-2024-05.csv.gz"
    import_files([minutes(path, range(ms, ms + 600_000, 60_000))], options=options)
    first = stored("1m")
    in_microseconds = minutes(path, range(ms * 1000, (ms + 600_000) * 1000, 60_000_000), header=True)
    assert totals(import_files([in_microseconds], options=options), "1m") == (0, 10, 0, 0)
    assert stored("1m").equals(first)
    assert first.get_column("ts").to_list() == [START + timedelta(minutes=i) for i in range(10)]


def test_a_long_series_comes_in_parts_of_days_and_only_its_last_bar_is_left_out(
    own_database, tmp_path, monkeypatch
):
    monkeypatch.setattr("tracker_pipeline.resources.bar_files._BATCH_ROWS", 100)
    both = pl.concat([bars(count=500), bars(count=50, symbol="ETH/USDT")]).select(VALUES)
    both.write_parquet(tmp_path / "bybit_spot_15m.parquet")
    told: list[str] = []
    imported = import_files([tmp_path / "bybit_spot_15m.parquet"], tell=told.append)
    assert totals(imported, "15m") == (548, 0, 0, 0)
    assert imported.left_out.total() == 2
    assert (
        stored("15m")
        .drop("source", "run_id", "fetched_at")
        .equals(
            pl.concat([bars(count=499), bars(count=49, symbol="ETH/USDT")]).drop(
                "source", "run_id", "fetched_at"
            )
        )
    )
    assert told[0] == "checking 1 of 1: bybit_spot_15m.parquet"
    assert "loading 1 of 1: bybit_spot_15m.parquet, 548 of 548 bars" in told
    assert told[-1] == "recording day 6 of 6 in Dagster"


def test_days_are_recorded_in_dagster_once_and_again_where_a_bar_changed(own_database, tmp_path):
    key = dg.AssetKey(["market", "ohlc_15m"])

    def events() -> int:
        with shared_instance() as instance:
            records = instance.fetch_materializations(key, limit=100).records
        return len(records)

    import_files([file_of(tmp_path)])
    import_files([file_of(tmp_path)])
    assert events() == 1
    import_files([file_of(tmp_path, close=pl.col("close") + 0.5)])
    assert events() == 2


# Real files


def test_the_unfinished_last_bars_of_real_fetches_are_not_stored_and_a_later_fetch_brings_the_true_ones(
    own_database, tmp_path, shared_data
):
    """Of a naive fetch every last bar was wrong and none before it: the file is cut to its last days."""
    fetched = pl.read_parquet(shared_data / "ohlcv" / "binance_um_1h_365d.parquet")
    truth = pl.read_csv(shared_data / "ohlcv_truth" / "partial_vs_final_last_candle_1h.csv").with_columns(
        ts=pl.col("open_time").str.to_datetime(time_unit="us", time_zone="UTC")
    )
    mine = fetched.filter(pl.col("symbol").is_in(truth["symbol"].to_list()))
    recent = mine.filter(pl.col("open_time") >= datetime(2025, 10, 21, tzinfo=UTC))
    recent.write_parquet(tmp_path / "binance_um_1h.parquet")
    first = import_files([tmp_path / "binance_um_1h.parquet"])
    assert totals(first, "1h") == (recent.height - 8, 0, 0, 0)
    unified = truth.with_columns(symbol=pl.col("symbol").str.replace("USDT", "/USDT:USDT"))
    assert stored("1h").join(unified, on=["symbol", "ts"], how="semi").is_empty()

    final = truth.select(
        "symbol", "ts", **{name: f"{name}_final" for name in ("open", "high", "low", "close", "volume")}
    )
    final.write_parquet(tmp_path / "binance_um_1h_later.parquet")
    later = BarFileOptions(fetched_at=datetime(2025, 10, 24, tzinfo=UTC), timeframe="1h")
    assert totals(import_files([tmp_path / "binance_um_1h_later.parquet"], options=later), "1h") == (
        8,
        0,
        0,
        0,
    )
    healed = stored("1h").join(unified, on=["symbol", "ts"], how="inner")
    assert healed.height == 8
    for name in ("open", "high", "low", "close", "volume"):
        assert healed[name].to_list() == healed[f"{name}_final"].to_list()
    assert scan("market.bar_revisions").collect().is_empty()


def test_the_day_that_real_pages_repeated_is_stored_once_and_the_odd_listing_bar_is_in_quarantine(
    own_database, tmp_path, shared_data
):
    repeated = datetime(2023, 2, 18, tzinfo=UTC)
    listing = datetime(2020, 12, 14, tzinfo=UTC)
    file = pl.read_parquet(shared_data / "ohlcv" / "bybit_linear_1d_5y.parquet")
    near = [moment + timedelta(days=n) for moment in (repeated, listing) for n in (-1, 0, 1)]
    days = file.filter(pl.col("open_time").is_in(near))
    assert days.filter(open_time=repeated).height == 2 * days.filter(open_time=repeated)["symbol"].n_unique()
    days.write_parquet(tmp_path / "bybit_linear_1d.parquet")
    import_files([tmp_path / "bybit_linear_1d.parquet"])
    with connect() as connection:
        (count,) = connection.execute(
            "SELECT count(*) FROM market.ohlc_1d WHERE ts = %s", [repeated]
        ).fetchone()
    assert count == days.filter(open_time=repeated)["symbol"].n_unique()
    quarantined = scan("market.bar_quarantine").collect().select("symbol", "reason").rows()
    assert quarantined == [("BCH/USDT:USDT", "a price is not positive")]


def test_real_dumps_in_ms_and_in_microseconds_join_without_a_hole(own_database, shared_data):
    folder = shared_data / "ohlcv_raw_binance_vision_spot_1h"
    files = [folder / f"BTCUSDT-1h-{month}.csv.gz" for month in ("2024-12", "2025-01")]
    assert totals(import_files(files), "1h") == (1_488, 0, 0, 0)
    assert stored("1h")["ts"].diff().drop_nulls().unique().to_list() == [timedelta(hours=1)]
