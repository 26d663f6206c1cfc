"""From a source to the tables: whatever the source does wrong, what is stored is right, and no source is special."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import polars as pl
import pytest
import stamina
from polars.testing import assert_frame_equal

from tracker_pipeline import keys
from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.resources.clients import ExchangeResource
from tracker_pipeline.sandbox.exchange import make_exchange_app
from tracker_pipeline.storage import scan
from tracker_pipeline_tests.assets.market_runs import DAY, NOW, SYMBOLS, failure, record_instruments, run
from tracker_pipeline_tests.conftest import forget_settings
from tracker_pipeline_tests.resources.bucket import Bucket, serving
from tracker_pipeline_tests.serving import served

VALUES = ["symbol", "ts", "open", "high", "low", "close"]
ONE_DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def retries_without_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3):
        yield


class Venue:
    """A local exchange and the resource that asks it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.resource = ExchangeResource(venue="bybit", market_type="spot", url=url)

    def switch(self, *faults: str) -> None:
        httpx.put(f"{self._url}/sandbox/faults", content="\n".join(faults)).raise_for_status()


@contextmanager
def venue(now: datetime | None = NOW) -> Iterator[Venue]:
    clock = (lambda: now) if now else (lambda: datetime.now(UTC))
    app = make_exchange_app(symbols=list(SYMBOLS), seed=7, replay=None, clock=clock)
    with served(app) as url:
        yield Venue(url)


def stored(timeframe: str) -> pl.DataFrame:
    return scan(BARS[timeframe].name).collect().sort("symbol", "ts")


def test_days_fetched_through_faults_are_the_days_fetched_without(own_database):
    record_instruments()
    fetched = [keys.BARS[name] for name in ("15m", "1h", "1d")]
    with venue() as exchange:
        exchange.switch(
            "page_cap:bars=70",
            "repeat_page:every=5",
            "duplicate_rows:every=7",
            "server_error:every=6",
            "reverse",
        )
        assert run(exchange.resource, fetched, (DAY, DAY + 2 * ONE_DAY)).success
        exchange.switch()
        for timeframe, count in (("15m", 96), ("1h", 24), ("1d", 1)):
            symbols = [f"{base}/USDT" for base in SYMBOLS]
            window = (DAY, DAY + 3 * ONE_DAY)
            true = exchange.resource.client().bars_many(symbols, timeframe, *window).values()
            frame = pl.concat(answer.frame for answer in true).sort("symbol", "ts")
            assert frame.height == len(SYMBOLS) * 3 * count
            found = stored(timeframe)
            assert_frame_equal(found.select(VALUES), frame.select(VALUES), check_exact=True)
            # Longer bars are made of shorter ones, and sums of floats differ in their last bits.
            assert (found["volume"] / frame["volume"] - 1).abs().max() < 1e-12


def test_a_correction_becomes_a_revision_and_everything_else_stays(own_database):
    record_instruments()
    today = NOW.replace(hour=0, minute=0, second=0)
    with venue() as exchange:
        exchange.switch("correction:minutes=90,symbols=ETHUSDT")
        assert run(exchange.resource, [keys.BARS["15m"]], (today, today)).success
        before = stored("15m")
        exchange.switch()
        assert run(exchange.resource, [keys.BARS["15m"]], (today, today)).success
    after = stored("15m")
    changed = after.filter(pl.col("revision") == 2)
    assert changed["symbol"].unique().to_list() == ["ETH/USDT"]
    assert changed.height == 5  # 10:45 to 11:45; 10:30 opened more than 90 minutes ago
    same = pl.col("revision") == 1
    unchanged = after.filter(same)
    assert unchanged.equals(
        before.join(unchanged, on=["venue", "symbol", "ts"], how="semi").sort("symbol", "ts")
    )
    old = scan("market.bar_revisions").collect()
    assert old.height == 5
    assert (old["volume"].sort() < changed["volume"].sort()).all()


def test_a_delisted_symbol_stays_stored_and_fails_no_run_of_the_days_it_was_listed_in(own_database):
    with venue(now=None) as exchange:
        yesterday = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - ONE_DAY
        days = (yesterday, yesterday)
        assert run(exchange.resource, [keys.INSTRUMENTS], None).success
        assert run(exchange.resource, [keys.BARS["15m"]], days).success
        before = stored("15m")
        exchange.switch(f"delisting:symbols=ETHUSDT,at={(yesterday + ONE_DAY).isoformat()}")
        exchange.resource = ExchangeResource(**exchange.resource.model_dump())  # a run of its own
        assert run(exchange.resource, [keys.INSTRUMENTS], None).success
        again = run(exchange.resource, [keys.BARS["15m"]], days)
        assert again.success, failure(again)
    assert stored("15m").equals(before)
    row = scan("market.instruments").filter(symbol="ETH/USDT").collect().row(0, named=True)
    assert row["listed_to"] == yesterday + ONE_DAY


def test_dumps_of_a_bucket_fill_the_tables_like_an_exchange(own_database, shared_data, tmp_path, monkeypatch):
    bucket = Bucket()
    for path in (shared_data / "ohlcv_raw_binance_vision_spot_1h").glob("*.csv.gz"):
        name = path.name.removesuffix(".csv.gz")
        key = f"data/spot/monthly/klines/BTCUSDT/1h/{name}.zip"
        bucket.put(key, gzip.decompress(path.read_bytes()).decode())
    with serving(bucket) as url:
        config = tmp_path / "own.yaml"
        config.write_text(
            f"market: {{venue: binance, native_timeframes: [1h], source: {{kind: dumps, location: '{url}'}}}}\n"
        )
        monkeypatch.setenv("TRACKER_CONFIG", str(config))
        forget_settings()
        resource = ExchangeResource.configured()
        assert run(resource, [keys.INSTRUMENTS], None).success
        days = (datetime(2024, 12, 30, tzinfo=UTC), datetime(2025, 1, 2, tzinfo=UTC))
        result = run(resource, [keys.BARS["1h"]], days)
        assert result.success, failure(result)
    bars = stored("1h")
    assert bars.height == 96
    assert bars["ts"].diff().drop_nulls().unique().to_list() == [timedelta(hours=1)]
    assert bars["source"].unique().to_list() == ["dump"]
    assert scan("market.instruments").collect().select("symbol", "coin").rows() == [("BTC/USDT", "BTC")]
