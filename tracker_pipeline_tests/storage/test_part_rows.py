"""Rows of one key come out of a file right the first time and each time after, however they stand in it."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tracker_pipeline.storage.part_rows import Series, rows_of
from tracker_pipeline_tests.stores import plant_file

START = datetime(2024, 5, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SYMBOLS = ["A", "B", None, "C"]


def frame_of(*, sort: list[str]) -> pl.DataFrame:
    """100 minutes of each symbol, and of none."""
    rows = [
        {"symbol": symbol, "ts": START + minute * MINUTE, "close": 100.0 * number + minute}
        for minute in range(100)
        for number, symbol in enumerate(SYMBOLS)
    ]
    frame = pl.DataFrame(
        rows, schema={"symbol": pl.String(), "ts": pl.Datetime("us", "UTC"), "close": pl.Float64()}
    )
    return frame.sort(sort)


def plant(path: str, frame: pl.DataFrame, group_rows: int) -> None:
    sink = pa.BufferOutputStream()
    arrow = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    pq.write_table(arrow, sink, row_group_size=group_rows, store_schema=False)
    plant_file(path, sink.getvalue().to_pybytes())


@pytest.mark.parametrize("group_rows", [30, 100, 150, 400])
@pytest.mark.parametrize("sort", [["symbol", "ts"], ["ts", "symbol"], ["close"]], ids=" ".join)
def test_a_series_is_found_in_any_order_and_grouping_again_and_again(each_store, sort, group_rows):
    frame = frame_of(sort=sort)
    path = f"market/x/{'-'.join(sort)}-{group_rows}.parquet"
    plant(path, frame, group_rows)
    for _ in range(2):
        for symbol in ("A", "C", "B", "none such"):
            for first, last in ((0, 100), (20, 40), (39, 41), (90, 200), (-5, 0)):
                start, end = START + first * MINUTE, START + last * MINUTE
                expected = frame.filter(
                    pl.col("symbol") == symbol, pl.col("ts").is_between(start, end, closed="left")
                )
                (found,) = rows_of(
                    "market.x", [path], ["close", "absent"], Series({"symbol": symbol}, "ts", start, end)
                )
                assert pl.DataFrame(found).equals(expected.select("close"))


def test_many_files_are_read_side_by_side_and_returned_in_order(each_store):
    frame = frame_of(sort=["symbol", "ts"])
    paths = [f"market/x/part-{number}.parquet" for number in range(40)]
    for number, path in enumerate(paths):
        plant(path, frame.with_columns(pl.col("close") + 1_000 * number), 100)
    series = Series({"symbol": "B"}, "ts", START, START + 2 * MINUTE)
    for _ in range(2):
        found = rows_of("market.x", paths, ["close"], series)
        assert [part.column("close").to_pylist() for part in found] == [
            [100.0 + 1_000 * number, 101.0 + 1_000 * number] for number in range(40)
        ]
