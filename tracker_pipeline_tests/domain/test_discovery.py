"""Both sides of a large transfer are proposed, once each, and exchanges are named as such."""

from datetime import UTC, datetime

import polars as pl
import pytest

from tracker_pipeline.domain.addresses import WellKnownAddress, exclusions
from tracker_pipeline.domain.discovery import (
    Moved,
    accepted,
    candidates,
    kind_of,
    smallest_units,
)
from tracker_pipeline.domain.schemas import WHALE_CANDIDATES

ETH = 10**18
A, B, C = (f"0x{letter * 40}" for letter in "abc")
HOUR = datetime(2026, 3, 1, 12, tzinfo=UTC)
EXCHANGE = WellKnownAddress(B, "Exchange", "exchange", "pooled funds")


def found(moved, kinds=None, excluded=None) -> pl.DataFrame:
    addresses = {address for one in moved for address in (one.giver, one.receiver)}
    frame = candidates("ethereum", HOUR, moved, kinds or dict.fromkeys(addresses, "account"), excluded or {})
    return WHALE_CANDIDATES.conform(frame.with_columns(run_id=pl.lit("r")))


def test_both_sides_are_proposed_with_what_they_moved():
    rows = found(
        [Moved("ETH", A, B, 600 * ETH, 7), Moved("ETH", B, A, 900 * ETH, 9), Moved("WETH", A, C, 5, 8)]
    )
    (a,) = rows.filter(asset="ETH", whale_address=A).rows(named=True)
    assert (a["sent"], a["received"], a["largest"]) == (str(600 * ETH), str(900 * ETH), str(900 * ETH))
    assert (a["transfers"], a["first_block"], a["last_block"]) == (2, 7, 9)
    assert rows.select("asset", "whale_address").rows() == [("ETH", A), ("ETH", B), ("WETH", A), ("WETH", C)]


def test_what_is_known_not_to_be_a_whale_is_kept_with_the_reason():
    rows = found([Moved("ETH", A, B, ETH, 7)], excluded=exclusions("ethereum", [EXCHANGE]))
    assert rows.select("whale_address", "excluded", "reason").rows() == [
        (A, False, None),
        (B, True, "Exchange: pooled funds"),
    ]
    assert [one.address for one in accepted(rows, "ethereum")] == [A]


def test_contracts_do_not_enter_by_themselves_but_delegated_accounts_do():
    kinds = {A: kind_of("0x60806040"), B: kind_of("0xef0100" + "12" * 20), C: kind_of("0x")}
    assert kinds == {A: "contract", B: "delegated", C: "account"}
    rows = found([Moved("ETH", A, B, ETH, 7), Moved("ETH", A, C, ETH, 7)], kinds)
    assert [one.address for one in accepted(rows, "ethereum")] == [B, C]
    assert accepted(rows, "another") == []


def test_no_large_transfer_is_an_empty_hour():
    assert found([]).is_empty()


@pytest.mark.parametrize(
    ("least", "decimals", "units"), [(500, 18, 500 * ETH), (0.1, 18, ETH // 10), (1e6, 6, 10**12)]
)
def test_thresholds_are_exact_in_the_smallest_unit(least, decimals, units):
    assert smallest_units(least, decimals) == units
