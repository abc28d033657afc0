"""One promise for every reader of pet/1: truncations, bits that flip and bytes that are added give RemoteProtocolError only.

And what is accepted has one encoding: nothing is overlooked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pet1_rounds import vector_round
from vector_files import load_vectors

from pet.errors import RemoteProtocolError
from pet.pet1.certificate import Certificate
from pet.pet1.checks import parse_check, parse_sum2
from pet.pet1.committee import Committee, read_sum
from pet.pet1.enrolment import Enrolment
from pet.pet1.federation import read_calls
from pet.pet1.leaves import read_update
from pet.pet1.manifest import UpdateManifest
from pet.pet1.messages import Pet1Tag, read_message
from pet.pet1.round_record import RoundRecord
from pet.pet1.share_header import ShareHeader

#: The smallest plan, so that each of thousands of attempts is cheap; one with empty slots, and complaints.
SMALL, LARGE = vector_round("1of1"), vector_round("4of5_absent")
FEDERATION = load_vectors("pet1/federation.json")
UPDATE = bytes.fromhex(SMALL.entry["updates"][0]["message"])
HEADER = bytes.fromhex(SMALL.entry["updates"][0]["header"])
_, ANSWER = read_message(bytes.fromhex(next(iter(SMALL.entry["sum2"].values()))), SMALL.record.coordinator_key, Pet1Tag.SUM2)
COMPLAINTS = [message for message in LARGE.checks().values() if len(message) > 136 + 36]

Reader = Callable[[bytes], Any]

#: Name, a valid encoding, how it is read, and how what was read is encoded again (None: it is compared elsewhere).
CASES: list[tuple[str, bytes, Reader, Callable[[Any], bytes] | None]] = [
    ("enrolment", SMALL.bytes_of("enrolment"), Enrolment.from_bytes, Enrolment.to_bytes),
    ("round", SMALL.bytes_of("round"), RoundRecord.from_bytes, RoundRecord.to_bytes),
    ("sum", bytes.fromhex(SMALL.entry["sums"][0]), lambda data: read_sum(data, SMALL.record, SMALL.enrolment), None),
    (
        "committee",
        SMALL.bytes_of("committee"),
        lambda data: Committee.from_bytes(data, SMALL.record, SMALL.enrolment),
        Committee.to_bytes,
    ),
    ("share header", HEADER, lambda data: ShareHeader.from_bytes(data, SMALL.committee), lambda header: header.data),
    ("update", UPDATE, lambda data: read_update(data, SMALL.committee), None),
    (
        "manifest",
        SMALL.bytes_of("manifest"),
        lambda data: UpdateManifest.from_bytes(data, SMALL.committee, SMALL.headers),
        UpdateManifest.to_bytes,
    ),
    (
        "certificate",
        SMALL.bytes_of("certificate"),
        lambda data: Certificate.from_bytes(data, SMALL.committee, SMALL.manifest),
        Certificate.to_bytes,
    ),
    ("check payload", COMPLAINTS[0][136:], lambda data: parse_check(data, LARGE.manifest.root, 5), None),
    ("sum2 payload", ANSWER, lambda data: parse_sum2(data, SMALL.record, SMALL.bytes_of("certificate_digest")), None),
    ("calls", bytes.fromhex(FEDERATION["calls"]), lambda data: read_calls(data, ENROLMENT), None),
]
ENROLMENT = vector_round("federation_z64_integers").enrolment

every_reader = pytest.mark.parametrize(("encoding", "read", "encode"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])


def attempt(read: Reader, encode: Callable[[Any], bytes] | None, data: bytes) -> str | None:
    try:
        value = read(data)
    except RemoteProtocolError as error:
        return error.reason
    assert encode is None or encode(value) == data
    return None


@every_reader
def test_the_valid_encoding_is_read_from_every_kind_of_buffer(
    encoding: bytes, read: Reader, encode: Callable[[Any], bytes] | None
) -> None:
    for kind in (bytes, bytearray, memoryview):
        assert attempt(read, encode and (lambda value: encode(value)), kind(encoding)) is None


@every_reader
def test_every_truncation_is_refused(encoding: bytes, read: Reader, encode: Callable[[Any], bytes] | None) -> None:
    assert all(attempt(read, encode, encoding[:end]) for end in range(len(encoding)))


@every_reader
def test_bytes_behind_it_are_refused(encoding: bytes, read: Reader, encode: Callable[[Any], bytes] | None) -> None:
    for surplus in (b"\0", b"\xff" * 7, encoding):
        assert attempt(read, encode, encoding + surplus)


def flipped(data: bytes, bits: range) -> Iterator[bytes]:
    for bit in bits:
        yield data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


@every_reader
def test_flipped_bits_raise_nothing_else(encoding: bytes, read: Reader, encode: Callable[[Any], bytes] | None) -> None:
    # A step prime to 8 takes every bit of a byte in turn; the long test takes them all.
    assert {attempt(read, encode, mutant) for mutant in flipped(encoding, range(0, 8 * len(encoding), 37))} - {None}


@pytest.mark.long
@every_reader
def test_every_flipped_bit_raises_nothing_else(encoding: bytes, read: Reader, encode: Callable[[Any], bytes] | None) -> None:
    reasons = {attempt(read, encode, mutant) for mutant in flipped(encoding, range(8 * len(encoding)))}
    assert reasons - {None}
