"""Trades rebuild the bars that a venue made of them."""

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tracker_pipeline.domain.bars import find_gaps, resample
from tracker_pipeline.domain.tape import bars_of_trades

VALUES = ["ts", "open", "high", "low", "close", "volume"]


@pytest.fixture(scope="module")
def tape(shared_data: Path) -> pl.DataFrame:
    with gzip.open(shared_data / "trades" / "binance_spot_XRPETH_aggtrades.json.gz") as file:
        rows = [(row[0], int(row[1]), row[4], row[5]) for row in json.load(file)]
    schema = {"ts": pl.Int64, "trade_id": pl.Int64, "price": pl.Float64, "amount": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        pl.from_epoch("ts", time_unit="ms").dt.replace_time_zone("UTC"),
        venue=pl.lit("binance"),
        symbol=pl.lit("XRP/ETH"),
    )


@pytest.mark.parametrize(("timeframe", "count"), [("1m", 2469), ("5m", 706)])
def test_a_real_tape_rebuilds_the_bars_of_the_venue(
    shared_data: Path, tape: pl.DataFrame, timeframe: str, count: int
):
    theirs = pl.read_ipc(shared_data / "ohlcv_freqtrade" / f"XRP_ETH-{timeframe}.feather").rename(
        {"date": "ts"}
    )
    ours = bars_of_trades(tape.sample(fraction=1, shuffle=True, seed=3), timeframe)
    assert ours.height == count
    wanted = theirs.with_columns(pl.col("ts").dt.convert_time_zone("UTC").cast(pl.Datetime("us", "UTC")))
    assert ours.select(VALUES).equals(wanted.select(VALUES))
    assert ours.get_column("trades").sum() == tape.height


def test_minutes_without_trades_have_no_bar_and_hours_made_of_the_rest_are_whole(tape: pl.DataFrame):
    minutes = bars_of_trades(tape, "1m")
    start, end = datetime(2019, 10, 11, tzinfo=UTC), datetime(2019, 10, 13, 11, 20, tzinfo=UTC)
    listed = minutes.select("venue", "symbol").unique().with_columns(listed_from=None, listed_to=None)
    gaps = find_gaps(minutes, timeframe="1m", start=start, end=end, listed=listed)
    assert gaps.get_column("bars").sum() == 1091
    hours, direct = resample(minutes, "1h"), bars_of_trades(tape, "1h")
    assert hours.select(VALUES).equals(direct.select(VALUES))


def test_equal_trades_without_ids_all_count(shared_data: Path):
    path = shared_data / "trades" / "kraken_trades_csv_incremental_q2_BCHEUR.csv"
    raw = pl.read_csv(path, has_header=False, new_columns=["ts", "price", "amount"])
    trades = raw.with_columns(pl.from_epoch("ts", time_unit="s").dt.replace_time_zone("UTC"))
    assert trades.is_duplicated().any()
    bars = bars_of_trades(trades, "1d")
    assert bars.get_column("trades").sum() == 486
    assert bars.get_column("volume").sum() == pytest.approx(trades.get_column("amount").sum())


def test_naive_times_are_refused():
    trades = pl.DataFrame({"ts": [datetime(2024, 1, 1)], "price": [1.0], "amount": [1.0]})  # noqa: DTZ001
    with pytest.raises(ValueError, match="aware"):
        bars_of_trades(trades, "1m")


def test_the_last_trade_of_a_moment_is_the_one_with_the_highest_id():
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    trades = pl.DataFrame(
        {
            "ts": [moment, moment, moment + timedelta(seconds=70)],
            "trade_id": [2, 1, 3],
            "price": [11.0, 10.0, 12.0],
            "amount": [1.0, 3.0, 0.5],
        }
    )
    first, second = bars_of_trades(trades, "1m").rows(named=True)
    assert (first["open"], first["close"], first["volume"], first["vwap"]) == (10.0, 11.0, 4.0, 10.25)
    assert (second["ts"], second["trades"]) == (moment + timedelta(minutes=1), 1)
