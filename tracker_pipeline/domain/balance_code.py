"""Own EVM code that reads many balances in one call: 20 bytes in and 32 out for each, instead of 164 and 160.

What belongs here: the programs, their input and what their output means. What does not: nodes that run them
(`resources.balance_ways`), the contract that serves where a node runs no code of ours (`multicall`).

A node that takes a state override runs the program as if it stood at `SCRATCH`. Input is packed addresses; output
begins with three words that say on which block it ran: its number, its time, and the hash of the block before.
A native balance costs 3,020 gas whatever the number of addresses, where Multicall3 takes 6,100 to 9,400.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from tracker_pipeline.domain.multicall import BALANCE_OF, Read

# Nobody has the key of an address whose bytes spell a sentence, and nobody deployed to it.
SCRATCH: Final = b"tracker pipe scratch"
ADDRESS: Final = 20
_WORD: Final = 32

_OPCODES: Final = {
    name: bytes([code])
    for name, code in {
        "ADD": 0x01, "MUL": 0x02, "SUB": 0x03, "GT": 0x11, "ISZERO": 0x15, "SHL": 0x1B, "SHR": 0x1C,
        "BALANCE": 0x31, "CALLDATALOAD": 0x35, "CALLDATASIZE": 0x36, "RETURNDATASIZE": 0x3D,
        "BLOCKHASH": 0x40, "TIMESTAMP": 0x42, "NUMBER": 0x43, "POP": 0x50, "MLOAD": 0x51, "MSTORE": 0x52,
        "JUMP": 0x56, "JUMPI": 0x57, "GAS": 0x5A, "JUMPDEST": 0x5B, "DUP1": 0x80, "DUP3": 0x82, "SWAP1": 0x90,
        "RETURN": 0xF3, "STATICCALL": 0xFA,
    }.items()
}  # fmt: skip
_PUSH1: Final = 0x60


class Attestation(NamedTuple):
    """On which block a program ran: number, Unix time, and the hash of the block before it (0 for unknown)."""

    number: int
    timestamp: int
    parent_hash: int


def _assembled(source: str) -> bytes:
    """Machine code of a program, one instruction a word.

    A number is pushed in as few bytes as it takes, `:name` marks a place to jump to, and `@name` pushes it. The
    programs here are shorter than 256 bytes, so a place is one byte.
    """
    code, places, uses = bytearray(), {}, []
    for word in source.split():
        if word.startswith(":"):
            places[word[1:]] = len(code)
            code += _OPCODES["JUMPDEST"]
        elif word.startswith("@"):
            code += bytes([_PUSH1, 0])
            uses.append((len(code) - 1, word[1:]))
        elif word in _OPCODES:
            code += _OPCODES[word]
        else:
            number = int(word, 0)
            size = max(1, (number.bit_length() + 7) // 8)
            code += bytes([_PUSH1 + size - 1]) + number.to_bytes(size, "big")
    for at, name in uses:
        code[at] = places[name]
    return bytes(code)


# Memory from 0: the attestation, then a word for each address. On the stack: where to write, where to read.
NATIVE_CODE: Final = _assembled(
    """
    NUMBER 0 MSTORE  TIMESTAMP 32 MSTORE  1 NUMBER SUB BLOCKHASH 64 MSTORE
    96 0
    :next  DUP1 CALLDATASIZE GT ISZERO @done JUMPI
        DUP1 CALLDATALOAD 96 SHR BALANCE DUP3 MSTORE
        20 ADD  SWAP1 32 ADD SWAP1
        @next JUMP
    :done  POP 0 RETURN
    """
)

# Input begins with the token. Memory: what balanceOf returned at 0, its calldata at 32, and from 96 the attestation
# and two words for each address: 0 where the call failed, else the size of what it returned and one more; then the
# first word of that.
TOKEN_CODE: Final = _assembled(
    f"""
    0x{BALANCE_OF.hex()} 224 SHL 32 MSTORE
    NUMBER 96 MSTORE  TIMESTAMP 128 MSTORE  1 NUMBER SUB BLOCKHASH 160 MSTORE
    192 20
    :next  DUP1 CALLDATASIZE GT ISZERO @done JUMPI
        DUP1 CALLDATALOAD 96 SHR 36 MSTORE
        32 0 36 32  0 CALLDATALOAD 96 SHR  GAS STATICCALL
        RETURNDATASIZE 1 ADD MUL DUP3 MSTORE
        0 MLOAD DUP3 32 ADD MSTORE
        20 ADD  SWAP1 64 ADD SWAP1
        @next JUMP
    :done  POP  96 SWAP1 SUB  96 RETURN
    """
)


def packed(addresses: Sequence[str]) -> bytes:
    """Return the bytes of lower-case addresses, one behind the other: the input of `NATIVE_CODE`."""
    return bytes.fromhex("".join(addresses).replace("0x", ""))


def decode_native(answer: bytes, count: int) -> tuple[Attestation, list[int]]:
    """Return the block and the balances in the answer of `NATIVE_CODE` over `count` addresses.

    Raises:
        ValueError: the answer has another length than such an answer, as where the node ran no code of ours.
    """
    attestation = _attestation(answer, _WORD * count)
    return attestation, [_number(answer[at : at + _WORD]) for at in range(3 * _WORD, len(answer), _WORD)]


def decode_token(answer: bytes, count: int) -> tuple[Attestation, list[Read]]:
    """Return the block and what was read in the answer of `TOKEN_CODE` over `count` addresses.

    Raises:
        ValueError: the answer has another length than such an answer.
    """
    attestation = _attestation(answer, 2 * _WORD * count)
    pairs = range(3 * _WORD, len(answer), 2 * _WORD)
    return attestation, [_token_read(answer[at : at + 2 * _WORD]) for at in pairs]


def _attestation(answer: bytes, rest: int) -> Attestation:
    if len(answer) != 3 * _WORD + rest:
        raise ValueError(f"the program answered {len(answer)} bytes, expected {3 * _WORD + rest}")
    return Attestation(*(_number(answer[at : at + _WORD]) for at in (0, _WORD, 2 * _WORD)))


def _token_read(pair: bytes) -> Read:
    outcome = _number(pair[:_WORD])
    if outcome == 0:
        return Read(None, "reverted")
    if outcome == 1:
        return Read(None, "empty_return")
    if outcome != _WORD + 1:
        return Read(None, "decode_error")
    return Read(_number(pair[_WORD:]), "ok")


def _number(word: bytes) -> int:
    return int.from_bytes(word, "big")
