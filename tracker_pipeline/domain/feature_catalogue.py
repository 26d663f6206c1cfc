"""The feature catalogue: name, formula, window, unit and source of every ML feature.

What belongs here: one entry per feature. What does not: the computation (`features.py`).
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final


@dataclass(frozen=True)
class Feature:
    """One feature: what it is called, how it is defined, and how much history it needs."""

    name: str
    description: str
    window: timedelta


CATALOGUE: Final[tuple[Feature, ...]] = ()
