"""A hash of a table's rows that depends on the values alone, not on their order, the file format or a version.

What belongs here: the definition of equal content. What does not: hashes of files (`storage.lake`).
"""

import hashlib

import numpy as np
import polars as pl

from tracker_pipeline.domain.schemas import Table


def content_hash(frame: pl.DataFrame, table: Table, *, provenance: bool = True) -> str:
    """SHA-256 over the columns of `frame`, rows in key order.

    Every column contributes its name, where it is NULL, and its values: numbers and times as little-endian
    64-bit words (NaN in its one canonical form, -0.0 apart from 0.0), text as UTF-8 with its length.

    Args:
        frame: rows with the columns of `table`, each key once.
        table: the declaration.
        provenance: whether who wrote a row and when counts as content. False compares two runs.
    """
    columns = [c for c in table.columns if provenance or not c.provenance]
    ordered = frame.select(c.name for c in columns).sort(table.key)
    digest = hashlib.sha256()
    for column in columns:
        series = ordered.get_column(column.name)
        digest.update(f"{column.name}:{column.type.name}:{series.len()}\n".encode())
        digest.update(np.packbits(series.is_null().to_numpy()).tobytes())
        digest.update(_values(series.drop_nulls()))
    return digest.hexdigest()


def _values(series: pl.Series) -> bytes:
    if isinstance(series.dtype, pl.List):
        lengths = series.list.len().cast(pl.Int64).to_numpy().tobytes()
        return lengths + _values(series.explode(empty_as_null=False, keep_nulls=False))
    if series.dtype == pl.String:
        lengths = series.str.len_bytes().cast(pl.Int64).to_numpy().tobytes()
        return lengths + "".join(series.to_list()).encode()
    if series.dtype == pl.Float64:
        values = series.to_numpy().copy()
        values[np.isnan(values)] = np.nan
        return values.astype("<f8").tobytes()
    return series.to_physical().cast(pl.Int64).to_numpy().astype("<i8").tobytes()
