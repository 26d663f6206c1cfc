"""The two IO managers: `postgres` for hot tables, `parquet` for the lake. A key names its table or folder.

Both split what an asset returns by partition and commit each partition by itself, so that a range that breaks off
keeps what was done. Both take a single key, a range and a backfill, and both read through the spanning scan.

What belongs here: how Dagster's outputs and inputs meet storage. What does not: SQL (`writing`), files (`lake`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import dagster as dg
import polars as pl

from tracker_pipeline.domain.fingerprint import content_hash
from tracker_pipeline.domain.schemas import TABLES, Table
from tracker_pipeline.resources.failures import classified
from tracker_pipeline.storage import lake, manifest
from tracker_pipeline.storage.database import connect, lock_table
from tracker_pipeline.storage.preview import preview
from tracker_pipeline.storage.spanning import scan
from tracker_pipeline.storage.stored_rows import Window
from tracker_pipeline.storage.writing import Written, write_window


@dataclass(frozen=True)
class PartitionFrames:
    """An output made partition by partition: each is stored before the next is computed.

    Attributes:
        frames: partition key and the rows of that partition.
    """

    frames: Iterator[tuple[str, pl.DataFrame]]


Output = pl.DataFrame | PartitionFrames


def table_of(key: dg.AssetKey) -> Table:
    """The declared table of an asset key."""
    return TABLES[".".join(key.path)]


class _TableIOManager(dg.ConfigurableIOManager):
    """What both managers share: windows, partition by partition, metadata, reads."""

    def handle_output(self, context: dg.OutputContext, obj: Output) -> None:
        """Store an output, one transaction a partition."""
        table = table_of(context.asset_key)
        run_id = context.run_id
        with classified():
            if not context.has_asset_partitions:
                rows = cast("pl.DataFrame", obj)
                written = self._store(table, rows, None, run_id)
                stored = scan(table.name).select(pl.len()).collect().item()
                context.add_output_metadata(
                    {"dagster/row_count": stored, **_changes(written), **preview(table, rows)}
                )
                return
            done: dict[str, Written] = {}
            rows = pl.DataFrame()
            for key, rows in _by_partition(context, table, obj):
                done[key] = self._store(table, rows, _window(context, key), run_id)
            if done:
                _describe_partitions(context, table, done, rows)

    def load_input(self, context: dg.InputContext) -> pl.LazyFrame | pl.DataFrame:
        """Read the partitions asked for; lazily where the parameter is annotated as a LazyFrame."""
        table = table_of(context.asset_key)
        start = end = None
        if context.has_asset_partitions:
            start, end = context.asset_partitions_time_window
        with classified():
            rows = scan(table.name, start, end)
            lazy = context.dagster_type.typing_type is pl.LazyFrame
            return rows if lazy else rows.collect()

    def _store(self, table: Table, frame: pl.DataFrame, window: Window | None, run_id: str) -> Written:
        raise NotImplementedError


class PostgresIOManager(_TableIOManager):
    """Rows in Postgres, written by COPY; writing what is already there changes nothing."""

    def _store(self, table: Table, frame: pl.DataFrame, window: Window | None, run_id: str) -> Written:
        with connect() as connection:
            return write_window(connection, table, frame, window, run_id=run_id)


class ParquetIOManager(_TableIOManager):
    """One file a day in the lake, found through the manifest; writing the same rows writes no file."""

    def _store(self, table: Table, frame: pl.DataFrame, window: Window | None, run_id: str) -> Written:
        if window is None:
            raise ValueError(f"{table.name}: the lake holds days, so its assets are partitioned by day")
        days = [window[0] + timedelta(days=n) for n in range((window[1] - window[0]).days)]
        time = pl.col(table.time_column or "")
        written = [
            store_day(
                table,
                day.date(),
                frame.filter(time.is_between(day, day + timedelta(days=1), closed="left")),
                run_id=run_id,
            )
            for day in days
        ]
        return sum(written, Written())


def store_day(table: Table, day: date, frame: pl.DataFrame, *, run_id: str) -> Written:
    """Make the lake's part of one day hold exactly `frame`, and write nothing where it already does.

    Raises:
        ValueError: a key stands twice, or a row belongs to another day.
        TransientError: the lake cannot be written to.
    """
    rows = table.conform(frame)
    _refuse_bad_day(table, day, rows)
    with connect() as connection, connection.transaction():
        lock_table(connection, table)
        live = manifest.live_batch(connection, table, day)
        same = live and live.content_hash == content_hash(rows, table)
        if same or (live is None and rows.is_empty()):
            return Written(unchanged=rows.height)
        part = lake.write_part(table, day, rows, manifest.new_batch_id())
        try:
            manifest.commit_batch(connection, table, day, part, cut=None, run_id=run_id)
        except BaseException:
            lake.discard_part(part)
            raise
    return Written(inserted=rows.height, deleted=live.rows if live else 0)


def _refuse_bad_day(table: Table, day: date, rows: pl.DataFrame) -> None:
    repeated = rows.select(table.key).is_duplicated().sum()
    if repeated:
        raise ValueError(f"{table.name}: {repeated} rows share their key with another row")
    strangers = rows.filter(pl.col(table.time_column or "").dt.date() != day).height
    if strangers:
        raise ValueError(f"{table.name}: {strangers} rows do not belong to {day}")


def _by_partition(context: dg.OutputContext, table: Table, obj: Output) -> Iterator[tuple[str, pl.DataFrame]]:
    if isinstance(obj, PartitionFrames):
        yield from obj.frames
        return
    frame = table.conform(obj)
    time = pl.col(table.time_column or "")
    taken = 0
    for key in context.asset_partition_keys:
        part = frame.filter(time.is_between(*_window(context, key), closed="left"))
        taken += part.height
        yield key, part
    if taken < frame.height:
        raise ValueError(f"{table.name}: {frame.height - taken} rows lie outside the partitions of this run")


def _window(context: dg.OutputContext, key: str) -> Window:
    definition = cast("dg.TimeWindowPartitionsDefinition", context.asset_partitions_def)
    window = definition.time_window_for_partition_key(key)
    return _utc(window.start), _utc(window.end)


def _utc(moment: datetime) -> datetime:
    return datetime.fromtimestamp(moment.timestamp(), UTC)


def _describe_partitions(
    context: dg.OutputContext, table: Table, done: dict[str, Written], newest: pl.DataFrame
) -> None:
    """Give each partition its own figures: Dagster would copy one output's metadata to all of them.

    Rows are shown at the newest one alone, since each keeps what it is given for ever.
    """
    counts = _stored_by_partition(context, table, list(done))
    last = list(done)[-1]
    for key, written in done.items():
        shown = preview(table, newest) if key == last else {}
        metadata = {"dagster/partition_row_count": counts[key], **_changes(written), **shown}
        context.step_context.add_asset_metadata(metadata, asset_key=context.asset_key, partition_key=key)


def _stored_by_partition(context: dg.OutputContext, table: Table, keys: list[str]) -> dict[str, int]:
    windows = {key: _window(context, key) for key in keys}
    column = table.time_column or ""
    start = min(window[0] for window in windows.values())
    end = max(window[1] for window in windows.values())
    times = scan(table.name, start, end, columns=[column]).collect().get_column(column).sort()
    edges = pl.Series([edge for window in windows.values() for edge in window], dtype=times.dtype)
    places = times.search_sorted(edges, side="left")
    return {key: int(places[2 * i + 1] - places[2 * i]) for i, key in enumerate(windows)}


def _changes(written: Written) -> dict[str, Any]:
    return {
        "inserted": written.inserted,
        "updated": written.updated,
        "deleted": written.deleted,
        "unchanged": written.unchanged,
    }
