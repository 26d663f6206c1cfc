"""Ethereum addresses as text, lists of them, and which of a list are watched.

What belongs here: spelling, merging, exclusion, the version of a list. What does not: files and URLs
(`resources.address_lists`), the 20 bytes of an address in a call (`resources.chain`).

Addresses are lower-case wherever they are stored or compared; EIP-55 capitals are for display.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl
from eth_hash.auto import keccak

from tracker_pipeline.domain.schemas import WHALE_UNIVERSE

Category = Literal["exchange", "bridge", "contract", "burn", "staking", "whale", "unknown"]

_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}")
_VERSION_LENGTH: Final = 12  # hex digits: two versions of one table never meet by chance


@dataclass(frozen=True)
class ListedAddress:
    """One line of an address list.

    Attributes:
        address: in any spelling.
        label: public name; None where the list has none.
        source: the list, for messages and the table.
    """

    address: str
    label: str | None
    source: str


@dataclass(frozen=True)
class WellKnownAddress:
    """An address that is no whale, whoever lists it.

    Attributes:
        address: in any spelling.
        label: whose it is.
        category: what it is.
        reason: why it is not watched.
        network: the network that it is known on; `*` for all.
    """

    address: str
    label: str
    category: Category
    reason: str
    network: str = "*"


@dataclass(frozen=True)
class MergedList:
    """Lists made one.

    Attributes:
        entries: one for each address, lower-case, sorted by address.
        duplicates: lines that repeated an address.
        conflicts: one sentence for each address that has several names.
    """

    entries: tuple[ListedAddress, ...]
    duplicates: int
    conflicts: tuple[str, ...]


def normalise(address: str) -> str:
    """Return the address in lower case.

    Raises:
        ValueError: it is not 0x and 40 hex digits, or its capitals are not those of EIP-55, as after a slip of
            the pen. An address all in lower or all in upper case carries no check.
    """
    text = address.strip()
    if not _ADDRESS.fullmatch(text):
        raise ValueError(f"{text[:60]!r} is not an address: expected 0x and 40 hex digits")
    digits = text[2:]
    if digits in (digits.lower(), digits.upper()):
        return text.lower()
    if text != display(text):
        raise ValueError(f"{text} has a wrong checksum: a digit or a capital is not as it was issued")
    return text.lower()


def display(address: str) -> str:
    """Return a lower-case address with the capitals of EIP-55, for people."""
    digits = address[2:].lower()
    nibbles = keccak(digits.encode()).hex()
    return "0x" + "".join(
        digit.upper() if nibble >= "8" else digit for digit, nibble in zip(digits, nibbles, strict=False)
    )


def merge(entries: Iterable[ListedAddress]) -> MergedList:
    """Make one list: each address once, with the first name that any list gives it.

    Raises:
        ValueError: an address is not one.
    """
    by_address: dict[str, list[ListedAddress]] = {}
    for entry in entries:
        by_address.setdefault(normalise(entry.address), []).append(entry)
    merged = sorted(by_address.items())
    return MergedList(
        entries=tuple(_first_named(address, lines) for address, lines in merged),
        duplicates=sum(len(lines) - 1 for _, lines in merged),
        conflicts=tuple(filter(None, (_conflict(address, lines) for address, lines in merged))),
    )


def universe(
    network: str, entries: Iterable[ListedAddress], well_known: Iterable[WellKnownAddress]
) -> pl.DataFrame:
    """Decide which listed addresses are watched.

    Args:
        network: name of the network.
        entries: lines of all lists.
        well_known: addresses that are not watched, with the reason.

    Returns:
        A frame of `onchain.whale_universe`, one row for each listed address. The version is a hash of the rows
        without their source: the same lines in any order and spelling, from wherever, have the same version.

    Raises:
        ValueError: an address is not one.
    """
    known = exclusions(network, well_known)
    rows = [_row(entry, known.get(entry.address)) for entry in merge(entries).entries]
    version = hashlib.sha256(json.dumps([row[:-1] for row in rows]).encode()).hexdigest()[:_VERSION_LENGTH]
    columns = ("whale_address", "label", "category", "excluded", "reason", "source")
    types = WHALE_UNIVERSE.polars_schema
    frame = pl.DataFrame(rows, schema={name: types[name] for name in columns}, orient="row")
    return WHALE_UNIVERSE.conform(frame.with_columns(network=pl.lit(network), version=pl.lit(version)))


def exclusions(network: str, well_known: Iterable[WellKnownAddress]) -> dict[str, WellKnownAddress]:
    """Return what is excluded on a network, by lower-case address; of several the first.

    Raises:
        ValueError: an address is not one.
    """
    found: dict[str, WellKnownAddress] = {}
    for one in well_known:
        if one.network in ("*", network):
            found.setdefault(normalise(one.address), one)
    return found


def watched(universe: pl.DataFrame, network: str, version: str | None = None) -> list[str]:
    """Return the addresses to read, sorted.

    Args:
        universe: rows of `onchain.whale_universe`.
        network: whose addresses.
        version: of the list. Without it: what any version listed and none excluded, so that an address that once
            was watched keeps its history complete, and one that was found to be no whale is left out for good.
    """
    rows = universe.filter(pl.col("network") == network)
    if version is not None:
        rows = rows.filter(pl.col("version") == version)
    excluded = rows.filter("excluded").get_column("whale_address").implode()
    kept = rows.filter(~pl.col("whale_address").is_in(excluded))
    return kept.get_column("whale_address").unique().sort().to_list()


def _first_named(address: str, lines: Sequence[ListedAddress]) -> ListedAddress:
    named = next((line for line in lines if line.label), lines[0])
    return ListedAddress(address, named.label or None, named.source)


def _conflict(address: str, lines: Sequence[ListedAddress]) -> str | None:
    sources = {line.label: line.source for line in reversed(lines) if line.label}
    if len(sources) < 2:
        return None
    names = ", ".join(f"{label!r} in {sources[label]}" for label in sorted(sources))
    return f"{display(address)} has several names: {names}"


def _row(
    entry: ListedAddress, known: WellKnownAddress | None
) -> tuple[str, str | None, Category, bool, str | None, str]:
    if known is not None:
        return entry.address, entry.label or known.label, known.category, True, known.reason, entry.source
    category: Category = "whale" if entry.label else "unknown"
    return entry.address, entry.label, category, False, None, entry.source
