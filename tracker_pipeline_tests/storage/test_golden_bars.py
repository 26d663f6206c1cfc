"""The worked figures of bars at rest: what the write boundary refuses, digits that survive, ranges across the cut."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import psycopg
import pytest

from tracker_pipeline.domain.dca import DcaConfig
from tracker_pipeline.domain.labels import label
from tracker_pipeline.domain.schemas import BARS, DCA_LABELS, SETUPS, Table
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.archive import move_day
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.query import run_query
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.frames import bars

DAY = date(2024, 5, 1)
START = datetime(2024, 5, 1, tzinfo=UTC)
AFTER = datetime(2024, 6, 1, tzinfo=UTC)
QUARTER = timedelta(minutes=15)


def write(frame: pl.DataFrame, table: Table = BARS["15m"]) -> None:
    with connect() as connection:
        write_window(connection, table, frame, (START, START + timedelta(days=9)), run_id="r")


def test_a_time_without_zone_and_a_bar_of_seven_past_noon_are_refused(own_database):
    """A local time is refused as it has no zone; one that says its zone is a moment, and is stored as that."""
    noon = bars(start=START + timedelta(hours=12))
    for at_noon in (pl.col("ts").dt.replace_time_zone(None), pl.col("ts").dt.to_string()):
        with pytest.raises(ValueError, match=r"columns without their declared type: ts"):
            write(noon.with_columns(at_noon.alias("ts")))
    with pytest.raises(psycopg.errors.CheckViolation):
        write(noon.with_columns(pl.col("ts") + timedelta(minutes=7)))
    assert scan("market.ohlc_15m").collect().is_empty()
    write(noon.with_columns(pl.col("ts").dt.convert_time_zone("America/Los_Angeles")))
    assert scan("market.ohlc_15m").collect().get_column("ts").min() == START + timedelta(hours=12)


def test_a_price_far_below_a_cent_has_the_same_digits_in_store_archive_and_label(own_database):
    """The ledger that the figure names too belongs to the trading account, which is not part of this project."""
    tiny = [0.00001234, 0.00001235, 0.00001136, 0.00001233]
    prices = {name: pl.Series([tiny[i % 4] for i in range(400)]) for name in ("open", "close")}
    frame = bars(count=400).with_columns(**prices, high=pl.lit(0.00001236), low=pl.lit(0.00001136))
    write(frame)
    setup = {
        "setup_id": "a", "strategy": "dca", "venue": "bybit", "symbol": "BTC/USDT", "timeframe": "15m",
        "signal_ts": START, "side": "BUY", "ref_price": 0.00001234, "tp_pct": 10.0, "sl_pct": 8.0,
        "horizon_hours": 72, "tier": "memecoin", "trend": "BULL", "stress": "NORMAL", "evidence": "{}",
        "config_version": "c",
    }  # fmt: skip
    labels = label(SETUPS.conform(pl.DataFrame([setup])), frame, as_of=AFTER, config=DcaConfig())
    write(labels, DCA_LABELS)
    for move in (False, True):
        if move:
            for table in (BARS["15m"], DCA_LABELS):
                move_day(table, DAY, cut=AFTER, run_id="r")
        stored = scan("market.ohlc_15m", START, START + timedelta(days=1)).sort("ts").collect()
        assert stored.get_column("close").to_list() == tiny * 24
        kept = scan("labels.strategy_dca_labels").collect()
        assert kept.select("entry_price", "exit_price", "outcome").equals(
            labels.select("entry_price", "exit_price", "outcome")
        )
        assert f"{stored.item(0, 'close'):.8f}" == "0.00001234"
    assert kept.item(0, "entry_price") > 0


def test_a_range_across_the_cut_has_each_bar_once_and_in_strict_order(own_database):
    """A scan promises no order of its own; asked for one, no two bars share a place in it, corrections included."""
    whole = bars(count=192)
    write(whole)
    move_day(BARS["15m"], DAY, cut=AFTER, run_id="r")
    write(
        whole.with_columns(close=pl.when(pl.col("ts") == START + 90 * QUARTER).then(190.5).otherwise("close"))
    )
    start, end = START + 80 * QUARTER, START + 110 * QUARTER
    expected = [start + i * QUARTER for i in range(30)]
    found = scan("market.ohlc_15m", start, end).sort("ts").collect()
    assert found.get_column("ts").to_list() == expected
    assert found.filter(pl.col("revision") == 2).get_column("close").to_list() == [190.5]
    asked = f"SELECT ts FROM market.ohlc_15m WHERE ts >= '{start}' AND ts < '{end}' ORDER BY ts"
    assert [row[0] for row in run_query(asked).rows()] == expected
