"""How a column of Postgres stands in a Parquet file, so that no value changes on the way there and back.

A *field* is one column of a file: the SQL that reads it, the SQL that hashes it, its Arrow type. Most columns are one
field. Values that the typed field cannot hold (an infinite time, NaN of a numeric, an array with bounds of its own)
stand as text in a second field, `<column>$text`, which a file has only where it needs it; the typed field is NULL
there. Types without an exact Arrow form are text, with their name in the file's metadata.

What belongs here: the mapping, in both directions. What does not: reading and writing (`part_writer`), hashing
(`part_proof`).
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import Final

import pyarrow as pa
from psycopg import sql

from tracker_pipeline.storage.catalogue import LiveColumn, LiveTable

SIDECAR: Final = "$text"
# Longer values are hashed by their MD5, so that one huge value does not hold up a block of short ones.
LONGEST_HASHED: Final = 1_024
_MOST_BYTES: Final = 4  # of a character, in any encoding of a server
_FEW_DIGITS: Final = 18  # what an int64 holds for certain
_MANY_DIGITS: Final = 38  # what a decimal128 holds


class DoesNotFitError(Exception):
    """A value cannot stand in the usual form of its column; the column is in `args`."""


class Kind(Enum):
    """How the values of a field are compared with the database's."""

    INTEGER = "integer"
    FLOAT = "float"
    TIME = "time"
    DATE = "date"
    SCALED = "scaled"
    DECIMAL = "decimal"
    TEXT = "text"
    BYTES = "bytes"
    LIST = "list"


@dataclass(frozen=True)
class Field:
    """One column of a file.

    Attributes:
        name: in the file.
        column: of the table.
        kind: how it is compared.
        arrow: its type in the file.
        select: SQL that reads it, in the form in which it travels: the column itself where that will do, since a row
            whose columns are all as they stand in the table takes a tenth less to send.
        value: SQL of what is hashed.
        counted: SQL that is NULL where `value` is, and costs less; `*` where it never is.
    """

    name: str
    column: str
    kind: Kind
    arrow: pa.DataType
    select: str
    value: str
    counted: str

    def hashed(self, seed: str) -> str:
        """SQL of the 64-bit hash of a value; NULL for NULL."""
        return _HASHES[self.kind].format(value=self.value, seed=seed)


_HASHES: Final = {
    Kind.INTEGER: "hashint8extended({value}, {seed})",
    Kind.FLOAT: "CASE WHEN {value} = 0 AND float8send({value}) <> '\\x0000000000000000' THEN 1"
    " ELSE hashfloat8extended({value}, {seed}) END",
    Kind.TIME: "timestamp_hash_extended({value}, {seed})",
    Kind.DATE: "hashint4extended({value}, {seed})",
    Kind.SCALED: "CASE WHEN {value} < 0 THEN ~hash_numeric_extended({value}, {seed})"
    " ELSE hash_numeric_extended({value}, {seed}) END",
    Kind.DECIMAL: 'hashtextextended({value} COLLATE "C", {seed})',
    Kind.TEXT: 'hashtextextended({value} COLLATE "C", {seed})',
    Kind.BYTES: 'hashtextextended(md5({value}) COLLATE "C", {seed})',
    Kind.LIST: 'hashtextextended({value} COLLATE "C", {seed})',
}
_INTEGERS: Final = {"int2": pa.int16(), "int4": pa.int32(), "int8": pa.int64()}
_TEXTS: Final = {"text", "varchar", "bpchar", "name", "char"}
_AS_TEXT: Final = {"text", "varchar"}  # travel as their text does
_TEXT_LISTS: Final = {"_text", "_varchar"}
_FIRST_TIME, _LAST_TIME = "'0001-01-01'", "'9999-12-31 23:59:59.999999'"


def fields_of(table: LiveTable, special: Collection[str] = ()) -> list[Field]:
    """The fields of a file of `table`.

    Args:
        table: as the catalogue has it.
        special: columns with values that the usual form cannot hold; they get the wider one.
    """
    return [
        field
        for column in table.columns
        for field in (_special(column) if column.name in special else [_usual(column)])
    ]


def can_be_special(column: LiveColumn) -> bool:
    """Whether the column has a wider form at all."""
    return [f.kind for f in _special(column)] != [_usual(column).kind]


def special_values(column: LiveColumn) -> str:
    """SQL condition: the value does not fit the usual form."""
    quoted = quoted_name(column.name)
    if column.base == "numeric":
        limit = _limit(column)
        return f"{quoted} NOT BETWEEN -{limit} AND {limit}"
    return f"NOT {_fits(column, quoted)}"


def _usual(column: LiveColumn) -> Field:
    quoted = quoted_name(column.name)
    counted = quoted if column.nullable else "*"  # a cast keeps NULL and nothing else becomes it
    for choose in (_plain_form, _time_form, _number_form, _list_form):
        chosen = choose(column, quoted)
        if chosen is not None:
            kind, arrow, select, value = chosen
            return Field(column.name, column.name, kind, arrow, select, value, counted)
    text = f"{quoted}::text"
    return Field(column.name, column.name, Kind.TEXT, pa.string(), text, _short(text), counted)


_Form = tuple[Kind, pa.DataType, str, str]


def _plain_form(column: LiveColumn, quoted: str) -> _Form | None:
    base = column.base
    if base in _INTEGERS:
        return Kind.INTEGER, _INTEGERS[base], quoted, f"{quoted}::int8"
    if base == "bool":
        return Kind.INTEGER, pa.bool_(), quoted, f"{quoted}::bool::int::int8"
    if base in ("float4", "float8"):
        arrow = pa.float32() if base == "float4" else pa.float64()
        return Kind.FLOAT, arrow, quoted, f"{quoted}::float8"
    if base in _TEXTS:
        # Cast to text, a bpchar loses its blanks at the end; one of a given length has them again.
        text = (
            f"textin(bpcharout({quoted}))" if (base, column.typmod) == ("bpchar", -1) else f"{quoted}::text"
        )
        travelling = quoted if base in _AS_TEXT else text
        return Kind.TEXT, pa.string(), travelling, text if _is_short(column) else _short(text)
    if base == "bytea":
        return Kind.BYTES, pa.binary(), quoted, quoted
    return None


def _time_form(column: LiveColumn, quoted: str) -> _Form | None:
    if column.base == "timestamptz":
        return (
            Kind.TIME, pa.timestamp("us", "UTC"), quoted, f"({quoted} AT TIME ZONE 'UTC')",
        )  # fmt: skip
    if column.base == "timestamp":
        return Kind.TIME, pa.timestamp("us"), quoted, quoted
    if column.base == "date":
        return Kind.DATE, pa.date32(), quoted, f"({quoted} - date '2000-01-01')"
    return None


def _number_form(column: LiveColumn, quoted: str) -> _Form | None:
    digits = column.precision_and_scale
    if digits is None:
        return None
    precision, scale = digits
    if not 0 <= scale <= min(precision, _FEW_DIGITS) or precision > _MANY_DIGITS:
        return None
    return Kind.SCALED, pa.decimal128(_FEW_DIGITS, scale), quoted, quoted


def _list_form(column: LiveColumn, quoted: str) -> _Form | None:
    if column.base not in _TEXT_LISTS:
        return None
    return Kind.LIST, pa.list_(pa.string()), f"{quoted}::text[]", _short(f"{quoted}::text")


def _special(column: LiveColumn) -> list[Field]:
    usual = _usual(column)
    quoted = quoted_name(column.name)
    if usual.kind is Kind.SCALED:
        digits = column.precision_and_scale
        assert digits is not None  # noqa: S101  # for the type checker: the kind says so
        typed = f"(CASE WHEN {quoted} <> 'NaN' THEN {quoted} END)::text"
        odd = f"(CASE WHEN {quoted} = 'NaN' THEN {quoted} END)::text"
        first = Field(usual.name, column.name, Kind.DECIMAL, pa.decimal128(*digits), typed, typed, typed)
        return [first, _sidecar(column, odd)]
    if usual.kind not in (Kind.TIME, Kind.DATE, Kind.LIST):
        return [usual]
    fits = _fits(column, quoted)
    typed, value = (_only(fits, quoted, sql_) for sql_ in (usual.select, usual.value))
    first = Field(usual.name, column.name, usual.kind, usual.arrow, typed, value, value)
    return [first, _sidecar(column, f"CASE WHEN NOT {fits} THEN {quoted}::text END")]


def _only(fits: str, quoted: str, expression: str) -> str:
    return expression.replace(quoted, f"(CASE WHEN {fits} THEN {quoted} END)")


def _sidecar(column: LiveColumn, text: str) -> Field:
    return Field(column.name + SIDECAR, column.name, Kind.TEXT, pa.string(), text, _short(text), text)


def _fits(column: LiveColumn, quoted: str) -> str:
    if column.base in _TEXT_LISTS:
        return (
            f"(array_ndims({quoted}) IS NULL OR array_ndims({quoted}) = 1 AND array_lower({quoted}, 1) = 1)"
        )
    return f"({quoted} BETWEEN {_FIRST_TIME} AND {_LAST_TIME})"


def _limit(column: LiveColumn) -> str:
    _, scale = column.precision_and_scale or (0, 0)
    return "9" * (_FEW_DIGITS - scale) + (f".{'9' * scale}" if scale else "")


def _is_short(column: LiveColumn) -> bool:
    """Whether the type holds no text that is hashed by its MD5; asking each row adds 10 to 50 % to its hash."""
    longest = column.typmod - 4  # characters
    return column.base in ("varchar", "bpchar") and 0 <= longest <= LONGEST_HASHED // _MOST_BYTES


def _short(text: str) -> str:
    return f"(CASE WHEN octet_length({text}) > {LONGEST_HASHED} THEN md5({text}) ELSE {text} END)"


def quoted_name(name: str) -> str:
    """A column name as SQL."""
    return sql.Identifier(name).as_string(None)
