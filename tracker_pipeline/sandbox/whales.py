"""Who holds ether and tokens on the sandbox chain, when its blocks come, what they move: pure functions of the seed.

What belongs here: keys, first balances, block times, transfers. What does not: blocks and state (`evm.py`), the
code of tokens (`contracts.py`), and anything that reads a clock.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from eth_hash.auto import keccak
from eth_keys import keys

WEI_PER_ETH: Final = 10**18
EXCHANGE_WEI: Final = 20_000_000 * WEI_PER_ETH  # what the whales buy from and sell to never runs dry

_LEAST_ETH: Final = 100
_MOST_ETH: Final = 300_000
# One whale in five trades. With nine trades a block and three to four blocks an hour each of 240 trades about
# three times a day, so most balances rest and some drift by a few per cent a day, as on the real network.
_ONE_ACTIVE_IN: Final = 5
_TRADES_PER_BLOCK: Final = 9
_GIFTS_PER_BLOCK: Final = 3
_LEAST_SHARE, _MOST_SHARE = 0.002, 0.03  # of the whale's balance, in one trade
_TIDE_SECONDS: Final = 36 * 3600  # the mood of all whales together turns that often
# One whale in three holds a token, up to as much of it as a third of its ether.
_ONE_HOLDER_IN: Final = 3
_LARGEST_HOLDING: Final = 1 / 3
_TOKEN_TRADES_PER_BLOCK: Final = 2
_LEAST_GAP, _MOST_GAP = 12 * 60, 25 * 60  # seconds between blocks


@dataclass(frozen=True)
class Account:
    """A key pair and its name.

    Attributes:
        key: signs its transactions.
        address: 20 bytes.
        label: what address lists call it.
        first_wei: balance in block 0.
    """

    key: keys.PrivateKey
    address: bytes
    label: str
    first_wei: int


@dataclass(frozen=True)
class Transfer:
    """Ether or tokens that change hands.

    Attributes:
        giver: who signs.
        receiver: who gets it.
        wei: how much, in the smallest unit.
        token: what it is; None for ether.
    """

    giver: Account
    receiver: Account
    wei: int
    token: str | None = None


def make_whales(seed: int, count: int) -> tuple[Account, ...]:
    """Return `count` whales, most of them with some hundred ether and a few with hundreds of thousands."""
    rng = Random(f"{seed}/wealth")  # noqa: S311 - simulated balances, no secret
    whales = []
    for number in range(1, count + 1):
        # The square pushes most of the log scale towards the small end: a heavy tail.
        whole = int(_LEAST_ETH * (_MOST_ETH / _LEAST_ETH) ** (rng.random() ** 2))
        wei = whole * WEI_PER_ETH + rng.randrange(WEI_PER_ETH)
        whales.append(_account(f"{seed}/whale/{number}", f"Sandbox whale {number:04d}", wei))
    return tuple(whales)


def make_exchange(seed: int) -> Account:
    """The counterparty of all trades; it is on no list of whales."""
    return _account(f"{seed}/exchange", "Sandbox exchange", EXCHANGE_WEI)


def _account(secret: str, label: str, wei: int) -> Account:
    key = keys.PrivateKey(keccak(f"tracker sandbox/{secret}".encode()))
    return Account(key, key.public_key.to_canonical_address(), label, wei)


def block_times(start: int, seed: int) -> Iterator[int]:
    """Unix times of block 1, 2, 3, … of a chain whose block 0 is at `start`; none lies on a full hour."""
    rng = Random(f"{seed}/blocks")  # noqa: S311 - simulated times, no secret
    time = start
    while True:
        time += rng.randint(_LEAST_GAP, _MOST_GAP)
        time += 7 if time % 3600 == 0 else 0
        yield time


def transfers(
    whales: Sequence[Account],
    exchange: Account,
    *,
    seed: int,
    number: int,
    time: int,
    balance: Callable[[bytes], int],
) -> list[Transfer]:
    """What is moved in one block.

    Whales with an even position mostly buy, the others mostly sell; a tide shared by all moves the sum. No whale
    gives twice in one block, so its balance before the block covers what it gives.

    Args:
        whales: all of them.
        exchange: buys and sells.
        seed: of the chain.
        number: of the block.
        time: of the block, Unix seconds.
        balance: wei of an address before the block.
    """
    rng = Random(f"{seed}/transfers/{number}")  # noqa: S311 - simulated trades, no secret
    tide = Random(f"{seed}/tide/{time // _TIDE_SECONDS}").uniform(-1, 1)  # noqa: S311
    active = range(0, len(whales), _ONE_ACTIVE_IN)
    chosen = rng.sample(active, min(len(active), _TRADES_PER_BLOCK + _GIFTS_PER_BLOCK))
    moved = []
    for place, index in enumerate(chosen):
        whale = whales[index]
        wei = int(balance(whale.address) * rng.uniform(_LEAST_SHARE, _MOST_SHARE))
        buys = rng.random() < 0.5 + (0.2 if index % 2 == 0 else -0.2) + 0.3 * tide
        if place >= _TRADES_PER_BLOCK:
            moved.append(Transfer(whale, whales[rng.randrange(len(whales))], wei))
        else:
            moved.append(Transfer(exchange, whale, wei) if buys else Transfer(whale, exchange, wei))
    return moved


def token_holdings(
    token: str, whales: Sequence[Account], exchange: Account, *, seed: int
) -> dict[bytes, int]:
    """Who holds how much of a token in block 0, by address."""
    rng = Random(f"{seed}/holders/{token}")  # noqa: S311 - simulated balances, no secret
    holders = rng.sample(whales, -(-len(whales) // _ONE_HOLDER_IN))
    held = {whale.address: int(whale.first_wei * rng.uniform(0, _LARGEST_HOLDING)) for whale in holders}
    return {**held, exchange.address: EXCHANGE_WEI}


def token_transfers(
    token: str,
    whales: Sequence[Account],
    exchange: Account,
    *,
    seed: int,
    number: int,
    balance: Callable[[bytes], int],
) -> list[Transfer]:
    """What is moved of a token in one block: whales buy from the exchange and sell to it.

    Args:
        token: its name.
        whales: all of them.
        exchange: buys and sells.
        seed: of the chain.
        number: of the block.
        balance: how much of the token an address holds before the block.
    """
    rng = Random(f"{seed}/{token}/{number}")  # noqa: S311 - simulated trades, no secret
    moved = []
    for whale in rng.sample(whales, min(len(whales), _TOKEN_TRADES_PER_BLOCK)):
        held = balance(whale.address)
        if held and rng.random() < 0.5:
            sold = int(held * rng.uniform(_LEAST_SHARE, _MOST_SHARE))
            moved.append(Transfer(whale, exchange, sold, token))
        else:
            bought = int(whale.first_wei * rng.uniform(_LEAST_SHARE, _MOST_SHARE))
            moved.append(Transfer(exchange, whale, bought, token))
    return moved
