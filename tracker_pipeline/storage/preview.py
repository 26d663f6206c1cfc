"""What the web interface shows of rows that were just stored: the newest of them, unknown values, a chart.

It costs no read but that of the chart: one column of one series over the declared span, at most 96 bars or a week of
quarters of an hour.

What belongs here: which rows are shown. What does not: how they look (`domain.preview`, `domain.chart`).
"""

import operator
from datetime import datetime, timedelta
from functools import reduce
from typing import Any

import dagster as dg
import polars as pl

from tracker_pipeline.domain.chart import chart
from tracker_pipeline.domain.preview import newest_rows, unknown_values
from tracker_pipeline.domain.schemas import Table
from tracker_pipeline.resources.errors import PipelineError
from tracker_pipeline.settings import get_config
from tracker_pipeline.storage.spanning import scan

_INSTANT = timedelta(microseconds=1)


def preview(table: Table, rows: pl.DataFrame) -> dict[str, dg.MetadataValue[Any]]:
    """Metadata of at most three kilobytes for a materialization.

    Args:
        table: the declaration.
        rows: that were stored, of the newest partition where there are several; of any order and number.
    """
    frame = table.conform(rows)
    shown: dict[str, dg.MetadataValue[Any]] = {"newest rows": dg.MetadataValue.md(newest_rows(table, frame))}
    if lacking := unknown_values(table, frame):
        shown["NULL values"] = dg.MetadataValue.text(lacking)
    if drawn := _chart(table, frame):
        shown["chart"] = dg.MetadataValue.md(drawn)
    return shown


def _chart(table: Table, frame: pl.DataFrame) -> str | None:
    if table.chart is None or table.time_column is None or frame.is_empty():
        return None
    time, column, series = table.time_column, table.chart.column, _series(table)
    newest: datetime = frame.select(pl.col(time).max()).item()
    start, end = newest - table.chart.span, newest + _INSTANT
    # Joined by &, since that is what reaches the stores.
    chosen = reduce(operator.and_, (pl.col(name) == value for name, value in series.items()))
    value = pl.col(column).cast(pl.Float64)
    try:
        stored = scan(table.name, start, end, columns=[time, column], predicate=chosen)
        points = stored.select(time, value).filter(value.is_finite()).sort(time).collect().rows()
    except PipelineError as error:
        # The rows are stored: that an older file cannot be read is for the audit to say.
        return f"not drawn: {error}"
    of = series.get("symbol") or next(iter(series.values()))
    described = table.column_by_name[column].description
    return chart(f"{column} of {of} ({described})", points) if points else None


def _series(table: Table) -> dict[str, str]:
    """The one that is drawn: of the configured market's reference coin, or of the first network."""
    config = get_config()
    known = {
        "venue": config.market.venue,
        "symbol": config.market.symbol(config.market.reference),
        "network": config.chain.network,
    }
    return {name: value for name, value in known.items() if name in table.column_by_name}
