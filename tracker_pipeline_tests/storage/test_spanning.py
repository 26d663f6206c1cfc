"""A read fetches what was asked for, of hot and cold rows alike."""

from datetime import UTC, datetime, time, timedelta

import polars as pl

from tracker_pipeline.domain.schemas import BARS
from tracker_pipeline.storage import scan
from tracker_pipeline.storage.archive import move_day
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.frames import bars

START = datetime(2024, 5, 1, tzinfo=UTC)
TABLE = BARS["15m"]


def test_columns_and_the_time_of_day_are_those_asked_for_wherever_the_rows_are(own_database) -> None:
    with connect() as connection:
        write_window(connection, TABLE, bars(count=192), (START, START + timedelta(days=2)), run_id="r")
    whole = scan(TABLE.name).collect()
    wanted = whole.filter(pl.col("ts").dt.time() == time(23, 45)).select("symbol", "close")
    asked = {"columns": ["symbol", "close"], "at": time(23, 45)}
    assert scan(TABLE.name, **asked).collect().equals(wanted)
    move_day(TABLE, START.date(), cut=START + timedelta(days=1), run_id="r")
    assert scan(TABLE.name, **asked).collect().sort("close").equals(wanted)
    assert wanted.height == 2


def test_a_predicate_may_look_at_columns_that_are_not_returned(own_database) -> None:
    with connect() as connection:
        write_window(connection, TABLE, bars(count=4), (START, START + timedelta(days=1)), run_id="r")
    found = scan(TABLE.name, columns=["close"], predicate=pl.col("volume") > 12).collect()
    assert found.to_dict(as_series=False) == {"close": [104.0]}
