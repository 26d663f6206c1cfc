"""Dump files as a source, from folders and from a bucket over HTTP."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import stamina

from tracker_pipeline.resources.bar_files import read_bar_file
from tracker_pipeline.resources.bar_source import Outcome
from tracker_pipeline.resources.dump_archives import BucketArchive, FolderArchive
from tracker_pipeline.resources.dumps import DumpSource
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline_tests.resources.bucket import Bucket, serving

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
ROOT = "data/spot/{period}/klines/BTCUSDT/1h/BTCUSDT-1h-{name}.zip"


@pytest.fixture(autouse=True)
def retries_without_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3):
        yield


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def csv(start: datetime, end: datetime, *, unit: int = 1000, header: bool = False) -> str:
    """Hourly bars in the publisher's columns, times in 1/unit seconds."""
    rows = ["open_time,open,high,low,close,volume,close_time,quote_volume,count,"
            "taker_buy_volume,taker_buy_quote_volume,ignore"] if header else []  # fmt: skip
    for n in range((end - start) // HOUR):
        opened = start + n * HOUR
        ms = int(opened.timestamp() * unit)
        price = 100 + opened.timestamp() % 86_400 / 3600
        rows.append(
            f"{ms},{price},{price + 1},{price - 1},{price},2,{ms + 3600 * unit - 1},{2 * price},5,1,{price},0"
        )
    return "\n".join(rows) + "\n"


def fill(bucket: Bucket, months: tuple[str, ...], days: tuple[str, ...], unit: int = 1000) -> None:
    for name in months:
        start = day(f"{name}-01")
        bucket.put(
            ROOT.format(period="monthly", name=name),
            csv(start, (start + 32 * DAY).replace(day=1), unit=unit),
        )
    for name in days:
        bucket.put(
            ROOT.format(period="daily", name=name), csv(day(name), day(name) + DAY, unit=unit, header=True)
        )


@contextmanager
def source(bucket: Bucket) -> Iterator[DumpSource]:
    with serving(bucket) as url:
        yield DumpSource("binance", "spot", BucketArchive(url, "spot"))


def data_files(bucket: Bucket) -> list[str]:
    return [key.rsplit("-1h-", 1)[1] for key in bucket.asked if key.endswith(".zip")]


def test_a_window_is_read_from_months_and_days_that_list_over_several_pages():
    bucket = Bucket(page=2)
    fill(bucket, ("2024-11", "2024-12"), ("2025-01-01", "2025-01-02", "2025-01-03"), unit=1000)
    with source(bucket) as dumps:
        fetched = dumps.bars_many(["BTC/USDT"], "1h", day("2024-11-10") + 5 * HOUR, day("2025-01-03"))[
            "BTC/USDT"
        ]
    assert fetched.outcome is Outcome.OK
    assert fetched.frame["ts"].min() == day("2024-11-10") + 5 * HOUR
    assert fetched.frame["ts"].diff().drop_nulls().unique().to_list() == [HOUR]
    assert fetched.frame["ts"].max() == day("2025-01-02") + 23 * HOUR
    assert fetched.frame["vwap"].to_list() == fetched.frame["close"].to_list()
    assert fetched.frame["source"].unique().to_list() == ["dump"]
    assert data_files(bucket) == ["2024-11.zip", "2024-12.zip", "2025-01-01.zip", "2025-01-02.zip"]
    assert (fetched.covered_from, fetched.covered_to) == (day("2024-11-10") + 5 * HOUR, day("2025-01-03"))


def test_one_day_is_read_from_its_own_file_and_from_the_month_where_there_is_none():
    bucket = Bucket()
    fill(bucket, ("2024-11",), ("2024-11-05",))
    with source(bucket) as dumps:
        for name in ("2024-11-05", "2024-11-06"):
            fetched = dumps.bars_many(["BTC/USDT"], "1h", day(name), day(name) + DAY)["BTC/USDT"]
            assert fetched.frame.height == 24
    assert data_files(bucket) == ["2024-11-05.zip", "2024-11.zip"]


def test_milliseconds_and_microseconds_give_the_same_times():
    frames = []
    for unit in (1_000, 1_000_000):
        bucket = Bucket()
        fill(bucket, ("2024-12",), ("2025-01-01",), unit=unit)
        with source(bucket) as dumps:
            frames.append(
                dumps.bars_many(["BTC/USDT"], "1h", day("2024-12-15"), day("2025-01-02"))["BTC/USDT"].frame
            )
    assert frames[0].height == 18 * 24
    assert frames[0].drop("fetched_at").equals(frames[1].drop("fetched_at"))


def test_real_dumps_around_the_change_of_unit_join_without_a_hole(shared_data, tmp_path):
    folder = shared_data / "ohlcv_raw_binance_vision_spot_1h"
    bucket = Bucket()
    for path in folder.glob("*.csv.gz"):
        name = path.name.removeprefix("BTCUSDT-1h-").removesuffix(".csv.gz")
        bucket.put(ROOT.format(period="monthly", name=name), gzip.decompress(path.read_bytes()).decode())
    window = (day("2024-11-01"), day("2025-06-01"))
    with source(bucket) as dumps:
        served = dumps.bars_many(["BTC/USDT"], "1h", *window)["BTC/USDT"]
    local = DumpSource("binance", "spot", FolderArchive(folder, "spot")).bars_many(
        ["BTC/USDT"], "1h", *window
    )
    assert served.frame.height == 212 * 24
    assert served.frame["ts"].diff().drop_nulls().unique().to_list() == [HOUR]
    assert local["BTC/USDT"].frame.drop("fetched_at").equals(served.frame.drop("fetched_at"))
    (part,) = read_bar_file(folder / "BTCUSDT-1h-2025-02.csv.gz")
    february = served.frame.filter(served.frame["ts"].is_in(part.frame["ts"].implode()))
    assert february["close"].to_list() == part.frame["close"].to_list()


def test_a_day_that_was_never_published_is_confirmed_and_one_that_may_still_come_is_not():
    bucket = Bucket()
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    names = tuple(f"{today - n * DAY:%Y-%m-%d}" for n in (10, 9, 7, 6, 5, 4, 2))
    fill(bucket, (), names)
    with source(bucket) as dumps:
        ask = lambda start, end: dumps.bars_many(["BTC/USDT"], "1h", start, end)["BTC/USDT"]  # noqa: E731
        whole = ask(today - 10 * DAY, today)
        hole = ask(today - 8 * DAY, today - 7 * DAY)
        fresh = ask(today - DAY, today)
        before = ask(today - 90 * DAY, today - 80 * DAY)
    assert whole.outcome is Outcome.OK
    assert (whole.frame.height, whole.covered_to) == (6 * 24, today - 3 * DAY)
    assert (hole.outcome, hole.covered_to) == (Outcome.EMPTY, today - 7 * DAY)
    assert fresh.outcome is Outcome.EMPTY
    assert fresh.covered_from == fresh.covered_to
    assert before.outcome is Outcome.EMPTY
    assert before.covered_to == today - 80 * DAY
    assert "its files are of" in before.message


def test_a_folder_does_not_answer_for_files_that_are_not_in_it(tmp_path):
    for name in ("2024-11-05", "2024-11-06", "2024-11-08"):
        (tmp_path / f"BTCUSDT-1h-{name}.csv").write_text(csv(day(name), day(name) + DAY))
    dumps = DumpSource("binance", "spot", FolderArchive(tmp_path, "spot"))
    fetched = dumps.bars_many(["BTC/USDT"], "1h", day("2024-11-01"), day("2024-11-12"))["BTC/USDT"]
    assert (fetched.covered_from, fetched.covered_to) == (day("2024-11-05"), day("2024-11-07"))
    assert fetched.frame.height == 48
    nothing = dumps.bars_many(["BTC/USDT"], "1h", day("2024-11-07"), day("2024-11-08"))["BTC/USDT"]
    assert nothing.covered_from == nothing.covered_to


def test_a_damaged_file_is_a_failure_and_never_an_empty_answer(tmp_path):
    bucket = Bucket()
    fill(bucket, ("2024-11",), ())
    key = ROOT.format(period="monthly", name="2024-11")
    bucket.files[key] = bucket.files[key][:-40]
    with source(bucket) as dumps:
        fetched = dumps.bars_many(["BTC/USDT"], "1h", day("2024-11-01"), day("2024-11-20"))["BTC/USDT"]
        assert fetched.outcome is Outcome.RETRYABLE
        assert "BTCUSDT-1h-2024-11.zip of the dump archive at 127.0.0.1" in fetched.message
        assert "is not what its checksum says; try again later" in fetched.message
        del bucket.files[f"{key}.CHECKSUM"]
        fetched = dumps.bars_many(["BTC/USDT"], "1h", day("2024-11-01"), day("2024-11-20"))["BTC/USDT"]
        assert fetched.outcome is Outcome.FATAL
        assert "cannot be read" in fetched.message
    path = tmp_path / "BTCUSDT-1h-2024-11.csv"
    path.write_text(csv(day("2024-11-01"), day("2024-12-01")))
    path.with_name(path.name + ".CHECKSUM").write_text("00" * 32 + f"  {path.name}\n")
    local = DumpSource("binance", "spot", FolderArchive(tmp_path, "spot"))
    fetched = local.bars_many(["BTC/USDT"], "1h", day("2024-11-01"), day("2024-11-20"))["BTC/USDT"]
    assert fetched.outcome is Outcome.FATAL
    assert "is not what its checksum file says; fetch it again" in fetched.message


def test_passing_failures_are_retried_and_lasting_ones_said():
    bucket = Bucket()
    fill(bucket, ("2024-11",), ())
    window = (day("2024-11-01"), day("2024-11-20"))
    with source(bucket) as dumps:
        bucket.failures = 2
        assert dumps.bars_many(["BTC/USDT"], "1h", *window)["BTC/USDT"].outcome is Outcome.OK
        unknown = dumps.bars_many(["XYZ/USDT"], "1h", *window)["XYZ/USDT"]
        bucket.failures = 50
        failed = dumps.bars_many(["BTC/USDT"], "1h", *window)["BTC/USDT"]
    assert unknown.outcome is Outcome.FATAL
    assert "has no 1h dump files of XYZUSDT" in unknown.message
    assert failed.outcome is Outcome.RETRYABLE
    assert "HTTP 503" in failed.message


def test_the_symbols_that_there_are_files_of_are_listed_with_names_that_are_not_ascii():
    bucket = Bucket(page=2)
    for native in ("BTCUSDT", "1000SATSUSDT", "币安人生USDT", "ETHUSDC", "WHAT"):
        key = f"data/spot/monthly/klines/{native}/1h/{native}-1h-2024-11.zip"
        bucket.put(key, csv(day("2024-11-01"), day("2024-12-01")))
    with source(bucket) as dumps:
        assert dumps.instruments()["symbol"].to_list() == [
            "1000SATS/USDT",
            "BTC/USDT",
            "ETH/USDC",
            "币安人生/USDT",
        ]
        fetched = dumps.bars_many(["币安人生/USDT"], "1h", day("2024-11-01"), day("2024-11-02"))[
            "币安人生/USDT"
        ]
    assert fetched.frame.height == 24


def test_a_place_that_is_no_archive_is_named(tmp_path):
    with pytest.raises(PermanentError, match="there is no folder"):
        FolderArchive(Path(tmp_path / "nowhere"), "spot")
    from aiohttp import web

    from tracker_pipeline_tests.serving import served

    app = web.Application()

    async def page(request: web.Request) -> web.Response:
        return web.Response(text="<html>hello</html>", content_type="text/html")

    app.router.add_get("/{any:.*}", page)
    with served(app) as url:
        dumps = DumpSource("binance", "spot", BucketArchive(url, "spot"))
        with pytest.raises(PermanentError, match="does not list its files as S3 does"):
            dumps.instruments()
