"""The contracts of the sandbox chain: two tokens and a price feed, in code of our own that is assembled here.

What belongs here: their code, their addresses, how a call of theirs is encoded. What does not: who holds and moves
what (`whales.py`), blocks (`evm.py`).

They stand at the addresses that the real ones have on Ethereum's main network, so that one configuration fits both.
"""

from typing import Final

from eth.vm import mnemonics, opcode_values
from eth_hash.auto import keccak

WETH: Final = bytes.fromhex("c02aaa39b223fe8d0a0e5c4f27ead9083c756cc2")
STETH: Final = bytes.fromhex("ae7ab96520de3a18e5e111b5eaab095312d7fe84")
STETH_FEED: Final = bytes.fromhex("86392dc19c0b719886221c78ab11eb8cf5c52812")
TOKENS: Final = {"WETH": WETH, "STETH": STETH}

_WORD: Final = 32


def _selector(signature: str) -> str:
    return "0x" + keccak(signature.encode())[:4].hex()


def _opcodes() -> dict[str, int]:
    names = {name: getattr(mnemonics, name) for name in vars(mnemonics) if name.isupper()}
    return {names[name]: getattr(opcode_values, name) for name in names if hasattr(opcode_values, name)}


def assembled(source: str) -> bytes:
    """Machine code of a program, one instruction a word.

    A number is pushed in as few bytes as it takes, `:name` marks a place to jump to, and `@name` pushes that place in
    two bytes.
    """
    opcodes = _opcodes()
    code, places, uses = bytearray(), {}, []
    for word in source.split():
        if word.startswith(":"):
            places[word[1:]] = len(code)
            code.append(opcodes["JUMPDEST"])
        elif word.startswith("@"):
            code += bytes([opcodes["PUSH2"], 0, 0])
            uses.append((len(code) - 2, word[1:]))
        elif word in opcodes:
            code.append(opcodes[word])
        else:
            number = int(word, 0)
            size = max(1, (number.bit_length() + 7) // 8)
            code += bytes([opcodes["PUSH1"] + size - 1]) + number.to_bytes(size, "big")
    for at, name in uses:
        code[at : at + 2] = places[name].to_bytes(2, "big")
    return bytes(code)


# A holder's balance lies in the storage slot whose number is the holder's address.
TOKEN_CODE: Final = assembled(
    f"""
    0 CALLDATALOAD 224 SHR
    DUP1 {_selector("balanceOf(address)")} EQ @balance JUMPI
    DUP1 {_selector("transfer(address,uint256)")} EQ @transfer JUMPI
    :refused  0 0 REVERT

    :balance  4 CALLDATALOAD SLOAD 0 MSTORE  32 0 RETURN

    :transfer
        36 CALLDATALOAD CALLER SLOAD
        DUP2 DUP2 LT @refused JUMPI
        DUP2 SWAP1 SUB CALLER SSTORE
        DUP1 4 CALLDATALOAD SLOAD ADD 4 CALLDATALOAD SSTORE
        0 MSTORE
        4 CALLDATALOAD CALLER 0x{keccak(b"Transfer(address,address,uint256)").hex()} 32 0 LOG3
        1 0 MSTORE  32 0 RETURN
    """
)

# The answer moves between 0.997 and 1.0009 with the hour, at which it was also given: a feed that is never late.
FEED_CODE: Final = assembled(
    f"""
    0 CALLDATALOAD 224 SHR {_selector("latestRoundData()")} EQ @answer JUMPI
    0 0 REVERT
    :answer
        3600 TIMESTAMP DIV
        DUP1 0 MSTORE  DUP1 128 MSTORE
        40 DUP2 7 MUL MOD {10**14} MUL {997 * 10**15} ADD 32 MSTORE
        3600 MUL DUP1 64 MSTORE 96 MSTORE
        160 0 RETURN
    """
)


def transfer_data(receiver: bytes, amount: int) -> bytes:
    """Calldata that gives `amount` of a token to `receiver`."""
    return (
        bytes.fromhex(_selector("transfer(address,uint256)")[2:])
        + receiver.rjust(_WORD, b"\0")
        + amount.to_bytes(_WORD, "big")
    )
