"""The programs run on a real EVM and say what the state says."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest

from tracker_pipeline.domain import balance_code
from tracker_pipeline.domain.balance_code import NATIVE_CODE, SCRATCH, TOKEN_CODE
from tracker_pipeline.domain.multicall import BALANCE_OF, Read
from tracker_pipeline.sandbox.evm import MULTICALL3, EvmChain

START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def chain() -> EvmChain:
    chain = EvmChain(start=START, seed=7, whales=30, chain_id=1337)
    chain.catch_up(START + timedelta(hours=5))
    return chain


def run(chain: EvmChain, number: int, code: bytes, data: bytes) -> bytes:
    result = chain.call(
        chain.header(number), sender=bytes(20), to=SCRATCH, data=data, code={SCRATCH: code}, gas=50_000_000
    )
    assert not result.reverted
    assert not result.failure
    return result.output


def precompiled(number: int) -> bytes:
    """An address whose contract every EVM has: 2 returns the SHA-256 of its input, 4 the input itself."""
    return number.to_bytes(20, "big")


@pytest.mark.parametrize("number", [0, 1, 5])
def test_native_balances_come_with_the_block_that_they_are_of(chain, number):
    header = chain.header(number)
    whales = [whale.address for whale in chain.whales]
    answer = run(chain, number, NATIVE_CODE, b"".join(whales))
    attestation, balances = balance_code.decode_native(answer, len(whales))
    assert balances == [chain.balance(whale, header) for whale in whales]
    parent = int.from_bytes(header.parent_hash, "big")
    assert attestation == (number, header.timestamp, parent)


def test_no_address_is_no_balance(chain):
    assert balance_code.decode_native(run(chain, 3, NATIVE_CODE, b""), 0)[1] == []
    assert balance_code.decode_token(run(chain, 3, TOKEN_CODE, MULTICALL3), 0)[1] == []


def test_sixteen_thousand_balances_stay_below_fifty_million_gas(chain):
    data = b"".join(sha256(str(n).encode()).digest()[:20] for n in range(16_000))
    assert len(balance_code.decode_native(run(chain, 3, NATIVE_CODE, data), 16_000)[1]) == 16_000


def test_each_way_a_token_can_answer_is_told_apart(chain):
    whales = [whale.address for whale in chain.whales[:3]]
    calls = [BALANCE_OF + whale.rjust(32, b"\0") for whale in whales]
    hashes = [Read(int.from_bytes(sha256(call).digest(), "big"), "ok") for call in calls]
    expected = {
        precompiled(2): hashes,
        precompiled(4): [Read(None, "decode_error")] * 3,
        whales[0]: [Read(None, "empty_return")] * 3,
        MULTICALL3: [Read(None, "reverted")] * 3,
    }
    for token, reads in expected.items():
        answer = run(chain, 4, TOKEN_CODE, token + b"".join(whales))
        attestation, found = balance_code.decode_token(answer, 3)
        assert attestation[:2] == (4, chain.header(4).timestamp)
        assert found == reads


@pytest.mark.parametrize("answer", [b"", bytes(32), bytes(32 * 5), bytes(32 * 4 + 1)])
def test_an_answer_of_another_length_is_not_one_of_ours(answer):
    with pytest.raises(ValueError, match="expected 128"):
        balance_code.decode_native(answer, 1)
    with pytest.raises(ValueError, match="expected 96"):
        balance_code.decode_token(bytes(32 * 5), 0)


def test_addresses_are_packed_into_twenty_bytes_each():
    assert balance_code.packed(["0x" + "0" * 39 + "1", "0x" + "ab" * 20]) == precompiled(1) + b"\xab" * 20
