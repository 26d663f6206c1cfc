"""An address has one spelling at rest, a list one version, and no whale is an exchange."""

import polars as pl
import pytest
from eth_utils import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st

from tracker_pipeline.domain import schemas
from tracker_pipeline.domain.addresses import (
    ListedAddress,
    WellKnownAddress,
    display,
    merge,
    normalise,
    universe,
    watched,
)
from tracker_pipeline.resources.address_lists import read_well_known_addresses

BURN = "0x000000000000000000000000000000000000dEaD"
HOLDER = "0xd8dA6BF26964aF9D7eEd9e03E53415D37aA96045"
OTHER = "0x73BCEb1Cd57C711feaC4224D062b0F6ff338501e"
KNOWN = [WellKnownAddress(BURN, "Burn address", "burn", "nobody has its key")]
ADDRESSES = st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())


def listed(address: str, label: str | None = None, source: str = "a.csv") -> ListedAddress:
    return ListedAddress(address, label, source)


@given(ADDRESSES)
def test_display_gives_the_capitals_of_eip_55_and_normalise_takes_them_away(address):
    assert display(address) == to_checksum_address(address)
    assert (
        normalise(display(address)) == normalise("0x" + address[2:].upper()) == normalise(address) == address
    )


@pytest.mark.parametrize(
    "wrong",
    ["", "0x12", BURN + "0", BURN[2:], "0x" + "g" * 40, "vitalik.eth", "0X" + BURN[2:]],
)
def test_what_is_not_0x_and_40_hex_digits_is_refused(wrong):
    with pytest.raises(ValueError, match="is not an address"):
        normalise(wrong)


def test_capitals_that_are_not_those_of_the_checksum_are_refused():
    # A made-up address that circulates in public code, with capitals that fit no address.
    with pytest.raises(ValueError, match="wrong checksum"):
        normalise("0x742D35CC6634c0532925A3b844BC9E7595F0BEb1")
    with pytest.raises(ValueError, match="wrong checksum"):
        normalise(HOLDER.replace("d8dA", "D8dA"))


def test_one_address_in_several_spellings_is_one_entry():
    merged = merge([listed(HOLDER), listed(HOLDER.lower(), "Somebody"), listed("0x" + HOLDER[2:].upper())])
    assert merged.entries == (ListedAddress(HOLDER.lower(), "Somebody", "a.csv"),)
    assert merged.duplicates == 2
    assert merged.conflicts == ()


def test_two_names_of_one_address_are_reported_and_the_first_is_kept():
    merged = merge([listed(HOLDER, "A", "a.csv"), listed(HOLDER, "B", "b.csv"), listed(OTHER, "C")])
    assert [entry.label for entry in merged.entries] == ["C", "A"]
    assert merged.conflicts == (f"{HOLDER} has several names: 'A' in a.csv, 'B' in b.csv",)


def test_a_listed_address_that_is_no_whale_stays_in_the_list_with_the_reason():
    frame = universe("ethereum", [listed(BURN.lower()), listed(HOLDER, "Somebody"), listed(OTHER)], KNOWN)
    assert frame.schema == schemas.WHALE_UNIVERSE.polars_schema
    assert frame.select("whale_address", "label", "category", "excluded", "reason").rows() == [
        (BURN.lower(), "Burn address", "burn", True, "nobody has its key"),
        (OTHER.lower(), None, "unknown", False, None),
        (HOLDER.lower(), "Somebody", "whale", False, None),
    ]
    assert watched(frame, "ethereum") == [OTHER.lower(), HOLDER.lower()]
    assert watched(frame, "polygon") == []


def test_the_version_depends_on_the_content_alone():
    def version(*entries: ListedAddress) -> str:
        return universe("ethereum", entries, KNOWN).item(0, "version")

    plain = version(listed(HOLDER, "A"), listed(OTHER, "B"))
    assert version(listed(OTHER.lower(), "B"), listed(HOLDER.lower(), "A"), listed(HOLDER)) == plain
    assert version(listed(HOLDER, "A"), listed(OTHER, "C")) != plain
    assert version(listed(HOLDER, "A")) != plain


def test_an_address_that_any_version_excludes_is_not_watched():
    before = universe("ethereum", [listed(HOLDER), listed(OTHER)], [])
    since = universe("ethereum", [listed(HOLDER)], [WellKnownAddress(HOLDER, "X", "exchange", "pooled")])
    both = pl.concat([before, since])
    assert watched(both, "ethereum") == [OTHER.lower()]
    assert watched(both, "ethereum", version=before.item(0, "version")) == sorted(
        [OTHER.lower(), HOLDER.lower()]
    )


def test_an_empty_list_is_an_empty_universe():
    assert universe("ethereum", [], KNOWN).is_empty()


def test_the_packaged_list_holds_each_address_once_with_its_checksum_and_a_reason():
    well_known = read_well_known_addresses()
    assert len({one.address for one in well_known}) == len(well_known) >= 20
    assert all(one.label and one.reason for one in well_known)
    assert {one.category for one in well_known} == {"exchange", "bridge", "contract", "burn", "staking"}


def test_the_packaged_list_agrees_with_the_verified_one(shared_data):
    verified = pl.read_csv(shared_data / "eth_addresses_verified.csv")
    # Of the deposit contract only the name of its category differs between the sources.
    agreed = (pl.col("conflict") == "no") | (pl.col("recommended_category") == "staking_contract")
    checked = verified.filter(agreed).get_column("address_checksummed").to_list()
    assert {display(one.address) for one in read_well_known_addresses()} <= set(checked)
