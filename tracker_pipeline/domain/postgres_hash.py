"""Postgres' own 64-bit hash functions over whole columns, so that a file can be compared with the table it came from.

They are those of hash partitioning (`hashint8extended`, `hashfloat8extended`, `hash_numeric_extended`,
`hashtextextended`), which Postgres cannot change without moving rows of partitioned tables; underneath is Bob
Jenkins' lookup3 (public domain, 2006). Compiled, a value takes 5 to 25 ns; in numpy, which goes over all values once
for each step, it takes 60 to 150 ns.

What belongs here: the functions, over numpy arrays. What does not: which column is hashed how
(`storage.column_forms`), the SQL side (`storage.part_proof`).
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tracker_pipeline.domain.compiling import compiled

U64 = npt.NDArray[np.uint64]

_INITIAL: Final = np.uint32((0x9E3779B9 + 3_923_095) & 0xFFFFFFFF)
_NAN_BITS: Final = np.uint64(0x7FF8_0000_0000_0000)
_INFINITE_BITS: Final = np.uint64(0x7FF0_0000_0000_0000)
_HALF: Final = np.uint64(32)
_NO_SEEDS: Final = np.zeros(1, np.uint64)
_WORD_DIGITS: Final = 4  # decimal digits in one of the words that a numeric is made of
_WORD: Final = np.uint64(10**_WORD_DIGITS)
_MOST_WORDS: Final = 6  # that 18 digits take, wherever the point is


def hash_int64(values: npt.NDArray[np.int64], seed: U64 | None = None) -> U64:
    """`hashint8extended`, which is also that of smaller integers and of timestamps as microseconds since 2000."""
    out = np.empty(len(values), np.uint64)
    _hash_integers(np.ascontiguousarray(values), *_seeds(seed), out)
    return out


def hash_float64(values: npt.NDArray[np.float64], seed: U64 | None = None) -> U64:
    """`hashfloat8extended`, except that -0.0 hashes to 1, where Postgres takes it for 0.0."""
    out = np.empty(len(values), np.uint64)
    bits = np.ascontiguousarray(values, np.float64).view(np.uint64)
    _hash_floats(bits, *_seeds(seed), out)
    return out


def hash_scaled(values: npt.NDArray[np.int64], scale: int, seed: U64 | None = None) -> U64:
    """`hash_numeric_extended` of the numerics `values / 10 ** scale`, with all bits turned where they are below zero.

    Postgres gives a number and its negative the same hash.

    Args:
        values: of at most 18 digits.
        scale: 0 to 18.
        seed: of each row, or none.
    """
    out = np.empty(len(values), np.uint64)
    _hash_scaled(values, scale, *_seeds(seed), out)
    return out


def hash_text(
    data: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    seed: U64 | None,
) -> U64:
    """`hashtextextended` under a deterministic collation: of the bytes `data[start:start + length]` of each row.

    Args:
        data: the bytes of all rows.
        starts: first byte of each row.
        lengths: number of bytes of each row.
        seed: of each row, or none.
    """
    out = np.empty(len(starts), np.uint64)
    _hash_texts(data, starts, lengths, *_seeds(seed), out)
    return out


def total(hashes: U64) -> int:
    """Sum modulo 2^64: the same in whatever order the rows come, and of two sets that of both."""
    return int(np.add.reduce(hashes, dtype=np.uint64)) if len(hashes) else 0


def _seeds(seed: U64 | None) -> tuple[U64, int]:
    """The seeds, and how far one row's is from the next's: all rows share one where there are none."""
    return (_NO_SEEDS, 0) if seed is None else (np.ascontiguousarray(seed), 1)


@compiled
def _turned(word: Any, bits: int) -> Any:
    return np.uint32((word << np.uint32(bits)) | (word >> np.uint32(32 - bits)))


@compiled
def _mix(a: Any, b: Any, c: Any) -> Any:
    a = np.uint32(a - c) ^ _turned(c, 4)
    c = np.uint32(c + b)
    b = np.uint32(b - a) ^ _turned(a, 6)
    a = np.uint32(a + c)
    c = np.uint32(c - b) ^ _turned(b, 8)
    b = np.uint32(b + a)
    a = np.uint32(a - c) ^ _turned(c, 16)
    c = np.uint32(c + b)
    b = np.uint32(b - a) ^ _turned(a, 19)
    a = np.uint32(a + c)
    c = np.uint32(c - b) ^ _turned(b, 4)
    b = np.uint32(b + a)
    return a, b, c


@compiled
def _final(a: Any, b: Any, c: Any) -> Any:
    """The 64 bits of a state after its last word."""
    c = np.uint32((c ^ b) - _turned(b, 14))
    a = np.uint32((a ^ c) - _turned(c, 11))
    b = np.uint32((b ^ a) - _turned(a, 25))
    c = np.uint32((c ^ b) - _turned(b, 16))
    a = np.uint32((a ^ c) - _turned(c, 4))
    b = np.uint32((b ^ a) - _turned(a, 14))
    c = np.uint32((c ^ b) - _turned(b, 24))
    return (np.uint64(b) << _HALF) | np.uint64(c)


@compiled
def _begin(size: Any, seed: Any) -> Any:
    """The state before the first word; Postgres leaves it as it is for the seed 0."""
    start = np.uint32(_INITIAL + np.uint32(size))
    if seed == 0:
        return start, start, start
    return _mix(np.uint32(start + np.uint32(seed >> _HALF)), np.uint32(start + np.uint32(seed)), start)


@compiled
def _hash_integers(values: Any, seeds: Any, stride: int, out: Any) -> None:
    for row in range(len(values)):
        bits = np.uint64(values[row])
        high = np.uint32(bits >> _HALF)
        word = np.uint32(bits) ^ (high if values[row] >= 0 else np.uint32(~high))
        a, b, c = _begin(4, seeds[row * stride])
        out[row] = _final(np.uint32(a + word), b, c)


@compiled
def _hash_floats(bits: Any, seeds: Any, stride: int, out: Any) -> None:
    for row in range(len(bits)):
        value, seed = bits[row], seeds[row * stride]
        if value == 0:
            out[row] = seed
            continue
        if value << np.uint64(1) == 0:
            out[row] = 1
            continue
        if value << np.uint64(1) > _INFINITE_BITS << np.uint64(1):  # the sign aside
            value = _NAN_BITS
        a, b, c = _begin(8, seed)
        out[row] = _final(np.uint32(a + np.uint32(value)), np.uint32(b + np.uint32(value >> _HALF)), c)


@compiled
def _hash_scaled(values: Any, scale: int, seeds: Any, stride: int, out: Any) -> None:
    words = np.zeros(2 * _MOST_WORDS, np.uint32)  # the lowest one at `last`, zeros before it
    last = _MOST_WORDS - 1
    point = last + -(-scale // _WORD_DIGITS)  # the place of the lowest one before the point
    odd = scale % _WORD_DIGITS  # digits in the last one behind it
    split, shift = np.uint64(10**odd), np.uint64(10 ** (_WORD_DIGITS - odd))
    for row in range(len(values)):
        value, seed = values[row], seeds[row * stride]
        if value == 0:
            out[row] = seed - np.uint64(1)
            continue
        left, end = np.uint64(abs(value)), last
        if odd:
            words[end] = np.uint32(left % split * shift)
            left //= split
            end += 1
        while left:
            words[end] = np.uint32(left % _WORD)
            left //= _WORD
            end += 1
        first = last
        while words[first] == 0:  # Postgres leaves out zeros at the end
            first += 1
        size, top = end - first, end - 1
        a, b, c = _begin(2 * size, seed)
        a = np.uint32(a + _pair(words, top))
        b = np.uint32(b + _pair(words, top - 2))
        if size == _MOST_WORDS:
            a, b, c = _mix(a, b, np.uint32(c + _pair(words, top - 4)))
        else:  # the lowest byte of the third word is left out, as of texts
            c = np.uint32(c + np.uint32(words[top - 4] << np.uint32(8)))
        hashed = _final(a, b, c) ^ np.uint64(np.int64(top - point))
        out[row] = ~hashed if value < 0 else hashed


@compiled
def _pair(words: Any, at: int) -> Any:
    """Two words of a numeric as one, the higher one in its lower half."""
    return np.uint32(words[at] | np.uint32(words[at - 1] << np.uint32(16)))


@compiled
def _word(data: Any, at: int, size: int) -> Any:
    """Up to four bytes as a number, the first one lowest; by unsigned places, which are read at once."""
    word = np.uint32(0)
    for place in range(np.uint64(size)):
        word |= np.uint32(np.uint32(data[np.uint64(at) + place]) << np.uint32(np.uint64(8) * place))
    return word


@compiled
def _hash_texts(data: Any, starts: Any, lengths: Any, seeds: Any, stride: int, out: Any) -> None:
    for row in range(len(starts)):
        at, left = starts[row], lengths[row]
        a, b, c = _begin(left, seeds[row * stride])
        while left >= 12:
            a = np.uint32(a + _word(data, at, 4))
            b = np.uint32(b + _word(data, at + 4, 4))
            c = np.uint32(c + _word(data, at + 8, 4))
            a, b, c = _mix(a, b, c)
            at += 12
            left -= 12
        # The lowest byte of the third word is left out: the length stands for it.
        a = np.uint32(a + _word(data, at, min(left, 4)))
        if left > 4:
            b = np.uint32(b + _word(data, at + 4, min(left - 4, 4)))
        if left > 8:
            c = np.uint32(c + np.uint32(_word(data, at + 8, left - 8) << np.uint32(8)))
        out[row] = _final(a, b, c)
