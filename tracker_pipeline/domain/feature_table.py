"""The table that features are put into: values of each row, and why some have none.

What belongs here: filling in columns from parts, and the text of reasons. What does not: how values come about.
"""

import json
from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl

from tracker_pipeline.domain.feature_catalogue import CATALOGUE, NUMBERS, OF_BARS
from tracker_pipeline.domain.feature_values import (
    BITS,
    PER_WORD,
    CodeArray,
    Reason,
    Values,
    WordArray,
    rounded,
)
from tracker_pipeline.domain.windows import BoolArray, FloatArray, IntArray

_NAMES: Final = tuple(feature.name for feature in CATALOGUE)
_PLACES: Final = {name: place for place, name in enumerate(_NAMES)}
_ROWS: Final = {name: row for row, name in enumerate(NUMBERS)}
_REASON_TEXT: Final = {reason: reason.name.lower() for reason in Reason}
_WORDS: Final = -(-len(CATALOGUE) // PER_WORD)


class FeatureTable:
    """Columns of values and reasons, filled in any order, by threads as long as each fills its own rows.

    Args:
        height: number of rows.
    """

    def __init__(self, height: int) -> None:
        self._height = height
        # One allocation: below 32 MB the next table gets the same memory again, above 4 MB it is made of huge pages.
        # Touching 100,000 fresh small ones costs 0.1 s.
        self._matrix = np.empty((len(NUMBERS), height))
        self._words = np.zeros((_WORDS, height), np.uint64)
        self._texts: dict[str, pl.Series] = {}

    @property
    def bar_features(self) -> tuple[FloatArray, WordArray]:
        """Where the features of bars and their reasons go."""
        return self._matrix[: len(OF_BARS)], self._words

    def put(self, name: str, values: FloatArray, lacking: BoolArray, reason: Reason) -> None:
        """Fill in a feature, row by row, with the reason where it has no value."""
        column = self._matrix[_ROWS[name]]
        column[:] = rounded(values)
        if not lacking.any():
            return
        column[lacking] = np.nan
        self._note(name, np.where(lacking, reason, Reason.NONE).astype(np.uint8))

    def put_text(self, name: str, values: pl.Series, reason: Reason) -> None:
        """Fill in a feature that is a word, with the reason where it has none."""
        self._texts[name] = values.alias(name)
        if values.null_count():
            self._note(name, np.where(values.is_null(), reason, Reason.NONE).astype(np.uint8))

    def put_by_day(self, name: str, values: Values, day_of_row: IntArray) -> None:
        """Fill in a feature that is the same all day.

        Args:
            name: the feature.
            values: of some days.
            day_of_row: which of them each row is in.
        """
        self.put_by_slot(name, values.values, day_of_row)
        if values.reasons.any():
            self._note(name, values.reasons[day_of_row])

    def put_by_slot(self, name: str, values: FloatArray, slot: IntArray) -> None:
        """Fill in a feature that is the same every day, given its values by slot and the slot of each row."""
        # Modes other than "clip" take a copy.
        np.take(rounded(values), slot, out=self._matrix[_ROWS[name]], mode="clip")

    def withhold(self, name: str, rows: BoolArray, reason: Reason) -> None:
        """Take away the values of some rows of a feature that do not lack it already."""
        column = self._matrix[_ROWS[name]]
        hidden = rows & ~np.isnan(column)
        column[hidden] = np.nan
        self._note(name, np.where(hidden, reason, Reason.NONE).astype(np.uint8))

    def _note(self, name: str, reasons: CodeArray) -> None:
        word, digit = divmod(_PLACES[name], PER_WORD)
        self._words[word] |= reasons.astype(np.uint64) << np.uint64(BITS * digit)

    def columns(self) -> list[pl.Series]:
        """The features in the order of the catalogue, NULL where there is a reason."""
        lacking = np.bitwise_or.reduce(self._words, axis=1)
        return [
            self._texts[name]
            if name in self._texts
            else pl.Series(name, self._matrix[_ROWS[name]], nan_to_null=bool(_code(lacking, place)))
            for place, name in enumerate(_NAMES)
        ]

    def null_reasons(self) -> pl.Series:
        """JSON objects from feature to reason, one per row, in the order of the catalogue.

        Neighbouring rows nearly always lack the same, so text is looked up once per run of equal rows.
        """
        words = self._words
        if not words.any():
            return pl.repeat("{}", self._height, eager=True)
        changed = np.append(True, (words[:, 1:] != words[:, :-1]).any(axis=0))
        texts: dict[tuple[int, ...], str] = {}
        runs = []
        for pattern in map(tuple, words[:, changed].T.tolist()):
            if pattern not in texts:
                texts[pattern] = _reason_text(pattern)
            runs.append(texts[pattern])
        return pl.Series(runs, dtype=pl.String).gather(np.cumsum(changed) - 1)


def _code(words: Sequence[int], place: int) -> int:
    """The reason of the feature at a place of the catalogue."""
    word, digit = divmod(place, PER_WORD)
    return int(words[word]) >> (BITS * digit) & (2**BITS - 1)


def _reason_text(words: Sequence[int]) -> str:
    codes = {name: _code(words, place) for place, name in enumerate(_NAMES)}
    lacking = {name: _REASON_TEXT[Reason(code)] for name, code in codes.items() if code}
    return json.dumps(lacking, separators=(",", ":"))
