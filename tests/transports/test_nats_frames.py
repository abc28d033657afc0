"""The bytes of uploads: written and read again, and refused when they are anything else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet.bodies.partial_upload import has_bit, set_bit
from pet.errors import RemoteProtocolError
from pet.transports.nats.frames import (
    HEADER_BYTES,
    ChunkHeader,
    OpenAnswer,
    UploadOffer,
    Verdict,
    decode_chunk,
)

OFFER = UploadOffer(upload_id=bytes(range(16)), size_bytes=150, sha256=bytes(32), kind="pet", round="7", chunk_bytes=40)


def test_a_chunk_byte_by_byte():
    payload = ChunkHeader(bytes(range(16)), 2, 4, 150).to_bytes() + b"data"
    assert HEADER_BYTES == 40
    assert payload.hex() == (
        "50455443" "01" "00" "0000" "000102030405060708090a0b0c0d0e0f" "00000002" "00000004" "0000000000000096" + b"data".hex()
    )  # fmt: skip
    header, data = decode_chunk(payload)
    assert (header.index, header.count, header.size_bytes, bytes(data)) == (2, 4, 150, b"data")


@pytest.mark.parametrize(
    ("place", "value"), [(0, b"X"), (4, b"\x02"), (5, b"\x01"), (6, b"\x01"), (24, b"\xff"), (28, b"\xff"), (32, b"\xff")]
)
def test_other_chunks_are_refused(place, value):
    payload = bytearray(ChunkHeader(bytes(16), 2, 4, 150).to_bytes())
    payload[place : place + 1] = value
    with pytest.raises(RemoteProtocolError) as caught:
        decode_chunk(bytes(payload))
    assert caught.value.reason == "malformed_chunk"


@given(st.binary(max_size=60))
def test_any_bytes_give_a_result_or_a_refusal(data):
    for decode in (decode_chunk, UploadOffer.from_bytes, OpenAnswer.from_bytes):
        try:
            decode(data)
        except RemoteProtocolError:
            continue


def test_offers():
    assert UploadOffer.from_bytes(OFFER.to_bytes()) == OFFER
    assert (OFFER.chunk_count, OFFER.chunk_size(3)) == (4, 30)
    assert UploadOffer(upload_id=b"", size_bytes=0, sha256=b"", kind="", round="", chunk_bytes=40).chunk_count == 1


@pytest.mark.parametrize(
    "change",
    [
        {"id": "00"},
        {"id": "zz" * 16},
        {"size": -1},
        {"size": "1"},
        {"size": True},
        {"size": 2**41},
        {"sha256": "00"},
        {"kind": 7},
        {"kind": "x" * 201},
        {"round": None},
        {"chunk_bytes": 0},
        {"size": 2**40, "chunk_bytes": 1},
    ],
)
def test_other_offers_are_refused(change):
    record = json.loads(OFFER.to_bytes()) | change
    with pytest.raises(RemoteProtocolError) as caught:
        UploadOffer.from_bytes(json.dumps(record).encode())
    assert caught.value.reason == "malformed_offer"


def test_an_offer_that_is_too_long():
    with pytest.raises(RemoteProtocolError):
        UploadOffer.from_bytes(OFFER.to_bytes() + b" " * 1024)


@pytest.mark.parametrize(
    "answer",
    [
        OpenAnswer(slot="00ff", chunk_bytes=10, window=4, have=b"\x80\x01", expires_seconds=30.0),
        OpenAnswer(wait_seconds=0.5),
        OpenAnswer(verdict=Verdict(is_accepted=True)),
        OpenAnswer(verdict=Verdict(is_accepted=False, reason="too_large")),
    ],
)
def test_answers(answer):
    assert OpenAnswer.from_bytes(answer.to_bytes()) == answer


@pytest.mark.parametrize(
    "record",
    [
        {},
        [],
        {"accepted": 1},
        {"accepted": True, "reason": 7},
        {"wait": "soon"},
        {"slot": "a.b", "chunk_bytes": 10, "window": 4, "have": "", "expires": 30},
        {"slot": "", "chunk_bytes": 10, "window": 4, "have": "", "expires": 30},
        {"slot": "ab", "chunk_bytes": 10, "window": 0, "have": "", "expires": 30},
        {"slot": "ab", "chunk_bytes": 10, "window": 4, "have": "!", "expires": 30},
        {"slot": "ab", "chunk_bytes": 10, "window": 4, "have": ""},
    ],
)
def test_other_answers_are_refused(record):
    with pytest.raises(RemoteProtocolError) as caught:
        OpenAnswer.from_bytes(json.dumps(record).encode())
    assert caught.value.reason == "malformed_answer"


@given(st.sets(st.integers(0, 40)))
def test_bitmaps(indexes):
    bitmap = bytearray(5 + 1)
    for index in indexes:
        set_bit(bitmap, index)
    assert {index for index in range(60) if has_bit(bitmap, index)} == indexes
    assert sum(byte.bit_count() for byte in bitmap) == len(indexes)
