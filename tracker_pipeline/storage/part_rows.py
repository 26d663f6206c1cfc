"""Rows of one key out of parts, row group by row group, by files that stay open and what is remembered of them.

A part never changes under its name, so that it is opened and its footer is read once: a reader of one symbol's day
would take longer for both than for the rows.

What belongs here: reading few rows of a file. What does not: reading many (`lake.scan_parts`), which files are live
(`manifest`).
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracker_pipeline.resources.errors import PermanentError, TransientError
from tracker_pipeline.storage import lake
from tracker_pipeline.storage.lake_store import LakeStore, lake_store

if TYPE_CHECKING:
    import pyarrow.parquet as pq

# The footer of a day of 90 symbols' minutes takes 0.3 MB in memory and 0.4 ms to read, opening the file 0.2 ms. One
# that is deleted gives its space back when it has not been read for so many others.
_MOST_FILES: Final = 128
# A part takes 0.3 ms, and waking a thread for it 0.1 ms. Answers of a bucket are mostly waited for.
_FEW_PARTS: Final = 8
_MOST_REQUESTS: Final = 16
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

    def read(path: str) -> pa.Table:
        return _rows_of_part(store, path, columns, series)

    try:
        if _is_quick(store, paths):
            return [read(path) for path in paths]
        count = len(os.sched_getaffinity(0)) if _is_folder(store) else _MOST_REQUESTS
        return list(_threads(os.getpid(), count).map(read, paths))
    except TransientError:
        lake.refuse_missing(name, paths)
        raise


def is_quick(paths: Sequence[str]) -> bool:
    """Whether rows of some parts are there sooner than the answer of another program."""
    return _is_quick(lake_store(), paths)


def _is_quick(store: LakeStore, paths: Sequence[str]) -> bool:
    return len(paths) <= _FEW_PARTS and _is_folder(store)


def _is_folder(store: LakeStore) -> bool:
    return store.storage_options is None


@cache
def _threads(_process: int, count: int) -> ThreadPoolExecutor:  # a forked child does not have its parent's
    return ThreadPoolExecutor(count, thread_name_prefix="parts")


def _rows_of_part(store: LakeStore, path: str, columns: Sequence[str], series: Series) -> pa.Table:
    try:
        footer = _footer(store.name, path)
        groups = footer.groups_with(series)
        key = (*series.given.items(), *groups)
        place = footer.places.get(key)
        compared = [] if place else footer.mixed(series.given, groups)
        present = [name for name in dict.fromkeys([*columns, series.at, *compared]) if name in footer.names]
        with _files.lent(store, path, footer, list(series.given)) as file:
            rows = file.read_row_groups(groups, present, use_threads=False)
    except pa.ArrowInvalid as error:
        raise PermanentError(
            f"the file {path} of the lake {store.name} is broken ({_words(error)}): run tracker archive audit"
        ) from error
    except OSError as error:
        raise TransientError(f"the lake {store.name} cannot be read: {_words(error)}") from error
    if compared:
        passing = np.logical_and.reduce([_equal(rows.column(name), series.given[name]) for name in compared])
        place = _together(passing)
        if place:
            footer.places[key] = place
        else:
            rows = rows.filter(pa.array(passing))
    if place:
        rows = rows.slice(*place)
    times = rows.column(series.at).to_numpy().view(np.int64)
    passing = (times >= _microseconds(series.start)) & (times < _microseconds(series.end))
    rows = rows.select([name for name in columns if name in footer.names])
    within = _together(passing)
    return rows.slice(*within) if within else rows.filter(pa.array(passing))


def _together(passing: npt.NDArray[np.bool_]) -> tuple[int, int] | None:
    """First and number of the rows that pass, where they stand together, as in a sorted file; None if not.

    Cutting them out takes a tenth of the time that choosing each takes.
    """
    count = int(passing.sum())
    first = int(passing.argmax()) if count else 0
    return (first, count) if passing[first : first + count].all() else None


def _equal(texts: pa.ChunkedArray, text: str) -> npt.NDArray[np.bool_]:
    """Which of some texts, kept in dictionaries, are this one."""
    found = [np.zeros(0, np.bool_)]
    for chunk in texts.chunks:
        place = chunk.dictionary.index(text).as_py()  # -1 where it is not there
        found.append(chunk.indices.to_numpy(zero_copy_only=False) == place)  # NULL is NaN
    return np.concatenate(found)


class _OpenFiles:
    """Files that were read last. One that is lent is nobody else's: a second reader opens it once more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._resting: OrderedDict[tuple[str, str], pq.ParquetFile] = OrderedDict()

    @contextmanager
    def lent(
        self, store: LakeStore, path: str, footer: "_Footer", texts: Sequence[str]
    ) -> "Iterator[pq.ParquetFile]":
        """A file; the columns `texts` of it are read as dictionaries."""
        with self._lock:
            file = self._resting.pop((store.name, path), None)
        if file is None:
            file = _open(store, path, footer, texts)
        try:
            yield file
        except BaseException:
            file.close(force=True)
            raise
        with self._lock:
            self._resting[store.name, path] = file
            if len(self._resting) > _MOST_FILES:
                self._resting.popitem(last=False)  # which closes it


def _open(store: LakeStore, path: str, footer: "_Footer", texts: Sequence[str]) -> "pq.ParquetFile":
    import pyarrow.parquet as pq

    in_folder = _is_folder(store)
    return pq.ParquetFile(
        # Arrow reads a file of its own without asking Python, and at a place that no other reader moves.
        pa.OSFile(store.locations([path])[0]) if in_folder else store.open(path),
        metadata=footer.metadata,
        read_dictionary=texts,
        # Of a bucket all columns are asked for at once; of a folder that only copies them once more.
        pre_buffer=not in_folder,
    )


_files = _OpenFiles()


class _Footer:
    """What the footer of a file says, of which rows its row groups are, and what was found out about them since.

    Attributes:
        places: for some texts and row groups, first and number of the rows that have these texts. To find them takes
            a third of the time that the rest of a read takes.
    """

    def __init__(self, metadata: "pq.FileMetaData") -> None:
        self.metadata = metadata
        self.names = frozenset(metadata.schema.to_arrow_schema().names)
        self._places = {metadata.schema.column(i).path: i for i in range(metadata.num_columns)}
        self._extremes: dict[str, list[tuple[Any, Any] | None]] = {}
        self.places: dict[tuple[Any, ...], tuple[int, int]] = {}

    def groups_with(self, series: Series) -> list[int]:
        """The row groups that may have rows of a series."""
        bounds: dict[str, tuple[Any, Any]] = {n: (text.encode(),) * 2 for n, text in series.given.items()}
        bounds[series.at] = (_microseconds(series.start), _microseconds(series.end) - 1)
        groups = list(range(self.metadata.num_row_groups))
        for name, (low, high) in bounds.items():
            extremes = self._extremes_of(name)
            groups = [i for i in groups if (one := extremes[i]) is None or (one[0] <= high and low <= one[1])]
        return groups

    def mixed(self, given: Mapping[str, str], groups: Sequence[int]) -> list[str]:
        """The columns in which some row groups have more than the given text."""
        return [name for name, text in given.items() if not self._is_only(name, text, groups)]

    def _is_only(self, name: str, text: str, groups: Sequence[int]) -> bool:
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


@lru_cache(maxsize=_MOST_FILES)
def _footer(lake_name: str, path: str) -> _Footer:  # the name for the memory only
    import pyarrow.parquet as pq

    with lake_store().open(path) as source:
        return _Footer(pq.read_metadata(source))


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
