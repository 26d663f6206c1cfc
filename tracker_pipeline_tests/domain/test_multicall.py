"""Calls and answers of Multicall3 are, byte for byte, what eth_abi makes of them."""

import os

import pytest
from eth_abi import decode, encode
from eth_hash.auto import keccak
from hypothesis import given
from hypothesis import strategies as st

from tracker_pipeline.domain import multicall
from tracker_pipeline.domain.multicall import Call, Read, Returned

CONTRACT = bytes.fromhex("ca11bde05977b3631167028862be2a173976ca11")
ADDRESSES = st.binary(min_size=20, max_size=20)


@pytest.mark.parametrize(
    ("selector", "signature"),
    [
        (multicall.AGGREGATE3, b"aggregate3((address,bool,bytes)[])"),
        (multicall.GET_BLOCK_NUMBER, b"getBlockNumber()"),
        (multicall.GET_BLOCK_HASH, b"getBlockHash(uint256)"),
        (multicall.GET_BLOCK_TIMESTAMP, b"getCurrentBlockTimestamp()"),
        (multicall.GET_ETH_BALANCE, b"getEthBalance(address)"),
        (multicall.BALANCE_OF, b"balanceOf(address)"),
    ],
)
def test_each_selector_is_the_hash_of_its_signature(selector, signature):
    assert selector == keccak(signature)[:4]


@given(st.lists(st.builds(Call, ADDRESSES, st.binary(max_size=100)), max_size=20))
def test_calls_are_encoded_as_eth_abi_does(calls):
    expected = encode(["(address,bool,bytes)[]"], [[(target, True, data) for target, data in calls]])
    assert multicall.encode_aggregate3(calls) == multicall.AGGREGATE3 + expected


@given(
    st.lists(st.builds(Call, ADDRESSES, st.binary(max_size=100)), max_size=5), st.lists(ADDRESSES, max_size=9)
)
def test_reads_are_one_call_for_each_address_to_whoever_decodes_them(first, addresses):
    calls = [*first, *(multicall.token_balance(CONTRACT, address) for address in addresses)]
    encoded = multicall.encode_reads(first, CONTRACT, multicall.BALANCE_OF, addresses)
    assert calls_in(encoded) == [(call.target, True, call.data) for call in calls]
    assert len(encoded) <= len(multicall.encode_aggregate3(calls))


@given(
    st.lists(st.builds(Call, ADDRESSES, st.binary(max_size=100)), max_size=5),
    st.lists(ADDRESSES, min_size=1, max_size=9),
)
def test_lenient_reads_differ_in_nothing_but_bytes_behind_the_argument(first, addresses):
    encoded = multicall.encode_reads(first, CONTRACT, multicall.GET_ETH_BALANCE, addresses, lenient=True)
    expected = [*first, *(multicall.eth_balance(CONTRACT, address) for address in addresses)]
    for (target, allowed, data), call in zip(calls_in(encoded), expected, strict=True):
        assert (target, allowed) == (call.target, True)
        assert data[: len(call.data)] == call.data
        assert len(data) in (len(call.data), 64)


def calls_in(encoded: bytes) -> list[tuple[bytes, bool, bytes]]:
    """The calls as a contract finds them: by offsets, wherever these lead; eth_abi wants padding besides."""

    def word(at: int) -> int:
        assert at + 32 <= len(encoded)
        return int.from_bytes(encoded[at : at + 32], "big")

    assert encoded[:4] == multicall.AGGREGATE3
    start = 4 + word(4) + 32
    calls = []
    for index in range(word(start - 32)):
        at = start + word(start + 32 * index)
        data = at + word(at + 64)
        end = data + 32 + word(data)
        assert end <= len(encoded)
        calls.append((encoded[at + 12 : at + 32], bool(word(at + 32)), encoded[data + 32 : end]))
    return calls


@given(st.lists(st.integers(0, 2**256 - 1), max_size=9))
def test_an_answer_of_numbers_alone_is_read_in_one_go(numbers):
    answer = encode(["(bool,bytes)[]"], [[(True, number.to_bytes(32, "big")) for number in numbers]])
    assert multicall.decode_numbers(answer, len(numbers)) == numbers
    assert multicall.decode_numbers(answer, len(numbers) + 1) is None


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=33)), min_size=1, max_size=9))
def test_an_answer_with_anything_but_numbers_is_not(answers):
    encoded = encode(["(bool,bytes)[]"], [answers])
    regular = all(success and len(data) == 32 for success, data in answers)
    assert (multicall.decode_numbers(encoded, len(answers)) is not None) == regular


@given(st.lists(st.integers(0, 2**256 - 1), min_size=1, max_size=5), st.data())
def test_an_answer_with_a_byte_changed_outside_its_numbers_is_not(numbers, data):
    answer = bytearray(encode(["(bool,bytes)[]"], [[(True, n.to_bytes(32, "big")) for n in numbers]]))
    tuples = 32 * (2 + len(numbers))
    at = data.draw(st.integers(0, len(answer) - 1).filter(lambda at: at < tuples or (at - tuples) % 128 < 96))
    answer[at] ^= 1
    assert multicall.decode_numbers(bytes(answer), len(numbers)) is None


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=100)), max_size=20))
def test_answers_are_decoded_as_eth_abi_does(answers):
    encoded = encode(["(bool,bytes)[]"], [answers])
    assert multicall.decode_aggregate3(encoded, len(answers)) == [*decode(["(bool,bytes)[]"], encoded)[0]]


def test_a_balance_call_carries_the_padded_address():
    address = os.urandom(20)
    native = multicall.eth_balance(CONTRACT, address)
    token = multicall.token_balance(CONTRACT, address)
    assert native == Call(CONTRACT, keccak(b"getEthBalance(address)")[:4] + encode(["address"], [address]))
    assert token == Call(CONTRACT, keccak(b"balanceOf(address)")[:4] + encode(["address"], [address]))


@pytest.mark.parametrize(("number", "asked"), [(0, 0), (1, 0), (21_000_000, 20_999_999)])
def test_the_attestation_asks_for_the_hash_of_the_block_before(number, asked):
    calls = multicall.block_attestation(CONTRACT, number)
    assert calls[2].data == keccak(b"getBlockHash(uint256)")[:4] + encode(["uint256"], [asked])


@pytest.mark.parametrize(
    ("returned", "read"),
    [
        (Returned(True, (0).to_bytes(32)), Read(0, "ok")),
        (Returned(True, b"\xff" * 32), Read(2**256 - 1, "ok")),
        (Returned(True, b""), Read(None, "empty_return")),
        (Returned(True, b"\1"), Read(None, "decode_error")),
        (Returned(True, bytes(64)), Read(None, "decode_error")),
        (Returned(False, b""), Read(None, "reverted")),
        (Returned(False, bytes(32)), Read(None, "reverted")),
    ],
)
def test_only_32_bytes_of_a_successful_call_are_a_number(returned, read):
    assert multicall.read_uint256(returned) == read


@given(st.integers(0, 300), st.integers(1, 300))
def test_an_answer_that_was_cut_off_is_refused(at, missing):
    encoded = encode(["(bool,bytes)[]"], [[(True, bytes(32)), (True, bytes(32))]])
    shortened = encoded[: max(0, len(encoded) - missing - at)]
    with pytest.raises(ValueError, match="ends"):
        multicall.decode_aggregate3(shortened, 2)


def test_an_answer_to_another_number_of_calls_is_refused():
    encoded = encode(["(bool,bytes)[]"], [[(True, bytes(32))]])
    with pytest.raises(ValueError, match="answered 1 of 2 calls"):
        multicall.decode_aggregate3(encoded, 2)


def test_a_success_flag_that_is_no_boolean_is_refused():
    encoded = bytearray(encode(["(bool,bytes)[]"], [[(True, bytes(32))]]))
    encoded[32 * 4 - 1] = 2
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        multicall.decode_aggregate3(bytes(encoded), 1)
