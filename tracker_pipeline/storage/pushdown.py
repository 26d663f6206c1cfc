"""The part of a filter that every store understands: comparisons of one column with constants, joined by `and`.

A filter comes as a Polars expression from our own code, or as an Arrow expression from DuckDB. What is recognized
reaches Postgres and the files; the whole filter is applied to what comes back, so that leaving a condition out costs
time and nothing else.

What belongs here: recognizing conditions and saying them in SQL and Polars. What does not: reading (`spanning`).
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache, lru_cache
from typing import Any, Final

import polars as pl
import pyarrow as pa
from psycopg import sql

_COMPARE: Final[Mapping[str, Callable[[Any, Any], pl.Expr]]] = {
    "=": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_BOUNDS: Final = {"both": (">=", "<="), "left": (">=", "<"), "right": (">", "<="), "none": (">", "<")}
_MOST_VALUES = 1_000  # a longer list is not worth its SQL


@dataclass(frozen=True)
class Condition:
    """`column operator value`, or `column in values`. NULL fulfils none."""

    column: str
    operator: str
    values: tuple[Any, ...]

    def fits(self, dtype: pl.DataType | type[pl.DataType]) -> bool:
        """Whether Postgres, Polars and Arrow judge it alike for a column of this type.

        Text is only ever compared for equality, because its order depends on the database's collation.
        """
        exact = self.operator in ("=", "in")
        return all(_is_alike(dtype, value, exact=exact) for value in self.values)

    def as_sql(self, column: str) -> str:
        """The condition for Postgres, with its constants written out: ADBC then reads by COPY.

        Args:
            column: SQL of the column.
        """
        values = [literal(value) for value in self.values]
        if self.operator == "in":
            return f"{column} IN ({', '.join(values)})"
        return f"{column} {self.operator} {values[0]}"

    def as_polars(self) -> pl.Expr:
        """The condition on a frame."""
        if self.operator == "in":
            return pl.col(self.column).is_in(list(self.values))
        return _COMPARE[self.operator](pl.col(self.column), self.values[0])


@dataclass(frozen=True)
class Filter:
    """What is recognized of a filter.

    Attributes:
        conditions: the recognized comparisons; each row that passes the filter fulfils all of them.
        whole: whether the filter is nothing else.
    """

    conditions: Sequence[Condition] = ()
    whole: bool = True


def filter_of(predicate: pl.Expr | None) -> Filter:
    """The conditions among those that a Polars expression joins by `&`."""
    if predicate is None:
        return Filter()
    try:
        return _remembered(predicate.meta.serialize())
    except pl.exceptions.PolarsError:  # a function of Python's is in it
        return _recognized(predicate)


@lru_cache(maxsize=256)
def _remembered(serialized: bytes) -> Filter:
    """What is recognized of an expression; finding it takes 0.1 ms, a tenth of a narrow read."""
    return _recognized(pl.Expr.deserialize(serialized))


def _recognized(predicate: pl.Expr) -> Filter:
    parts = predicate.meta.pop()
    if len(parts) == 2:
        right, left = parts
        if (left & right).meta.eq(predicate):
            a, b = _recognized(left), _recognized(right)
            return Filter([*a.conditions, *b.conditions], a.whole and b.whole)
        found = _comparison(predicate, left, right)
        return Filter(found, whole=bool(found))
    found = _between(predicate, parts[::-1]) if len(parts) == 3 else []
    return Filter(found, whole=len(found) == 2)


def _comparison(predicate: pl.Expr, left: pl.Expr, right: pl.Expr) -> list[Condition]:
    if left.meta.is_column() and right.meta.is_literal():
        values = _constants(right)
        for operator, compare in _COMPARE.items():
            if len(values) == 1 and compare(left, right).meta.eq(predicate):
                return [Condition(left.meta.output_name(), operator, values)]
        if 0 < len(values) <= _MOST_VALUES and left.is_in(right).meta.eq(predicate):
            return [Condition(left.meta.output_name(), "in", values)]
    if right.meta.is_column() and left.meta.is_literal():
        mirrored = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
        for operator, compare in _COMPARE.items():
            if compare(left, right).meta.eq(predicate):
                return _comparison(_COMPARE[mirrored[operator]](right, left), right, left)
    return []


def _between(predicate: pl.Expr, parts: Sequence[pl.Expr]) -> list[Condition]:
    subject, low, high = parts
    if not (subject.meta.is_column() and low.meta.is_literal() and high.meta.is_literal()):
        return []
    for closed, (lower, upper) in _BOUNDS.items():
        if subject.is_between(low, high, closed=closed).meta.eq(predicate):  # type: ignore[arg-type]  # four words
            name = subject.meta.output_name()
            return [
                Condition(name, operator, _constants(edge))
                for operator, edge in ((lower, low), (upper, high))
                if len(_constants(edge)) == 1
            ]
    return []


def _constants(literal: pl.Expr) -> tuple[Any, ...]:
    series = pl.select(literal).to_series()
    values = series.explode().to_list() if isinstance(series.dtype, pl.List) else series.to_list()
    return tuple(value for value in values if value is not None)


def conditions_of_arrow(expression: Any, schema: pa.Schema) -> list[Condition]:
    """The recognized conditions among those that an Arrow expression joins by `and`.

    Arrow lets nobody look into an expression but as text. What is read from the text is made into an expression
    again and counts only where that has the very same text.
    """
    if expression is None:
        return []
    found = []
    for leaf in _leaves(str(expression)):
        condition = _arrow_comparison(leaf, schema) or _arrow_membership(leaf, schema)
        if condition:
            found.append(condition)
    return found


def _leaves(text: str) -> Iterator[str]:
    """The operands of nested `(a and b)`; text within quotes is passed over."""
    parts = _split_and(text)
    if parts is None:
        yield text
        return
    for part in parts:
        yield from _leaves(part)


def _split_and(text: str) -> tuple[str, str] | None:
    if not (text.startswith("(") and text.endswith(")")):
        return None
    depth, quoted, i = 0, False, 0
    while i < len(text):
        char = text[i]
        if quoted:
            i += char == "\\"
            quoted = char != '"'
        elif char == '"':
            quoted = True
        elif char in "()[]{}":
            depth += 1 if char in "([{" else -1
        elif depth == 1 and text.startswith(" and ", i):
            return text[1:i], text[i + 5 : -1]
        i += 1
    return None


_ARROW_COMPARISON = re.compile(r"\((\w+) (==|<|<=|>|>=) (.*)\)", re.DOTALL)
_ARROW_MEMBERSHIP = re.compile(
    r"if_else\(is_valid\((\w+)\), is_in\(\1, \{value_set=(?:large_)?string:\[\n(.*)\n\],"
    r" null_matching_behavior=MATCH\}\), null\[bool\]\)",
    re.DOTALL,
)


def _arrow_comparison(text: str, schema: pa.Schema) -> Condition | None:
    import pyarrow.compute as pc

    match = _ARROW_COMPARISON.fullmatch(text)
    if match is None or match[1] not in schema.names:
        return None
    kind = schema.field(match[1]).type
    value = _arrow_constant(match[3], kind)
    if value is None:
        return None
    operator = "=" if match[2] == "==" else match[2]
    again = _COMPARE[operator](pc.field(match[1]), pc.scalar(pa.scalar(value, kind)))
    return Condition(match[1], operator, (value,)) if str(again) == text else None


def _arrow_membership(text: str, schema: pa.Schema) -> Condition | None:
    match = _ARROW_MEMBERSHIP.fullmatch(text)
    if match is None or match[1] not in schema.names:
        return None
    lines = [line.strip().removesuffix(",") for line in match[2].split("\n")]
    # Arrow writes long lists with "..." in the middle: that is no text constant, so such a list is left out.
    values = [_arrow_constant(line, pa.string()) for line in lines]
    return None if None in values else Condition(match[1], "in", tuple(values))


def _arrow_constant(text: str, kind: pa.DataType) -> Any:
    """A constant of Arrow's text form, None where it is not certain."""
    parse = next((parse for fits, parse in _PARSERS if fits(kind)), None)
    try:
        return parse(text) if parse else None
    except ValueError:
        return None


def _plain_text(text: str) -> str | None:
    quoted = len(text) > 1 and text[0] == text[-1] == '"'
    return text[1:-1] if quoted and not set(text[1:-1]) & set('"\\\n') else None


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment


_PARSERS: Final[Sequence[tuple[Callable[[pa.DataType], bool], Callable[[str], Any]]]] = (
    (lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind), _plain_text),
    (pa.types.is_boolean, {"true": True, "false": False}.get),
    (pa.types.is_integer, int),
    (pa.types.is_floating, float),
    (pa.types.is_timestamp, _moment),
    (pa.types.is_date32, date.fromisoformat),
)


def _is_alike(dtype: Any, value: Any, *, exact: bool) -> bool:
    if isinstance(value, bool) or dtype == pl.Boolean:
        return exact and isinstance(value, bool) and dtype == pl.Boolean
    if dtype == pl.String:
        return exact and isinstance(value, str) and "\0" not in value
    if dtype.is_integer():
        return isinstance(value, int) and -(2**63) <= value < 2**63
    if dtype == pl.Float64:
        return isinstance(value, (int, float)) and math.isfinite(value) and abs(value) <= 2**53
    return _is_same_kind_of_time(dtype, value)


def _is_same_kind_of_time(dtype: Any, value: Any) -> bool:
    if not isinstance(value, datetime):
        return dtype == pl.Date and isinstance(value, date)
    return isinstance(dtype, pl.Datetime) and (dtype.time_zone is None) == (value.tzinfo is None)


def literal(value: Any) -> str:
    """A constant for SQL."""
    if isinstance(value, datetime) and value.tzinfo is None:
        return f"'{value.isoformat()}'::timestamp"
    if isinstance(value, datetime):
        return f"'{value.astimezone(UTC).isoformat()}'::timestamptz"
    if isinstance(value, date):
        return f"'{value.isoformat()}'::date"
    if isinstance(value, float):
        return f"'{value!r}'::float8"
    return sql.Literal(value).as_string(None)


@cache
def quoted(name: str) -> str:
    """A name for SQL."""
    return sql.Identifier(name).as_string(None)
