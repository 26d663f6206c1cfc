"""Seeded noise on lattices of time, and the random walk made of it, each value a pure function of (key, point).

What belongs here: hashes turned into numbers. What does not: prices, coins, units.
"""

import hashlib
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Hashes = NDArray[np.uint64]

# Noise is laid on lattices of 1, 2, 4, ... 2^18 minutes (182 days), each a factor √2 stronger than the one
# below, which makes the variance of a change grow with its duration as that of a random walk does.
_TOP_LEVEL: Final = 18
# A lattice of 2^11 minutes (34 h) carries the activity: calm and wild days follow each other, and everything
# faster than that swings with it.
_ACTIVITY_LEVEL: Final = 11
_ACTIVITY_SPREAD: Final = 0.40
# Strength of the one-minute lattice for a walk of 100 % a year, found by measuring 20 walks of 3 years.
UNIT_STRENGTH: Final = 7.05e-4


def hash_text(text: str) -> int:
    """64 bits of `text`, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


@lru_cache(maxsize=65536)
def stream(key: int, name: str) -> int:
    """The key of one of the independent noises that belong to `key`."""
    return hash_text(f"{key}/{name}")


def hashes(key: int, first: int, last: int) -> Hashes:
    """64 bits for each of the lattice points first..last: the splitmix64 sequence that starts at `key`."""
    points = np.arange(first, last + 1, dtype=np.int64).astype(np.uint64)
    state = np.uint64(key) + points * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def gauss(key: int, first: int, last: int) -> Floats:
    """Noise of mean 0 and variance 1 at the lattice points first..last: the sum of four 16-bit numbers."""
    bits = hashes(key, first, last)
    mask = np.uint64(0x0000FFFF0000FFFF)
    pairs = (bits & mask) + ((bits >> np.uint64(16)) & mask)
    total = (pairs & np.uint64(0xFFFFFFFF)) + (pairs >> np.uint64(32))
    return (total.astype(np.float64) - 131_070.0) / 37_837.2  # mean 2 × 65,535, deviation 65,536 / √3


def walk(key: int, first: int, last: int) -> tuple[Floats, Floats]:
    """Log price for 100 % a year, and activity around 1, at the minutes first..last inclusive.

    Works from the coarsest lattice to the finest: halfway points are the mean of their neighbours, then the
    noise of the finer lattice is added. Each value depends on lattice points alone, so the answer is the same
    to the last bit whatever window is asked for, and costs two hashes a minute.
    """
    log_price = activity = np.zeros(0)
    for level in range(_TOP_LEVEL, -1, -1):
        low, high = first >> level, (last >> level) + 1
        noise = gauss(stream(key, str(level)), low, high)
        if level == _TOP_LEVEL:
            log_price = np.zeros(high - low + 1)
        else:
            log_price = _halved(log_price, first >> (level + 1), low, high)
        if level == _ACTIVITY_LEVEL:
            spread = gauss(stream(key, "activity"), low, high)
            activity = np.exp(_ACTIVITY_SPREAD * spread - _ACTIVITY_SPREAD**2)  # its square has mean 1
        elif level < _ACTIVITY_LEVEL:
            activity = _halved(activity, first >> (level + 1), low, high)
        strength = UNIT_STRENGTH * 2.0 ** (level / 2)
        log_price = log_price + strength * (noise * activity if level <= _ACTIVITY_LEVEL else noise)
    size = last - first + 1
    return log_price[:size], activity[:size]


def smooth(key: int, level: int, first: int, last: int) -> Floats:
    """Noise of the lattice of 2^level points, drawn as straight lines through first..last inclusive."""
    values = gauss(key, first >> level, (last >> level) + 1)
    for finer in range(level - 1, -1, -1):
        values = _halved(values, first >> (finer + 1), first >> finer, (last >> finer) + 1)
    return values[: last - first + 1]


def _halved(values: Floats, coarse_low: int, low: int, high: int) -> Floats:
    """Values at the points low..high of the lattice twice as fine; `values` starts at `coarse_low`."""
    finer = np.empty(2 * len(values) - 1)
    finer[::2] = values
    finer[1::2] = (values[:-1] + values[1:]) / 2
    return finer[low - 2 * coarse_low : high - 2 * coarse_low + 1]
