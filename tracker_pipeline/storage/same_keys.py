"""Hot rows whose key the lake already holds for their day: corrections, rows that came twice, or keys used anew.

What belongs here: finding them and telling them apart. What does not: writing the merged part (`part_merge`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import sql

from tracker_pipeline.storage import lake, manifest
from tracker_pipeline.storage.column_forms import Field, fields_of, quoted_name
from tracker_pipeline.storage.database import Connection
from tracker_pipeline.storage.lake_store import lake_store
from tracker_pipeline.storage.part_copy import Work, selection
from tracker_pipeline.storage.snapshot_reader import stream


@dataclass(frozen=True)
class Collisions:
    """Keys that stand in the rows to move and in live parts of the same day.

    Attributes:
        keys: the keys.
        cold: the live parts that hold them.
        corrected: rows that correct an archived one.
        reused: rows that share only their key with an archived one.
        repeated: rows that are archived already, value by value; they stay where they are.
        exclusion: SQL to add to the condition so that the repeated ones stay.
    """

    keys: pl.DataFrame = field(default_factory=pl.DataFrame)
    cold: tuple[manifest.Batch, ...] = ()
    corrected: int = 0
    reused: int = 0
    repeated: int = 0
    exclusion: str = ""

    @property
    def superseded(self) -> list[str]:
        """Parts whose place the new one takes."""
        return [batch.batch_id for batch in self.cold] if self.corrected else []

    def __str__(self) -> str:
        """In words; empty where nobody needs to act."""
        said = []
        if self.reused:
            said.append(f"{self.reused} keys of archived rows were used again for other rows; both are kept")
        if self.repeated:
            said.append(
                f"{self.repeated} rows are archived already with the same values and stay in Postgres"
            )
        return ", ".join(said)


def find_collisions(connection: Connection, snapshot: str, work: Work) -> Collisions:
    """Compare the keys of the rows to move with those of the day's live parts."""
    parts = manifest.live_parts_of_day(connection, work.table, work.day) if work.table.key else []
    if not parts:
        return Collisions()
    key_fields = [f for f in fields_of(work.table) if f.name in work.table.key]
    hot = pl.concat([pl.DataFrame(schema=_schema(key_fields)), *_hot_batches(snapshot, work, key_fields)])
    key = list(work.table.key)
    found = {}
    for part in parts:
        shared = (
            batch.join(hot, on=key, how="semi") for batch in _cold_batches(work.table.name, part, key, hot)
        )
        same = pl.concat([hot.clear(), *shared])
        if same.height:
            found[part] = same
    if not found:
        return Collisions()
    keys, cold = pl.concat(list(found.values())).unique(), tuple(found)
    if work.policy.same_key == "correct":
        return Collisions(keys, cold, corrected=keys.height)
    repeated = _repeated(snapshot, work, keys, cold)
    return Collisions(
        keys,
        cold,
        reused=keys.height - repeated.height,
        repeated=repeated.height,
        exclusion=_exclusion(work, repeated),
    )


def _schema(fields: Sequence[Field]) -> pl.Schema:
    return _widened(pl.DataFrame(pa.schema([(f.name, f.arrow) for f in fields]).empty_table())).schema


def _widened(rows: pl.DataFrame) -> pl.DataFrame:
    """Decimals in their widest form: a part may hold them wider than the rows that come late for its day."""
    scales = {name: kind.scale for name, kind in rows.schema.items() if isinstance(kind, pl.Decimal)}
    return rows.with_columns(pl.col(name).cast(pl.Decimal(38, scale)) for name, scale in scales.items())


def _hot_batches(snapshot: str, work: Work, fields: Sequence[Field]) -> Iterator[pl.DataFrame]:
    with stream(snapshot, selection(work, fields), fields) as batches:
        for batch in batches:
            yield _widened(pl.DataFrame(batch))


def _cold_batches(
    table: str, part: manifest.Batch, columns: Sequence[str], like: pl.DataFrame
) -> Iterator[pl.DataFrame]:
    """Columns of a part in the types of a frame, without the rows that those types cannot have.

    Such rows equal none of the frame. A column that the part lacks is NULL.

    Raises:
        PermanentError: the file is broken.
    """
    try:
        with lake_store().open(part.path) as source, pq.ParquetFile(source) as file:
            there = [name for name in columns if name in file.schema_arrow.names]
            for batch in file.iter_batches(65_536, columns=there):
                yield _as(like.schema, pl.DataFrame(batch), columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise lake.broken(table, error) from error


def _as(schema: pl.Schema, rows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    there = [name for name in columns if name in rows.columns]
    cast = rows.select(
        (pl.col(name) if name in there else pl.lit(None)).cast(schema[name], strict=False).alias(name)
        for name in columns
    )
    for name in there:
        lost = cast.get_column(name).is_null() & rows.get_column(name).is_not_null()
        if lost.any():
            cast, rows = cast.filter(~lost), rows.filter(~lost)
    return cast


def _repeated(
    snapshot: str,
    work: Work,
    keys: pl.DataFrame,
    cold: Sequence[manifest.Batch],
) -> pl.DataFrame:
    """Keys whose rows are the same in every value."""
    fields, key = fields_of(work.table), list(work.table.key)
    names = [f.name for f in fields]
    hot = pl.concat(
        [
            pl.DataFrame(schema=_schema(fields)),
            *(batch.join(keys, on=key, how="semi") for batch in _hot_batches(snapshot, work, fields)),
        ]
    )
    stored = [
        batch.join(keys, on=key, how="semi")
        for part in cold
        for batch in _cold_batches(work.table.name, part, names, hot)
    ]
    lists = [name for name, kind in hot.schema.items() if kind == pl.List]
    plain = [pl.col(name).list.join("\x1f") for name in lists]
    left, right = hot.with_columns(plain), pl.concat(stored).with_columns(plain)
    same = left.join(right, on=names, how="semi", nulls_equal=True)
    return same.select(key)


def _exclusion(work: Work, keys: pl.DataFrame) -> str:
    if keys.is_empty():
        return ""
    types = {column.name: column.type for column in work.table.columns}
    arrays = ", ".join(
        sql.Literal([str(v) for v in keys.get_column(name).to_list()]).as_string(None) + "::text[]"
        for name in keys.columns
    )
    aliases = ", ".join(f"k{i}" for i in range(keys.width))
    same = " AND ".join(
        f"same.k{i}::{types[name]} = {work.source}.{quoted_name(name)}" for i, name in enumerate(keys.columns)
    )
    return f" AND NOT EXISTS (SELECT FROM unnest({arrays}) AS same({aliases}) WHERE {same})"
