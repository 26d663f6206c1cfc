"""A price is used when it is of its time, and never made up."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from eth_hash.auto import keccak

from tracker_pipeline.domain.multicall import Returned
from tracker_pipeline.domain.price_feed import LATEST_ROUND_DATA, Rate, judged

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def answer(price: int, age: timedelta = timedelta(0)) -> Returned:
    given = int((AT - age).timestamp())
    return Returned(True, b"".join(n.to_bytes(32, "big", signed=True) for n in (7, price, given, given, 7)))


def judge(returned: Returned) -> Rate:
    return judged(returned, decimals=18, at=AT, max_age=HOUR)


def test_the_selector_is_the_hash_of_its_signature():
    assert keccak(b"latestRoundData()")[:4] == LATEST_ROUND_DATA


def test_a_price_keeps_every_digit_and_its_time():
    rate = judge(answer(998_123_456_789_012_345, timedelta(minutes=20)))
    assert rate == Rate("ok", Decimal("0.998123456789012345"), AT - timedelta(minutes=20))


def test_a_price_as_old_as_allowed_stands_and_a_second_more_does_not():
    assert judge(answer(10**18, HOUR)).status == "ok"
    stale = judge(answer(10**18, HOUR + timedelta(seconds=1)))
    assert stale == Rate("stale", None, AT - HOUR - timedelta(seconds=1))


@pytest.mark.parametrize("price", ["0.899999", "1.100001"])
def test_a_price_out_of_range_is_kept_and_marked(price):
    wei = int(Decimal(price) * 10**18)
    assert judge(answer(wei)) == Rate("out_of_range", Decimal(wei).scaleb(-18), AT)


@pytest.mark.parametrize(
    "returned",
    [
        Returned(False, b""),
        Returned(True, b""),
        Returned(True, bytes(32)),
        Returned(True, bytes(160)),
        answer(0),
        answer(-1),
        answer(10**18, -timedelta(seconds=1)),
        Returned(True, bytes(32) + (10**18).to_bytes(32, "big") + bytes(32) + b"\xff" * 64),
    ],
)
def test_what_is_no_price_is_none(returned):
    assert judge(returned) == Rate("no_answer")
