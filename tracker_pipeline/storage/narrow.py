"""A few days of one key out of hot and cold rows, such as the minutes of a symbol's day, read at once.

Each message to Postgres, each plan of Polars and each footer of a file costs as much as a thousand rows here. So one
message asks for everything (`round_trip`), the columns of the key that are asked for are not fetched, the frame is
put together from its columns, and the files are read by what is remembered of them (`part_rows`).

What belongs here: narrow reads. What does not: any other (`spanning`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache, reduce
from typing import Final

import polars as pl
import pyarrow as pa

from tracker_pipeline.storage.packed import Column, Packing, is_packable
from tracker_pipeline.storage.part_rows import Series, is_quick, rows_of
from tracker_pipeline.storage.pushdown import quoted
from tracker_pipeline.storage.relations import Relation, relation_of
from tracker_pipeline.storage.round_trip import Rows, ask
from tracker_pipeline.storage.wanted import Wanted, parts_statement, select_statement

# Not more files than stay open. 90 days of minutes of one symbol take 0.7 of the time that they take Polars.
_LONGEST: Final = timedelta(days=100)
_TIME: Final = pl.Datetime("us", "UTC")
_FIRST_MOMENT: Final = datetime(2000, 1, 1, tzinfo=UTC)  # from which Postgres counts days
_PARTS: Final = parts_statement("$1::text", "$2::date", "$3::date")


def series_of(relation: Relation, wanted: Wanted) -> Series | None:
    """The rows that are wanted, where they are a few days of one value of each column of the key before the time."""
    start, end = wanted.start, wanted.end
    if relation.declared is None or not relation.hot or start is None or end is None:
        return None
    *leading, last = relation.key
    narrow = (
        end - start <= _LONGEST
        and wanted.at is None
        and last == relation.time_column
        and relation.columns[last] == _TIME
        and sorted(c.column for c in wanted.conditions) == sorted(leading)
        and all(c.operator == "=" and isinstance(c.values[0], str) for c in wanted.conditions)
        and len(wanted.reaching(relation)) == len(leading)
        and _are_packable(relation.name, tuple(wanted.names(relation)))
    )
    return Series({c.column: c.values[0] for c in wanted.conditions}, last, start, end) if narrow else None


@lru_cache(maxsize=256)
def _are_packable(table: str, names: tuple[str, ...]) -> bool:
    columns = relation_of(table).columns
    return all(is_packable(columns[name]) for name in names)


def read(relation: Relation, wanted: Wanted, series: Series) -> pl.DataFrame:
    """The rows of a series in the columns that are wanted, by time.

    Raises:
        PermanentError: a file is missing or broken, or a table may not be read.
        TransientError: the database or the lake does not answer.
    """
    names, given, at = wanted.names(relation), series.given, series.at
    fetched = tuple(name for name in dict.fromkeys([*names, at]) if name not in given)
    asked = _asked(relation.name, fetched)
    moments = [series.start.isoformat(), series.end.isoformat()]
    texts = [given[name] for name in relation.key[:-1]]
    days = [relation.name, wanted.first_day.isoformat(), wanted.last_day.isoformat()]
    cold = _Cold(relation, fetched, series)
    _, (row,) = ask(relation.qualified, (_PARTS, days), (asked.statement, [*texts, *moments]), told=cold.told)
    hot = asked.packing.unpack(row)
    old = cold.frames()
    if old and hot.height and _first(hot.get_column(at)) < cold.end:
        corrected = hot.get_column(at).implode()
        old = [rows.filter(~rows.get_column(at).is_in(corrected)) for rows in old]
    found = [rows for rows in (*old, hot) if rows.height]
    rows = reduce(pl.DataFrame.vstack, found) if found else hot
    # The index of the hot rows and the files have them in order, but do not promise it.
    if not rows.get_column(at).is_sorted():
        rows = rows.sort(at)
    rows, height = rows.clone(), rows.height
    if at not in names:
        rows.drop_in_place(at)
    for place, name in enumerate(names):
        if name in given:
            rows.insert_column(place, _once(name, given[name]).new_from_index(0, height))
    return rows


@lru_cache(maxsize=256)
def _once(name: str, text: str) -> pl.Series:
    return pl.Series(name, [text], pl.String())


class _Cold:
    """The cold rows of a series. They are read while the server is at the hot ones, if that takes no longer."""

    def __init__(self, relation: Relation, names: Sequence[str], series: Series) -> None:
        self._relation = relation
        self._names = names
        self._series = series

    def told(self, parts: Rows) -> None:
        """Take the answer to `parts_statement`, again where it had to be asked again."""
        self._paths = [str(path, "utf-8") for _, path in parts if path]
        self._days = [int.from_bytes(day or b"", signed=True) for day, _ in parts]
        self._early = self._read() if not self._paths or is_quick(self._paths) else None

    def frames(self) -> list[pl.DataFrame]:
        """The rows in the declared columns, in several frames where files differ in theirs."""
        return self._read() if self._early is None else self._early

    def _read(self) -> list[pl.DataFrame]:
        if not self._paths:
            return []
        tables = rows_of(self._relation.name, self._paths, self._names, self._series)
        declared = {name: self._relation.columns[name] for name in self._names}
        return [_as_declared(_frame(rows), declared) for rows in _joined(tables)]

    @property
    def end(self) -> datetime:
        """The end of the last day that has parts."""
        return _FIRST_MOMENT + timedelta(days=max(self._days) + 1)


@dataclass(frozen=True)
class _Asked:
    """The statement that asks for hot rows of a key in a window, and the form in which they come."""

    statement: str
    packing: Packing


@lru_cache(maxsize=256)
def _asked(table: str, names: tuple[str, ...]) -> _Asked:
    relation = relation_of(table)
    assert relation.declared is not None  # noqa: S101  # as `series_of` found
    columns = relation.declared.column_by_name
    packing = Packing([Column(n, relation.hot[n], relation.columns[n], columns[n].nullable) for n in names])
    *leading, last = map(quoted, relation.key)
    first, after = (f"${len(leading) + number}::timestamptz" for number in (1, 2))
    conditions = [f"{name} = ${number}::text" for number, name in enumerate(leading, 1)]
    window = [f"{last} >= {first}", f"{last} < {after}"]
    return _Asked(select_statement(relation, packing.asked, [*conditions, *window]), packing)


def _first(times: pl.Series) -> datetime:
    return times.min()  # type: ignore[return-value]  # a time


def _joined(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Tables of one schema as one, since making a frame of each costs more than its rows."""
    alike = all(table.schema.equals(tables[0].schema) for table in tables)
    return [pa.concat_tables(tables)] if alike else list(tables)


def _frame(rows: pa.Table) -> pl.DataFrame:
    """A frame of a table: Polars takes 0.01 ms for a batch and 0.05 ms for a table."""
    batches = rows.combine_chunks().to_batches()
    return pl.DataFrame(batches[0] if len(batches) == 1 else rows)


def _as_declared(rows: pl.DataFrame, declared: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """The rows in the declared columns; what an old file lacks is NULL."""
    if rows.columns == list(declared) and rows.dtypes == list(declared.values()):
        return rows
    return rows.select(
        (pl.col(name) if name in rows.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in declared.items()
    )
