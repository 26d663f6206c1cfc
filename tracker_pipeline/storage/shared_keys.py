"""Finds keys that stand in more than one part of a table, in a bounded part of the memory.

Each part is read once, and only keys that lie within the ranges of two parts are kept: of ids from a sequence few
are, of random ones all. Where more than `_MOST_KEYS` are kept, they are taken a share of their hashes at a time, and
the parts are read once for each share.

What belongs here: which parts share keys. What does not: what that means (`audit`).
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, NamedTuple

import polars as pl
import polars.selectors as cs
import pyarrow as pa
import pyarrow.parquet as pq

from tracker_pipeline.storage.lake_store import LakeStore

_MOST_KEYS: Final = 4_000_000  # of an id 100 MB, of a text of 36 characters 300 MB
_BATCH_ROWS: Final = 131_072
_PART: Final = "part of the key"  # no column of a key can be taken for it: it holds its place, not its name


class _Range(NamedTuple):
    """Type, least and greatest value of the first column of the key; None where the file does not say the values."""

    kind: str
    low: Any
    high: Any
    path: str


def parts_sharing_keys(store: LakeStore, key: Sequence[str], paths: Sequence[str]) -> dict[str, int]:
    """How many keys each part has that another one of them has as well; parts without such a key are left out.

    Args:
        store: where the parts lie.
        key: columns that tell rows apart.
        paths: parts that can be read and have these columns.
    """
    ranges = sorted((_range_of(store, path, key[0]) for path in paths), key=lambda one: one.kind)
    shared: dict[str, int] = {}
    # Text is never equal to a number: where the type of a key was changed, older parts are compared with each other.
    for _, alike in groupby(ranges, key=attrgetter("kind")):
        common = _common(list(alike))
        shares = 1
        while (found := _shared(store, key, common, shares)) is None:
            shares *= 2
        shared |= found
    return shared


def _range_of(store: LakeStore, path: str, column: str) -> _Range:
    with store.open(path) as source:
        footer = pq.read_metadata(source)
    kind = _kind_of(footer.schema.to_arrow_schema().field(column).type)
    place = footer.schema.names.index(column)
    groups = [footer.row_group(i).column(place).statistics for i in range(footer.num_row_groups)]
    if not groups or not all(one is not None and one.has_min_max for one in groups):
        return _Range(kind, None, None, path)
    return _Range(kind, min(one.min for one in groups), max(one.max for one in groups), path)


def _kind_of(arrow: pa.DataType) -> str:
    """What two types have in common whose values can be equal, whatever their width."""
    if pa.types.is_decimal(arrow):
        return f"decimal {arrow.scale}"
    return "integer" if pa.types.is_integer(arrow) else str(arrow).removeprefix("large_")


def _common(ranges: Sequence[_Range]) -> dict[str, list[tuple[Any, Any]]]:
    """For each part the ranges that it has in common with others; one of (None, None) is everything."""
    if any(one.low is None for one in ranges):
        return {one.path: [(None, None)] for one in ranges} if len(ranges) > 1 else {}
    common: dict[str, list[tuple[Any, Any]]] = {}
    in_order = sorted(ranges, key=attrgetter("low"))
    reach = in_order[0]  # the part that reaches furthest so far
    overlaps: list[tuple[Any, Any]] = []
    for one in in_order[1:]:
        if one.low <= reach.high:
            overlaps.append((one.low, min(one.high, reach.high)))
        reach = max(reach, one, key=attrgetter("high"))
    for one in in_order:
        own = [(low, high) for low, high in _merged(overlaps) if low <= one.high and one.low <= high]
        if own:
            common[one.path] = own
    return common


def _merged(ranges: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Ranges, sorted by their start, without those that lie within another."""
    merged: list[tuple[Any, Any]] = []
    for low, high in ranges:
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged


def _shared(
    store: LakeStore, key: Sequence[str], common: dict[str, list[tuple[Any, Any]]], shares: int
) -> dict[str, int] | None:
    """The keys that each part shares with another one; None if a share of them is more than may be held at once."""
    shared: dict[str, int] = {}
    paths = list(common)
    for share in range(shares):
        kept: list[pl.DataFrame] = []
        for place, path in enumerate(paths):
            for keys in _keys(store, path, key, common[path]):
                own = keys if shares == 1 else keys.filter(keys.hash_rows(seed=0) % shares == share)
                kept.append(own.with_columns(pl.lit(place, pl.Int32).alias(_PART)))
            if sum(keys.height for keys in kept) > _MOST_KEYS:
                return None
        if kept:
            for place, count in _in_several(pl.concat(kept, how="vertical_relaxed"), key):
                shared[paths[place]] = shared.get(paths[place], 0) + count
    return shared


def _keys(
    store: LakeStore, path: str, key: Sequence[str], within: Sequence[tuple[Any, Any]]
) -> Iterator[pl.DataFrame]:
    first = pl.col(key[0])
    chosen = [
        pl.lit(True) if low is None else first.is_between(pl.lit(low), pl.lit(high)) for low, high in within
    ]
    with store.open(path) as source, pq.ParquetFile(source) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=list(key)):
            yield _widened(pl.DataFrame(batch).filter(pl.any_horizontal(chosen)))


def _widened(keys: pl.DataFrame) -> pl.DataFrame:
    """Numbers in their widest form, since equal ones of two widths have two hashes."""
    decimals = [
        pl.col(name).cast(pl.Decimal(38, kind.scale))
        for name, kind in keys.schema.items()
        if isinstance(kind, pl.Decimal)
    ]
    return keys.with_columns(cs.integer().cast(pl.Int64), *decimals)


def _in_several(keys: pl.DataFrame, key: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Parts, and how many of their keys stand in another one too."""
    twice = keys.filter(pl.struct(key).is_duplicated() if len(key) > 1 else pl.col(key[0]).is_duplicated())
    several = twice.group_by(key).agg(pl.col(_PART).unique()).filter(pl.col(_PART).list.len() > 1)
    counted = several.explode(_PART).group_by(_PART).len()
    yield from counted.sort(_PART).iter_rows()
