"""The endpoints of one network: which is asked next, whether it serves the right chain, and blocks as values.

What belongs here: order, failover, identity. What does not: HTTP and errors of one endpoint (`json_rpc.py`), what is
asked (`chain.py`, `block_search.py`).
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from tracker_pipeline.resources.errors import PermanentError, PipelineError, TransientError
from tracker_pipeline.resources.json_rpc import Endpoint, Json, MissingStateError, RefusedError, TooMuchError

Result = TypeVar("Result")
_log: Final = logging.getLogger(__name__)
_REST_SECONDS: Final = 60.0  # how long an endpoint that failed is asked last


@dataclass(frozen=True)
class Block:
    """A block of the chain.

    Attributes:
        number: its height.
        hash: 0x and 64 hex digits, lower-case.
        timestamp: its time, UTC.
        parent_hash: hash of the block before.
    """

    number: int
    hash: str
    timestamp: datetime
    parent_hash: str


class ReorganisedError(TransientError):
    """A pinned block is no longer, or not at this endpoint, part of the chain."""


@dataclass
class Node:
    """An endpoint with what is known about it."""

    endpoint: Endpoint
    chain_id_seen: bool = False
    served: set[str] = field(default_factory=set)  # hashes of blocks that it has shown to have
    asked_last_until: float = 0.0
    takes_overrides: bool | None = None  # of state in eth_call; None until it was tried
    refused_size: int | None = None  # the smallest number of balances that was too much for one call

    @property
    def name(self) -> str:
        """Scheme, host and port, fit for messages."""
        return self.endpoint.name

    def read_block(self, name: str) -> Block:
        """Return a block by hex number or tag.

        Raises:
            MissingStateError: the endpoint does not have it.
            TransientError: the request failed, or the answer cannot be read.
        """
        answer = self.endpoint.call("eth_getBlockByNumber", name, False)
        if answer is None:
            raise MissingStateError(f"{self.name} does not have block {name}; use another endpoint")
        return self.as_block(answer, name)

    def as_block(self, answer: Json, name: str) -> Block:
        """Return a node's answer as a block, which it has thereby shown to have.

        Raises:
            TransientError: the answer cannot be read.
        """
        try:
            block = Block(
                number=int(answer["number"], 16),
                hash=answer["hash"].lower(),
                timestamp=datetime.fromtimestamp(int(answer["timestamp"], 16), UTC),
                parent_hash=answer["parentHash"].lower(),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise TransientError(
                f"{self.name} answered for block {name} in a form that cannot be read; try again later"
            ) from None
        self.served.add(block.hash)
        return block

    def read_code(self, address: str, block: Block) -> str:
        """Return the code at an address after a block, as hex text; `0x` where there is none.

        Raises:
            TransientError: the request failed, or the block was replaced by another.
            PermanentError: the endpoint does not keep the state of the block.
        """
        self.require_block(block)
        return str(self.endpoint.call("eth_getCode", address, hex(block.number)))

    def read_balance(self, address: str, block: Block) -> int:
        """Return the wei of an address after a block.

        Raises:
            TransientError: the request failed, or the block was replaced by another.
            PermanentError: the endpoint does not keep the state of the block.
        """
        self.require_block(block)
        answer = self.endpoint.call("eth_getBalance", address, hex(block.number))
        try:
            return int(answer, 16)
        except (TypeError, ValueError):
            raise TransientError(f"{self.name} gave no balance that can be read; try again later") from None

    def require_block(self, block: Block) -> None:
        """Make sure that the endpoint has the same block; asked once for each block.

        Raises:
            ReorganisedError: it has another block of that number.
        """
        if block.hash in self.served:
            return
        if self.read_block(hex(block.number)).hash != block.hash:
            raise ReorganisedError(
                f"{self.name} has another block {block.number} than the one pinned ({block.hash}); run the hour again"
            )


class RpcPool:
    """The endpoints of one network in order of preference. Safe to share between threads.

    Args:
        network: its name, for messages.
        chain_id: what each endpoint must say it serves.
        rpc_urls: may hold keys, which no message repeats.
        timeout: of one request.

    Raises:
        PermanentError: there is no URL, or one is not of http or https.
    """

    def __init__(self, network: str, chain_id: int, rpc_urls: Sequence[str], timeout: timedelta) -> None:
        if not rpc_urls:
            raise PermanentError(f"no JSON-RPC endpoint of {network} is given; add one to the configuration")
        self.network = network
        self._chain_id = chain_id
        self._nodes = [Node(Endpoint(url, timeout)) for url in rpc_urls]

    def close(self) -> None:
        """Close all connections."""
        for node in self._nodes:
            node.endpoint.close()

    def ask(self, question: Callable[[Node], Result]) -> Result:
        """Return the first endpoint's answer; one that fails is passed over, and asked last for a minute.

        Raises:
            TooMuchError: no endpoint does so much at once.
            TransientError: none answered, and at least one may later.
            PermanentError: none will answer, or an endpoint serves another chain.
        """
        failures: list[PipelineError] = []
        for node in self._in_turn():
            try:
                self._require_chain_id(node)
                return question(node)
            except (TransientError, MissingStateError, RefusedError) as error:
                failures.append(error)
                node.asked_last_until = time.monotonic() + _REST_SECONDS
                _log.warning("%s", error)
        worst = min(failures, key=_hopelessness)
        # What the others said stands behind it: the reason may lie with any of them.
        worst.args = ("; ".join(dict.fromkeys(str(error) for error in (worst, *failures))),)
        raise worst

    @property
    def preferred(self) -> Node:
        """The endpoint that would be asked first now."""
        return self._in_turn()[0]

    def _in_turn(self) -> list[Node]:
        now = time.monotonic()
        return sorted(self._nodes, key=lambda node: node.asked_last_until > now)

    def _require_chain_id(self, node: Node) -> None:
        if node.chain_id_seen:
            return
        answer = node.endpoint.call("eth_chainId")
        try:
            found = int(answer, 16)
        except (TypeError, ValueError):
            raise TransientError(f"{node.name} gave no chain id that can be read; try again later") from None
        if found != self._chain_id:
            raise PermanentError(
                f"{node.name} serves chain {found}, but {self.network} is chain {self._chain_id}: correct the URL or"
                " the chain id"
            )
        node.chain_id_seen = True


def _hopelessness(error: PipelineError) -> int:
    """Which failure speaks for all: one that a smaller request cures, then one that time cures, then the rest."""
    return 0 if isinstance(error, TooMuchError) else 1 if isinstance(error, TransientError) else 2
