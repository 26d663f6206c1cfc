"""The newest rows of a table as a person looks at them: a small Markdown table, and which columns lack values.

What belongs here: rows to text of bounded size. What does not: which rows, where they are shown (`storage`).

Dagster keeps the metadata of the newest materialization of each partition for ever, so a preview has at most 1,700
characters, whatever the width of the table.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import polars as pl

from tracker_pipeline.domain.schemas import Column, ColumnType, Table

_MOST_ROWS: Final = 6
_MOST_CHARACTERS: Final = 1_200
_MOST_SAME: Final = 300
_MOST_TEXT: Final = 24
_MOST_NAMED: Final = 10
# A moment is broken into three lines else, and six rows take half a page.
_UNBROKEN: Final = str.maketrans({"-": "\N{NON-BREAKING HYPHEN}", " ": "\N{NO-BREAK SPACE}"})


def newest_rows(table: Table, rows: pl.DataFrame) -> str:
    """Return the newest rows as Markdown: the columns that fit, in their order, without provenance.

    What all of these rows share stands once below them.

    Args:
        table: the declaration.
        rows: of the table; newest are those latest in its time, if it has one; of one time those with the first ranks
            where the table has ranks, else with the first keys.
    """
    newest = rows.sort("rank", nulls_last=True) if "rank" in table.column_by_name else rows.sort(table.key)
    if table.time_column:
        newest = newest.sort(table.time_column, descending=True, nulls_last=True, maintain_order=True)
    newest = newest.head(_MOST_ROWS)
    if newest.is_empty():
        return "no rows"
    shown: list[list[str]] = []  # one list of cells for each column, its name first
    same: list[str] = []
    left_out: list[str] = []
    for column in (c for c in table.columns if not c.provenance):
        cells = [_cell(column, value) for value in newest.get_column(column.name)]
        if newest.height > 1 and len(set(cells)) == 1:
            same.append(f"{column.name} {cells[0]}")
        elif _characters([*shown, cells]) + len(column.name) > _MOST_CHARACTERS:
            left_out.append(column.name)
        else:
            shown.append([column.name, *cells])
    notes = [f"In all of these rows: {', '.join(same)[:_MOST_SAME]}."] if same else []
    if left_out:
        notes.append(f"{len(left_out)} more columns, from `{left_out[0]}` on, do not fit here.")
    return "\n\n".join([*([_laid_out(shown)] if shown else []), *notes])


def unknown_values(table: Table, rows: pl.DataFrame) -> str:
    """Return which columns have NULLs in how many rows, the most first; empty where none has."""
    counts = {column.name: rows.get_column(column.name).null_count() for column in table.columns}
    lacking = sorted(((n, name) for name, n in counts.items() if n), reverse=True)
    named = ", ".join(f"{name} {n:,}" for n, name in lacking[:_MOST_NAMED])
    others = f" and {len(lacking) - _MOST_NAMED} more columns" if len(lacking) > _MOST_NAMED else ""
    return f"of {rows.height:,} rows: {named}{others}" if lacking else ""


def _characters(columns: list[list[str]]) -> int:
    return sum(len(cell) + 1 for cells in columns for cell in cells)


def _laid_out(columns: list[list[str]]) -> str:
    """Rows below each other, or columns below each other: what is narrower, since pages are scrolled downwards."""
    rows = [list(cells) for cells in zip(*columns, strict=True)]
    lines = min(rows, columns, key=_width)
    ruler = ["---", *["--:"] * (len(lines[0]) - 1)]
    return "\n".join(f"|{'|'.join(cells)}|" for cells in (lines[0], ruler, *lines[1:]))


def _width(lines: list[list[str]]) -> int:
    return sum(max(map(len, cells)) + 2 for cells in zip(*lines, strict=True))


def _cell(column: Column, value: Any) -> str:
    return "NULL" if value is None else _SHOWN.get(column.type, _text)(value)


def _text(value: Any) -> str:
    text = " ".join(str(value).replace("|", "/").split())
    return text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT - 5]}…{text[-4:]}"


def _time(value: datetime) -> str:
    text = f"{value:%Y-%m-%d %H:%M}" if not value.second else f"{value:%Y-%m-%d %H:%M:%S}"
    return text.translate(_UNBROKEN)


def _exact(value: str) -> str:
    return f"{float(value):.6g}"


_SHOWN: Final[dict[ColumnType, Callable[[Any], str]]] = {
    ColumnType.FLOAT: lambda value: f"{value:.6g}",
    ColumnType.NUMERIC: _exact,
    ColumnType.WEI: _exact,
    ColumnType.TIME: _time,
    ColumnType.TEXT_LIST: lambda values: _text(", ".join(values)),
}
