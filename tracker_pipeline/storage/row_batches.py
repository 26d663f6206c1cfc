"""Makes Arrow batches in the form of the file out of the rows that Postgres sends.

What belongs here: from the fields of rows to columns. What does not: the transaction they are read in
(`snapshot_reader`), how the file is written (`part_writer`).
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracker_pipeline.resources.errors import TransientError
from tracker_pipeline.storage.column_forms import DoesNotFitError, Field, Kind
from tracker_pipeline.storage.copy_out import CopyOut

# A batch of narrow rows is cut by its rows, one of wide rows by its bytes.
_BATCH_ROWS: Final = 16_384
_BATCH_BYTES: Final = 1 << 20
_ROWS_AT_ONCE: Final = 8_192
_MOST_ROWS: Final = _BATCH_ROWS + _ROWS_AT_ONCE
_EPOCH_US: Final = 946_684_800_000_000  # 2000-01-01, where Postgres counts from
_EPOCH_DAYS: Final = 10_957
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999  # years 1 and 9999
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
_NUMBERS: Final = (Kind.INTEGER, Kind.FLOAT, Kind.TIME, Kind.DATE)
_I64 = npt.NDArray[np.int64]
_I32 = npt.NDArray[np.int32]
_Bytes = npt.NDArray[np.uint8]


def row_batches(rows: CopyOut, fields: Sequence[Field]) -> Iterator[pa.RecordBatch]:
    """The rows of a COPY that selects `fields`, in batches.

    Raises:
        DoesNotFitError: a value needs the wider form of its column.
    """
    from tracker_pipeline.domain.copy_binary import split_rows

    schema = pa.schema([(field.name, field.arrow) for field in fields])
    columns = [_column_of(field) for field in fields]
    starts, sizes = (np.empty((len(fields), _ROWS_AT_ONCE), np.int32) for _ in range(2))
    filled = 0

    def batch() -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays([column.array(filled) for column in columns], schema=schema)

    while rows.more():
        found, rows.begin = split_rows(rows.data, rows.begin, rows.end, starts, sizes)
        if found < 0:
            raise TransientError("the server sent a row with another number of fields than it was asked for")
        for place, column in enumerate(columns):
            column.take(rows.data, starts[place, :found], sizes[place, :found], filled)
        filled += found
        if filled >= _BATCH_ROWS or sum(column.bytes_of(filled) for column in columns) >= _BATCH_BYTES:
            yield batch()
            columns = [
                _column_of(field, column.bytes_of(filled))
                for field, column in zip(fields, columns, strict=True)
            ]
            filled = 0
    if filled:
        yield batch()


class _Column(Protocol):
    """Values of one field of a batch in the making."""

    def take(self, data: _Bytes, starts: _I32, sizes: _I32, first: int) -> None:
        """Take values from `data` for the rows from `first` on."""
        ...

    def bytes_of(self, rows: int) -> int:
        """What the first rows take."""
        ...

    def array(self, rows: int) -> pa.Array:
        """The first rows as they stand in the file."""
        ...


def _column_of(field: Field, expected_bytes: int = 0) -> _Column:
    return _Numbers(field) if field.kind in (*_NUMBERS, Kind.SCALED) else _Texts(field, expected_bytes)


class _Numbers:
    """Values of up to 8 bytes."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._values = np.empty(_MOST_ROWS, np.int64)
        self._present = np.empty(_MOST_ROWS, np.bool_)
        self._missing = 0

    def take(self, data: _Bytes, starts: _I32, sizes: _I32, first: int) -> None:
        """See `_Column`."""
        from tracker_pipeline.domain.copy_binary import take_integers, take_scaled

        end = first + len(starts)
        values, present = self._values[first:end], self._present[first:end]
        if self._field.kind is Kind.SCALED:
            missing = take_scaled(data, starts, sizes, self._field.arrow.scale, values, present)
            if missing < 0:
                raise DoesNotFitError(self._field.column)
        else:
            missing = take_integers(data, starts, sizes, values, present)
        self._missing += missing

    def bytes_of(self, rows: int) -> int:
        """See `_Column`."""
        return 8 * rows

    def array(self, rows: int) -> pa.Array:
        """See `_Column`."""
        values, kind = self._values[:rows], self._field.kind
        present = self._present[:rows]
        valid = _bitmap(present) if self._missing else None
        if kind is Kind.TIME:
            values += _EPOCH_US * present if self._missing else _EPOCH_US
            self._refuse_outside(values, _FIRST_US, _LAST_US)
        if kind is Kind.DATE:
            values += _EPOCH_DAYS * present if self._missing else _EPOCH_DAYS
            self._refuse_outside(values, _FIRST_DAY, _LAST_DAY)
        return pa.Array.from_buffers(self._field.arrow, rows, [valid, self._words(values)])

    def _words(self, values: _I64) -> pa.Buffer:
        """The numbers in the memory of the Arrow type."""
        arrow = self._field.arrow
        if self._field.kind is Kind.SCALED:
            words = np.empty((len(values), 2), np.int64)
            words[:, 0] = values
            words[:, 1] = values >> 63
            return pa.py_buffer(words)
        if pa.types.is_boolean(arrow):
            return _bitmap(values != 0)
        width = arrow.bit_width // 8
        return pa.py_buffer(values if width == 8 else values.astype(f"i{width}"))

    def _refuse_outside(self, values: _I64, low: int, high: int) -> None:
        if values.min() < low or values.max() > high:
            raise DoesNotFitError(self._field.column)


class _Texts:
    """Values of any length.

    Args:
        expected_bytes: what they take together, about: to grow costs the memory of both sizes.
    """

    def __init__(self, field: Field, expected_bytes: int) -> None:
        self._field = field
        self._ends = np.empty(_MOST_ROWS + 1, np.int32)
        self._ends[0] = 0
        self._data = np.empty(max(expected_bytes * 9 // 8, _BATCH_BYTES // 16), np.uint8)
        self._present = np.empty(_MOST_ROWS, np.bool_)
        self._missing = 0

    def take(self, data: _Bytes, starts: _I32, sizes: _I32, first: int) -> None:
        """See `_Column`."""
        from tracker_pipeline.domain.copy_binary import take_texts

        begin, end = int(self._ends[first]), first + len(starts)
        needed = begin + int(np.maximum(sizes, 0).sum(dtype=np.int64))
        if needed > len(self._data):
            larger = np.empty(max(needed, 2 * len(self._data)), np.uint8)
            larger[:begin] = self._data[:begin]
            self._data = larger
        self._missing += take_texts(
            data, starts, sizes, begin, self._ends[first + 1 : end + 1], self._data, self._present[first:end]
        )

    def bytes_of(self, rows: int) -> int:
        """See `_Column`."""
        return int(self._ends[rows])

    def array(self, rows: int) -> pa.Array:
        """See `_Column`."""
        valid = _bitmap(self._present[:rows]) if self._missing else None
        travelling = pa.string() if self._field.kind is Kind.DECIMAL else self._field.arrow
        if self._field.kind is Kind.LIST:
            travelling = pa.binary()
        ends, data = self._ends[: rows + 1], self._data[: int(self._ends[rows])]
        values = pa.Array.from_buffers(travelling, rows, [valid, pa.py_buffer(ends), pa.py_buffer(data)])
        if self._field.kind is Kind.LIST:
            return pa.array([self._list_of(value) for value in values.to_pylist()], self._field.arrow)
        return values if values.type == self._field.arrow else values.cast(self._field.arrow)

    def _list_of(self, value: bytes | None) -> list[str | None] | None:
        """The texts of an array, as Postgres sends it."""
        if value is None:
            return None
        dimensions, _, _ = struct.unpack_from("!iii", value)
        if dimensions == 0:
            return []
        length, lowest = struct.unpack_from("!ii", value, 12)
        if (dimensions, lowest) != (1, 1):
            raise DoesNotFitError(self._field.column)
        items: list[str | None] = []
        at = 20
        for _ in range(length):
            (size,) = struct.unpack_from("!i", value, at)
            at += 4
            items.append(None if size < 0 else value[at : at + size].decode())
            at += max(size, 0)
        return items


def _bitmap(present: npt.NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(present, bitorder="little"))
