"""Sum and seed dictionaries (spec 4.6, 5.4, 5.5)."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from strategies import seed_dictionaries, sum_dictionaries

from pet.errors import CryptoError, RemoteProtocolError
from pet.messages import decode_seed_dictionary, decode_sum_dictionary, encode_seed_dictionary, encode_sum_dictionary
from pet.messages.dictionaries import (
    EncodedSeeds,
    decode_local_seed_dictionary,
    encode_local_seed_dictionary,
    local_seed_dictionary_bytes,
)

KEY, OTHER_KEY = b"\x55" * 32, b"\x77" * 32


def refusal_reason(decode: Callable[[bytes], Any], data: bytes) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(data)
    return caught.value.reason


@given(sum_dictionaries)
def test_sum_dictionary_round_trip(dictionary: dict[bytes, bytes]) -> None:
    encoded = encode_sum_dictionary(dictionary)
    assert len(encoded) == 8 + 80 * len(dictionary)
    assert decode_sum_dictionary(encoded) == dictionary


@given(seed_dictionaries)
def test_seed_dictionary_round_trip(dictionary: dict[bytes, bytes]) -> None:
    encoded = encode_seed_dictionary(dictionary)
    assert len(encoded) == 8 + 128 * len(dictionary)
    assert decode_seed_dictionary(encoded) == dictionary


@given(seed_dictionaries)
def test_local_seed_dictionary_round_trip(dictionary: dict[bytes, bytes]) -> None:
    encoded = encode_local_seed_dictionary(dictionary)
    assert len(encoded) == local_seed_dictionary_bytes(len(dictionary)) == 4 + 112 * len(dictionary)
    assert decode_local_seed_dictionary(encoded) == (dictionary, len(encoded))
    assert decode_local_seed_dictionary(encoded + b"next") == (dictionary, len(encoded))


def test_sums_are_the_worked_ones() -> None:
    participant = bytes.fromhex("03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8")
    ephemeral = bytes.fromhex("e240f142b821efa128c8a1b1ee98c5c2d0d6186429edeedd3cccde89f7bf754a")
    expected = bytes.fromhex(
        "0100000000000000 2000000000000000 03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
        "2000000000000000 e240f142b821efa128c8a1b1ee98c5c2d0d6186429edeedd3cccde89f7bf754a"
    )
    assert encode_sum_dictionary({participant: ephemeral}) == expected
    assert decode_sum_dictionary(expected) == {participant: ephemeral}


def test_an_empty_local_seed_dictionary_is_its_length_field() -> None:
    assert encode_local_seed_dictionary({}) == bytes.fromhex("00000004")


def test_entries_have_the_length_that_the_profile_states() -> None:
    dictionary = {KEY: bytes(100)}
    assert decode_seed_dictionary(encode_seed_dictionary(dictionary, 100), 100) == dictionary
    assert decode_local_seed_dictionary(encode_local_seed_dictionary(dictionary, 100), 100) == (dictionary, 136)
    with pytest.raises(CryptoError, match="expected entries of 32 and 80 bytes, got 32 and 100"):
        encode_seed_dictionary(dictionary)
    with pytest.raises(CryptoError, match="expected entries of 32 and 80 bytes, got 31 and 80"):
        encode_local_seed_dictionary({KEY[1:]: bytes(80)})


@pytest.mark.parametrize(
    "data",
    [b"", bytes(3), bytes(4), bytes.fromhex("00000003"), bytes.fromhex("00000005"), bytes.fromhex("ffffffff")],
    ids=["empty", "short", "zero", "below-itself", "beyond-the-end", "largest"],
)
def test_bad_length_of_a_local_seed_dictionary_is_refused(data: bytes) -> None:
    assert refusal_reason(decode_local_seed_dictionary, data) == "malformed_seed_dictionary"


def test_a_fraction_of_an_entry_is_refused() -> None:
    data = (4 + 113).to_bytes(4, "big") + bytes(113)
    assert refusal_reason(decode_local_seed_dictionary, data) == "malformed_seed_dictionary"


@pytest.mark.parametrize(
    ("decode", "encode", "value"),
    [
        (decode_sum_dictionary, encode_sum_dictionary, bytes(32)),
        (decode_seed_dictionary, encode_seed_dictionary, bytes(80)),
        (decode_local_seed_dictionary, encode_local_seed_dictionary, bytes(80)),
    ],
    ids=["sums", "seeds", "local"],
)
def test_duplicate_keys_are_refused(
    decode: Callable[[bytes], Any], encode: Callable[[dict[bytes, bytes]], bytes], value: bytes
) -> None:
    data = encode({KEY: value, OTHER_KEY: value}).replace(OTHER_KEY, KEY)
    assert refusal_reason(decode, data) == "duplicate_key"


@pytest.mark.parametrize(
    ("decode", "encode", "value", "reason"),
    [
        (decode_sum_dictionary, encode_sum_dictionary, bytes(32), "malformed_sums"),
        (decode_seed_dictionary, encode_seed_dictionary, bytes(80), "malformed_seeds"),
    ],
    ids=["sums", "seeds"],
)
def test_bad_bincode_is_refused(
    decode: Callable[[bytes], Any], encode: Callable[[dict[bytes, bytes]], bytes], value: bytes, reason: str
) -> None:
    data = encode({KEY: value})
    assert refusal_reason(decode, data[:7]) == reason
    assert refusal_reason(decode, data[:-1]) == reason
    assert refusal_reason(decode, (2**64 - 1).to_bytes(8, "little") + data[8:]) == reason
    assert refusal_reason(decode, data[:8] + b"\x21" + data[9:]) == reason
    assert refusal_reason(decode, data[:48] + b"\x21" + data[49:]) == reason
    assert refusal_reason(decode, data + b"\0") == "trailing_bytes"
    assert refusal_reason(decode, bytes(8) + data[8:]) == "trailing_bytes"


@pytest.mark.parametrize("count", [0, 1, 511, 512, 513, 1100])
def test_encoded_seeds_are_what_is_published(count):
    entries = {number.to_bytes(32, "big"): number.to_bytes(80, "big") for number in range(count)}
    seeds = EncodedSeeds()
    for key, seed in entries.items():
        seeds.add(key, memoryview(seed))
    assert (seeds, len(seeds), list(seeds)) == (entries, count, list(entries))
    whole = seeds.to_bytes()
    assert whole == encode_seed_dictionary(entries)
    assert seeds.to_bytes() is whole
    assert (seeds, list(seeds.items())) == (entries, list(entries.items()))
    assert bytes(32) in seeds or not count
    with pytest.raises(KeyError):
        seeds[b"k" * 32]
    entries[b"k" * 32] = bytes(80)
    seeds.add(b"k" * 32, bytes(80))  # also after it was asked for
    seeds.add(b"l" * 32, bytes(80))
    assert seeds.to_bytes() == encode_seed_dictionary(entries | {b"l" * 32: bytes(80)})


def test_an_encrypted_seed_takes_no_more_memory_than_its_bytes():
    """A dictionary of bytes takes more than twice as much."""
    count = 100_000
    tracemalloc.start()
    try:
        seeds = EncodedSeeds()
        for number in range(count):
            seeds.add(number.to_bytes(32, "big"), bytes(80))
        collected, _ = tracemalloc.get_traced_memory()
        seeds.to_bytes()
        published, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert max(collected, published) <= 136 * count
