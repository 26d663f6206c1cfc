"""Whatever the exchange does wrong, the bars are right and complete, or the request fails in one sentence.

Through ccxt over sockets, against the local exchange with its faults.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import polars as pl
import pytest
import stamina

from tracker_pipeline.resources.bar_source import Fetched, Outcome
from tracker_pipeline.resources.exchange import Exchange
from tracker_pipeline.sandbox.exchange import make_exchange_app
from tracker_pipeline_tests.serving import served

NOW = datetime(2024, 3, 10, 12, 7, 30, tzinfo=UTC)
DAY = timedelta(days=1)
QUARTER = timedelta(minutes=15)
VALUES = ("ts", "open", "high", "low", "close", "volume")


@pytest.fixture(autouse=True)
def retries_without_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3):
        yield


class Venue:
    """A running exchange, its client, and its clock."""

    def __init__(self, url: str, now: list[datetime]) -> None:
        self.url = url
        self.now = now
        self.client = Exchange("bybit", "spot", url=url, timeout=timedelta(milliseconds=500))

    def switch(self, *faults: str) -> None:
        httpx.put(f"{self.url}/sandbox/faults", content="\n".join(faults)).raise_for_status()

    def bars(
        self, days: float = 15, symbol: str = "BTC/USDT", timeframe: str = "15m", end: datetime | None = None
    ) -> Fetched:
        stop = end or self.now[0]
        return self.client.bars(symbol, timeframe, stop - days * DAY, stop)


@contextmanager
def venue(symbols: tuple[str, ...] = ("BTC", "ETH", "PEPE"), market_type: str = "spot") -> Iterator[Venue]:
    now = [NOW]
    app = make_exchange_app(symbols=symbols, seed=7, replay=None, clock=lambda: now[0])
    with served(app) as url:
        found = Venue(url, now)
        if market_type != "spot":
            found.client = Exchange("bybit", "linear", url=url)
        yield found


def values(fetched: Fetched) -> list[tuple]:
    return fetched.frame.select(VALUES).rows()


@pytest.mark.parametrize(
    "faults",
    [
        ["short_page:bars=40,keep=newest"],
        ["short_page:bars=40,keep=oldest"],
        ["short_page:every=3,bars=100,keep=oldest"],
        ["page_cap:bars=50"],
        ["page_cap:bars=2,every=1"],
        ["repeat_page:every=2"],
        ["repeat_page:times=2"],
        ["repeat_page:every=2", "page_cap:bars=100"],
        ["reverse"],
        ["reverse", "short_page:bars=200,keep=oldest"],
        ["duplicate_rows"],
        ["duplicate_rows", "page_cap:bars=100"],
        ["empty_page:times=1"],
        ["empty_page:every=2", "page_cap:bars=200"],
        ["throttle:times=2"],
        ["throttle:retry_after=0,times=2"],
        ["throttle:every=2"],
        ["api_error:code=10006,times=2"],
        ["server_error:times=2"],
        ["server_error:status=502,every=2"],
        ["timeout:seconds=0.8,times=1"],
        ["html:times=2"],
        ["truncated:times=2"],
        ["clock_skew:seconds=25"],
        ["server_error:path=time,times=2"],
    ],
    ids=" and ".join,
)
def test_the_bars_are_right_and_complete_in_spite_of(faults: list[str]) -> None:
    days = 1 if faults[0].startswith("page_cap:bars=2") else 15
    with venue() as exchange:
        true = values(exchange.bars(days))
        assert len(true) == days * 96 - 1
        exchange.switch(*faults)
        found = exchange.bars(days)
        assert found.outcome is Outcome.OK
        assert values(found) == true
        assert found.covered_to == datetime(2024, 3, 10, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("throttle", "429"),
        ("throttle:retry_after=3600", "429"),
        ("api_error:code=10006", "10006"),
        ("server_error", "503"),
        ("server_error:status=500", "500"),
        ("timeout:seconds=1", "timed out"),
        ("html", "cannot be read"),
        ("truncated", "cannot be read"),
        ("repeat_page", "bars of another time"),
    ],
)
def test_a_lasting_fault_is_retryable_with_one_sentence_and_never_empty(fault: str, said: str) -> None:
    with venue() as exchange:
        exchange.switch(fault)
        found = exchange.bars(15, "ETH/USDT")
    assert found.outcome is Outcome.RETRYABLE
    assert said in found.message
    assert "try again later" in found.message
    assert "\n" not in found.message
    assert "http" not in found.message


def test_what_came_before_a_failure_is_kept_up_to_where_it_had_come() -> None:
    """A window of several pages need not be fetched again from its beginning."""
    with venue() as exchange:
        true = exchange.bars(30).frame
        exchange.switch("server_error:every=2")
        with stamina.set_testing(True, attempts=1):
            broken = exchange.bars(30)
        assert broken.outcome is Outcome.RETRYABLE
        assert broken.covered_from < broken.covered_to < NOW - 10 * DAY
        assert broken.partial.height == 999
        exchange.switch()
        rest = exchange.client.bars("BTC/USDT", "15m", broken.covered_to, NOW)
    assert pl.concat([broken.partial, rest.frame]).select(VALUES).equals(true.select(VALUES))


def test_a_bar_that_settles_late_is_not_stored_before_it_is_final() -> None:
    with venue() as exchange:
        exchange.switch("unfinished:seconds=110")
        exchange.now[0] = datetime(2024, 3, 10, 12, 1, 30, tzinfo=UTC)
        early = exchange.bars(1)
        exchange.now[0] = datetime(2024, 3, 10, 12, 2, 0, tzinfo=UTC)
        final = exchange.bars(1)
        exchange.switch()
        true = exchange.bars(1)
    assert early.frame["ts"].max() == datetime(2024, 3, 10, 11, 30, tzinfo=UTC)
    assert final.frame["ts"].max() == datetime(2024, 3, 10, 11, 45, tzinfo=UTC)
    assert values(final) == values(true)


def test_the_running_bar_is_never_returned_whatever_its_place_in_the_page() -> None:
    with venue() as exchange:
        for faults in ([], ["reverse"], ["duplicate_rows"]):
            exchange.switch(*faults)
            for timeframe, last in (("15m", "11:45"), ("1h", "11:00"), ("4h", "08:00")):
                newest = exchange.bars(2, timeframe=timeframe, end=NOW + DAY).frame["ts"].max()
                assert f"{newest:%H:%M}" == last


@pytest.mark.parametrize("seconds", [-50, 50])
def test_a_clock_that_is_off_by_seconds_lets_no_unfinished_bar_through(seconds: int) -> None:
    with venue() as exchange:
        for offset in range(-40, 131, 34):
            exchange.now[0] = datetime(2024, 3, 10, 12, 0, tzinfo=UTC) + timedelta(seconds=offset)
            exchange.switch(f"clock_skew:seconds={seconds}", "unfinished:seconds=20")
            found = values(exchange.bars(0.1))
            exchange.switch()
            exchange.now[0] = NOW
            true = {row[0]: row for row in values(exchange.bars(1))}
            assert found
            assert all(true[row[0]] == row for row in found)


def test_a_correction_shows_when_the_bars_are_fetched_again() -> None:
    with venue() as exchange:
        exchange.switch("correction:minutes=120")
        first = exchange.bars(1).frame
        exchange.switch()
        second = exchange.bars(1).frame
    changed = first.filter(first["volume"] != second["volume"])["ts"]
    assert changed.min() == NOW - timedelta(minutes=112, seconds=30)
    assert changed.len() == 7
    assert second.height == first.height == 95


def test_an_outage_leaves_exactly_its_own_hole_and_longer_bars_are_made_of_the_rest() -> None:
    start, end = datetime(2024, 3, 9, 10, 0, tzinfo=UTC), datetime(2024, 3, 9, 15, 30, tzinfo=UTC)
    with venue() as exchange:
        true = exchange.bars(3).frame
        exchange.switch(f"outage:start={start.isoformat()},end={end.isoformat()}")
        for symbol in ("BTC/USDT", "ETH/USDT"):
            found = exchange.bars(3, symbol)
            assert found.outcome is Outcome.OK
            holes = set(true["ts"]) - set(found.frame["ts"])
            assert (min(holes), max(holes), len(holes)) == (start, end - QUARTER, 22)
        hourly = exchange.bars(3, timeframe="1h").frame
        whole = exchange.client.bars("BTC/USDT", "15m", start, end)
        half = hourly.filter(pl.col("ts") == datetime(2024, 3, 9, 15, tzinfo=UTC)).row(0, named=True)
        children = true.filter(pl.col("ts").is_between(end, end + QUARTER))
    assert whole.outcome is Outcome.EMPTY
    assert (whole.covered_from, whole.covered_to) == (start, end)
    assert hourly.filter(pl.col("ts").is_between(start, end, closed="left")).height == 1
    assert half["open"] == children["open"][0]
    assert half["volume"] == pytest.approx(children["volume"].sum())


def test_an_outage_longer_than_a_page_is_walked_through() -> None:
    start, end = NOW - 60 * DAY, NOW - 20 * DAY
    with venue() as exchange:
        exchange.switch(f"outage:start={start.isoformat()},end={end.isoformat()}")
        found = exchange.bars(80)
    assert found.outcome is Outcome.OK
    assert found.frame["ts"].diff().max() > 39 * DAY
    assert found.frame.height == 40 * 96


def test_a_delisted_symbol_fails_alone_and_leaves_the_list() -> None:
    with venue() as exchange:
        exchange.bars(1, "ETH/USDT")
        exchange.switch(f"delisting:symbols=ETHUSDT,at={(NOW - DAY).isoformat()}")
        found = exchange.client.bars_many(["BTC/USDT", "ETH/USDT"], "15m", NOW - 3 * DAY, NOW)
        listed = exchange.client.instruments()["symbol"].to_list()
        again = exchange.client.bars_many(["BTC/USDT", "ETH/USDT"], "15m", NOW - 3 * DAY, NOW)
    assert found["BTC/USDT"].outcome is Outcome.OK
    assert found["ETH/USDT"].outcome is Outcome.FATAL
    assert listed == ["BTC/USDT", "PEPE/USDT"]
    assert "does not list ETH/USDT" in again["ETH/USDT"].message


def test_a_relisted_symbol_has_a_hole_between_its_listings() -> None:
    gone, back = NOW - 5 * DAY, NOW - 2 * DAY
    with venue() as exchange:
        exchange.switch(f"delisting:symbols=ETHUSDT,at={gone.isoformat()},relisted={back.isoformat()}")
        found = exchange.bars(10, "ETH/USDT")
    steps = found.frame["ts"].diff()
    assert found.outcome is Outcome.OK
    assert steps.max() == 3 * DAY  # from the bar it left in to the bar it came back in
    assert (steps > QUARTER).sum() == 1


def test_a_new_listing_is_listed_from_its_moment_and_has_no_bar_before() -> None:
    born = datetime(2024, 3, 5, 6, 0, tzinfo=UTC)
    with venue(market_type="linear") as exchange:
        exchange.switch(f"listing:symbols=PEPEUSDT,at={born.isoformat()}")
        listed = exchange.client.instruments().filter(pl.col("base") == "PEPE")["listed_from"].item()
        found = exchange.bars(20, "PEPE/USDT:USDT")
    assert listed == born
    assert found.outcome is Outcome.OK
    assert found.frame["ts"].min() == born


def test_a_name_that_is_not_ascii_is_listed_and_fetched() -> None:
    with venue(("BTC", "币安人生")) as exchange:
        assert exchange.client.instruments()["native_symbol"].to_list() == ["BTCUSDT", "币安人生USDT"]
        exchange.switch("short_page:every=2")
        found = exchange.bars(2, "币安人生/USDT")
    assert found.frame.height == 2 * 96 - 1


WIRE = (
    "short_page:bars={n},keep=newest",
    "short_page:bars={n},keep=oldest",
    "page_cap:bars={n}",
    "repeat_page:every={k}",
    "reverse:every={k}",
    "duplicate_rows:every={k}",
    "empty_page:every={k}",
    "throttle:every={k}",
    "server_error:every={k}",
    "html:every={k}",
    "truncated:every={k}",
)


def test_several_symbols_at_once_through_a_cap_a_little_shorter_than_the_window() -> None:
    """The rest of a window is then two bars, and a page that is served again begins with the bar beside them."""
    symbols = tuple(f"C{i}" for i in range(4))
    names = [f"{name}/USDT" for name in symbols]
    start, end = NOW - 4 * DAY, NOW - DAY
    with venue(symbols) as exchange:
        exchange.switch(
            "page_cap:bars=70",
            "repeat_page:every=5",
            "duplicate_rows:every=7",
            "server_error:every=6",
            "reverse",
        )
        for _ in range(12):
            for answer in exchange.client.bars_many(names, "1h", start, end).values():
                assert answer.outcome is Outcome.RETRYABLE or answer.frame.height == 72


@pytest.mark.parametrize("seed", range(int(os.environ.get("FAULT_SEEDS", "8"))))
def test_any_mixture_of_faults_gives_the_truth_or_a_failure_but_never_less_than_the_truth(seed: int) -> None:
    rng = random.Random(seed)
    with venue() as exchange:
        days = rng.choice([0.5, 3, 12])
        true = {row[0]: row for row in values(exchange.bars(days))}
        faults = [
            text.format(n=rng.randint(3, 120), k=rng.randint(2, 4))
            for text in rng.sample(WIRE, rng.randint(1, 3))
        ]
        if rng.random() < 0.5:
            start = NOW - timedelta(hours=rng.uniform(1, 24 * days))
            end = start + timedelta(hours=rng.uniform(0.3, 30))
            faults.append(f"outage:start={start.isoformat()},end={end.isoformat()}")
            true = {
                ts: row for ts, row in true.items() if not (start <= ts + timedelta(minutes=14) and ts < end)
            }
        exchange.switch(*faults)
        found = exchange.bars(days)
    if found.outcome is Outcome.RETRYABLE:
        assert found.message
    else:
        keys = {row[0] for row in values(found)}
        assert true.keys() <= keys, faults
