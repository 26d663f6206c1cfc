"""Rows as Postgres sends them on `COPY … TO STDOUT (FORMAT binary)`, taken apart by compiled loops.

A driver that takes a row at a time needs 280 ns for four numbers and short texts; these loops need 55. Places in
the bytes are unsigned: a signed one may be negative, which counts from the end, so that no loop over it copies in
blocks. A text of 88 characters takes 6 ns instead of 115.

What belongs here: from bytes to columns of integers and texts. What does not: where the bytes come from
(`storage.copy_out`), which column has which type (`storage.row_batches`).
"""

from typing import Any, Final

import numpy as np

from tracker_pipeline.domain.compiling import compiled

# How the values of a field are taken: as bytes of any length, as a numeric, else as a number of 1, 2, 4 or 8 bytes.
TEXT: Final = 0
SCALED: Final = 16
# What `take_rows` says besides the place of a field: all is well, a row has another number of fields, or is too long.
NOTHING_ODD: Final = -1
OTHER_FIELDS: Final = -2
NO_ROOM: Final = -3

_DATA: Final = ord("d")  # a message with a row
# Rows that are taken together, field by field: they stay in the first cache, and no more than one field at a time is
# written to. Written row by row, four fields take 130 ns instead of 55.
_BLOCK_ROWS: Final = 128
_MESSAGE_HEAD: Final = 5  # kind and length
_FILE_HEAD: Final = 19  # "PGCOPY", flags and the length of extensions, of which there are none
_FIRST_FIELDS: Final = 0x5047  # what "PG" is as a number of fields: twelve times as many as a row can have
_NEGATIVE: Final = 0x4000
_DIGITS: Final = 4  # that one word of a numeric holds
_LARGEST: Final = 10**18 - 1
_TOO_LONG: Final = 10**18
_POWERS: Final = (
    1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000, 10_000_000_000,
    100_000_000_000, 1_000_000_000_000, 10_000_000_000_000, 100_000_000_000_000, 1_000_000_000_000_000,
    10_000_000_000_000_000, 100_000_000_000_000_000, 1_000_000_000_000_000_000,
)  # fmt: skip


@compiled
def take_rows(
    data: Any,
    begin: int,
    end: int,
    first: int,
    most: int,
    forms: Any,
    places: Any,
    extras: Any,
    numbers: Any,
    texts: Any,
    begins: Any,
    ends: Any,
    present: Any,
    missing: Any,
    needed: Any,
) -> tuple[int, int, int]:
    """Take the rows of `data[begin:end]`, as far as their messages are whole and there is room for them.

    Args:
        data: bytes as the server sends them.
        begin: first byte of a message.
        end: behind the last byte that is there.
        first: row to begin with.
        most: row to end before.
        forms: of each field, how its values are taken: `TEXT`, `SCALED` or the bytes of a number.
        places: of each field, which one it is among those of numbers or among those of texts.
        extras: of each field, what is added to a number, or the digits of a numeric behind the point.
        numbers: filled with numbers, fields by rows, floats as their bits, numerics times 10 to the power of their
            extra; 0 for NULL.
        texts: filled with the bytes of texts, those of a field one behind the other.
        begins: of each field of texts, where its bytes begin, and last where there is no room any more.
        ends: filled with the end of each text, counted from where those of its field begin.
        present: filled with whether values are not NULL, fields by rows.
        missing: of each field, the number of NULLs, which is added to.
        needed: filled with the bytes that each field of texts takes with the rows looked at last.

    Returns:
        The row behind the last one taken; where the rest of the bytes begins; and what is odd: a field with a value
        that is not a number of its form, infinite, or of more than 18 digits; that a row has another number of
        fields; or that there is no room for the next ones.
    """
    starts, sizes = (
        np.empty((len(forms), _BLOCK_ROWS), np.uint64),
        np.empty((len(forms), _BLOCK_ROWS), np.int64),
    )
    row, at = first, begin
    while row < most:
        wanted = min(most - row, _BLOCK_ROWS)
        found, behind, odd = _find_fields(data, at, end, wanted, starts, sizes)
        if not _texts_fit(sizes[:, :found], forms, places, begins, ends[:, row], needed):
            return row, at, NO_ROOM
        for field in range(len(forms)):
            there = sizes[field, :found]
            taken = _take_field(
                data, starts[field, :found], there, forms[field], extras[field], numbers, texts, begins, ends,
                places[field], row,
            )  # fmt: skip
            if not taken:
                return row, at, field
            for one in range(found):
                present[field, row + one] = there[one] >= 0
                missing[field] += there[one] < 0
        row, at = row + found, behind
        if found < wanted:
            return row, at, odd
    return row, at, NOTHING_ODD


@compiled
def _find_fields(data: Any, begin: int, end: int, most: int, starts: Any, sizes: Any) -> tuple[int, int, int]:
    """Find the fields of some rows: first byte and size, -1 for NULL.

    Returns:
        How many rows; where the rest begins; and what is odd with the next one.
    """
    rows, at = 0, begin
    while rows < most and end - at >= _MESSAGE_HEAD and data[at] == _DATA:
        stop = at + 1 + _four(data, np.uint64(at + 1))
        if stop > end:
            break
        here = np.uint64(at + _MESSAGE_HEAD)
        fields = _two(data, here)
        if fields == _FIRST_FIELDS:
            here += np.uint64(_FILE_HEAD)
            if here >= np.uint64(stop):
                at = stop
                continue
            fields = _two(data, here)
        if fields == -1:  # the end of the rows
            at = stop
            continue
        if fields != len(starts):
            return rows, at, OTHER_FIELDS
        here += np.uint64(2)
        for field in range(fields):
            size = _four(data, here)
            here += np.uint64(4)
            starts[field, rows], sizes[field, rows] = here, size
            here += np.uint64(max(size, 0))
        rows += 1
        at = stop
    return rows, at, NOTHING_ODD


@compiled
def _texts_fit(sizes: Any, forms: Any, places: Any, begins: Any, ends: Any, needed: Any) -> bool:
    """Whether there is room for the texts of some rows behind `ends`; what they need is put into `needed`."""
    fit = True
    for field in range(len(forms)):
        if forms[field] != TEXT:
            continue
        place = places[field]
        size = np.int64(ends[place])
        for row in range(sizes.shape[1]):
            size += max(sizes[field, row], 0)
        needed[place] = size
        fit &= size <= begins[place + np.uint64(1)] - begins[place]
    return fit


@compiled
def _take_field(
    data: Any,
    starts: Any,
    sizes: Any,
    form: int,
    extra: int,
    numbers: Any,
    texts: Any,
    begins: Any,
    ends: Any,
    place: int,
    first: int,
) -> bool:
    """Take the values of one field; False where one is no number of its form, or of more than 18 digits."""
    if form == TEXT:
        _take_texts(data, starts, sizes, texts, begins[place], ends[place, first:])
        return True
    values = numbers[place, first:]
    for row in range(len(starts)):
        values[row] = 0
        if sizes[row] < 0:
            continue
        if form == SCALED:
            values[row] = _scaled(data, starts[row], sizes[row], extra)
            if values[row] == _TOO_LONG:
                return False
        elif sizes[row] == form:  # else the column has another type by now
            values[row] = _number(data, starts[row], form) + extra
        else:
            return False
    return True


@compiled
def _take_texts(data: Any, starts: Any, sizes: Any, texts: Any, begin: Any, ends: Any) -> None:
    """Put texts behind the one that ends at the first of `ends`."""
    end = np.uint64(ends[0])
    for row in range(len(starts)):
        start, to, size = starts[row], np.uint64(begin) + end, np.uint64(max(sizes[row], 0))
        for byte in range(size):
            texts[to + byte] = data[start + byte]
        end += size
        ends[row + 1] = end


@compiled
def _two(data: Any, at: Any) -> Any:
    """A signed number of 2 bytes, the higher first."""
    return np.int64(np.int16(np.uint16(data[at]) << np.uint16(8) | np.uint16(data[at + np.uint64(1)])))


@compiled
def _four(data: Any, at: Any) -> Any:
    """A signed number of 4 bytes, the highest first; spelled out, it is one instruction."""
    number = (
        np.uint32(data[at]) << np.uint32(24)
        | np.uint32(data[at + np.uint64(1)]) << np.uint32(16)
        | np.uint32(data[at + np.uint64(2)]) << np.uint32(8)
        | np.uint32(data[at + np.uint64(3)])
    )
    return np.int64(np.int32(number))


@compiled
def _eight(data: Any, at: Any) -> Any:
    """A signed number of 8 bytes, the highest first."""
    return _four(data, at) << 32 | _four(data, at + np.uint64(4)) & 0xFFFF_FFFF


@compiled
def _number(data: Any, at: Any, size: Any) -> Any:
    """A signed number of 8, 4, 2 or 1 bytes."""
    if size == 8:
        return _eight(data, at)
    if size == 4:
        return _four(data, at)
    if size == 2:
        return _two(data, at)
    return np.int64(np.int8(data[at]))


@compiled
def _scaled(data: Any, at: Any, size: Any, scale: Any) -> Any:
    """A numeric times 10 ** `scale`, which is a whole number; `_TOO_LONG` where it is no number of 18 digits."""
    if size < 8:
        return np.int64(_TOO_LONG)
    words, weight, sign = _two(data, at), _two(data, at + np.uint64(2)), _two(data, at + np.uint64(4))
    if sign not in (0, _NEGATIVE) or size != 8 + 2 * words:
        return np.int64(_TOO_LONG)
    value = np.int64(0)
    for place in range(words):
        word = _two(data, at + np.uint64(8 + 2 * place))
        power = _DIGITS * (weight - place) + scale
        if power < 0:
            value += word // _POWERS[min(-power, _DIGITS)]
            continue
        if power > 18 or word > _LARGEST // _POWERS[power] or value > _LARGEST - word * _POWERS[power]:
            return np.int64(_TOO_LONG)
        value += word * _POWERS[power]
    return -value if sign else value
