"""What a look at a venue's list makes of the instruments: names, multiples, comings and goings."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from tracker_pipeline.domain.instruments import (
    Coin,
    after_a_look,
    listing_intervals,
    tracked,
    unexplored,
)

DAY = timedelta(days=1)
MONDAY = datetime(2026, 3, 2, 8, tzinfo=UTC)
MOMENT = pl.Datetime("us", "UTC")
LISTED = pl.Schema(
    {
        **dict.fromkeys(("venue", "symbol", "base", "quote", "native_symbol", "market_type"), pl.String()),
        "listed_from": MOMENT,
        "listed_to": MOMENT,
    }
)


def listed(*bases: str, told: datetime | None = None, quote: str = "USDT") -> pl.DataFrame:
    rows = [(*("v", f"{b}/{quote}", b, quote, b + quote, "spot"), told, None) for b in bases]
    return pl.DataFrame(rows, schema=LISTED, orient="row")


def coins(*names: str) -> list[Coin]:
    return [Coin(name, "mid_cap") for name in names]


def look(known: pl.DataFrame | None, bases: tuple[str, ...], at: datetime, **found) -> pl.DataFrame:
    now = listed(*bases)
    before = after_a_look(*nothing(), at=at, first_bars={}, last_bars={}) if known is None else known
    rows = after_a_look(
        before,
        tracked(now, coins("A", "B", "C"), quote="USDT"),
        now["symbol"].to_list(),
        at=at,
        first_bars=found.get("first_bars", {f"{base}/USDT": None for base in bases}),
        last_bars=found.get("last_bars", {}),
    )
    kept = before.join(rows, on=["venue", "symbol"], how="anti")
    return pl.concat([kept, rows]).sort("symbol")


def nothing() -> tuple[pl.DataFrame, pl.DataFrame, list[str]]:
    empty = tracked(listed(), [], quote="USDT")
    from tracker_pipeline.domain.schemas import INSTRUMENTS

    return INSTRUMENTS.polars_schema.to_frame(), empty, []


def intervals(known: pl.DataFrame, symbol: str) -> list[tuple]:
    return listing_intervals(known).filter(symbol=symbol).select("listed_from", "listed_to").rows()


def test_multiples_are_recognised_before_and_behind_the_name_and_the_smallest_is_taken():
    names = ("1000PEPE", "SHIB1000", "10000SATS", "1MBABYDOGE", "1000000MOG", "1000BONK", "BONK", "1INCH")
    found = tracked(listed(*names), coins("PEPE", "SHIB", "SATS", "BABYDOGE", "MOG", "BONK"), quote="USDT")
    assert dict(found.select("coin", "multiplier").rows()) == {
        "PEPE": 1000,
        "SHIB": 1000,
        "SATS": 10_000,
        "BABYDOGE": 1_000_000,
        "MOG": 1_000_000,
        "BONK": 1,
    }
    assert found.filter(coin="PEPE")["base"].item() == "1000PEPE"


def test_a_venue_name_comes_before_the_coins_own_and_other_quotes_do_not_count():
    everything = pl.concat([listed("NEIROCTO", "NEIRO", "币安人生"), listed("A", quote="USDC")])
    found = tracked(
        everything,
        [Coin("NEIRO", "memecoin", venue_name="NEIROCTO"), Coin("币安人生", "memecoin"), *coins("A")],
        quote="USDT",
    )
    assert found["symbol"].to_list() == ["NEIROCTO/USDT", "币安人生/USDT"]
    assert found["coin"].to_list() == ["NEIRO", "币安人生"]


def test_a_former_name_that_is_still_listed_is_an_alias_of_todays():
    found = tracked(listed("MATIC", "POL"), [Coin("POL", "small_cap", formerly=("MATIC",))], quote="USDT")
    assert found.select("symbol", "coin", "alias_of").rows() == [
        ("MATIC/USDT", "POL", "POL/USDT"),
        ("POL/USDT", "POL", None),
    ]


def test_a_recycled_ticker_is_this_coin_only_since_its_day():
    old = listed("ACT", told=datetime(2018, 1, 1, tzinfo=UTC))
    found = tracked(old, [Coin("ACT", "memecoin", since=date(2024, 10, 19))], quote="USDT")
    assert found["listed_from"].item() == datetime(2024, 10, 19, tzinfo=UTC)


def test_a_first_look_dates_what_the_first_bars_show():
    born = datetime(2026, 2, 1, 6, 15, tzinfo=UTC)
    known = look(None, ("A", "B"), MONDAY, first_bars={"A/USDT": None, "B/USDT": born})
    assert intervals(known, "A/USDT") == [(None, None)]
    assert intervals(known, "B/USDT") == [(born, None)]
    assert known["seen_on"].unique().to_list() == [MONDAY.date()]


def test_the_same_look_again_changes_nothing():
    known = look(None, ("A", "B"), MONDAY)
    assert look(known, ("A", "B"), MONDAY + timedelta(hours=3), first_bars={}).equals(known)


def test_a_symbol_whose_first_bar_could_not_be_looked_for_is_looked_for_again():
    known = look(None, ("A",), MONDAY, first_bars={})
    again = tracked(listed("A"), coins("A"), quote="USDT")
    assert unexplored(known, again) == [("A/USDT", None)]
    known = look(known, ("A",), MONDAY, first_bars={"A/USDT": MONDAY - DAY})
    assert unexplored(known, again) == []
    assert intervals(known, "A/USDT") == [(MONDAY - DAY, None)]


def test_a_symbol_that_left_is_closed_at_its_last_bar_and_never_lost():
    last = MONDAY + timedelta(hours=20)
    known = look(None, ("A", "B", "C"), MONDAY)
    known = look(known, ("A", "C"), MONDAY + DAY, last_bars={"B/USDT": last})
    assert intervals(known, "B/USDT") == [(None, last)]
    assert (
        look(known, ("A", "C"), MONDAY + 2 * DAY)
        .filter(symbol="B/USDT")
        .equals(known.filter(symbol="B/USDT"))
    )


def test_a_symbol_that_left_without_any_bar_is_closed_on_the_day_it_was_last_seen():
    known = look(look(None, ("A", "B"), MONDAY), ("A",), MONDAY + 3 * DAY)
    assert intervals(known, "B/USDT") == [(None, MONDAY.replace(hour=0))]


def test_a_symbol_that_came_back_has_another_interval():
    left, back = MONDAY + timedelta(hours=6), MONDAY + 9 * DAY
    known = look(look(None, ("A", "B"), MONDAY), ("A",), MONDAY + DAY, last_bars={"B/USDT": left})
    assert unexplored(known, tracked(listed("B"), coins("B"), quote="USDT")) == [("B/USDT", left)]
    known = look(known, ("A", "B"), MONDAY + 10 * DAY, first_bars={"B/USDT": back})
    assert intervals(known, "B/USDT") == [(None, left), (back, None)]
    assert known.filter(symbol="B/USDT")["listed_to"].item() is None


def test_a_symbol_whose_bars_went_on_had_never_left():
    left = MONDAY + timedelta(hours=6)
    known = look(look(None, ("A", "B"), MONDAY), ("A",), MONDAY + DAY, last_bars={"B/USDT": left})
    known = look(known, ("A", "B"), MONDAY + 10 * DAY, first_bars={"B/USDT": left + timedelta(hours=18)})
    assert intervals(known, "B/USDT") == [(None, None)]


def test_a_list_from_which_most_are_gone_is_not_believed():
    names = [f"X{i}" for i in range(30)]
    now = listed(*names)
    known = after_a_look(
        nothing()[0],
        tracked(now, coins(*names), quote="USDT"),
        now["symbol"].to_list(),
        at=MONDAY,
        first_bars={f"{name}/USDT": None for name in names},
        last_bars={},
    )
    some = listed(*names[:20])
    with pytest.raises(ValueError, match="10 of 30 instruments are no longer listed, such as X20/USDT"):
        after_a_look(
            known,
            tracked(some, coins(*names), quote="USDT"),
            some["symbol"].to_list(),
            at=MONDAY + DAY,
            first_bars={},
            last_bars={},
        )


def test_a_coin_that_left_the_universe_but_not_the_venue_stays_open():
    known = look(None, ("A", "B", "C"), MONDAY)
    now = listed("A", "B", "C")
    rows = after_a_look(
        known,
        tracked(now, coins("A"), quote="USDT"),
        now["symbol"].to_list(),
        at=MONDAY + DAY,
        first_bars={},
        last_bars={},
    )
    assert rows["symbol"].to_list() == ["A/USDT"]
