"""Writes a stream of rows to one Parquet file in bounded memory: sorted blocks, an encoding for each column.

What belongs here: from batches as they come from Postgres to a closed file. What does not: where the file goes
(`lake`), whether it is right (`part_proof`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from queue import Queue
from threading import Event, Thread
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tracker_pipeline.storage.column_forms import Field

# A block is sorted in memory and cut into row groups. Its rows bound the memory of narrow tables, its bytes of wide.
_BLOCK_ROWS: Final = 131_072
_BLOCK_BYTES: Final = 16 << 20
# So that the server goes on while a block is written; each has 1 MB at most.
_BATCHES_AHEAD: Final = 8
# A reader decodes whole row groups. A group of sorted rows begins with a key, so that a symbol's day lies in one, and
# takes as many keys as fit in the first number: half of it takes 7 % off the time of a symbol's day out of two files,
# and adds 9 % to the size of a day of 90 symbols' minutes and a fifth to the time that reading all of it takes. One
# group with a page for each key would take a sixth off that, but Arrow reads whole groups only, and a dictionary of
# many keys is read for each. Of a longer key a group takes as many rows as the second number.
_SMALL_GROUP_ROWS: Final = 6_144
_GROUP_ROWS: Final = 16_384
# Of zstd. Level 3 takes twice as long for JSON and lines of a log, and no less space; for wallets, 2 % less.
_COMPRESSION_LEVEL: Final = 1
_SAMPLE_ROWS: Final = 4_096
# A dictionary pays where values repeat this often; else the encoding of their type does.
_FEW_VALUES: Final = 0.2
# Of text a dictionary pays where the block has this share of different values: wallets of 75,000 trades, a quarter of
# them different, take 0.66 MB with and 1.42 MB without.
_FEW_TEXTS: Final = 0.4
_DICTIONARY_BYTES: Final = 2 << 20
# All is zstd. Numbers are packed by a level without Huffman codes, and floats as they are: so they are read in less
# than half the time that their bytes apart take at level 3, since Polars is slow at putting bytes together again and
# zstd at such codes. LZ4 would be read a tenth faster still, in a third less space, but makes files of two codecs.
# Bars take as much space as their bytes apart, computed features an eighth more; what would take more than the last
# number, as floats with many zero bits do, stays apart.
_FAST_LEVEL: Final = -5
_OF_NUMBERS: Final = ("PLAIN", "DELTA_BINARY_PACKED")
_LARGER_FOR_SPEED: Final = 1.3

_Ranks = npt.NDArray[np.signedinteger[Any]]


class PartWriter:
    """One file in the making.

    Args:
        path: the file.
        fields: its columns.
        sort: columns that the rows of each block are sorted by; none keeps their order.
        metadata: of the file.
    """

    def __init__(
        self, path: Path, fields: Sequence[Field], sort: Sequence[str], metadata: Mapping[str, str]
    ) -> None:
        self._path = path
        self._schema = pa.schema([(f.name, f.arrow) for f in fields], metadata=dict(metadata))
        self._sort = list(sort)
        self._waiting: list[list[pa.Array]] = [[] for _ in fields]
        self._waiting_rows = self._waiting_bytes = 0
        self._writer: pq.ParquetWriter | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Take a batch in the form of the file."""
        while batch.num_rows:
            room = _BLOCK_ROWS - self._waiting_rows
            taken, batch = batch.slice(0, room), batch.slice(room)
            for waiting, values in zip(self._waiting, taken.columns, strict=True):
                waiting.append(values)
            self._waiting_rows += taken.num_rows
            self._waiting_bytes += taken.nbytes
            if self._waiting_rows >= _BLOCK_ROWS or self._waiting_bytes >= _BLOCK_BYTES:
                self._flush()

    def close(self) -> None:
        """Write what waits and the footer."""
        self._flush()
        empty = self._schema.empty_table()
        self._opened(empty, empty).close()

    def abandon(self) -> None:
        """Let go of the file without caring for it."""
        if self._writer is not None:
            try:
                self._writer.close()
            except (OSError, pa.ArrowException):
                return

    def _flush(self) -> None:
        if not self._waiting_rows:
            return
        block = self._block()
        if not self._sort:
            self._opened(block, block).write_table(block, row_group_size=_BLOCK_ROWS)
            return
        ranks = ranks_of(block.select(self._sort))
        order = np.lexsort(ranks[::-1])
        begins = group_begins([one[order] for one in ranks[:-1]], block.num_rows)
        for begin, end in pairwise([*begins, block.num_rows]):
            # A group at a time: the whole block in order would be the block once more.
            group = block.take(pa.array(order[begin:end]))
            self._opened(group, block).write_table(group, row_group_size=_BLOCK_ROWS)

    def _block(self) -> pa.Table:
        """What waits as one table; each column that is to be sorted in one piece, made of pieces that go."""
        columns: list[pa.Array | pa.ChunkedArray] = []
        for waiting in self._waiting:
            columns.append(pa.concat_arrays(waiting) if self._sort else pa.chunked_array(waiting))
            waiting.clear()
        self._waiting_rows = self._waiting_bytes = 0
        return pa.table(columns, schema=self._schema)

    def _opened(self, first: pa.Table, block: pa.Table) -> pq.ParquetWriter:
        """The writer, in the forms that suit the first rows of the file, a part of the first block."""
        if self._writer is None:
            dictionaries, encodings, levels = choose_forms(first, block)
            self._writer = pq.ParquetWriter(
                self._path,
                self._schema,
                compression="zstd",
                compression_level=levels,
                use_dictionary=dictionaries or False,
                column_encoding=encodings or None,
                store_decimal_as_integer=True,
                dictionary_pagesize_limit=_DICTIONARY_BYTES,
                write_page_index=True,
            )
        return self._writer


def ranks_of(keys: pa.Table) -> list[_Ranks]:
    """Numbers that have the order of the values of each column, equal for equal ones, that of NULL last.

    Sorting places of texts among the different ones takes 3 ms for 131,072 rows of three tokens, comparing the texts
    themselves takes 11.
    """
    return [_ranks(column.combine_chunks()) for column in keys.columns]


def _ranks(values: pa.Array) -> _Ranks:
    if values.null_count == 0 and (pa.types.is_integer(values.type) or pa.types.is_timestamp(values.type)):
        return np.asarray(values.cast(pa.int64()).to_numpy(zero_copy_only=False))
    if not pa.types.is_string(values.type):
        return np.asarray(pc.rank(values, tiebreaker="dense").to_numpy())
    coded = values.dictionary_encode()
    few = len(coded.dictionary) < np.iinfo(np.int16).max  # which numpy counts instead of compares
    ranks = np.empty(len(coded.dictionary) + 1, np.int16 if few else np.int64)
    ranks[pc.sort_indices(coded.dictionary).to_numpy()] = np.arange(len(coded.dictionary))
    ranks[-1] = len(coded.dictionary)  # of NULL, whose place is -1 here
    return ranks[coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)]


def group_begins(ranks: Sequence[_Ranks], rows: int) -> list[int]:
    """Where each row group of sorted rows begins.

    Args:
        ranks: of the columns that they are sorted by, but for the last.
        rows: how many.
    """
    new = np.zeros(rows, bool)
    for column in ranks:
        new[1:] |= column[1:] != column[:-1]
    ends = np.append(np.flatnonzero(new), rows)  # of the rows of each key
    begins = [0]
    while True:
        begin = begins[-1]
        of_whole_keys = ends[ends <= begin + _SMALL_GROUP_ROWS].max(initial=0)
        of_one_key = min(ends[ends > begin].min(initial=rows), begin + _GROUP_ROWS)
        end = max(of_whole_keys, of_one_key)
        if end >= rows:
            return begins
        begins.append(int(end))


def choose_forms(first: pa.Table, block: pa.Table) -> tuple[list[str], dict[str, str], dict[str, int]]:
    """Columns for dictionaries, the encodings of the others, and the level of compression of each.

    Args:
        first: the first rows of the file, which most is judged by.
        block: rows that they are some of, in any order.
    """
    dictionaries: list[str] = []
    encodings: dict[str, str] = {}
    levels: dict[str, int] = {}
    sample = first.slice(0, _SAMPLE_ROWS)
    for name in block.column_names:
        values = sample.column(name)
        path = f"{name}.list.element" if pa.types.is_list(values.type) else name
        encoding = _encoding_of(values.type)
        repeats = encoding is None or _repeats(values, block.column(name))
        if repeats and not pa.types.is_boolean(values.type):
            dictionaries.append(path)
        elif pa.types.is_floating(values.type) and not _is_small_as_it_is(values):
            encodings[path] = "BYTE_STREAM_SPLIT"
        elif encoding is not None:
            encodings[path] = encoding
        levels[path] = _FAST_LEVEL if encodings.get(path) in _OF_NUMBERS else _COMPRESSION_LEVEL
    return dictionaries, encodings, levels


def _repeats(sample: pa.ChunkedArray, values: pa.ChunkedArray) -> bool:
    different = pc.count_distinct(sample).as_py()
    if different <= _FEW_VALUES * max(len(sample), 1):
        return True
    if different == len(sample) or not pa.types.is_string(values.type):
        return False  # texts of which none comes again are not counted all
    return bool(pc.count_distinct(values).as_py() <= _FEW_TEXTS * len(values))


def _is_small_as_it_is(sample: pa.ChunkedArray) -> bool:
    """Whether some floats, packed fast, take not much more than their bytes apart, packed well."""
    values = sample.drop_null().to_numpy()
    apart = values.view(np.uint8).reshape(len(values), -1).T.tobytes()
    together = pa.Codec("zstd", compression_level=_FAST_LEVEL).compress(values.tobytes())
    least = pa.Codec("zstd", compression_level=_COMPRESSION_LEVEL).compress(apart)
    return len(together) <= _LARGER_FOR_SPEED * len(least)


def _encoding_of(kind: pa.DataType) -> str | None:
    """How values that hardly repeat are encoded; None where only a dictionary will do."""
    if pa.types.is_floating(kind):
        return "PLAIN"
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return "DELTA_LENGTH_BYTE_ARRAY"
    if pa.types.is_integer(kind) or pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "DELTA_BINARY_PACKED"
    if (
        pa.types.is_decimal(kind) and kind.precision <= 18
    ):  # wider ones are bytes, which Polars reads plain only
        return "DELTA_BINARY_PACKED"
    return None


@contextmanager
def read_ahead(batches: Iterable[pa.RecordBatch]) -> Iterator[Iterator[pa.RecordBatch]]:
    """Take batches in another thread, some ahead of the one that writes them."""
    queue: Queue[Any] = Queue(maxsize=_BATCHES_AHEAD)
    stop = Event()

    def read() -> None:
        try:
            for batch in batches:
                if stop.is_set():
                    return
                queue.put(batch)
            queue.put(None)
        except BaseException as error:  # raised again by the thread that takes it
            queue.put(error)

    thread = Thread(target=read, daemon=True)
    thread.start()

    def taken() -> Iterator[pa.RecordBatch]:
        while (item := queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    try:
        yield taken()
    finally:
        stop.set()
        while thread.is_alive():
            while not queue.empty():
                queue.get_nowait()
            thread.join(0.01)
