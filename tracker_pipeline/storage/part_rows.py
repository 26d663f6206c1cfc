"""Rows of one key out of parts, row group by row group, by what is remembered of the files.

A part never changes under its name, so that its footer is read once: a reader of one symbol's day would take as long
for it as for the rows.

What belongs here: reading few rows of a file. What does not: reading many (`lake.scan_parts`), which files are live
(`manifest`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.storage import lake
from tracker_pipeline.storage.lake_store import LakeStore, lake_store

if TYPE_CHECKING:
    import pyarrow.parquet as pq

# The footer of a day of 90 symbols' minutes takes 0.3 MB in memory and 0.4 ms to read.
_MOST_FOOTERS: Final = 64
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Series:
    """The rows of one key in a window.

    Attributes:
        given: text in the columns of the key.
        at: the column of their time, in microseconds.
        start: earliest moment, aware.
        end: first moment that is not wanted, aware.
    """

    given: Mapping[str, str]
    at: str
    start: datetime
    end: datetime


def rows_of(name: str, paths: Sequence[str], columns: Sequence[str], series: Series) -> list[pa.Table]:
    """The rows of a series in each of some parts of table `name`, in the columns asked for as far as there are any.

    Raises:
        PermanentError: a file is missing or broken.
        TransientError: the lake does not answer.
    """
    store = lake_store()
    try:
        return [_rows_of_part(store, path, columns, series) for path in paths]
    except TransientError:
        lake.refuse_missing(name, paths)
        raise


def _rows_of_part(store: LakeStore, path: str, columns: Sequence[str], series: Series) -> pa.Table:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        footer = _footer(store.name, path)
        groups = footer.groups_with(series)
        compared = [name for name, text in series.given.items() if not footer.is_only(name, text, groups)]
        present = [name for name in dict.fromkeys([*columns, series.at, *compared]) if name in footer.names]
        # Of a bucket all columns are asked for at once; of a folder that only copies them once more.
        ahead = store.storage_options is not None
        with (
            store.open(path) as source,
            pq.ParquetFile(source, metadata=footer.metadata, pre_buffer=ahead) as file,
        ):
            rows = file.read_row_groups(groups, present, use_threads=False)
    except pa.ArrowInvalid as error:
        raise PermanentError(
            f"the file {path} of the lake {store.name} is broken ({_words(error)}): run tracker archive audit"
        ) from error
    except OSError as error:
        raise TransientError(f"the lake {store.name} cannot be read: {_words(error)}") from error
    for name in compared:
        rows = _only(rows, pc.equal(rows.column(name), series.given[name]).fill_null(False).to_numpy())
    times = rows.column(series.at).cast(pa.int64()).to_numpy()
    within = (times >= _microseconds(series.start)) & (times < _microseconds(series.end))
    return _only(rows.select([name for name in columns if name in footer.names]), within)


def _only(rows: pa.Table, passing: npt.NDArray[np.bool_]) -> pa.Table:
    """The rows that pass: they stand together where the file is sorted, which costs a tenth of choosing each."""
    count = int(passing.sum())
    first = int(passing.argmax()) if count else 0
    if passing[first : first + count].all():
        return rows.slice(first, count)
    return rows.filter(pa.array(passing))


class _Footer:
    """What the footer of a file says, and of which rows its row groups are."""

    def __init__(self, metadata: "pq.FileMetaData") -> None:
        self.metadata = metadata
        self.names = frozenset(metadata.schema.to_arrow_schema().names)
        self._places = {metadata.schema.column(i).path: i for i in range(metadata.num_columns)}
        self._extremes: dict[str, list[tuple[Any, Any] | None]] = {}

    def groups_with(self, series: Series) -> list[int]:
        """The row groups that may have rows of a series."""
        bounds: dict[str, tuple[Any, Any]] = {n: (text.encode(),) * 2 for n, text in series.given.items()}
        bounds[series.at] = (_microseconds(series.start), _microseconds(series.end) - 1)
        groups = list(range(self.metadata.num_row_groups))
        for name, (low, high) in bounds.items():
            extremes = self._extremes_of(name)
            groups = [i for i in groups if (one := extremes[i]) is None or (one[0] <= high and low <= one[1])]
        return groups

    def is_only(self, name: str, text: str, groups: Sequence[int]) -> bool:
        """Whether each row of some row groups has this text in a column."""
        extremes, value = self._extremes_of(name), text.encode()
        place = self._places[name]
        return all(
            extremes[i] == (value, value)
            and self.metadata.row_group(i).column(place).statistics.null_count == 0
            for i in groups
        )

    def _extremes_of(self, name: str) -> list[tuple[Any, Any] | None]:
        """Least and greatest value of a column in each row group, text as bytes and times as microseconds."""
        if name not in self._extremes:
            place = self._places[name]
            groups = (self.metadata.row_group(i).column(place) for i in range(self.metadata.num_row_groups))
            facts = [group.statistics for group in groups]
            self._extremes[name] = [
                (one.min_raw, one.max_raw) if one is not None and one.has_min_max else None for one in facts
            ]
        return self._extremes[name]


@lru_cache(maxsize=_MOST_FOOTERS)
def _footer(lake_name: str, path: str) -> _Footer:  # the name for the memory only
    import pyarrow.parquet as pq

    with lake_store().open(path) as source:
        return _Footer(pq.read_metadata(source))


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
