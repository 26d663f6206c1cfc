"""A few days of one key out of hot and cold rows, such as the minutes of a symbol's day, read at once.

Each message to Postgres, each plan of Polars and each footer of a file costs as much as a thousand rows here. So the
columns of the key that are asked for are not fetched, the frame is put together from its columns, and the files are
read by what is remembered of them (`part_rows`).

What belongs here: narrow reads. What does not: any other (`spanning`).
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

import polars as pl

from tracker_pipeline.storage.part_rows import Series, rows_of
from tracker_pipeline.storage.relations import Relation
from tracker_pipeline.storage.snapshots import snapshot
from tracker_pipeline.storage.wanted import Wanted, hot_conditions, parts_statement, rows_statement

# A week of minute bars of one symbol is 10,080 rows. More are faster by Polars, which reads files side by side.
_LONGEST: Final = timedelta(days=8)
_TIME: Final = pl.Datetime("us", "UTC")


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
    )
    return Series({c.column: c.values[0] for c in wanted.conditions}, last, start, end) if narrow else None


def read(relation: Relation, wanted: Wanted, series: Series) -> pl.DataFrame:
    """The rows of a series in the columns that are wanted, by time.

    Raises:
        PermanentError: a file is missing or broken, or a table may not be read.
        TransientError: the database or the lake does not answer.
    """
    names, given, at = wanted.names(relation), series.given, series.at
    fetched = [name for name in dict.fromkeys([*names, at]) if name not in given]
    asked = rows_statement(relation, fetched, hot_conditions(relation, wanted, wanted.conditions))
    with snapshot(relation.qualified) as moment:
        parts = moment.read_few(parts_statement(relation, wanted))
        days, paths = parts.get_column("data_day").to_list(), parts.get_column("path").to_list()
        # Where each day is cold, the hot rows are corrections, and few.
        all_cold = len(set(days)) == (wanted.last_day - wanted.first_day).days + 1
        hot = moment.read_few(asked, by_copy=not all_cold)
    declared = {name: relation.columns[name] for name in fetched}
    found = [_as_declared(hot, declared)]
    if paths:
        cold = [
            _as_declared(pl.DataFrame(rows), declared)
            for rows in rows_of(relation.name, paths, fetched, series)
        ]
        if _first(hot.get_column(at)) < _after(max(days)):
            corrected = hot.get_column(at).implode()
            cold = [rows.filter(~rows.get_column(at).is_in(corrected)) for rows in cold]
        found = [rows for rows in (*cold, *found) if rows.height] or found
    rows = found[0] if len(found) == 1 else pl.concat(found, rechunk=False)
    # The index of the hot rows and the files have them in order, but do not promise it.
    if not rows.get_column(at).is_sorted():
        rows = rows.sort(at)
    return pl.DataFrame(
        [
            pl.Series(name, [given[name]], relation.columns[name]).new_from_index(0, rows.height)
            if name in given
            else rows.get_column(name)
            for name in names
        ]
    )


def _first(times: pl.Series) -> datetime:
    return datetime.max.replace(tzinfo=UTC) if times.is_empty() else times.min()  # type: ignore[return-value]


def _after(day: date) -> datetime:
    """The end of a day."""
    return datetime.combine(day, time(), UTC) + timedelta(days=1)


def _as_declared(rows: pl.DataFrame, declared: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """The rows in the declared columns; what an old file lacks is NULL."""
    if rows.schema == declared:
        return rows
    return rows.select(
        (pl.col(name) if name in rows.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in declared.items()
    )
