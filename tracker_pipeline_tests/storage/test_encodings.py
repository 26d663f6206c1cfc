"""Files of the lake: small, exact, and readable without knowing how they were written."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
import pytest

from tracker_pipeline.storage.column_forms import Field, Kind
from tracker_pipeline.storage.lake import write_parquet
from tracker_pipeline.storage.part_writer import PartWriter, choose_forms, group_begins, ranks_of

ROWS = 20_000

TEXTS = pyarrow.schema([("wallet", pyarrow.string()), ("signature", pyarrow.string())])


def rows_of_every_type() -> pl.DataFrame:
    rng = np.random.default_rng(1)
    start = datetime(2024, 5, 1, tzinfo=UTC)
    price = 0.00001234 * np.exp(np.cumsum(rng.normal(0, 0.001, ROWS)))
    return pl.DataFrame(
        {
            "symbol": pl.Series(["SHIB/USDT"]).gather(np.zeros(ROWS, int)),
            "ts": [start + timedelta(minutes=15) * number for number in range(ROWS)],
            "day": pl.repeat(date(2024, 5, 1), ROWS, eager=True),
            "price": pl.Series(price).set(pl.Series(np.arange(ROWS) % 7 == 0), None),
            "n": np.arange(ROWS),
            "wei": pl.Series([Decimal(10) ** 30 + number for number in range(ROWS)], dtype=pl.Decimal(38, 0)),
            "tags": pl.Series([["a", "b"], []] * (ROWS // 2)),
            "ok": np.arange(ROWS) % 2 == 0,
        },
        schema_overrides={"ts": pl.Datetime("us", "UTC")},
    )


def test_every_type_comes_back_as_it_went_in(tmp_path: Path) -> None:
    rows, path = rows_of_every_type(), tmp_path / "part.parquet"
    write_parquet(rows, path)
    stored = pl.read_parquet(path)
    assert stored.schema == rows.schema
    assert stored.equals(rows)


def test_an_empty_frame_keeps_its_types(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    write_parquet(rows_of_every_type().clear(), path)
    assert pl.read_parquet(path).schema == rows_of_every_type().schema


def test_numbers_are_split_into_their_bytes_and_times_kept_as_differences(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    write_parquet(rows_of_every_type(), path)
    group = pyarrow.parquet.read_metadata(path).row_group(0)
    columns = {group.column(n).path_in_schema: group.column(n) for n in range(group.num_columns)}
    assert "BYTE_STREAM_SPLIT" in columns["price"].encodings
    assert "DELTA_BINARY_PACKED" in columns["ts"].encodings
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert columns["ts"].statistics.has_min_max  # what lets a reader skip row groups


def test_text_that_comes_again_is_kept_once_though_its_first_rows_hardly_repeat() -> None:
    wallets = pl.Series([f"wallet {row * 7_919 % 2_500}" for row in range(10_000)], dtype=pl.String)
    rows = pl.DataFrame({"wallet": wallets, "signature": [f"signature {row}" for row in range(10_000)]})
    block = rows.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(TEXTS)
    dictionaries, encodings, levels = choose_forms(block, block)
    assert (dictionaries, encodings) == (["wallet"], {"signature": "DELTA_LENGTH_BYTE_ARRAY"})
    assert set(levels.values()) == {1}


def test_floats_are_kept_as_they_are_unless_their_bytes_apart_are_much_smaller() -> None:
    rng = np.random.default_rng(3)
    walk = np.cumsum(rng.integers(-40, 40, ROWS))
    columns = {
        "in ticks": (600_000 + walk) / 100,
        "with holes": pa.array((600_000 + walk) / 100, mask=np.arange(ROWS) % 3 == 0),
        "computed": np.exp(rng.normal(0, 1, ROWS)),
        "with few bits": rng.random(ROWS).astype(np.float32).astype(float),
        "short": rng.random(ROWS).astype(np.float32) + np.float32(600),
        "none": pa.nulls(ROWS, pa.float64()),
        "one": np.ones(ROWS),
    }
    block = pa.table(columns)
    dictionaries, encodings, levels = choose_forms(block, block)
    apart = ["with few bits", "short"]
    assert dictionaries == ["none", "one"]
    assert [name for name, encoding in encodings.items() if encoding == "BYTE_STREAM_SPLIT"] == apart
    assert [name for name, encoding in encodings.items() if encoding == "PLAIN"] == list(columns)[:3]
    assert [name for name, level in levels.items() if level < 0] == list(columns)[:3]


def test_a_part_says_the_same_to_every_reader_whatever_its_forms(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(4), tmp_path / "part.parquet"
    every = rows_of_every_type().drop("tags").to_arrow(compat_level=pl.CompatLevel.oldest())
    rows = every.append_column("few bits", pa.array(np.round(rng.random(ROWS) * 64) / 64 + np.arange(ROWS)))
    fields = [Field(f.name, f.name, Kind.TEXT, f.type, "", "", "") for f in rows.schema]
    writer = PartWriter(path, fields, [], {})
    for batch in rows.to_batches(7_000):
        writer.write(batch)
    writer.close()
    assert pyarrow.parquet.read_table(path).equals(rows.cast(pa.schema([(f.name, f.arrow) for f in fields])))
    assert pl.read_parquet(path).equals(pl.DataFrame(rows))
    found = duckdb.sql(f"SELECT * FROM '{path}'").pl()
    assert found.equals(pl.DataFrame(rows).cast(found.schema))
    group = pyarrow.parquet.read_metadata(path).row_group(0)
    assert {group.column(n).compression for n in range(group.num_columns)} == {"ZSTD"}


@pytest.mark.parametrize(
    ("rows_of_keys", "begins"),
    [
        ([1_440] * 9, [0, 5_760, 11_520]),
        ([40_000, 1_000, 7_000], [0, 16_384, 32_768, 40_000, 41_000]),
        ([96], [0]),
        ([], [0]),
    ],
)
def test_row_groups_begin_with_a_key_unless_it_is_long(rows_of_keys: list[int], begins: list[int]) -> None:
    symbols = [None, *(f"C{number}" for number in range(len(rows_of_keys)))]
    repeated = [symbol for symbol, rows in zip(symbols, rows_of_keys, strict=False) for _ in range(rows)]
    keys = pa.table(
        {"venue": pa.array(["bybit"] * len(repeated), pa.string()), "symbol": pa.array(repeated, pa.string())}
    )
    assert group_begins(ranks_of(keys), keys.num_rows) == begins
    assert group_begins([], keys.num_rows) == list(range(0, max(keys.num_rows, 1), 16_384))


@pytest.mark.parametrize(
    "first",
    [
        pa.array(["b", None, "a", "", "é", "b", "a", None], pa.string()),
        pa.array([2, -1, None, 2, 0, -1, 2**62, None], pa.int64()),
        pa.array([1.5, float("nan"), None, -0.0, 0.0, float("-inf"), 1.5, 7.0]),
        pa.array([Decimal("1.10"), None, Decimal("-2.00"), *[Decimal("1.10")] * 5], pa.decimal128(18, 2)),
    ],
)
def test_rows_are_sorted_by_value_with_null_last_and_equal_ones_in_their_order(first):
    second = pa.array([3, 3, 1, 2, None, 1, 1, 0], pa.timestamp("us", "UTC"))
    keys = pa.table({"first": first, "second": second})
    expected = pyarrow.compute.sort_indices(keys, sort_keys=[("first", "ascending"), ("second", "ascending")])
    assert np.lexsort(ranks_of(keys)[::-1]).tolist() == expected.to_pylist()


def test_many_different_texts_are_sorted_as_few_are():
    texts = pa.array([f"{(7_919 * n) % 40_009:x}" for n in range(40_009)])
    (ranks,) = ranks_of(pa.table({"t": texts}))
    assert texts.take(pa.array(np.argsort(ranks))).to_pylist() == sorted(texts.to_pylist())
