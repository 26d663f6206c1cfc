"""A chain of real blocks on py-evm, mined as time passes: the same start and seed give the same block hashes.

What belongs here: genesis, mining, state at a block, calls. What does not: JSON (`chain_methods.py`), HTTP
(`chain.py`), who moves what (`whales.py`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Final

from eth.abc import BlockAPI, BlockHeaderAPI, ReceiptAPI, SignedTransactionAPI, StateAPI, VirtualMachineAPI
from eth.chains.base import MiningChain
from eth.constants import POST_MERGE_DIFFICULTY
from eth.db.atomic import AtomicDB
from eth.exceptions import Revert, VMError
from eth.vm.forks import CancunVM
from eth_hash.auto import keccak

from tracker_pipeline.sandbox import contracts
from tracker_pipeline.sandbox.contracts import TOKENS
from tracker_pipeline.sandbox.whales import (
    Transfer,
    block_times,
    make_exchange,
    make_whales,
    token_holdings,
    token_transfers,
    transfers,
)

MULTICALL3: Final = bytes.fromhex("ca11bde05977b3631167028862be2a173976ca11")
GAS_CAP: Final = 500_000_000  # for one call, about what hosted nodes allow

_GAS_LIMIT: Final = 30_000_000
_TRANSFER_GAS: Final = 21_000
_TOKEN_TRANSFER_GAS: Final = 80_000  # 56,000 to one who held none; the rest is not charged
# Above the base fee, which starts at 1 gwei and falls while blocks are near empty.
_GAS_PRICE: Final = 2 * 10**9
_FEE_RECIPIENT: Final = keccak(b"tracker sandbox/fees")[-20:]
_EXTRA_DATA: Final = b"tracker sandbox"
_NO_CODE: Final[Mapping[bytes, bytes]] = MappingProxyType({})


@dataclass(frozen=True)
class CallResult:
    """How a call ended.

    Attributes:
        output: returned bytes, or the revert data.
        reverted: the code reverted on purpose.
        failure: any other end, such as out of gas; empty when there was none.
    """

    output: bytes
    reverted: bool = False
    failure: str = ""


class EvmChain:
    """The chain. Not safe to use from two threads at once.

    Args:
        start: time of block 0, aware.
        seed: another seed is another set of whales with other histories.
        whales: funded addresses beside the exchange that they trade with.
        chain_id: what transactions are signed for.

    Raises:
        ValueError: there is no whale, or `start` is not aware.
    """

    def __init__(self, *, start: datetime, seed: int, whales: int, chain_id: int) -> None:
        if whales < 1 or start.tzinfo is None:
            raise ValueError("the sandbox chain needs at least one whale and an aware start time")
        self.chain_id = chain_id
        self.whales = make_whales(seed, whales)
        self._exchange = make_exchange(seed)
        self._seed = seed
        self._nonces: Counter[bytes] = Counter()
        first = int(start.timestamp())
        self._times = block_times(first, seed)
        self._next_time = next(self._times)
        self._chain = self._genesis(first)
        self._headers = [self._chain.get_canonical_head()]
        self._number_by_hash = {self._headers[0].hash: 0}
        self._place_by_transaction: dict[bytes, tuple[int, int]] = {}

    @property
    def head(self) -> BlockHeaderAPI:
        """Header of the newest block."""
        return self._headers[-1]

    def catch_up(self, now: datetime) -> None:
        """Mine every block that is due at `now`; 22 ms a block on a slow core."""
        while self._next_time <= now.timestamp():
            self._mine(self._next_time)
            self._next_time = next(self._times)

    def header(self, number: int) -> BlockHeaderAPI | None:
        """Header of a block by number, None where there is none."""
        return self._headers[number] if 0 <= number < len(self._headers) else None

    def header_by_hash(self, block_hash: bytes) -> BlockHeaderAPI | None:
        """Header of a block by hash, None where there is none."""
        number = self._number_by_hash.get(block_hash)
        return None if number is None else self._headers[number]

    def block(self, header: BlockHeaderAPI) -> BlockAPI:
        """The block with its transactions."""
        return self._chain.get_block_by_header(header)

    def receipts(self, header: BlockHeaderAPI) -> Sequence[ReceiptAPI]:
        """What each transaction of a block left behind, logs included."""
        return self.block(header).get_receipts(self._chain.chaindb)

    def place_of(self, transaction_hash: bytes) -> tuple[int, int] | None:
        """Number of the block and index within it of a transaction, None where there is none."""
        return self._place_by_transaction.get(transaction_hash)

    def balance(self, address: bytes, header: BlockHeaderAPI) -> int:
        """Wei of an address after a block."""
        return self._vm(header).state.get_balance(address)

    def code(self, address: bytes, header: BlockHeaderAPI) -> bytes:
        """Code of an address after a block."""
        return self._vm(header).state.get_code(address)

    def nonce(self, address: bytes, header: BlockHeaderAPI) -> int:
        """Transactions that an address has sent up to a block."""
        return self._vm(header).state.get_nonce(address)

    def call(
        self,
        header: BlockHeaderAPI,
        *,
        sender: bytes,
        to: bytes,
        data: bytes,
        gas: int = GAS_CAP,
        code: Mapping[bytes, bytes] = _NO_CODE,
    ) -> CallResult:
        """Run code on the state after a block and forget what it changed; 0.4 s for 1,000 balances.

        Args:
            header: of the block.
            sender: 20 bytes.
            to: 20 bytes, whose code runs.
            data: input of the code.
            gas: limit, capped at `GAS_CAP`; what a transaction pays for its input is taken off first.
            code: by address, what stands there for this call instead of the code on the chain.
        """
        left = min(gas, GAS_CAP) - _intrinsic_gas(data)
        if left < 0:
            return CallResult(b"", failure="intrinsic gas too low")
        vm = self._vm(header)
        for address, given in code.items():
            vm.state.set_code(address, given)
        computation = vm.execute_bytecode(
            origin=sender,
            gas_price=0,
            gas=left,
            to=to,
            sender=sender,
            value=0,
            data=data,
            code=vm.state.get_code(to),
            code_address=to,
        )
        if computation.is_success:
            return CallResult(computation.output)
        if isinstance(computation.error, Revert):
            return CallResult(computation.output, reverted=True)
        return CallResult(b"", failure=_in_words(computation.error))

    def _vm(self, header: BlockHeaderAPI) -> VirtualMachineAPI:
        return self._chain.get_vm(at_header=header)

    def _genesis(self, time: int) -> MiningChain:
        class SandboxChain(MiningChain):
            chain_id = self.chain_id
            vm_configuration = ((0, CancunVM),)

        funded = {account.address: account.first_wei for account in (*self.whales, self._exchange)}
        state = {
            address: {"balance": wei, "nonce": 0, "code": b"", "storage": {}}
            for address, wei in funded.items()
        }
        for address, code in ((MULTICALL3, _multicall3_code()), (contracts.STETH_FEED, contracts.FEED_CODE)):
            state[address] = {"balance": 0, "nonce": 1, "code": code, "storage": {}}
        for name, address in TOKENS.items():
            held = token_holdings(name, self.whales, self._exchange, seed=self._seed)
            storage = {int.from_bytes(holder, "big"): amount for holder, amount in held.items()}
            state[address] = {"balance": 0, "nonce": 1, "code": contracts.TOKEN_CODE, "storage": storage}
        header = {
            "difficulty": POST_MERGE_DIFFICULTY,
            "gas_limit": _GAS_LIMIT,
            "timestamp": time,
            "coinbase": _FEE_RECIPIENT,
            "extra_data": _EXTRA_DATA,
        }
        return SandboxChain.from_genesis(AtomicDB(), header, state)

    def _mine(self, time: int) -> None:
        parent = self._vm(self.head).state
        number = self.head.block_number + 1
        moved = transfers(
            self.whales,
            self._exchange,
            seed=self._seed,
            number=number,
            time=time,
            balance=parent.get_balance,
        )
        for name, address in TOKENS.items():
            moved += token_transfers(
                name,
                self.whales,
                self._exchange,
                seed=self._seed,
                number=number,
                balance=partial(_token_balance, parent, address),
            )
        signed = [self._signed(move) for move in moved]
        # Every field that py-evm would take from the clock or compute from demand is given.
        self._chain.header = self._chain.header.copy(
            timestamp=time, gas_limit=_GAS_LIMIT, coinbase=_FEE_RECIPIENT, extra_data=_EXTRA_DATA
        )
        result, _, _ = self._chain.mine_all(signed)
        header = result.imported_block.header
        self._headers.append(header)
        self._number_by_hash[header.hash] = number
        for index, transaction in enumerate(signed):
            self._place_by_transaction[transaction.hash] = (number, index)

    def _signed(self, move: Transfer) -> SignedTransactionAPI:
        giver, receiver = move.giver, move.receiver.address
        transaction = self._chain.create_unsigned_transaction(
            nonce=self._nonces[giver.address],
            gas_price=_GAS_PRICE,
            gas=_TOKEN_TRANSFER_GAS if move.token else _TRANSFER_GAS,
            to=TOKENS[move.token] if move.token else receiver,
            value=0 if move.token else move.wei,
            data=contracts.transfer_data(receiver, move.wei) if move.token else b"",
        )
        self._nonces[giver.address] += 1
        return transaction.as_signed_transaction(giver.key, chain_id=self.chain_id)


def _token_balance(state: StateAPI, token: bytes, holder: bytes) -> int:
    return state.get_storage(token, int.from_bytes(holder, "big"))


def _multicall3_code() -> bytes:
    # Imported where it is used: the package loads web3, 0.6 s.
    from multicall.constants import MULTICALL3_BYTECODE

    return bytes.fromhex(MULTICALL3_BYTECODE.removeprefix("0x"))


def _intrinsic_gas(data: bytes) -> int:
    zeros = data.count(0)
    return _TRANSFER_GAS + 4 * zeros + 16 * (len(data) - zeros)


def _in_words(error: VMError) -> str:
    name = type(error).__name__
    return "out of gas" if name == "OutOfGas" else f"execution failed: {name}"
