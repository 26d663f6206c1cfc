"""Makes one part out of the several that a day collects from late rows. Readers are not disturbed.

The new file is written and proven like any other; then one transaction puts it in the place of its sources. Whoever
looked the sources up before still finds them for a day. A run that breaks off leaves a file that nobody sees.

What belongs here: which parts belong together, and their merge. What does not: corrections (`part_merge`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from tracker_pipeline.resources.errors import PipelineError, TransientError
from tracker_pipeline.storage import manifest
from tracker_pipeline.storage.archive_locks import only_runner
from tracker_pipeline.storage.archive_policy import get_policies
from tracker_pipeline.storage.catalogue import LiveTable
from tracker_pipeline.storage.column_forms import Field, Kind, fields_of
from tracker_pipeline.storage.database import connect
from tracker_pipeline.storage.lake_store import Step, lake_store, no_step
from tracker_pipeline.storage.manifest import Batch, NewPart
from tracker_pipeline.storage.part_loading import (
    part_table,
    recorded_hashes,
    refuse_altered,
    special_columns,
)
from tracker_pipeline.storage.part_proof import PROOF_VERSION, Proof, batches_proof, file_proof
from tracker_pipeline.storage.part_writer import PartWriter

# A larger part gains nothing from being merged with others, and costs its rewriting each time.
LARGEST: Final = 256 << 20
_BATCH_ROWS: Final = 65_536


@dataclass(frozen=True)
class Compacted:
    """What became of one day.

    Attributes:
        parts: that were merged, or would be.
        outcome: `compacted`, `would compact`, `skipped` or `failed`.
        note: what went wrong, in one sentence.
    """

    table: str
    day: date
    parts: int
    rows: int
    bytes_before: int
    bytes_after: int | None = None
    outcome: str = "compacted"
    note: str = ""


def compact_days(
    name: str,
    first: date = date.min,
    last: date = date.max,
    *,
    dry_run: bool = False,
    run_id: str,
    step: Step = no_step,
) -> list[Compacted]:
    """Merge the parts of each day that has several of the same columns and key; each day is committed by itself.

    A day that fails, for a file that is missing or altered or a lake that cannot be written to, keeps no other back.

    Args:
        name: schema and table.
        first: earliest day.
        last: latest day.
        dry_run: only say what would be merged.
        run_id: recorded with the new part.
        step: told the name of each step as it is reached.

    Raises:
        PermanentError: nothing of the table is archived, and no policy says it should be.
        TransientError: the database does not answer.
    """
    with connect() as connection:
        get_policies().refuse_unknown(connection, [name])
        groups = _groups(manifest.live_batches_of(connection, name, first, last))
    if dry_run:
        return [_described(name, parts, outcome="would compact") for parts in groups]
    with only_runner(name) as alone:
        if not alone:
            return [_described(name, parts, outcome="skipped") for parts in groups]
        with connect() as connection:  # once nobody else can change them
            groups = _groups(manifest.live_batches_of(connection, name, first, last))
        return [_tried(name, parts, run_id, step) for parts in groups]


def _tried(name: str, parts: Sequence[Batch], run_id: str, step: Step) -> Compacted:
    try:
        return _compact(name, parts, run_id, step)
    except PipelineError as error:
        return _described(name, parts, outcome="failed", note=str(error))


def _groups(parts: Sequence[Batch]) -> list[list[Batch]]:
    """Parts of one day and one version of the schema, where there are several."""
    small = [part for part in parts if part.bytes <= LARGEST and _version(part)]
    ordered = sorted(small, key=lambda part: (part.data_day, _version(part), part.batch_id))
    grouped = (list(group) for _, group in groupby(ordered, key=lambda part: (part.data_day, _version(part))))
    return [group for group in grouped if len(group) > 1]


def _version(part: Batch) -> str:
    """Columns and key: hashes of rows with another key do not add up."""
    schema = part.schema or {}
    return f"{schema['fingerprint']} {schema.get('key')}" if schema.get("fingerprint") else ""


def _described(name: str, parts: Sequence[Batch], **more: Any) -> Compacted:
    rows, size = sum(part.rows for part in parts), sum(part.bytes for part in parts)
    return Compacted(name, parts[0].data_day, len(parts), rows, size, **more)


def _compact(name: str, parts: Sequence[Batch], run_id: str, step: Step) -> Compacted:
    for part in parts:
        refuse_altered(part)
    with connect() as connection:
        table = part_table(connection, name, parts[-1])
        connection.rollback()
    special = {name for part in parts for name in special_columns(part.schema)}
    fields = fields_of(table, special)
    batch_id, created_at = manifest.new_batch_id(), datetime.now(UTC)
    path = manifest.part_path(name, parts[0].data_day, batch_id)
    step("before write")
    schema = _schema(parts, fields)
    with lake_store().stage(path) as staged:
        _write(staged.file, name, parts, fields, _metadata(parts[-1], batch_id, schema))
        found = _proven(staged.file, name, table, parts, fields)
        stored = staged.publish(step)
    new = NewPart(
        batch_id=batch_id,
        table_name=name,
        data_day=parts[0].data_day,
        path=path,
        rows=found.rows,
        bytes=stored.bytes,
        sha256=stored.sha256,
        content_hash=found.content_hash,
        column_hashes=found.column_hashes,
        min_ts=found.first,
        max_ts=found.last,
        cut=max((part.cut for part in parts if part.cut), default=None),
        schema=schema,
        created_at=created_at,
        verified_at=datetime.now(UTC),
        run_id=run_id,
        table_bytes=sum(part.table_bytes or 0 for part in parts) or None,
    )
    _swap(new, parts, step)
    return _described(name, parts, bytes_after=stored.bytes)


def _swap(new: NewPart, parts: Sequence[Batch], step: Step) -> None:
    """Put the new part in the place of its sources."""
    ids = [part.batch_id for part in parts]
    with connect() as connection, connection.transaction():
        row = connection.execute(
            "SELECT count(*) FROM (SELECT FROM archive.batches WHERE batch_id = ANY(%s) AND state = 'live'"
            " FOR UPDATE) AS live",
            [ids],
        ).fetchone()
        if not row or row[0] != len(ids):
            lake_store().delete(new.path)  # nobody has seen it
            raise TransientError(
                f"{new.table_name} of {new.data_day}: its parts changed, so nothing was compacted"
            )
        manifest.add_part(connection, new, supersedes=ids)
        step("before commit")


def _write(
    file: Any, name: str, parts: Sequence[Batch], fields: Sequence[Field], metadata: Mapping[str, str]
) -> None:
    known = {field.name for field in fields}
    policy = get_policies().archived.get(name)
    sort = [column for column in (policy.sort if policy else ()) if column in known]
    writer = PartWriter(file, fields, sort, metadata)
    try:
        for batch in _batches(parts, fields):
            writer.write(batch)
        writer.close()
    finally:
        writer.abandon()


def _proven(file: Any, name: str, table: LiveTable, parts: Sequence[Batch], fields: Sequence[Field]) -> Proof:
    """What the new file holds, once that is what its sources hold and what the manifest says of them."""
    time_column = _time_column(name, fields)
    found = file_proof(file, fields, table.key, time_column)
    expected = batches_proof(_batches(parts, fields), fields, table.key, time_column)
    rows = sum(part.rows for part in parts)
    difference = expected.difference(found) or (
        "" if found.rows == rows else f"{found.rows} rows against {rows}"
    )
    recorded = _recorded(parts)
    if not difference and recorded and recorded != found.column_hashes:
        difference = "the manifest has other hashes"
    if difference:
        raise TransientError(
            f"{name} of {parts[0].data_day}: the merged file is not its sources: {difference}"
        )
    return found


def _recorded(parts: Sequence[Batch]) -> dict[str, str]:
    """The sums of the recorded hashes; none where the parts have different forms, whose hashes do not add up."""
    recorded = [recorded_hashes(part) for part in parts]
    forms = {tuple(sorted(hashes)) for hashes in recorded}
    special = {frozenset(special_columns(part.schema)) for part in parts}
    if len(forms) != 1 or len(special) != 1:
        return {}
    return {name: _plus([hashes[name] for hashes in recorded]) for name in recorded[0]}


def _plus(texts: Sequence[str]) -> str:
    counts, sums = zip(*(text.split(":") for text in texts), strict=True)
    return f"{sum(map(int, counts))}:{sum(int(one, 16) for one in sums) % 2**64:016x}"


def _batches(parts: Sequence[Batch], fields: Sequence[Field]) -> Iterator[pa.RecordBatch]:
    """The rows of the parts, in the form that all of them have or can be given."""
    schema = pa.schema([(field.name, field.arrow) for field in fields])
    for part in parts:
        with lake_store().open(part.path) as source, pq.ParquetFile(source) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                columns = [
                    batch.column(f.name).cast(f.arrow)
                    if f.name in batch.schema.names
                    else pa.nulls(batch.num_rows, f.arrow)
                    for f in fields
                ]
                yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _time_column(name: str, fields: Sequence[Field]) -> str:
    policy = get_policies().archived.get(name)
    if policy and any(field.name == policy.time_column for field in fields):
        return policy.time_column
    return next(field.name for field in fields if field.kind in (Kind.TIME, Kind.DATE))


def _schema(parts: Sequence[Batch], fields: Sequence[Field]) -> dict[str, Any]:
    """The schema of the newest part, with the forms of the new file."""
    schema = {**(parts[-1].schema or {}), "proof_version": PROOF_VERSION}
    schema["columns"] = [
        {**c, "forms": {f.name: f.kind.value for f in fields if f.column == c["name"]}}
        for c in schema["columns"]
    ]
    return schema


def _metadata(part: Batch, batch_id: str, schema: Mapping[str, Any]) -> dict[str, str]:
    """What the file says of itself: what its newest source said, under its own identity."""
    with lake_store().open(part.path) as source, pq.ParquetFile(source) as file:
        own = json.loads((file.schema_arrow.metadata or {}).get(b"tracker", b"{}"))
    return {"tracker": json.dumps({**own, **schema, "batch_id": batch_id})}
