"""Postgres' own 64-bit hash functions over whole columns, so that a file can be compared with the table it came from.

They are those of hash partitioning (`hashint8extended`, `hashfloat8extended`, `hashtextextended`), which Postgres
cannot change without moving rows of partitioned tables; underneath is Bob Jenkins' lookup3 (public domain, 2006).

What belongs here: the functions, over numpy arrays. What does not: which column is hashed how
(`storage.column_forms`), the SQL side (`storage.part_proof`).
"""

from typing import Final

import numpy as np
import numpy.typing as npt

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

# Blocks whose temporaries stay in the cache: 16,384 rows of 4 bytes.
_BLOCK: Final = 16_384
_INITIAL: Final = 0x9E3779B9 + 3_923_095
_NAN_BITS: Final = np.uint64(0x7FF8_0000_0000_0000)
_MIX: Final = ((0, 2, 1, 4), (1, 0, 2, 6), (2, 1, 0, 8), (0, 2, 1, 16), (1, 0, 2, 19), (2, 1, 0, 4))
_FINAL: Final = ((2, 1, 14), (0, 2, 11), (1, 0, 25), (2, 1, 16), (0, 2, 4), (1, 0, 14), (2, 1, 24))
# For a tail of 0 to 11 bytes: which bits of its three words count.
_TAIL_MASKS: Final = np.array(
    [[(1 << (8 * min(max(tail - 4 * word, 0), 4))) - 1 for word in range(3)] for tail in range(12)], np.uint32
)


def hash_int64(values: npt.NDArray[np.int64], seed: U64 | None = None) -> U64:
    """`hashint8extended`, which is also that of smaller integers and of timestamps as microseconds since 2000."""
    bits = values.view(np.uint64)
    low = bits.astype(np.uint32)
    high = (bits >> np.uint64(32)).astype(np.uint32)
    folded = low ^ np.where(values >= 0, high, ~high)
    return _in_blocks(lambda part: _hash_words([folded[part]], 4, _part(seed, part)), len(values))


def hash_float64(values: npt.NDArray[np.float64], seed: U64 | None = None) -> U64:
    """`hashfloat8extended`, except that -0.0 hashes to 1, where Postgres takes it for 0.0."""
    bits = np.ascontiguousarray(values, np.float64).view(np.uint64)
    bits = np.where(np.isnan(values), _NAN_BITS, bits)
    words = [bits.astype(np.uint32), (bits >> np.uint64(32)).astype(np.uint32)]
    hashed = _in_blocks(
        lambda part: _hash_words([word[part] for word in words], 8, _part(seed, part)), len(values)
    )
    zero = values == 0
    if zero.any():
        plain = np.zeros(len(values), np.uint64) if seed is None else seed
        hashed = np.where(zero, np.where(np.signbit(values), np.uint64(1), plain), hashed)
    return hashed


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
    padded = np.concatenate([data, np.zeros(16, np.uint8)])
    # Words at any byte, not only at each fourth.
    words = np.ndarray((len(padded) - 3,), "<u4", padded, strides=(1,))
    return _in_blocks(
        lambda part: _hash_bytes(words, starts[part], lengths[part], _part(seed, part)), len(starts)
    )


def total(hashes: U64) -> int:
    """Sum modulo 2^64: the same in whatever order the rows come, and of two sets that of both."""
    return int(np.add.reduce(hashes, dtype=np.uint64)) if len(hashes) else 0


def _part(seed: U64 | None, part: slice) -> U64 | None:
    return None if seed is None else seed[part]


def _in_blocks(hashed, rows: int) -> U64:  # type: ignore[no-untyped-def]
    out = np.empty(rows, np.uint64)
    for first in range(0, rows, _BLOCK):
        part = slice(first, min(first + _BLOCK, rows))
        out[part] = hashed(part)
    return out


def _hash_bytes(
    words: U32, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], seed: U64 | None
) -> U64:
    state = _begin(lengths.astype(np.uint32), len(starts), seed)
    rounds, tails = np.divmod(lengths, 12)
    position = starts.copy()
    most = int(rounds.max(initial=0))
    least = int(rounds.min(initial=0)) if len(rounds) else 0
    for number in range(most):
        if number < least:
            for place in range(3):
                state[place] += words[position + 4 * place]
            _mix(state)
            position += 12
        else:
            (still,) = np.nonzero(rounds > number)
            some = [part[still] for part in state]
            at = position[still]
            for place in range(3):
                some[place] += words[at + 4 * place]
            _mix(some)
            for part, changed in zip(state, some, strict=True):
                part[still] = changed
            position[still] += 12
    masks = _TAIL_MASKS[tails]
    # A row at the very end of the data has fewer than 12 bytes after its last round: what is read there is masked.
    last = len(words) - 1
    for place in range(3):
        word = words[np.minimum(position + 4 * place, last)] & masks[:, place]
        state[place] += word << np.uint32(8) if place == 2 else word
    _final(state)
    return _joined(state)


def _hash_words(given: list[U32], size: int, seed: U64 | None) -> U64:
    """Of one or two whole words."""
    state = _begin(np.full(len(given[0]), size, np.uint32), len(given[0]), seed)
    for place, word in enumerate(given):
        state[place] += word
    _final(state)
    return _joined(state)


def _begin(lengths: U32, rows: int, seed: U64 | None) -> list[U32]:
    start = lengths + np.uint32(_INITIAL & 0xFFFFFFFF)
    state = [start.copy() for _ in range(3)]
    if seed is None or not rows:
        return state
    state[0] += (seed >> np.uint64(32)).astype(np.uint32)
    state[1] += seed.astype(np.uint32)
    _mix(state)
    unseeded = seed == 0  # Postgres leaves the state as it is for the seed 0
    if unseeded.any():
        for part in state:
            part[unseeded] = start[unseeded]
    return state


def _mix(state: list[U32]) -> None:
    spare, high = np.empty_like(state[0]), np.empty_like(state[0])
    for one, other, third, turn in _MIX:
        x, y = state[one], state[other]
        np.subtract(x, y, out=x)
        np.bitwise_xor(x, _turned(y, turn, spare, high), out=x)
        np.add(y, state[third], out=y)


def _final(state: list[U32]) -> None:
    spare, high = np.empty_like(state[0]), np.empty_like(state[0])
    for one, other, turn in _FINAL:
        x, y = state[one], state[other]
        np.bitwise_xor(x, y, out=x)
        np.subtract(x, _turned(y, turn, spare, high), out=x)


def _turned(word: U32, bits: int, spare: U32, high: U32) -> U32:
    np.left_shift(word, np.uint32(bits), out=spare)
    np.right_shift(word, np.uint32(32 - bits), out=high)
    return np.bitwise_or(spare, high, out=spare)


def _joined(state: list[U32]) -> U64:
    return (state[1].astype(np.uint64) << np.uint64(32)) | state[2].astype(np.uint64)
