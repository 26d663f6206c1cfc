"""The proof of a part: what Postgres says of the rows, and what the finished file says of itself, are the same.

Both sides count the rows and, for each field, the values that are not NULL and the sum of their hashes. Each hash is
seeded with that of the row's key, so a value that wandered to another row is found as well as one that changed; that
of a column of the key is seeded with those of the columns before it. Sums do not depend on the order of rows, and
those of two parts add up to that of both.

What belongs here: both sides, and the comparison. What does not: the hash functions (`domain.postgres_hash`).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import add
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tracker_pipeline.domain.postgres_hash import U64, hash_float64, hash_int64, hash_scaled, hash_text, total
from tracker_pipeline.storage.column_forms import LONGEST_HASHED, Field, Kind
from tracker_pipeline.storage.database import Connection

# Which hashes of which values: the sums of other versions cannot be compared.
PROOF_VERSION: Final = 2
_MODULUS: Final = 2**64
_EPOCH_US: Final = 946_684_800_000_000  # 2000-01-01, where Postgres counts from
_EPOCH_DAYS: Final = 10_957
# Rows that are hashed at once: those of narrow tables stay in the cache, those of wide ones take little memory.
_BATCH_ROWS: Final = 16_384
_BATCH_BYTES: Final = 2 << 20
_WIDE_BYTES: Final = 256
_NO_SEED: Final = "0"
_NEEDS_QUOTES: Final = frozenset('"\\{}, \t\n\r\v\f')


@dataclass(frozen=True)
class Proof:
    """What is known of a set of rows.

    Attributes:
        rows: how many.
        fields: for each field, how many values are not NULL and the sum of their hashes modulo 2^64.
        first: earliest time, aware; None where there is none, or Postgres was asked.
        last: latest time.
    """

    rows: int
    fields: dict[str, tuple[int, int]]
    first: datetime | None = None
    last: datetime | None = None

    def __add__(self, other: "Proof") -> "Proof":
        """The proof of both sets together."""
        fields = {
            name: (count + other.fields[name][0], (sum_ + other.fields[name][1]) % _MODULUS)
            for name, (count, sum_) in self.fields.items()
        }
        times = [t for t in (self.first, self.last, other.first, other.last) if t is not None]
        return Proof(self.rows + other.rows, fields, min(times, default=None), max(times, default=None))

    @property
    def column_hashes(self) -> dict[str, str]:
        """The sums, by field, as text."""
        return {name: f"{count}:{sum_:016x}" for name, (count, sum_) in self.fields.items()}

    @property
    def content_hash(self) -> str:
        """One hash of all: equal for equal rows in any order."""
        return hashlib.sha256(
            json.dumps([self.rows, self.column_hashes], sort_keys=True).encode()
        ).hexdigest()

    def difference(self, other: "Proof") -> str:
        """What differs, in words; empty where nothing does."""
        if self.rows != other.rows:
            return f"{self.rows} rows against {other.rows}"
        differing = [name for name, values in self.fields.items() if other.fields.get(name) != values]
        return f"the values of {', '.join(differing)} differ" if differing else ""


def database_proof(
    connection: Connection,
    source: str,
    condition: str,
    fields: Sequence[Field],
    key: Sequence[str],
) -> Proof:
    """Let Postgres count and hash the rows of `source` that meet `condition`; it does not say their times.

    Args:
        connection: in the transaction whose snapshot counts.
        source: table, quoted.
        condition: SQL.
        fields: of the file.
        key: columns of the primary key; none where there is none.
    """
    by_name = {field.name: field for field in fields}
    chain = _chain([by_name[name] for name in key])
    seed, inner = chain[-1] if key else _NO_SEED, f"FROM {source} WHERE {condition}"
    if len(key) > 1:  # computed once for each row, not once for each field
        inner, seed = f"FROM (SELECT *, {seed} AS row_seed {inner} OFFSET 0) AS seeded", "row_seed"
    hashes = dict(zip(key, [*chain[:-1], seed], strict=True)) if key else {}
    figures = ", ".join(f"count({f.counted}), sum({hashes.get(f.name) or f.hashed(seed)})" for f in fields)
    row = connection.execute(f"SELECT count(*), {figures} {inner}").fetchone()
    assert row is not None  # noqa: S101  # an aggregate has one row
    rows, *rest = row
    sums = {f.name: (rest[2 * i], int(rest[2 * i + 1] or 0) % _MODULUS) for i, f in enumerate(fields)}
    return Proof(rows, sums)


def _chain(key: Sequence[Field]) -> list[str]:
    """SQL of the hash of each column of the key, seeded with the one before it; the last is the seed of the row."""
    hashes: list[str] = []
    for field in key:
        hashed = field.hashed(hashes[-1] if hashes else _NO_SEED)
        hashes.append(hashed if field.counted == "*" else f"coalesce({hashed}, 0)")
    return hashes


def file_proof(path: Path, fields: Sequence[Field], key: Sequence[str], time_column: str) -> Proof:
    """Read a finished file from its footer on, and count and hash what it holds, halves of it side by side."""
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    row_bytes = sum(group.total_byte_size for group in groups) // max(metadata.num_rows, 1) + 1
    batch_rows = min(_BATCH_ROWS, max(_BATCH_BYTES // row_bytes, 1))

    def proof_of(groups: Sequence[int]) -> Proof:
        with pq.ParquetFile(path, metadata=metadata) as file:
            names = [field.name for field in fields]
            # A group at a time: asked for all of them, the reader takes the whole file into memory ahead.
            batches = (
                batch
                for group in groups
                for batch in file.iter_batches(batch_rows, [group], columns=names, use_threads=False)
            )
            return batches_proof(batches, fields, key, time_column)

    # Each side holds a decoded column of a row group, 50 MB of wide rows: those have one.
    sides = 1 if row_bytes > _WIDE_BYTES else 2
    with ThreadPoolExecutor(sides) as side_by_side:
        found = reduce(add, side_by_side.map(proof_of, [range(n, len(groups), sides) for n in range(sides)]))
    return found if found.rows == metadata.num_rows else Proof(metadata.num_rows, found.fields)


def batches_proof(
    batches: Iterable[pa.RecordBatch], fields: Sequence[Field], key: Sequence[str], time_column: str
) -> Proof:
    """Count and hash batches in the form of the file."""
    rows, first, last = 0, None, None
    sums = {field.name: (0, 0) for field in fields}
    by_name = {field.name: field for field in fields}
    for batch in batches:
        rows += batch.num_rows
        seed: U64 | None = None
        of_key: dict[str, U64] = {}
        for name in key:
            seed = of_key[name] = _hashes(batch.column(name), by_name[name], seed, keep_nulls=True)
        for field in fields:
            values = batch.column(field.name)
            hashed = of_key.get(field.name)
            hashed = _hashes(values, field, seed) if hashed is None else hashed
            count, sum_ = sums[field.name]
            present = len(values) - values.null_count
            sums[field.name] = (count + present, (sum_ + total(hashed)) % _MODULUS)
        low, high = _extremes(batch.column(time_column))
        first = low if first is None or (low is not None and low < first) else first
        last = high if last is None or (high is not None and high > last) else last
    return Proof(rows, sums, _moment(first), _moment(last))


def _hashes(values: pa.Array, field: Field, seed: U64 | None, *, keep_nulls: bool = False) -> U64:
    """Hashes of the values that are not NULL, or of all with 0 for NULL."""
    if values.null_count == 0:
        return _hash_all(values, field, seed)
    present = np.asarray(pc.is_valid(values).to_numpy(zero_copy_only=False))
    hashed = _hash_all(values.drop_null(), field, None if seed is None else seed[present])
    if not keep_nulls:
        return hashed
    out = np.zeros(len(values), np.uint64)
    out[present] = hashed
    return out


def _hash_all(values: pa.Array, field: Field, seed: U64 | None) -> U64:
    if field.kind in (Kind.TEXT, Kind.DECIMAL, Kind.BYTES, Kind.LIST):
        return _hash_texts(_as_text(values, field), seed)
    if field.kind is Kind.SCALED:
        return hash_scaled(unscaled(values), field.arrow.scale, seed)
    if field.kind is Kind.FLOAT:
        return hash_float64(values.cast(pa.float64()).to_numpy(zero_copy_only=False), seed)
    return hash_int64(_integers(values, field), seed)


def _integers(values: pa.Array, field: Field) -> npt.NDArray[np.int64]:
    if field.kind is Kind.DATE:
        return values.cast(pa.int32()).to_numpy(zero_copy_only=False).astype(np.int64) - _EPOCH_DAYS
    numbers: npt.NDArray[np.int64] = values.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return numbers - _EPOCH_US if field.kind is Kind.TIME else numbers


def unscaled(values: pa.Array) -> npt.NDArray[np.int64]:
    """The integers behind decimals of at most 18 digits."""
    words = np.frombuffer(values.buffers()[1], np.int64)
    return words[2 * values.offset : 2 * (values.offset + len(values)) : 2]


def _as_text(values: pa.Array, field: Field) -> pa.Array:
    if field.kind is Kind.DECIMAL:
        return decimals_as_text(values)
    if field.kind is Kind.BYTES:
        return pa.array(
            [hashlib.md5(v, usedforsecurity=False).hexdigest() for v in values.to_pylist()], pa.string()
        )
    if field.kind is Kind.LIST:
        return pa.array([array_text(items) for items in values.to_pylist()], pa.string())
    return values


def decimals_as_text(values: pa.Array) -> pa.Array:
    """Decimals as Postgres writes them: all digits of the scale, no exponent."""
    return pa.array([None if v is None else f"{v:f}" for v in values.to_pylist()], pa.string())


def array_text(items: Sequence[str | None]) -> str:
    """A one-dimensional text array as Postgres writes it."""
    return "{" + ",".join(_element(item) for item in items) + "}"


def _element(item: str | None) -> str:
    if item is None:
        return "NULL"
    if item and item.upper() != "NULL" and not _NEEDS_QUOTES.intersection(item):
        return item
    return '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _hash_texts(values: pa.Array, seed: U64 | None) -> U64:
    large = values.cast(pa.large_string()) if not pa.types.is_large_string(values.type) else values
    if len(large) == 0:
        return np.empty(0, np.uint64)
    offsets = np.frombuffer(large.buffers()[1], np.int64)[large.offset : large.offset + len(large) + 1]
    data = np.frombuffer(large.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    starts, lengths = offsets[:-1] - offsets[0], np.diff(offsets)
    (long,) = np.nonzero(lengths > LONGEST_HASHED)
    if len(long):
        shortened = large.to_pylist()
        for at in long:
            shortened[at] = hashlib.md5(shortened[at].encode(), usedforsecurity=False).hexdigest()
        return _hash_texts(pa.array(shortened, pa.large_string()), seed)
    return hash_text(data, starts, lengths, seed)


def _extremes(times: pa.Array) -> tuple[int | None, int | None]:
    found = pc.min_max(times).as_py() if len(times) else {"min": None, "max": None}
    if found["min"] is None:
        return None, None
    low, high = (pa.scalar(found[name], times.type) for name in ("min", "max"))
    scale = 86_400_000_000 if pa.types.is_date(times.type) else 1
    kind = pa.int32() if scale > 1 else pa.int64()
    return low.cast(kind).as_py() * scale, high.cast(kind).as_py() * scale


def _moment(microseconds: int | None) -> datetime | None:
    """An aware time from microseconds since 1970, exactly."""
    if microseconds is None:
        return None
    seconds, rest = divmod(microseconds, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)
