"""Loads a part into a temporary table of the columns that it was made of, and proves it by its manifest entry.

The table is built from the schema that the manifest recorded, so a part can be read back whatever became of the table
it came from.

What belongs here: from a file to proven rows in the session. What does not: where the rows go from there (`restore`,
`drill`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pgpq
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import sql

from tracker_pipeline.domain.schemas import TABLES
from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.storage.catalogue import LiveTable, live_table
from tracker_pipeline.storage.column_forms import SIDECAR, Field, Kind, fields_of
from tracker_pipeline.storage.database import Connection
from tracker_pipeline.storage.lake_store import lake_store, sha256_of
from tracker_pipeline.storage.manifest import Batch
from tracker_pipeline.storage.part_proof import PROOF_VERSION, database_proof, decimals_as_text
from tracker_pipeline.storage.snapshot_reader import EXACT_TEXT

_BATCH_ROWS: Final = 65_536
_RAW: Final = sql.Identifier("pg_temp", "raw_part")


@dataclass(frozen=True)
class LoadedPart:
    """A part in the session.

    Attributes:
        table: the temporary table, with the columns of the part as they were; it goes with the transaction.
        rows: how many.
    """

    table: LiveTable
    rows: int


def load_part(connection: Connection, name: str, part: Batch) -> LoadedPart:
    """Load a part within the caller's transaction, and prove that it is what was archived.

    Raises:
        PermanentError: the file is missing or altered, or a type of its columns does not exist any more.
        TransientError: what was loaded differs from what was archived; nothing may be made of it.
    """
    refuse_altered(part)
    for setting in EXACT_TEXT:
        connection.execute(setting)
    table = part_table(connection, name, part)
    fields = fields_of(table, special_columns(part.schema))
    _copy_raw(connection, part, fields)
    columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns)
    values = sql.SQL(", ").join(sql.SQL(_exact_value(table, fields, c.name)) for c in table.columns)
    connection.execute(
        sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}").format(table.identifier, columns, values, _RAW)
    )
    return LoadedPart(table, _proven_rows(connection, table, fields, part))


def refuse_altered(part: Batch) -> None:
    """Stop where the file is not the one that was archived.

    Raises:
        PermanentError: it is missing or altered.
    """
    store = lake_store()
    if store.size(part.path) is None:
        raise PermanentError(f"{part.path} is missing from the lake {store.name}: see tracker archive audit")
    if part.sha256 and sha256_of(store, part.path) != part.sha256:
        raise PermanentError(f"{part.path} is not the file that was archived: see tracker archive audit")


def part_table(connection: Connection, name: str, part: Batch) -> LiveTable:
    """Make an empty temporary table with the columns that a part was made of."""
    columns = columns_of(name, part)
    listed = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(c["name"]), sql.SQL(c["type"])) for c in columns
    )
    try:
        connection.execute("DROP TABLE IF EXISTS pg_temp.part")
        connection.execute(sql.SQL("CREATE TEMP TABLE part ({}) ON COMMIT DROP").format(listed))
    except psycopg.errors.UndefinedObject as error:
        words = " ".join(str(error).split())
        raise PermanentError(
            f"{part.path} has a column of a type that does not exist any more ({words}): create the type"
        ) from error
    row = connection.execute("SELECT pg_my_temp_schema()::regnamespace::text").fetchone()
    made = live_table(connection, f"{row[0] if row else 'pg_temp'}.part")
    return LiveTable(made.name, "pg_temp", "part", made.oid, made.columns, key_of_part(name, part))


def columns_of(name: str, part: Batch) -> list[dict[str, Any]]:
    """Columns of a part: name and type, in order. Parts of the first version go by the declaration."""
    recorded = (part.schema or {}).get("columns")
    if isinstance(recorded, list):
        return recorded
    if name not in TABLES:
        raise PermanentError(f"the manifest does not say what the columns of {part.path} are")
    return [{"name": c.name, "type": c.type.postgres, "forms": {}} for c in TABLES[name].columns]


def key_of_part(name: str, part: Batch) -> tuple[str, ...]:
    """The key of the table at the time the part was made."""
    recorded = (part.schema or {}).get("key")
    if isinstance(recorded, list):
        return tuple(recorded)
    return TABLES[name].key if name in TABLES else ()


def recorded_hashes(part: Batch) -> dict[str, str]:
    """The hash of each field as it is computed now; none of an older part, which its SHA-256 stands for."""
    is_current = (part.schema or {}).get("proof_version") == PROOF_VERSION
    return dict(part.column_hashes or {}) if is_current else {}


def special_columns(schema: Mapping[str, Any] | None) -> set[str]:
    """Columns that a file holds in their wider form."""
    columns = (schema or {}).get("columns")
    return {
        column["name"]
        for column in (columns if isinstance(columns, list) else [])
        if column["name"] + SIDECAR in column["forms"] or "decimal" in column["forms"].values()
    }


def _copy_raw(connection: Connection, part: Batch, fields: Sequence[Field]) -> None:
    """Copy the fields of the file as they stand, decimals as text."""
    schema = pa.schema([(field.name, _travelling(field)) for field in fields])
    encoder = pgpq.ArrowToPostgresBinaryEncoder(schema)
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(field.name), sql.SQL(_staged_type(field))) for field in fields
    )
    connection.execute("DROP TABLE IF EXISTS pg_temp.raw_part")
    connection.execute(sql.SQL("CREATE TEMP TABLE raw_part ({}) ON COMMIT DROP").format(columns))
    statement = sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(_RAW)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(encoder.write_header())
        for batch in _batches(part, fields, schema):
            copy.write(encoder.write_batch(batch))
        copy.write(encoder.finish())


def _batches(part: Batch, fields: Sequence[Field], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    with lake_store().open(part.path) as source, pq.ParquetFile(source) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=[field.name for field in fields]):
            arrays = [
                decimals_as_text(batch.column(f.name))
                if pa.types.is_decimal(f.arrow)
                else batch.column(f.name).cast(schema.field(f.name).type)
                for f in fields
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _travelling(field: Field) -> pa.DataType:
    return pa.string() if pa.types.is_decimal(field.arrow) else field.arrow


_INTEGERS: Final = {pa.int16(): "int2", pa.int32(): "int4", pa.int64(): "int8", pa.bool_(): "bool"}
_STAGED: Final = {
    Kind.DATE: "date",
    Kind.SCALED: "text",
    Kind.DECIMAL: "text",
    Kind.TEXT: "text",
    Kind.BYTES: "bytea",
    Kind.LIST: "text[]",
}


def _staged_type(field: Field) -> str:
    """The type of Postgres in which a field is copied."""
    if field.kind is Kind.INTEGER:
        return _INTEGERS[field.arrow]
    if field.kind is Kind.FLOAT:
        return "float4" if field.arrow == pa.float32() else "float8"
    if field.kind is Kind.TIME:
        return "timestamptz" if field.arrow.tz else "timestamp"
    return _STAGED[field.kind]


def _exact_value(table: LiveTable, fields: Sequence[Field], name: str) -> str:
    """SQL of the value that a column had, out of its field or fields."""
    column = table.column(name)
    assert column is not None  # noqa: S101  # it is one of the table's own
    sources = [sql.Identifier(f.name).as_string(None) for f in fields if f.column == name]
    typed = [f"{source}::{column.type}" for source in sources]
    return typed[0] if len(typed) == 1 else f"coalesce({', '.join(typed)})"


def _proven_rows(connection: Connection, table: LiveTable, fields: Sequence[Field], part: Batch) -> int:
    """How many rows were loaded, once Postgres finds them to be those of the manifest."""
    found = database_proof(connection, "pg_temp.part", "true", fields, table.key)
    recorded = recorded_hashes(part)
    differing = [
        name for name, text in found.column_hashes.items() if recorded and recorded.get(name) != text
    ]
    if found.rows != part.rows or differing:
        raise TransientError(
            f"{part.path}: what was read back is not what was archived ({found.rows} of {part.rows} rows;"
            f" columns that differ: {', '.join(differing) or 'none'})"
        )
    return found.rows
