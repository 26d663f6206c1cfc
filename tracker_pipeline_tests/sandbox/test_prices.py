import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from tracker_pipeline.sandbox import prices
from tracker_pipeline.sandbox.series import DAY_MS, MINUTE_MS, Bars, roll_up

START = 1_709_251_200_000  # 2024-03-01T00:00Z
COINS = prices.make_coins([f"COIN{rank}" for rank in range(90)], seed=7)
PINNED = [
    50891.3,
    50936.9,
    50543.2,
    50566.6,
    1404.61552,
]  # open, high, low, close, volume of the first quarter of an hour


def same(left: Bars, right: Bars) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left.columns(), right.columns(), strict=True))


@given(first=st.integers(0, 5 * 1440), count=st.integers(1, 300), rank=st.integers(0, 89))
def test_a_minute_is_the_same_whatever_window_asks_for_it(first: int, count: int, rank: int) -> None:
    coin = COINS[rank]
    window = prices.bars(coin, 1, START + first * MINUTE_MS, START + (first + count) * MINUTE_MS)
    alone = prices.bars(coin, 1, START + first * MINUTE_MS, START + (first + 1) * MINUTE_MS)
    assert len(window) == count
    assert same(window[:1], alone)


def test_a_seed_gives_the_same_history_for_ever() -> None:
    bar = prices.bars(prices.make_coins(["BTC"], seed=7)[0], 15, START, START + 15 * MINUTE_MS)
    found = [float(column[0]) for column in (bar.open, bar.high, bar.low, bar.close, bar.volume)]
    assert found == PINNED
    other = prices.bars(prices.make_coins(["BTC"], seed=8)[0], 15, START, START + 15 * MINUTE_MS)
    assert other.open[0] != bar.open[0]


@pytest.mark.parametrize("rank", [0, 5, 40, 89])
def test_minutes_are_coherent(rank: int) -> None:
    day = prices.bars(COINS[rank], 1, START, START + DAY_MS)
    assert np.array_equal(day.open[1:], day.close[:-1])
    assert (day.high >= np.maximum(day.open, day.close)).all()
    assert (day.low <= np.minimum(day.open, day.close)).all()
    assert (day.low > 0).all()
    assert (day.volume > 0).all()


@pytest.mark.parametrize("minutes", [5, 15, 60, 240, 1440])
def test_coarser_bars_are_the_roll_up_of_minutes(minutes: int) -> None:
    fine = prices.bars(COINS[3], 1, START, START + 2 * DAY_MS)
    coarse = prices.bars(COINS[3], minutes, START, START + 2 * DAY_MS)
    rolled = roll_up(fine, minutes * MINUTE_MS)
    for name in ("open_ms", "open", "high", "low", "close", "volume"):
        assert np.array_equal(getattr(coarse, name), getattr(rolled, name)), name


@pytest.mark.parametrize("rank", [0, 89])
def test_the_trades_of_a_minute_make_its_bar(rank: int) -> None:
    hour = prices.bars(COINS[rank], 1, START, START + 3_600_000)
    trades = prices.trades(COINS[rank], START, START + 3_600_000)
    price = trades.price.reshape(60, -1)
    assert np.array_equal(price[:, 0], hour.open)
    assert np.array_equal(price[:, -1], hour.close)
    assert np.array_equal(price.max(axis=1), hour.high)
    assert np.array_equal(price.min(axis=1), hour.low)
    assert np.allclose(trades.amount.reshape(60, -1).sum(axis=1), hour.volume, rtol=1e-12)
    assert (np.diff(trades.time_ms) > 0).all()
    assert (np.diff(trades.id) == 1).all()


def test_a_running_bar_grows_into_the_finished_one() -> None:
    coin = COINS[1]
    finished = prices.bars(coin, 15, START, START + 15 * MINUTE_MS)
    volumes = []
    for now in range(START, START + 15 * MINUTE_MS, 37_000):
        running = prices.running_bar(coin, START, now)
        assert running.open[0] == finished.open[0]
        assert finished.low[0] <= running.low[0] <= running.high[0] <= finished.high[0]
        volumes.append(running.volume[0])
    assert volumes == sorted(volumes)
    assert volumes[-1] < finished.volume[0]
    last = prices.running_bar(coin, START, START + 15 * MINUTE_MS - 1)
    assert last.close[0] == finished.close[0]
    assert last.volume[0] == pytest.approx(finished.volume[0], rel=1e-12)


def test_prices_fall_with_the_rank_from_that_of_bitcoin_to_far_below_a_cent() -> None:
    closes = [prices.bars(coin, 1440, START, START + DAY_MS).close[0] for coin in COINS]
    assert 20_000 < closes[0] < 180_000
    assert closes[-1] < 1e-4
    assert all(coin.level / 10.0**-coin.price_decimals > 50_000 for coin in COINS)  # the tick fits the price


def test_the_first_coin_is_calm_and_the_others_drop_now_and_then() -> None:
    end = START + 90 * DAY_MS
    first = prices.bars(COINS[0], 15, START, end)
    yearly = np.diff(np.log(first.close)).std() * np.sqrt(35_040)
    assert 0.4 < yearly < 0.8
    assert (np.abs(first.close[4:] / first.close[:-4] - 1) > 0.03).mean() < 0.01
    day_range = (
        sliding_window_view(first.high, 96).max(1) - sliding_window_view(first.low, 96).min(1)
    ) / first.open[:-95]
    assert (day_range > 0.12).mean() < 0.05
    deep_drops = 0
    for coin in COINS[1:12]:
        bars = prices.bars(coin, 15, START, end)
        yearly = np.diff(np.log(bars.close)).std() * np.sqrt(35_040)
        assert 0.7 < yearly < 2.2
        below_high = bars.close[15:] / sliding_window_view(bars.high, 16).max(1) - 1
        deep_drops += int((np.diff((below_high <= -0.05).astype(int)) == 1).sum())
    assert deep_drops > 100


def test_weeks_start_on_monday() -> None:
    weeks = prices.bars(COINS[0], 7 * 1440, START, START + 30 * DAY_MS, offset_ms=4 * DAY_MS)
    assert (((weeks.open_ms // DAY_MS) + 3) % 7 == 0).all()  # the epoch's day 4 was a Monday
