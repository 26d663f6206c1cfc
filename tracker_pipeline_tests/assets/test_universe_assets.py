"""How addresses enter the universe: by lists, by discovery where that is allowed, and never what is excluded."""

import re
from pathlib import Path

import polars as pl
import pytest

from tracker_pipeline import keys
from tracker_pipeline.storage import scan
from tracker_pipeline_tests.assets.onchain import HOURS, WHALES, failure_of

HOLDER = "0x73BCEb1Cd57C711feaC4224D062b0F6ff338501e"
BINANCE = "0x28C6c06298d514Db089934071355E5743bf21d60"
DISCOVERY = [keys.WHALE_UNIVERSE, keys.WHALE_CANDIDATES]


def universe() -> pl.DataFrame:
    return scan("onchain.whale_universe").collect()


def test_large_transfers_propose_both_sides_but_nobody_enters_uninvited(run, configure):
    configure(chain={"discovery": {"least": {"ETH": 300, "WETH": 100}}})
    assert run(assets=DISCOVERY).success
    found = scan("onchain.whale_candidates").collect()
    strangers = set(found.get_column("whale_address")) - set(universe().get_column("whale_address"))
    assert len(strangers) == 1  # the exchange that the whales trade with
    assert run(assets=[keys.WHALE_UNIVERSE]).success
    assert universe().get_column("version").n_unique() == 1


def test_candidates_enter_by_themselves_where_that_is_configured(run, configure):
    configure(chain={"discovery": {"least": {"ETH": 300}, "accept": "automatic"}})
    assert run(assets=DISCOVERY).success
    assert universe().height == WHALES
    assert run(assets=[keys.WHALE_UNIVERSE]).success
    newest = universe().filter(source="discovery")
    assert newest.height == 1
    assert newest.select("label", "category", "excluded").row(0) == (None, "unknown", False)
    assert universe().get_column("version").n_unique() == 2
    assert run(HOURS[1], assets=[keys.WHALE_BALANCE_SNAPSHOTS]).success
    assert scan("onchain.whale_balance_snapshots").filter(asset="ETH").collect().height == WHALES + 1


def test_the_same_hour_again_proposes_the_same(run, configure):
    configure(chain={"discovery": {"least": {"ETH": 300}}})
    assert run(assets=DISCOVERY).success
    before = scan("onchain.whale_candidates").collect()
    assert run(assets=DISCOVERY).success
    assert not before.is_empty()
    assert scan("onchain.whale_candidates").collect().equals(before)


def test_own_exclusions_stand_with_their_reason_beside_the_packaged_ones(run, configure, tmp_path: Path):
    whales, excluded = tmp_path / "whales.csv", tmp_path / "not.csv"
    whales.write_text(f"Address,Name Tag\n{HOLDER},\n{BINANCE},Somebody\n0x{'12' * 20},Third\n")
    excluded.write_text(f"address,label,category,reason\n0x{'12' * 20},Our own,exchange,our own wallet\n")
    configure(address_lists=[str(whales)], exclusion_lists=[str(excluded)])
    assert run(assets=[keys.WHALE_UNIVERSE]).success
    rows = {row["whale_address"]: row for row in universe().iter_rows(named=True)}
    assert not rows[HOLDER.lower()]["excluded"]
    assert rows[BINANCE.lower()]["reason"].startswith("pooled customer funds")
    assert rows[f"0x{'12' * 20}"]["reason"] == "our own wallet"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("0x12,A", "line 2: '0x12' is not an address"),
        (HOLDER.replace("73BCEb", "73bCEb") + ",A", "wrong checksum"),
        (f"{HOLDER},A\n{HOLDER.lower()},B", r"is 'A' in line 2 and 'B' in line 3; correct one of them"),
    ],
)
def test_a_wrong_list_is_named_and_no_universe_is_stored(run, configure, tmp_path: Path, lines, words):
    path = tmp_path / "whales.csv"
    path.write_text(f"address,label\n{lines}\n")
    configure(address_lists=[str(path)])
    result = run(assets=[keys.WHALE_UNIVERSE])
    assert not result.success
    assert "whales.csv" in failure_of(result)
    assert re.search(words, failure_of(result))
    assert universe().is_empty()
