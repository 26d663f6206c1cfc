"""The JSON-RPC methods of the sandbox chain: parameters in, JSON values out, errors as ordinary nodes word them.

What belongs here: one function a method. What does not: the envelope and batches (`chain.py`), the state (`evm.py`).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import rlp
from eth.abc import BlockHeaderAPI, SignedTransactionAPI
from eth_utils import to_checksum_address

from tracker_pipeline.sandbox.evm import GAS_CAP, EvmChain

Json = Any

METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
SERVER_ERROR: Final = -32000
REVERTED: Final = 3
_LIMIT_EXCEEDED: Final = -32005
_LONGEST_LOG_RANGE: Final = 10_000  # blocks, as hosted nodes have it

# A sandbox block is never taken back, so each of these names the head.
_HEAD_TAGS: Final = ("latest", "safe", "finalized", "pending")
_HEX: Final = re.compile(r"0x[0-9a-fA-F]*")
_SENDER: Final = bytes(20)


class RpcError(Exception):
    """An error answer.

    Attributes:
        code: number of JSON-RPC or of the node.
        message: text.
        data: further value, such as what a revert returned; None for none.
    """

    def __init__(self, code: int, message: str, data: Json = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


def answer(chain: EvmChain, method: str, params: Json, *, state_override: bool = False) -> Json:
    """Return the result of one method.

    Args:
        chain: the chain.
        method: name of the method.
        params: list of parameters, None for none.
        state_override: whether `eth_call` takes a third parameter with other code for some addresses.

    Raises:
        RpcError: the method is unknown, a parameter is wrong, or the call failed.
    """
    if method not in _METHODS:
        raise RpcError(METHOD_NOT_FOUND, f"the method {method} does not exist/is not available")
    least, most, function = _METHODS[method]
    if method == "eth_call" and state_override:
        most += 1
    given = [] if params is None else params
    if not isinstance(given, list):
        raise RpcError(INVALID_PARAMS, "non-array args")
    if len(given) > most:
        raise RpcError(INVALID_PARAMS, f"too many arguments, want at most {most}")
    if len(given) < least:
        raise RpcError(INVALID_PARAMS, f"missing value for required argument {len(given)}")
    return function(chain, given)


def _block_by_number(chain: EvmChain, params: Sequence[Json]) -> Json:
    return _block_json(chain, _numbered(chain, params[0]), full=bool(params[1]))


def _block_by_hash(chain: EvmChain, params: Sequence[Json]) -> Json:
    return _block_json(chain, chain.header_by_hash(_bytes(params[0], 32)), full=bool(params[1]))


def _balance(chain: EvmChain, params: Sequence[Json]) -> Json:
    return hex(chain.balance(_bytes(params[0], 20), _state_header(chain, params[1:])))


def _code(chain: EvmChain, params: Sequence[Json]) -> Json:
    return _hex(chain.code(_bytes(params[0], 20), _state_header(chain, params[1:])))


def _nonce(chain: EvmChain, params: Sequence[Json]) -> Json:
    return hex(chain.nonce(_bytes(params[0], 20), _state_header(chain, params[1:])))


def _call(chain: EvmChain, params: Sequence[Json]) -> Json:
    call = params[0]
    if not isinstance(call, dict) or not call.get("to"):
        raise RpcError(INVALID_PARAMS, "a call needs an object with a 'to' address")
    result = chain.call(
        _state_header(chain, params[1:]),
        sender=_bytes(call["from"], 20) if call.get("from") else _SENDER,
        to=_bytes(call["to"], 20),
        data=_bytes(call.get("input") or call.get("data") or "0x"),
        gas=_quantity(call["gas"]) if call.get("gas") else GAS_CAP,
        code=_overriding_code(params[2]) if len(params) > 2 else {},
    )
    if result.reverted:
        raise RpcError(REVERTED, "execution reverted", _hex(result.output))
    if result.failure:
        raise RpcError(SERVER_ERROR, result.failure)
    return _hex(result.output)


def _receipt(chain: EvmChain, params: Sequence[Json]) -> Json:
    transaction_hash = _bytes(params[0], 32)
    place = chain.place_of(transaction_hash)
    header = chain.header(place[0]) if place else None
    if place is None or header is None:
        return None
    transaction = chain.block(header).transactions[place[1]]
    receipts = chain.receipts(header)
    before = (
        receipts[place[1] - 1].gas_used if place[1] else 0
    )  # a receipt counts from the start of the block
    return {
        "transactionHash": _hex(transaction_hash),
        "transactionIndex": hex(place[1]),
        "blockHash": _hex(header.hash),
        "blockNumber": hex(header.block_number),
        "from": _hex(transaction.sender),
        "to": _hex(transaction.to) or None,
        "cumulativeGasUsed": hex(receipts[place[1]].gas_used),
        "gasUsed": hex(receipts[place[1]].gas_used - before),
        "contractAddress": None,  # nobody deploys on this chain
        "logs": [
            log for log in _block_logs(chain, header) if log["transactionHash"] == _hex(transaction_hash)
        ],
        "status": hex(int.from_bytes(receipts[place[1]].state_root, "big")),
        "type": "0x0",
    }


def _overriding_code(override: Json) -> dict[bytes, bytes]:
    """Code by address of a state override; the other fields of one are refused, as passing them over would lie."""
    if not isinstance(override, dict) or any(
        not isinstance(one, dict) or set(one) - {"code"} for one in override.values()
    ):
        raise RpcError(INVALID_PARAMS, "a state override is an object of addresses with 'code' each")
    return {_bytes(address, 20): _bytes(one["code"]) for address, one in override.items() if one}


def _logs(chain: EvmChain, params: Sequence[Json]) -> Json:
    wanted = params[0] if isinstance(params[0], dict) else {}
    logs = [log for header in _log_range(chain, wanted) for log in _block_logs(chain, header)]
    addresses = wanted.get("address") or []
    emitters = {_bytes(one, 20) for one in ([addresses] if isinstance(addresses, str) else addresses)}
    topics = wanted.get("topics") or []
    return [
        log
        for log in logs
        if (not emitters or _bytes(log["address"]) in emitters)
        and len(log["topics"]) >= len(topics)
        and all(_topic_fits(found, asked) for found, asked in zip(log["topics"], topics, strict=False))
    ]


def _log_range(chain: EvmChain, wanted: Mapping[str, Json]) -> list[BlockHeaderAPI]:
    if "blockHash" in wanted:
        return [_state_header(chain, [{"blockHash": wanted["blockHash"]}])]
    first, last = (_state_header(chain, [wanted.get(bound, "latest")]) for bound in ("fromBlock", "toBlock"))
    numbers = range(first.block_number, last.block_number + 1)
    if len(numbers) > _LONGEST_LOG_RANGE:
        raise RpcError(_LIMIT_EXCEEDED, f"query exceeds max block range {_LONGEST_LOG_RANGE}")
    return [header for number in numbers if (header := chain.header(number)) is not None]


def _block_logs(chain: EvmChain, header: BlockHeaderAPI) -> list[Json]:
    hashes = [_hex(transaction.hash) for transaction in chain.block(header).transactions]
    found: list[Json] = []
    for index, receipt in enumerate(chain.receipts(header)):
        for log in receipt.logs:
            found.append(
                {
                    "address": _hex(log.address),
                    "topics": [f"0x{topic:064x}" for topic in log.topics],
                    "data": _hex(log.data),
                    "blockNumber": hex(header.block_number),
                    "blockHash": _hex(header.hash),
                    "transactionHash": hashes[index],
                    "transactionIndex": hex(index),
                    "logIndex": hex(len(found)),
                    "removed": False,
                }
            )
    return found


def _topic_fits(found: str, asked: Json) -> bool:
    """Whether a topic is the one asked for, one of several asked for, or was left open."""
    return asked is None or found in [one.lower() for one in ([asked] if isinstance(asked, str) else asked)]


def _state_header(chain: EvmChain, params: Sequence[Json]) -> BlockHeaderAPI:
    """Header of the block that a parameter names, as a number, a tag or an EIP-1898 object."""
    wanted = params[0] if params else "latest"
    if isinstance(wanted, dict) and "blockHash" in wanted:
        found = chain.header_by_hash(_bytes(wanted["blockHash"], 32))
    else:
        found = _numbered(chain, wanted["blockNumber"] if isinstance(wanted, dict) else wanted)
    if found is None:
        raise RpcError(SERVER_ERROR, "header not found")
    return found


def _numbered(chain: EvmChain, wanted: Json) -> BlockHeaderAPI | None:
    if wanted in _HEAD_TAGS:
        return chain.head
    return chain.header(0 if wanted == "earliest" else _quantity(wanted))


def _quantity(value: Json) -> int:
    if not isinstance(value, str) or not _HEX.fullmatch(value) or len(value) < 3:
        raise RpcError(INVALID_PARAMS, f"invalid argument: {value!r} is not a hex number")
    return int(value, 16)


def _bytes(value: Json, size: int | None = None) -> bytes:
    if not isinstance(value, str) or not _HEX.fullmatch(value) or len(value) % 2:
        raise RpcError(INVALID_PARAMS, f"invalid argument: {str(value)[:80]!r} is not hex data")
    data = bytes.fromhex(value[2:])
    if size is not None and len(data) != size:
        raise RpcError(INVALID_PARAMS, f"invalid argument: hex data of {len(data)} bytes, want {size}")
    return data


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _block_json(chain: EvmChain, header: BlockHeaderAPI | None, *, full: bool) -> Json:
    if header is None:
        return None
    block = chain.block(header)
    return {
        "number": hex(header.block_number),
        "hash": _hex(header.hash),
        "parentHash": _hex(header.parent_hash),
        "sha3Uncles": _hex(header.uncles_hash),
        "miner": to_checksum_address(header.coinbase),
        "stateRoot": _hex(header.state_root),
        "transactionsRoot": _hex(header.transaction_root),
        "receiptsRoot": _hex(header.receipt_root),
        "logsBloom": f"0x{header.bloom:0512x}",
        "difficulty": hex(header.difficulty),
        "gasLimit": hex(header.gas_limit),
        "gasUsed": hex(header.gas_used),
        "timestamp": hex(header.timestamp),
        "extraData": _hex(header.extra_data),
        "mixHash": _hex(header.mix_hash),
        "nonce": _hex(header.nonce),
        "baseFeePerGas": hex(header.base_fee_per_gas),
        "withdrawalsRoot": _hex(header.withdrawals_root),
        "blobGasUsed": hex(header.blob_gas_used),
        "excessBlobGas": hex(header.excess_blob_gas),
        "parentBeaconBlockRoot": _hex(header.parent_beacon_block_root),
        "size": hex(len(rlp.encode(block))),
        "uncles": [],
        "withdrawals": [],
        "transactions": [
            _transaction_json(header, index, transaction) if full else _hex(transaction.hash)
            for index, transaction in enumerate(block.transactions)
        ],
    }


def _transaction_json(header: BlockHeaderAPI, index: int, transaction: SignedTransactionAPI) -> Json:
    return {
        "type": "0x0",
        "hash": _hex(transaction.hash),
        "blockHash": _hex(header.hash),
        "blockNumber": hex(header.block_number),
        "transactionIndex": hex(index),
        "from": to_checksum_address(transaction.sender),
        "to": to_checksum_address(transaction.to),
        "value": hex(transaction.value),
        "nonce": hex(transaction.nonce),
        "gas": hex(transaction.gas),
        "gasPrice": hex(transaction.gas_price),
        "input": _hex(transaction.data),
        "v": hex(transaction.v),
        "r": hex(transaction.r),
        "s": hex(transaction.s),
    }


# Name to fewest parameters, most parameters and function. Unless the node is set up to take it, an `eth_call` with a
# third parameter, the state override of newer nodes, is one too many, as it is on nodes without that feature.
_METHODS: Final[Mapping[str, tuple[int, int, Callable[[EvmChain, Sequence[Json]], Json]]]] = {
    "web3_clientVersion": (0, 0, lambda chain, params: "tracker-sandbox/py-evm"),
    "net_version": (0, 0, lambda chain, params: str(chain.chain_id)),
    "eth_chainId": (0, 0, lambda chain, params: hex(chain.chain_id)),
    "eth_syncing": (0, 0, lambda chain, params: False),
    "eth_blockNumber": (0, 0, lambda chain, params: hex(chain.head.block_number)),
    "eth_getBlockByNumber": (2, 2, _block_by_number),
    "eth_getBlockByHash": (2, 2, _block_by_hash),
    "eth_getBalance": (1, 2, _balance),
    "eth_getCode": (1, 2, _code),
    "eth_getTransactionCount": (1, 2, _nonce),
    "eth_getTransactionReceipt": (1, 1, _receipt),
    "eth_call": (1, 2, _call),
    "eth_getLogs": (1, 1, _logs),
}
