"""The header of a message (spec 4.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from strategies import headers

from pet.errors import RemoteProtocolError
from pet.messages import HEADER_BYTES, Header, Tag

HEADER = Header(participant_public_key=b"\xbb" * 32, coordinator_public_key=b"\xcc" * 32, length=136, tag=Tag.SUM)


def refusal_reason(message: bytes) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        Header.decode(message)
    return caught.value.reason


@given(headers)
def test_decoding_inverts_encoding(header: Header) -> None:
    assert Header.decode(header.encode().ljust(header.length, b"\0")) == header


def test_fields_lie_where_the_specification_says() -> None:
    encoded = HEADER.encode()
    assert len(encoded) == HEADER_BYTES == 136
    assert encoded[:64] == bytes(64)
    assert encoded[64:96] == b"\xbb" * 32
    assert encoded[96:128] == b"\xcc" * 32
    assert encoded[128:] == bytes.fromhex("00000088 01 00 0000")


def test_flags_without_a_meaning_are_ignored() -> None:
    encoded = bytearray(HEADER.encode())
    encoded[133] = 0xFE
    assert Header.decode(encoded) == HEADER
    encoded[133] = 0xFF
    assert Header.decode(encoded).is_multipart


@pytest.mark.parametrize("length", [0, 1, 63])
def test_length_field_below_64_is_refused(length: int) -> None:
    """Spec 13: such a message ends xaynet's process."""
    encoded = HEADER.encode()
    assert refusal_reason(encoded[:128] + length.to_bytes(4, "big") + encoded[132:]) == "length_mismatch"


@pytest.mark.parametrize("length", [64, 135, 137, 2**32 - 1])
def test_length_field_other_than_the_size_is_refused(length: int) -> None:
    encoded = HEADER.encode()
    assert refusal_reason(encoded[:128] + length.to_bytes(4, "big") + encoded[132:]) == "length_mismatch"


def test_bytes_behind_the_length_are_refused() -> None:
    assert refusal_reason(HEADER.encode() + b"\0") == "length_mismatch"


@pytest.mark.parametrize("tag", [0, 4, 255])
def test_unknown_tags_are_refused(tag: int) -> None:
    encoded = HEADER.encode()
    assert refusal_reason(encoded[:132] + bytes([tag]) + encoded[133:]) == "unknown_tag"


def test_a_message_shorter_than_a_header_is_refused() -> None:
    assert refusal_reason(HEADER.encode()[:135]) == "message_too_short"
    assert refusal_reason(b"") == "message_too_short"
