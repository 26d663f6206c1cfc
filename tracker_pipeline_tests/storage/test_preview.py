"""What is drawn of a table: the stored rows of one series, and no more of them than declared."""

from datetime import UTC, datetime, timedelta

import polars as pl

from tracker_pipeline.domain.schemas import BARS, STETH_RATES
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.preview import preview
from tracker_pipeline.storage.writing import write_window
from tracker_pipeline_tests.frames import bars

START = datetime(2024, 5, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def rates(*values: str | None, network: str = "ethereum") -> pl.DataFrame:
    """One rate an hour."""
    hours = [START + i * HOUR for i in range(len(values))]
    return STETH_RATES.conform(
        pl.DataFrame(
            {
                "snapshot_timestamp": hours,
                "rate": values,
                "status": ["ok" if value else "stale" for value in values],
                "block_number": range(len(values)),
                "block_timestamp": hours,
            },
            schema_overrides={"rate": pl.String, "block_number": pl.Int64},
        ).with_columns(network=pl.lit(network), block_hash=pl.lit("0xh"), run_id=pl.lit("r"))
    )


def store(table, rows: pl.DataFrame) -> None:
    with connect() as connection:
        write_window(connection, table, rows, (START, START + timedelta(days=60)), run_id="r")


def test_a_rate_is_drawn_for_the_first_network_without_the_hours_that_have_none(own_database):
    store(
        STETH_RATES,
        pl.concat([rates("0.5", "0.997", None, "0.999"), rates(*["1.5"] * 4, network="arbitrum")]),
    )
    shown = preview(STETH_RATES, rates("0.5", "0.997", None, "0.999").tail(1))
    assert "rate of ethereum (ETH per stETH; NULL is unknown, never 1): last 0.99900" in shown["chart"].value
    assert "lowest 0.50000, highest 0.99900, 2024-05-01 00:00 to 2024-05-01 03:00 UTC" in shown["chart"].value


def test_bars_are_drawn_as_far_back_as_declared_however_few_of_them_the_run_made(own_database):
    store(BARS["1h"], bars("1h", count=300))
    shown = preview(BARS["1h"], bars("1h", count=300).tail(3))
    first, last = START + (299 - 96) * HOUR, START + 299 * HOUR
    assert f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC" in shown["chart"].value


def test_without_the_reference_coin_nothing_is_drawn(own_database):
    store(BARS["15m"], bars(count=9, symbol="ETH/USDT"))
    assert "chart" not in preview(BARS["15m"], bars(count=9, symbol="ETH/USDT"))
    assert "chart" not in preview(BARS["15m"], bars(count=0))
