"""A preview shows the newest rows and what lacks, in few characters whatever the table."""

from datetime import UTC, datetime

import polars as pl
import pytest

from tracker_pipeline.domain.preview import newest_rows, unknown_values
from tracker_pipeline.domain.schemas import BARS, TABLES, WHALE_BALANCE_SNAPSHOTS, ColumnType
from tracker_pipeline_tests.frames import bars

HOUR = datetime(2026, 3, 1, 5, tzinfo=UTC)
VALUES = {
    ColumnType.TEXT: "a rather long text | with a bar that goes on",
    ColumnType.FLOAT: -123456.789012,
    ColumnType.INT: 2**40,
    ColumnType.BOOL: True,
    ColumnType.TIME: HOUR,
    ColumnType.DATE: HOUR.date(),
    ColumnType.NUMERIC: "0.1234567890123",
    ColumnType.WEI: "1" + 77 * "0",
    ColumnType.JSON: '{"a": [1, 2, 3], "b": "some text that is long"}',
    ColumnType.TEXT_LIST: ["Organic Accumulation", "LST Migration"],
}

OTHERS = {
    ColumnType.TEXT: "another",
    ColumnType.BOOL: False,
    ColumnType.TIME: HOUR.replace(hour=6),
    ColumnType.DATE: HOUR.date().replace(day=2),
    ColumnType.NUMERIC: "7",
    ColumnType.WEI: "7",
    ColumnType.JSON: "{}",
    ColumnType.TEXT_LIST: [],
}


def test_the_newest_rows_come_first_with_figures_that_can_be_read_and_what_they_share_below():
    frame = pl.concat(bars(count=12, symbol=symbol, price=61234.5678) for symbol in ("BTC/USDT", "ETH/USDT"))
    head, ruler, first, second, *_, shared = newest_rows(BARS["15m"], frame).splitlines()
    assert (head, ruler) == ("|symbol|ts|open|high|low|close|volume|available_at|", "|---" + 7 * "|--:" + "|")
    opened, known = (
        "2024\u201105\u201101\u00a002:45",
        "2024\u201105\u201101\u00a003:02",
    )  # not broken into lines
    values = f"{opened}|61245.6|61247.6|61244.6|61246.6|21|{known}|"
    assert (first, second) == (f"|BTC/USDT|{values}", f"|ETH/USDT|{values}")
    assert shared == "In all of these rows: venue bybit, vwap NULL, trades NULL, n_src NULL, revision 1."


def test_one_row_of_a_wide_table_is_shown_downwards():
    lines = newest_rows(BARS["15m"], bars(count=1)).splitlines()
    assert lines[:3] == ["|venue|bybit|", "|---|--:|", "|symbol|BTC/USDT|"]
    assert "|close|101|" in lines


def test_of_balances_the_largest_come_first():
    frame = WHALE_BALANCE_SNAPSHOTS.conform(
        pl.DataFrame(
            {
                "whale_address": ["0xa", "0xb", "0xc"],
                "balance": ["1", "2738350000000000000000", None],
                "rank": [2, 1, None],
                "status": ["ok", "ok", "rpc_error"],
            }
        ).with_columns(
            network=pl.lit("ethereum"),
            asset=pl.lit("ETH"),
            snapshot_timestamp=pl.lit(HOUR),
            block_number=pl.lit(7, pl.Int64),
            block_hash=pl.lit("0xh"),
            block_timestamp=pl.lit(HOUR),
            run_id=pl.lit("r"),
        )
    )
    lines = newest_rows(WHALE_BALANCE_SNAPSHOTS, frame).splitlines()
    assert lines[0] == "|whale_address|0xb|0xa|0xc|"
    assert lines[2:5] == ["|balance|2.73835e+21|1|NULL|", "|status|ok|ok|rpc_error|", "|rank|1|2|NULL|"]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("alike", [True, False])
def test_of_any_table_as_many_columns_as_fit_are_shown(name, alike):
    table = TABLES[name]
    values = [VALUES[column.type] for column in table.columns]
    others = [None if column.nullable else OTHERS.get(column.type, 7) for column in table.columns]
    rows = pl.DataFrame([values, values if alike else others] * 5, schema=table.polars_schema, orient="row")
    text = newest_rows(table, rows)
    assert len(text) < 1_700
    assert text.startswith("In all of these rows: ") == alike
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == (0 if alike else 1)  # a bar inside a text would be another column


def test_a_table_without_rows_says_so():
    assert newest_rows(BARS["15m"], bars(count=0)) == "no rows"


def test_columns_that_lack_values_are_counted():
    frame = bars(count=3).with_columns(trades=pl.Series([1, None, 3], dtype=pl.Int64))
    assert unknown_values(BARS["15m"], frame) == "of 3 rows: vwap 3, n_src 3, trades 1"
    assert unknown_values(BARS["15m"], frame.head(0)) == ""
