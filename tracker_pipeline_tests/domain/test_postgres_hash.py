"""The hash functions give what Postgres gives, value by value."""

import random
from decimal import Decimal

import numpy as np
import psycopg
import pytest

from tracker_pipeline.domain.postgres_hash import hash_float64, hash_int64, hash_scaled, hash_text, total


@pytest.fixture(scope="module")
def server(postgres_server):
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        yield connection


def asked(server, function, values, seeds):
    rows = server.execute(
        f"SELECT {function}(v, s) FROM unnest(%s::{'float8[]' if 'float' in function else 'int8[]'}, %s::int8[])"
        " WITH ORDINALITY AS t(v, s, n) ORDER BY n",
        [values, seeds],
    ).fetchall()
    return [row[0] for row in rows]


def signed(hashes):
    return hashes.view(np.int64).tolist()


SEEDS = [0, 1, -1, 2**63 - 1, -(2**63), 77]


def test_integers_of_any_size_and_sign(server):
    values = [0, 1, -1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1, -(2**63)] * 6
    seeds = [seed for seed in SEEDS for _ in range(8)]
    found = hash_int64(np.array(values, np.int64), np.array(seeds, np.int64).view(np.uint64))
    assert signed(found) == asked(server, "hashint8extended", values, seeds)
    assert signed(hash_int64(np.array(values, np.int64))) == asked(
        server, "hashint8extended", values, [0] * len(values)
    )


def test_floats_with_infinities_and_nan(server):
    values = [0.0, 1.5, -1.5, float("inf"), float("-inf"), float("nan"), 5e-324, 1.7976931348623157e308] * 6
    seeds = [seed for seed in SEEDS for _ in range(8)]
    found = hash_float64(np.array(values), np.array(seeds, np.int64).view(np.uint64))
    assert signed(found) == asked(server, "hashfloat8extended", values, seeds)


def test_minus_zero_is_another_value_than_zero():
    assert len(set(hash_float64(np.array([0.0, -0.0])).tolist())) == 2


def test_every_nan_is_the_one_that_postgres_knows():
    bits = [0x7FF8 << 48, 0xFFF8 << 48, (0x7FF0 << 48) + 1, (0xFFFF << 48) + 77]
    assert len(set(hash_float64(np.array(bits, np.uint64).view(np.float64)).tolist())) == 1


@pytest.mark.parametrize("scale", range(19))
def test_numerics_of_every_scale_length_and_sign(server, scale):
    chosen = random.Random(scale)
    digits = (
        [int("9" * n) for n in range(1, 19)] + [10**n for n in range(18)] + [10**n + 1 for n in range(1, 18)]
    )
    values = digits + [
        chosen.randrange(10 ** chosen.randrange(1, 19)) * 10 ** chosen.randrange(2) for _ in range(200)
    ]
    values = [value for value in (0, *values, *(-value for value in values)) if abs(value) < 10**18]
    for seed in SEEDS:
        hashes = server.execute(
            "SELECT hash_numeric_extended(v, %s) FROM unnest(%s::numeric[]) WITH ORDINALITY AS t(v, n) ORDER BY n",
            [seed, [Decimal(value).scaleb(-scale) for value in values]],
        ).fetchall()
        expected = [~one if value < 0 else one for value, (one,) in zip(values, hashes, strict=True)]
        seeds = np.full(len(values), seed, np.int64).view(np.uint64)
        assert signed(hash_scaled(np.array(values, np.int64), scale, seeds)) == expected


def test_a_number_and_its_negative_differ():
    assert len(set(hash_scaled(np.array([5, -5], np.int64), 2).tolist())) == 2


def test_text_of_every_length_and_alignment(server):
    texts = ["x" * n + "é" * (n % 3) + "🐐" * (n % 2) for n in range(70)] + ["", "a\nb", "end"]
    encoded = [text.encode() for text in texts]
    lengths = np.array([len(e) for e in encoded], np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    data = np.frombuffer(b"".join(encoded), np.uint8)
    for seed in SEEDS:
        rows = server.execute(
            'SELECT hashtextextended(v COLLATE "C", %s) FROM unnest(%s::text[]) WITH ORDINALITY AS t(v, n)'
            " ORDER BY n",
            [seed, texts],
        ).fetchall()
        seeds = np.full(len(texts), seed, np.int64).view(np.uint64)
        assert signed(hash_text(data, starts, lengths, seeds)) == [row[0] for row in rows]


def test_more_rows_than_a_block_and_their_sum(server):
    values = np.arange(-20_000, 20_000, dtype=np.int64)
    (expected,) = server.execute(
        "SELECT mod(sum(hashint8extended(v, 7)), 18446744073709551616) FROM generate_series(-20000, 19999) AS v"
    ).fetchone()
    assert total(hash_int64(values, np.full(len(values), 7, np.uint64))) == int(expected) % 2**64
