"""Keys that stand in more than one part are found, however they are spread, typed and many."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracker_pipeline.storage import shared_keys
from tracker_pipeline.storage.lake_store import lake_store
from tracker_pipeline.storage.shared_keys import parts_sharing_keys

EPOCH = datetime(2024, 5, 1, tzinfo=UTC)


def store_parts(frames: list[pl.DataFrame]) -> list[str]:
    paths = [f"public/one/part-{place}.parquet" for place in range(len(frames))]
    for path, frame in zip(paths, frames, strict=True):
        with lake_store().stage(path) as staged:
            frame.write_parquet(staged.file, row_group_size=3)
            staged.publish()
    return paths


def shared(frames: list[pl.DataFrame]) -> list[int]:
    paths = store_parts(frames)
    found = parts_sharing_keys(lake_store(), frames[0].columns, paths)
    for path in paths:
        lake_store().delete(path)
    return [found.get(path, 0) for path in paths]


def by_counting(parts: list[set[int]]) -> list[int]:
    times = Counter(key for part in parts for key in part)
    return [sum(times[key] > 1 for key in part) for part in parts]


TYPES = {
    pl.Int64(): int,
    pl.String(): str,
    pl.Decimal(20, 2): Decimal,
    pl.Datetime("us", "UTC"): lambda i: EPOCH + timedelta(hours=i),
}


@pytest.mark.parametrize("most", [4_000_000, 5])
@pytest.mark.parametrize("kind", TYPES, ids=str)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.sets(st.integers(-30, 60), min_size=1, max_size=12), min_size=1, max_size=5))
def test_each_part_shares_as_many_keys_as_a_count_of_all_says(monkeypatch, kind, most, parts):
    monkeypatch.setattr(shared_keys, "_MOST_KEYS", most)  # with 5, keys are taken by shares of their hashes
    frames = [
        pl.DataFrame({"id": pl.Series([TYPES[kind](i) for i in sorted(part)], dtype=kind)}) for part in parts
    ]
    assert shared(frames) == by_counting(parts)


def test_a_key_of_several_columns_is_shared_only_as_a_whole():
    one = pl.DataFrame({"coin": ["BTC", "BTC", "ETH"], "minute": [1, 2, 1]})
    other = pl.DataFrame({"coin": ["BTC", "ETH", "ETH"], "minute": [2, 2, 3]})
    assert shared([one, other]) == [1, 1]


def test_an_id_is_the_same_in_whichever_width_a_part_holds_it():
    narrow, wide = (pl.DataFrame({"id": pl.Series([1, 2, 3], dtype=kind)}) for kind in (pl.Int32, pl.Int64))
    assert shared([narrow, wide]) == [3, 3]


def test_text_and_numbers_are_never_the_same_key():
    assert shared([pl.DataFrame({"id": [1, 2]}), pl.DataFrame({"id": ["1", "2"]})]) == [0, 0]


def test_parts_whose_footer_tells_no_range_are_compared_all_the_same():
    one, other = pl.DataFrame({"id": [1, 2]}), pl.DataFrame({"id": [2, 3]})
    paths = store_parts([one, other])
    for path, frame in zip(paths, (one, other), strict=True):
        with lake_store().stage(path) as staged:
            frame.write_parquet(staged.file, statistics=False)
            staged.publish()
    assert parts_sharing_keys(lake_store(), ["id"], paths) == dict.fromkeys(paths, 1)
