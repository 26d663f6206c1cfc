"""Tables as the database has them: columns with their exact types, key, partitioning, what stands in a delete's way.

What belongs here: reads of Postgres' own catalogue. What does not: tables as we declare them (`domain.schemas`).
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from psycopg import sql

from tracker_pipeline.resources.errors import PermanentError
from tracker_pipeline.storage.database import Connection

_COLUMNS = """
WITH RECURSIVE resolved AS (
    SELECT a.attnum, a.attname, format_type(a.atttypid, a.atttypmod) AS type,
           a.attnotnull AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conrelid = a.attrelid AND c.contype = 'n'
               AND c.conkey = ARRAY[a.attnum] AND NOT c.convalidated) AS attnotnull,
           a.attgenerated::text, a.attidentity::text, a.atttypid AS base, a.atttypmod AS typmod
    FROM pg_attribute a WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
    SELECT r.attnum, r.attname, r.type, r.attnotnull, r.attgenerated, r.attidentity, t.typbasetype,
           t.typtypmod
    FROM resolved r JOIN pg_type t ON t.oid = r.base AND t.typtype = 'd'
)
SELECT r.attname, r.type, t.typname, r.typmod, NOT r.attnotnull, r.attgenerated <> '', r.attidentity
FROM resolved r JOIN pg_type t ON t.oid = r.base AND t.typtype <> 'd' ORDER BY r.attnum
"""
_KEY = """
SELECT a.attname FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS k(attnum, place), pg_attribute a
WHERE i.indrelid = %s AND i.indisprimary AND a.attrelid = i.indrelid AND a.attnum = k.attnum ORDER BY k.place
"""
_PARTITION_COLUMN = """
SELECT a.attname FROM pg_partitioned_table p
JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0]
WHERE p.partrelid = %s AND p.partstrat = 'r' AND p.partnatts = 1
"""
_DELETE_TRIGGERS = """
SELECT tgname FROM pg_trigger WHERE tgrelid = %s AND NOT tgisinternal AND tgenabled <> 'D' AND (tgtype & 8) <> 0
"""
# Foreign keys of other tables that would change or remove their rows along with ours.
_REACHING_OUT = """
SELECT c.conrelid::regclass::text,
       (SELECT array_agg(a.attname ORDER BY k.place) FROM unnest(c.conkey) WITH ORDINALITY AS k(attnum, place)
        JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.attnum),
       (SELECT array_agg(a.attname ORDER BY k.place) FROM unnest(c.confkey) WITH ORDINALITY AS k(attnum, place)
        JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = k.attnum)
FROM pg_constraint c
WHERE c.confrelid = %s AND c.contype = 'f' AND c.confdeltype IN ('c', 'n', 'd') AND c.conparentid = 0
"""
# The session is in UTC, so the bounds are spelled in UTC and read back as such.
_PARTITIONS = r"""
SELECT c.oid, n.nspname, c.relname, bounds[1]::timestamptz, bounds[2]::timestamptz
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace,
     regexp_match(pg_get_expr(c.relpartbound, c.oid), '^FOR VALUES FROM \(''(.*)''\) TO \(''(.*)''\)$') bounds
WHERE i.inhparent = %s AND NOT i.inhdetachpending AND bounds IS NOT NULL AND c.relkind = 'r' ORDER BY 4
"""
_OTHER_PARTITIONS = r"""
SELECT n.nspname, c.relname
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE i.inhparent = %s AND NOT i.inhdetachpending AND (c.relkind <> 'r'
    OR pg_get_expr(c.relpartbound, c.oid) !~ '^FOR VALUES FROM \(''(.*)''\) TO \(''(.*)''\)$') ORDER BY 2
"""
_TABLES = """
SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY(%s) AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1
"""


@dataclass(frozen=True)
class LiveColumn:
    """One column.

    Attributes:
        name: its name, in any case and with any characters.
        type: the type as Postgres spells it, with precision and length.
        base: name of the type in the catalogue, that of the underlying type where it is a domain.
        typmod: precision, scale or length of the base type in Postgres' encoding; -1 for none.
        nullable: whether NULL can be there: a domain or a constraint that is not validated does not prevent it.
        generated: whether Postgres computes it.
        identity: `a` always, `d` by default, or empty.
    """

    name: str
    type: str
    base: str
    typmod: int
    nullable: bool
    generated: bool = False
    identity: Literal["a", "d", ""] = ""

    @property
    def precision_and_scale(self) -> tuple[int, int] | None:
        """Of a `numeric(p, s)`; None where it has none."""
        if self.base != "numeric" or self.typmod < 4:
            return None
        packed = self.typmod - 4
        return (packed >> 16) & 0xFFFF, ((packed & 0x7FF) ^ 1024) - 1024


@dataclass(frozen=True)
class LiveTable:
    """One table.

    Attributes:
        name: schema and table with a dot between, unquoted.
        oid: its identity in this database; a table dropped and made anew has another.
        columns: in order.
        key: columns of the primary key; empty where there is none.
        partition_column: the column that ranges of a natively partitioned table are cut by, else None.
        is_partitioned: whether rows live in partitions.
    """

    name: str
    schema: str
    table: str
    oid: int
    columns: tuple[LiveColumn, ...]
    key: tuple[str, ...]
    partition_column: str | None = None
    is_partitioned: bool = False

    def column(self, name: str) -> LiveColumn | None:
        """The column of that name, if there is one."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def identifier(self) -> sql.Identifier:
        """The qualified name, quoted."""
        return sql.Identifier(self.schema, self.table)

    @property
    def fingerprint(self) -> str:
        """A hash of names and types of the columns: another one is another version of the schema."""
        columns = [(c.name, c.type, c.nullable) for c in self.columns]
        return hashlib.sha256(json.dumps(columns).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class LivePartition:
    """One native partition with two bounds.

    Attributes:
        name: schema and table, unquoted.
        quoted: the same as SQL.
        parent: the partitioned table as SQL.
        start: first moment it takes.
        end: first moment it takes no more.
    """

    oid: int
    name: str
    quoted: str
    parent: str
    start: datetime
    end: datetime


def live_partitions(connection: Connection, table: LiveTable) -> list[LivePartition]:
    """The attached partitions of a table that is partitioned by ranges of time, oldest first."""
    parent = table.identifier.as_string(None)
    return [
        LivePartition(
            oid, f"{schema}.{name}", sql.Identifier(schema, name).as_string(None), parent, start, end
        )
        for oid, schema, name, start, end in connection.execute(_PARTITIONS, [table.oid]).fetchall()
    ]


def other_partitions(connection: Connection, table: LiveTable) -> list[str]:
    """The attached partitions that `live_partitions` leaves out, quoted: DEFAULT, without a bound, with their own."""
    found = connection.execute(_OTHER_PARTITIONS, [table.oid]).fetchall()
    return [sql.Identifier(schema, name).as_string(None) for schema, name in found]


def live_table(connection: Connection, name: str) -> LiveTable:
    """Read a table from the catalogue.

    Raises:
        PermanentError: there is no such table.
    """
    schema, _, table = name.partition(".")
    found = connection.execute(
        "SELECT c.oid, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p')",
        [schema, table],
    ).fetchone()
    if found is None:
        raise PermanentError(f"the table {name} does not exist: create it or remove its archive policy")
    oid, kind = found
    columns = tuple(LiveColumn(*row) for row in connection.execute(_COLUMNS, [oid]).fetchall())
    key = tuple(row[0] for row in connection.execute(_KEY, [oid]).fetchall())
    partition = connection.execute(_PARTITION_COLUMN, [oid]).fetchone() if kind == "p" else None
    return LiveTable(
        name,
        schema,
        table,
        oid,
        columns,
        key,
        partition[0] if partition else None,
        is_partitioned=kind == "p",
    )


def tables_of(connection: Connection, schemas: list[str]) -> list[str]:
    """Names of the tables of some schemas, partitions not counted."""
    return [row[0] for row in connection.execute(_TABLES, [schemas]).fetchall()]


def delete_triggers(connection: Connection, table: LiveTable) -> list[str]:
    """Names of the enabled triggers that a delete would fire."""
    return [row[0] for row in connection.execute(_DELETE_TRIGGERS, [table.oid]).fetchall()]


def dependent_tables(
    connection: Connection, table: LiveTable
) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Tables whose rows a delete would remove or change by a foreign key: name, their columns, ours."""
    rows = connection.execute(_REACHING_OUT, [table.oid]).fetchall()
    return [(child, tuple(theirs), tuple(ours)) for child, theirs, ours in rows]
