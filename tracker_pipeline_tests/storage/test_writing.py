"""A write stores exactly its window, once, and says what it changed."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from tracker_pipeline.domain import schemas
from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.archive import move_day
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.writing import Written, write_window
from tracker_pipeline_tests.frames import bars

DAY = (datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 2, tzinfo=UTC))
AFTER = datetime(2024, 6, 1, tzinfo=UTC)
BARS = schemas.BARS["15m"]


def write(frame: pl.DataFrame, table=BARS, window=DAY) -> Written:
    with connect() as connection:
        return write_window(connection, table, frame, window, run_id="run-x")


def stored(table: str = BARS.name) -> pl.DataFrame:
    return scan(table).collect().sort(schemas.TABLES[table].key)


def test_what_was_written_is_read_back_exactly(own_database):
    frame = bars(price=0.00001234)
    assert write(frame) == Written(inserted=4)
    assert stored().equals(frame)


def test_writing_the_same_rows_again_writes_nothing(own_database):
    write(bars(run_id="first"))
    with connect() as connection:
        before = connection.execute("SELECT ctid, xmin FROM market.ohlc_15m ORDER BY ts").fetchall()
    assert write(bars(run_id="second")) == Written(unchanged=4)
    with connect() as connection:
        assert connection.execute("SELECT ctid, xmin FROM market.ohlc_15m ORDER BY ts").fetchall() == before
    assert stored().get_column("run_id").unique().to_list() == ["first"]


def test_a_corrected_bar_becomes_the_next_revision_and_its_former_values_are_kept(own_database):
    write(bars())
    corrected = bars().with_columns(close=pl.when(pl.col("ts") == DAY[0]).then(100.5).otherwise("close"))
    assert write(corrected) == Written(updated=1, unchanged=3)
    assert stored().item(0, "revision") == 2
    assert stored().item(0, "close") == 100.5
    former = scan("market.bar_revisions").collect()
    assert former.select("timeframe", "revision", "close").rows() == [("15m", 1, 101.0)]


def test_a_merged_table_keeps_rows_that_a_later_write_does_not_mention(own_database):
    write(bars(symbol="BTC/USDT"))
    write(bars(symbol="ETH/USDT"))
    assert stored().height == 8


def test_a_replaced_table_holds_exactly_what_was_written_last_within_the_window(own_database):
    regimes = _regimes(4)
    write(regimes, schemas.REGIMES)
    next_day = (DAY[1], DAY[1] + timedelta(days=1))
    write(
        _regimes(2).with_columns(pl.col("ts", "available_at") + timedelta(days=1)), schemas.REGIMES, next_day
    )
    assert write(regimes.head(3), schemas.REGIMES) == Written(deleted=1, unchanged=3)
    assert stored("market.regimes").height == 5


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.with_columns(pl.col("ts") + timedelta(days=1)), "outside the window"),
        (lambda f: pl.concat([f, f]), "share their key"),
        (lambda f: f.with_columns(close=None), "NULL in close"),
        (lambda f: f.with_columns(pl.col("ts").dt.replace_time_zone(None)), "declared type"),
        (lambda f: f.with_columns(surprise=1), "unknown columns"),
    ],
)
def test_rows_that_do_not_belong_are_refused_and_nothing_is_stored(own_database, spoil, message):
    with pytest.raises(ValueError, match=message):
        write(spoil(bars()))
    assert stored().is_empty()


def test_a_bar_stamped_off_its_grid_is_refused_by_the_table_itself(own_database):
    import psycopg

    with pytest.raises(psycopg.errors.CheckViolation):
        write(bars().with_columns(pl.col("ts") + timedelta(minutes=7)))


def test_exact_numbers_of_78_digits_survive(own_database):
    largest = str(2**256 - 1)
    frame = _snapshot([largest, "0", None])
    write(frame, schemas.WHALE_BALANCE_SNAPSHOTS, (DAY[0], DAY[0] + timedelta(hours=1)))
    assert stored("onchain.whale_balance_snapshots").get_column("balance").to_list() == [largest, "0", None]


def test_fetching_an_archived_day_again_stores_nothing_twice(own_database):
    write(bars())
    move_day(BARS, DAY[0].date(), cut=AFTER, run_id="archive")
    assert write(bars(run_id="again")) == Written(unchanged=4)
    assert stored().equals(bars())
    with connect() as connection:
        assert connection.execute("SELECT count(*) FROM market.ohlc_15m").fetchone() == (0,)


def test_a_correction_of_an_archived_bar_stands_before_it_and_moves_with_the_next_archive(own_database):
    write(bars())
    move_day(BARS, DAY[0].date(), cut=AFTER, run_id="archive")
    corrected = bars().with_columns(close=pl.when(pl.col("ts") == DAY[0]).then(100.5).otherwise("close"))
    assert write(corrected) == Written(inserted=1, unchanged=3)
    assert stored().get_column("revision").to_list() == [2, 1, 1, 1]
    assert scan("market.bar_revisions").collect().get_column("close").to_list() == [101.0]
    assert write(corrected) == Written(unchanged=4)
    assert move_day(BARS, DAY[0].date(), cut=AFTER, run_id="archive").rows_cold == 4
    assert stored().get_column("close").to_list() == [100.5, 102.0, 103.0, 104.0]


def test_a_late_bar_of_an_archived_day_is_seen_at_once_and_joins_its_part(own_database):
    write(bars(count=3))
    move_day(BARS, DAY[0].date(), cut=AFTER, run_id="archive")
    assert write(bars(count=4)) == Written(inserted=1, unchanged=3)
    assert stored().height == 4
    move_day(BARS, DAY[0].date(), cut=AFTER, run_id="archive")
    assert stored().height == 4


def test_archived_rows_of_a_replaced_table_are_never_removed_in_silence(own_database):
    write(_regimes(4), schemas.REGIMES)
    move_day(schemas.REGIMES, DAY[0].date(), cut=AFTER, run_id="archive")
    with pytest.raises(PermanentError, match="1 archived rows"):
        write(_regimes(3), schemas.REGIMES)


def _regimes(count: int) -> pl.DataFrame:
    return bars(count=count).select(
        "venue", "ts", "available_at", trend=pl.lit("BULL"), stress=pl.lit("NORMAL")
    )


def _snapshot(balances: list[str | None]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "whale_address": [f"0x{i:040x}" for i in range(len(balances))],
            "balance": balances,
            "status": ["rpc_error" if b is None else "ok" for b in balances],
        },
        schema_overrides={"balance": pl.String},
    ).with_columns(
        network=pl.lit("ethereum"),
        asset=pl.lit("ETH"),
        snapshot_timestamp=pl.lit(DAY[0]),
        block_number=pl.lit(7, pl.Int64),
        block_hash=pl.lit("0xab"),
        block_timestamp=pl.lit(DAY[0]),
        run_id=pl.lit("run-1"),
    )
