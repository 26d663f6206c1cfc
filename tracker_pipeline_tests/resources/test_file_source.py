"""Parquet, CSV and Feather files as a source of bars, and the choice of a source by the configuration."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tracker_pipeline.resources.bar_source import INSTRUMENT_COLUMNS, BarSource, Outcome, bar_columns
from tracker_pipeline.resources.clients import ExchangeResource
from tracker_pipeline.resources.dumps import DumpSource
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.resources.exchange import Exchange
from tracker_pipeline.resources.file_source import FileSource
from tracker_pipeline.resources.massive import MassiveSource
from tracker_pipeline.settings import ConfigurationError
from tracker_pipeline_tests.conftest import forget_settings

HOUR = timedelta(hours=1)
START = datetime(2024, 5, 1, tzinfo=UTC)


def bars(symbol: str, start: datetime, hours: int) -> pl.DataFrame:
    opened = [start + n * HOUR for n in range(hours)]
    price = [100.0 + n for n in range(hours)]
    return pl.DataFrame(
        {
            "open_time": opened, "symbol": symbol, "timeframe": "1h", "open": price, "close": price,
            "high": [p + 1 for p in price], "low": [p - 1 for p in price], "volume": 3.0,
        },
        schema_overrides={"open_time": pl.Datetime("us", "UTC")},
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "bars"
    (place / "more").mkdir(parents=True)
    pl.concat([bars("BTCUSDT", START, 49), bars("ETHUSDT", START + 5 * HOUR, 20)]).write_parquet(
        place / "binance_spot_1h.parquet"
    )
    bars("BTCUSDT", START + 40 * HOUR, 30).write_csv(place / "more" / "binance_spot_later.csv")
    bars("SOLUSDT", START, 10).write_ipc(place / "more" / "binance_spot_sol.feather")
    bars("XRPUSDT", START, 10).with_columns(venue=pl.lit("bybit")).write_parquet(place / "other.parquet")
    (place / "notes.txt").write_text("not a bar file")
    return place


def test_files_of_every_format_are_one_source(folder):
    source: BarSource = FileSource("binance", "spot", [folder])
    assert source.instruments().schema == INSTRUMENT_COLUMNS
    assert source.instruments()["symbol"].to_list() == ["BTC/USDT", "ETH/USDT", "SOL/USDT"]
    found = source.bars_many(["BTC/USDT", "SOL/USDT"], "1h", START + 30 * HOUR, START + 60 * HOUR)
    btc = found["BTC/USDT"]
    assert btc.outcome is Outcome.OK
    assert btc.frame.schema == bar_columns("1h")
    assert btc.frame["ts"].to_list() == [START + n * HOUR for n in range(30, 60)]
    assert (btc.covered_from, btc.covered_to) == (START + 30 * HOUR, START + 60 * HOUR)
    assert found["SOL/USDT"].outcome is Outcome.EMPTY
    assert found["SOL/USDT"].covered_from == found["SOL/USDT"].covered_to


def test_the_last_bar_of_a_file_is_not_proven_and_nothing_beyond_it_is_covered(folder):
    source = FileSource("binance", "spot", [folder / "binance_spot_1h.parquet"])
    fetched = source.bars_many(["ETH/USDT"], "1h", START, START + 100 * HOUR)["ETH/USDT"]
    assert fetched.frame.height == 19
    assert (fetched.covered_from, fetched.covered_to) == (START + 5 * HOUR, START + 24 * HOUR)


def test_a_symbol_or_timeframe_that_no_file_holds_fails_alone(folder):
    source = FileSource("binance", "spot", [folder])
    found = source.bars_many(["BTC/USDT", "XRP/USDT"], "1h", START, START + HOUR)
    assert found["BTC/USDT"].outcome is Outcome.OK
    assert found["XRP/USDT"].outcome is Outcome.FATAL
    assert "the files hold no 1h bars of XRP/USDT" in found["XRP/USDT"].message
    assert source.bars_many(["BTC/USDT"], "1m", START, START + HOUR)["BTC/USDT"].outcome is Outcome.FATAL


def test_a_damaged_file_is_a_failure(folder):
    (folder / "broken_binance_spot.parquet").write_bytes(b"PAR1 nothing")
    found = FileSource("binance", "spot", [folder]).bars_many(["BTC/USDT"], "1h", START, START + HOUR)
    assert found["BTC/USDT"].outcome is Outcome.FATAL
    assert "broken_binance_spot.parquet cannot be read" in found["BTC/USDT"].message


def test_paths_without_bar_files_are_named(tmp_path):
    with pytest.raises(PermanentError, match="there is no file or folder"):
        FileSource("binance", "spot", [tmp_path / "nowhere"])
    with pytest.raises(PermanentError, match="there is no bar file"):
        FileSource("binance", "spot", [tmp_path])


def test_real_files_answer_for_what_is_in_them(shared_data):
    source = FileSource("binance", "spot", [shared_data / "ohlcv_raw_binance_vision_spot_1h"])
    window = (datetime(2024, 12, 30, tzinfo=UTC), datetime(2025, 1, 3, tzinfo=UTC))
    fetched = source.bars_many(["BTC/USDT"], "1h", *window)["BTC/USDT"]
    assert fetched.frame.height == 96
    assert fetched.frame["ts"].diff().drop_nulls().unique().to_list() == [HOUR]


@pytest.fixture
def configure(tmp_path, monkeypatch):
    def write(text: str) -> ExchangeResource:
        path = tmp_path / "own.yaml"
        path.write_text(text)
        monkeypatch.setenv("TRACKER_SETTING", "live")
        monkeypatch.setenv("TRACKER_CONFIG", str(path))
        forget_settings()
        return ExchangeResource.configured()

    return write


def test_the_configuration_chooses_the_source(configure, folder, monkeypatch):
    assert isinstance(configure("market: {venue: kraken, quote: USD}").client(), Exchange)
    dumps = configure(f"market: {{venue: binance, source: {{kind: dumps, location: {folder}}}}}")
    assert isinstance(dumps.client(), DumpSource)
    bucket = configure("market: {venue: binance, market_type: linear, source: {kind: dumps}}").client()
    assert (bucket.venue, bucket.market_type) == ("binance", "linear")
    files = configure(f"market: {{venue: binance, source: {{kind: files, paths: [{folder}]}}}}")
    assert isinstance(files.client(), FileSource)
    massive = configure("market: {venue: massive, quote: USD, source: {kind: massive}}")
    monkeypatch.delenv("MASSIVE_API_KEY", raising=False)
    with pytest.raises(
        ConfigurationError, match="the key of Massive is not set: set the variable MASSIVE_API_KEY"
    ):
        massive.client()
    monkeypatch.setenv("MASSIVE_API_KEY", "sk-hidden")
    assert isinstance(massive.client(), MassiveSource)
    assert "sk-hidden" not in repr(massive) + str(vars(massive.client()))


def test_every_source_has_a_capability_record(configure, folder):
    files = FileSource("binance", "spot", [folder]).capability("1h")
    assert (files.page_bars, files.oldest) == (None, START)
    kraken = configure("market: {venue: kraken, quote: USD}").client().capability("1h")
    assert kraken.page_bars == 720
    assert kraken.oldest is not None
    assert datetime.now(UTC) - kraken.oldest < timedelta(days=31)
    assert kraken.requests_per_second == pytest.approx(1.0)
