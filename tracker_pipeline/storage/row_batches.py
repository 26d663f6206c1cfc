"""Makes Arrow batches in the form of the file out of the rows that Postgres sends.

What belongs here: from the fields of rows to columns. What does not: the transaction they are read in
(`snapshot_reader`), how the file is written (`part_writer`).
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracker_pipeline.resources.errors import TransientError
from tracker_pipeline.storage.column_forms import DoesNotFitError, Field, Kind
from tracker_pipeline.storage.copy_out import CopyOut

# A batch of narrow rows is cut by its rows, one of wide rows by its bytes.
_BATCH_ROWS: Final = 16_384
_BATCH_BYTES: Final = 1 << 20
_FEW_BYTES: Final = 1 << 16
_EPOCH_US: Final = 946_684_800_000_000  # 2000-01-01, where Postgres counts from
_EPOCH_DAYS: Final = 10_957
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999  # years 1 and 9999
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
_NUMBERS: Final = (Kind.INTEGER, Kind.FLOAT, Kind.TIME, Kind.DATE)
_I64 = npt.NDArray[np.int64]


def row_batches(rows: CopyOut, fields: Sequence[Field]) -> Iterator[pa.RecordBatch]:
    """The rows of a COPY that selects `fields`, in batches.

    Raises:
        DoesNotFitError: a value needs the wider form of its column.
    """
    layout = _Layout(fields)
    batch = _Batch(layout, [_FEW_BYTES] * layout.texts)
    while rows.more():
        batch.take(rows)
        if batch.is_full:
            yield batch.finished()
            batch = _Batch(layout, batch.bytes_of_texts)
    if batch.rows:
        yield batch.finished()


class _Layout:
    """Where the values of each field of a batch in the making stand."""

    def __init__(self, fields: Sequence[Field]) -> None:
        from tracker_pipeline.domain.copy_binary import TEXT

        self.fields = tuple(fields)
        self.schema = pa.schema([(field.name, field.arrow) for field in fields])
        forms = [_form(field) for field in fields]
        self.texts = forms.count(TEXT)
        self.numbers = len(forms) - self.texts
        self.places = [
            forms[:at].count(TEXT) if form == TEXT else at - forms[:at].count(TEXT)
            for at, form in enumerate(forms)
        ]
        self.of_fields = (
            np.array(forms, np.int64),
            np.array(self.places, np.uint64),
            np.array([_extra(field) for field in fields], np.int64),
        )


def _form(field: Field) -> int:
    """How the server sends the values of a field, as `take_rows` has it."""
    from tracker_pipeline.domain.copy_binary import SCALED, TEXT

    if field.kind is Kind.SCALED:
        return SCALED
    if field.kind not in _NUMBERS:
        return TEXT
    return int(max(field.arrow.bit_width // 8, 1))  # a boolean is a bit in Arrow and a byte on the way


def _extra(field: Field) -> int:
    """What is added to a number, or the digits of a numeric behind the point."""
    if field.kind is Kind.SCALED:
        return int(field.arrow.scale)
    return {Kind.TIME: _EPOCH_US, Kind.DATE: _EPOCH_DAYS}.get(field.kind, 0)


class _Batch:
    """Rows of one batch in the making.

    Args:
        layout: of its fields.
        expected_bytes: what each field of texts will take, about: to grow costs the memory of both sizes.
    """

    def __init__(self, layout: _Layout, expected_bytes: Sequence[int]) -> None:
        self.rows = 0
        self._layout = layout
        self._numbers = np.empty((layout.numbers, _BATCH_ROWS), np.int64)
        self._ends = np.empty((layout.texts, _BATCH_ROWS + 1), np.int32)
        self._ends[:, 0] = 0
        self._begins = _one_behind_the_other([size * 9 // 8 + _FEW_BYTES for size in expected_bytes])
        self._texts = np.empty(self._begins[-1], np.uint8)
        self._present = np.empty((len(layout.fields), _BATCH_ROWS), np.bool_)
        self._missing = np.zeros(len(layout.fields), np.int64)
        self._needed = np.zeros(layout.texts, np.int64)

    @property
    def bytes_of_texts(self) -> list[int]:
        """What each field of texts takes."""
        sizes: list[int] = self._ends[:, self.rows].tolist()
        return sizes

    @property
    def is_full(self) -> bool:
        """Whether no other rows should be taken."""
        taken = sum(self.bytes_of_texts) + 8 * self._layout.numbers * self.rows
        return self.rows >= _BATCH_ROWS or taken >= _BATCH_BYTES

    def take(self, rows: CopyOut) -> None:
        """Take the rows that have come, as many as there is room for.

        Raises:
            DoesNotFitError: a value needs the wider form of its column.
        """
        from tracker_pipeline.domain.copy_binary import NO_ROOM, OTHER_FIELDS, take_rows

        while True:
            self.rows, rows.begin, odd = take_rows(
                rows.data, rows.begin, rows.end, self.rows, _BATCH_ROWS, *self._layout.of_fields, self._numbers,
                self._texts, self._begins, self._ends, self._present, self._missing, self._needed,
            )  # fmt: skip
            if odd != NO_ROOM or self.is_full:
                break
            self._make_room()
        if odd == OTHER_FIELDS:
            raise TransientError("the server sent a row with another number of fields than it was asked for")
        if odd >= 0:
            raise DoesNotFitError(self._layout.fields[odd].column)

    def _make_room(self) -> None:
        """Room for what is needed in those fields of texts that lack it, and as much again as they had.

        Not in all of them: arrays of 4 MB and more are put on huge pages, all of whose memory is taken at once.
        """
        begins, texts, rooms = self._begins, self._texts, np.diff(self._begins)
        self._begins = _one_behind_the_other(
            np.where(self._needed > rooms, np.maximum(self._needed, 2 * rooms), rooms)
        )
        self._texts = np.empty(self._begins[-1], np.uint8)
        for old, new, used in zip(begins, self._begins, self.bytes_of_texts, strict=False):
            self._texts[new : new + used] = texts[old : old + used]

    def finished(self) -> pa.RecordBatch:
        """The rows, as they stand in the file."""
        arrays = [self._array(at, field) for at, field in enumerate(self._layout.fields)]
        return pa.RecordBatch.from_arrays(arrays, schema=self._layout.schema)

    def _array(self, at: int, field: Field) -> pa.Array:
        place = self._layout.places[at]
        valid = _bitmap(self._present[at, : self.rows]) if self._missing[at] else None
        if field.kind in (*_NUMBERS, Kind.SCALED):
            return _number_array(field, self._numbers[place, : self.rows], valid)
        ends, begin = self._ends[place, : self.rows + 1], self._begins[place]
        return _text_array(field, ends, self._texts[begin : begin + ends[-1]], valid)


def _one_behind_the_other(sizes: Sequence[int] | _I64) -> _I64:
    """Where each of some pieces begins, and last where all end."""
    return np.cumsum([0, *sizes], dtype=np.int64)


def _number_array(field: Field, values: _I64, valid: pa.Buffer | None) -> pa.Array:
    if field.kind is Kind.TIME:
        _refuse_outside(field, values, _FIRST_US, _LAST_US)
    if field.kind is Kind.DATE:
        _refuse_outside(field, values, _FIRST_DAY, _LAST_DAY)
    return pa.Array.from_buffers(field.arrow, len(values), [valid, _words(field, values)])


def _refuse_outside(field: Field, values: _I64, low: int, high: int) -> None:
    if values.min() < low or values.max() > high:
        raise DoesNotFitError(field.column)


def _words(field: Field, values: _I64) -> pa.Buffer:
    """The numbers in the memory of the Arrow type."""
    if field.kind is Kind.SCALED:
        words = np.empty((len(values), 2), np.int64)
        words[:, 0] = values
        words[:, 1] = values >> 63
        return pa.py_buffer(words)
    if pa.types.is_boolean(field.arrow):
        return _bitmap(values != 0)
    width = field.arrow.bit_width // 8
    return pa.py_buffer(values if width == 8 else values.astype(f"i{width}"))


def _text_array(
    field: Field, ends: npt.NDArray[np.int32], data: npt.NDArray[np.uint8], valid: pa.Buffer | None
) -> pa.Array:
    travelling = pa.string() if field.kind is Kind.DECIMAL else field.arrow
    if field.kind is Kind.LIST:
        travelling = pa.binary()
    buffers = [valid, pa.py_buffer(ends), pa.py_buffer(data)]
    values = pa.Array.from_buffers(travelling, len(ends) - 1, buffers)
    if field.kind is Kind.LIST:
        return pa.array([_list_of(field, value) for value in values.to_pylist()], field.arrow)
    return values if values.type == field.arrow else values.cast(field.arrow)


def _list_of(field: Field, value: bytes | None) -> list[str | None] | None:
    """The texts of an array, as Postgres sends it."""
    if value is None:
        return None
    dimensions, _, _ = struct.unpack_from("!iii", value)
    if dimensions == 0:
        return []
    length, lowest = struct.unpack_from("!ii", value, 12)
    if (dimensions, lowest) != (1, 1):
        raise DoesNotFitError(field.column)
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
