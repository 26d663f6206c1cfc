"""Who moved much: transfers of an hour turned into candidates for the watched universe.

What belongs here: what a transfer is, whom it proposes, what code at an address says about it. What does not: blocks
and events of nodes (`resources.transfer_scan`), which addresses are watched (`addresses`).
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

import polars as pl

from tracker_pipeline.domain.addresses import ListedAddress, WellKnownAddress
from tracker_pipeline.domain.schemas import WHALE_CANDIDATES

Kind = Literal["account", "delegated", "contract"]

TRANSFER_TOPIC: Final = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
SOURCE: Final = "discovery"  # what the universe calls the origin of an accepted candidate

# An account that has delegated to a contract (EIP-7702) holds 3 marking bytes and an address, and stays an account.
_DELEGATION: Final = "0xef0100"
_DELEGATION_LENGTH: Final = 2 + 2 * 23


class Moved(NamedTuple):
    """One transfer.

    Attributes:
        asset: `ETH` or the name of a token.
        giver: lower-case address.
        receiver: lower-case address.
        amount: in the smallest unit of the asset.
        block: number of its block.
    """

    asset: str
    giver: str
    receiver: str
    amount: int
    block: int


def smallest_units(least: float, decimals: int) -> int:
    """Return a threshold in whole ether or tokens as an integer of the smallest unit."""
    return int(Decimal(str(least)).scaleb(decimals))


def kind_of(code: str) -> Kind:
    """Return what an address is, by the code that stands there, as hex text."""
    if code in ("", "0x"):
        return "account"
    delegated = len(code) == _DELEGATION_LENGTH and code.lower().startswith(_DELEGATION)
    return "delegated" if delegated else "contract"


def candidates(
    network: str,
    hour: datetime,
    moved: Iterable[Moved],
    kinds: Mapping[str, Kind],
    excluded: Mapping[str, WellKnownAddress],
) -> pl.DataFrame:
    """Propose both sides of each transfer.

    Args:
        network: name of the network.
        hour: that the transfers' blocks lead up to.
        moved: transfers at or above their threshold.
        kinds: of each address that gave or received.
        excluded: addresses that are not watched, whoever proposes them.

    Returns:
        Rows of `onchain.whale_candidates` but for the run, one for each address and asset.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for one in moved:
        for address, given, received in ((one.giver, one.amount, 0), (one.receiver, 0, one.amount)):
            row = rows.setdefault((one.asset, address), _new_row(one, address))
            row["sent"] += given
            row["received"] += received
            row["largest"] = max(row["largest"], one.amount)
            row["first_block"] = min(row["first_block"], one.block)
            row["last_block"] = max(row["last_block"], one.block)
            row["transfers"] += 1
    for row in rows.values():
        known = excluded.get(row["whale_address"])
        row.update({name: str(row[name]) for name in ("sent", "received", "largest")})
        row.update(kind=kinds[row["whale_address"]], excluded=known is not None)
        row["reason"] = f"{known.label}: {known.reason}" if known else None
    types = WHALE_CANDIDATES.polars_schema
    made = [c for c in types if c not in ("network", "snapshot_timestamp", "run_id")]
    frame = pl.DataFrame(list(rows.values()), schema={name: types[name] for name in made})
    return frame.with_columns(network=pl.lit(network), snapshot_timestamp=pl.lit(hour))


def accepted(found: pl.DataFrame, network: str) -> list[ListedAddress]:
    """Return the candidates that enter the universe by themselves: accounts, whatever they moved.

    Contracts hold what many users own; one of a single holder, such as a shared wallet, is entered by a list.

    Args:
        found: rows of `onchain.whale_candidates`.
        network: whose.
    """
    proposed = found.filter(
        pl.col("network") == network, ~pl.col("excluded"), pl.col("kind") != "contract"
    ).get_column("whale_address")
    return [ListedAddress(address, None, SOURCE) for address in proposed.unique().sort()]


def _new_row(one: Moved, address: str) -> dict[str, Any]:
    return {
        "asset": one.asset,
        "whale_address": address,
        "received": 0,
        "sent": 0,
        "largest": 0,
        "transfers": 0,
        "first_block": one.block,
        "last_block": one.block,
    }
