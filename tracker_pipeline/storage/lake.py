"""Files of the lake: written whole or not at all, read back before anyone relies on them, never changed after.

What belongs here: one Parquet file and its proof. What does not: which files are live (`manifest`), where files lie
(`lake_store`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl

from tracker_pipeline.domain.fingerprint import content_hash
from tracker_pipeline.domain.schemas import Table
from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.storage.lake_store import lake_store

# Of feature partitions, level 3 takes 0.3 % off the size of level 1 and 5 % more time; of trades and prices, levels
# above 3 take 2 % off the size and up to 44 times the time.
_COMPRESSION_LEVEL = 3
_ROW_GROUP_ROWS = 131_072
# What a value becomes before zstd: numbers split into their bytes (signs and exponents repeat, last digits do not),
# times and whole numbers into differences. Text keeps its dictionary, which gives way where values do not repeat.
_ENCODINGS = {
    pl.Float64: "BYTE_STREAM_SPLIT",
    pl.Int64: "DELTA_BINARY_PACKED",
    pl.Datetime: "DELTA_BINARY_PACKED",
    pl.Date: "DELTA_BINARY_PACKED",
}


@dataclass(frozen=True)
class PartFile:
    """A finished, verified file."""

    batch_id: str
    path: str
    rows: int
    bytes: int
    sha256: str
    content_hash: str
    min_ts: datetime | None
    max_ts: datetime | None
    created_at: datetime
    verified_at: datetime


def write_part(table: Table, day: date, frame: pl.DataFrame, batch_id: str) -> PartFile:
    """Write the rows of one day to a new file and prove it: synced, read back, compared value by value.

    The file appears under its name only when it is complete and on disk. It is nobody's until the manifest
    lists it.

    Raises:
        TransientError: the lake cannot be written to, or what was read back is not what was written.
    """
    relative = f"{table.schema}/{table.table}/day={day.isoformat()}/part-{batch_id}.parquet"
    ordered = table.conform(frame)
    expected = content_hash(ordered, table)
    created_at = datetime.now(UTC)
    with lake_store().stage(relative) as staged:
        write_parquet(ordered, staged.file)
        stored = pl.read_parquet(staged.file, hive_partitioning=False)
        if content_hash(table.conform(stored), table) != expected:
            raise TransientError(f"{relative}: the file read back differs from the rows written to it")
        published = staged.publish()
    times = ordered.get_column(table.time_column) if table.time_column else None
    return PartFile(
        batch_id=batch_id,
        path=relative,
        rows=ordered.height,
        bytes=published.bytes,
        sha256=published.sha256,
        content_hash=expected,
        min_ts=times.min() if times is not None else None,  # type: ignore[arg-type]  # a time column
        max_ts=times.max() if times is not None else None,  # type: ignore[arg-type]
        created_at=created_at,
        verified_at=datetime.now(UTC),
    )


def discard_part(part: PartFile) -> None:
    """Remove a file that did not make it into the manifest."""
    lake_store().delete(part.path)


def refuse_missing(name: str, paths: Sequence[str]) -> None:
    """Stop where a file that the manifest lists is missing.

    Raises:
        PermanentError: one is.
    """
    store = lake_store()
    if missing := store.missing(paths):
        raise PermanentError(
            f"{len(missing)} files of {name} that the manifest lists are missing from the lake {store.name},"
            f" the first is {missing[0]}: restore them or correct TRACKER_LAKE_URI"
        )


def broken(name: str, error: BaseException) -> PermanentError:
    """What to say of a file of a table that cannot be understood."""
    return PermanentError(
        f"a file of {name} in the lake {lake_store().name} is broken ({' '.join(str(error).split())[:300]}):"
        " run tracker archive audit"
    )


def scan_parts(table: Table, paths: Sequence[str]) -> pl.LazyFrame:
    """The rows of some parts, in the declared schema.

    Raises:
        PermanentError: a listed file is missing.
    """
    store = lake_store()
    refuse_missing(table.name, paths)
    if not paths:
        return pl.LazyFrame(schema=table.polars_schema)
    return pl.scan_parquet(
        store.locations(paths),
        storage_options=dict(store.storage_options or {}),
        hive_partitioning=False,
        glob=False,  # brackets and stars of a folder or table are its name
        missing_columns="insert",
        extra_columns="ignore",
        schema=table.polars_schema,
    )


def write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Write a file in the encodings of the lake."""
    import pyarrow.parquet  # 0.3 s

    encodings = {
        name: _ENCODINGS[kind.base_type()]
        for name, kind in frame.schema.items()
        if kind.base_type() in _ENCODINGS
    }
    with path.open("wb") as sink:
        pyarrow.parquet.write_table(
            # Arrow's string views are not known to all readers.
            frame.to_arrow(compat_level=pl.CompatLevel.oldest()),
            sink,
            compression="zstd",
            compression_level=_COMPRESSION_LEVEL,
            row_group_size=_ROW_GROUP_ROWS,
            use_dictionary=[name for name in frame.columns if name not in encodings],
            column_encoding=encodings,
            store_schema=False,
        )
