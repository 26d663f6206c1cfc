"""Makes one part out of several, without the rows that newer ones replace, and proves it by the sums of its sources.

What belongs here: from published files to a published file. What does not: which parts, and the manifest entry.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.storage import manifest
from tracker_pipeline.storage.column_forms import SIDECAR, Field, fields_of
from tracker_pipeline.storage.lake_store import lake_store, sha256_of
from tracker_pipeline.storage.part_copy import Copied, Work, file_metadata, schema_of
from tracker_pipeline.storage.part_proof import batches_proof, file_proof
from tracker_pipeline.storage.part_writer import PartWriter


def merged_with_cold(
    copied: Copied, cold: Sequence[manifest.Batch], replaced: pl.DataFrame, work: Work
) -> Copied:
    """One part of the rows just copied and of those of `cold` whose key is not in `replaced`.

    The part that held the copied rows alone is removed; nobody has seen it.

    Raises:
        PermanentError: a cold file is altered, or its columns cannot stand beside those of the table.
        TransientError: the lake cannot be written to, or the file is not the sum of its sources.
    """
    fields = fields_of(
        work.table, _special(copied.part.schema) | {n for b in cold for n in _special(b.schema or {})}
    )
    for batch in cold:
        _refuse_altered(batch)
    batch_id = manifest.new_batch_id()
    path = manifest.part_path(work.table.name, work.day, batch_id)
    created_at = datetime.now(UTC)
    key, time_column = work.table.key, work.policy.time_column

    def sources() -> Iterator[pa.RecordBatch]:
        yield from _batches(copied.part.path, fields, None, key)
        for batch in cold:
            yield from _batches(batch.path, fields, replaced, key)

    with lake_store().stage(path) as staged:
        writer = PartWriter(staged.file, fields, work.policy.sort, file_metadata(work, fields, batch_id))
        try:
            for rows in sources():
                writer.write(rows)
            writer.close()
        finally:
            writer.abandon()
        expected = batches_proof(sources(), fields, key, time_column)
        if difference := expected.difference(file_proof(staged.file, fields, key, time_column)):
            raise TransientError(f"{work}: the merged file differs from its sources: {difference}")
        stored = staged.publish()
    lake_store().delete(copied.part.path)
    part = replace(
        copied.part,
        batch_id=batch_id,
        path=path,
        rows=expected.rows,
        bytes=stored.bytes,
        sha256=stored.sha256,
        content_hash=expected.content_hash,
        column_hashes=expected.column_hashes,
        min_ts=expected.first,
        max_ts=expected.last,
        schema=schema_of(work.table, fields),
        created_at=created_at,
        verified_at=datetime.now(UTC),
        table_bytes=int(expected.rows * work.bytes_per_row) or None,
    )
    return Copied(part, copied.rows_moved)


def _special(schema: object) -> set[str]:
    """Columns that a file holds in their wider form."""
    columns = schema.get("columns", []) if isinstance(schema, dict) else []
    return {
        column["name"]
        for column in columns
        if column["name"] + SIDECAR in column["forms"] or "decimal" in column["forms"].values()
    }


def _refuse_altered(batch: manifest.Batch) -> None:
    if batch.sha256 and sha256_of(lake_store(), batch.path) != batch.sha256:
        raise PermanentError(f"{batch.path} is not the file that was archived: see tracker archive audit")


def _batches(
    path: str, fields: Sequence[Field], without: pl.DataFrame | None, key: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    with lake_store().open(path) as source, pq.ParquetFile(source) as file:
        known = {field.name for field in fields}
        strange = [name for name in file.schema_arrow.names if name not in known]
        if strange:
            raise PermanentError(
                f"{path} has the column {', '.join(strange)}, which the table has no longer, so a correction cannot"
                " be merged with it: restore the day first"
            )
        for batch in file.iter_batches(65_536):
            kept = batch if without is None else _without(batch, without, key)
            yield _in_fields(kept, fields, path)


def _without(batch: pa.RecordBatch, keys: pl.DataFrame, key: Sequence[str]) -> pa.RecordBatch:
    own = pl.DataFrame(batch.select(list(key))).with_columns(
        pl.col(name).cast(keys.schema[name]) for name in key
    )
    kept = own.with_row_index("row").join(keys, on=list(key), how="anti").get_column("row").sort()
    return batch.take(pa.array(kept.to_list(), pa.int64()))


def _in_fields(batch: pa.RecordBatch, fields: Sequence[Field], path: str) -> pa.RecordBatch:
    columns = []
    for field in fields:
        if field.name not in batch.schema.names:
            columns.append(pa.nulls(batch.num_rows, field.arrow))
            continue
        try:
            columns.append(batch.column(field.name).cast(field.arrow))
        except pa.ArrowInvalid as error:
            raise PermanentError(
                f"{path}: {field.name} cannot be read as the type it has now, so a correction cannot be merged with"
                " it: restore the day first"
            ) from error
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema([(f.name, f.arrow) for f in fields]))
