"""One promise for every decoder: any bytes give a value or RemoteProtocolError, nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from decoder_cases import CASES, DecoderCase

from pet.errors import RemoteProtocolError

#: The fuzzing targets, guided by coverage, do ten times as many.
MUTATIONS = 10_000

every_decoder = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@every_decoder
def test_valid_encodings_are_accepted_in_every_kind_of_buffer(case: DecoderCase) -> None:
    for encoding in case.encodings:
        for kind in (bytes, bytearray, memoryview):
            value = case.decode(kind(encoding))
            assert case.encode is None or case.encode(value) == encoding


@every_decoder
def test_every_prefix_is_refused(case: DecoderCase) -> None:
    # The data of a chunk reaches to the end, so that a shorter chunk is a chunk.
    for encoding in case.encodings:
        for end in range(8 if case.name == "chunk" else len(encoding)):
            with pytest.raises(RemoteProtocolError):
                case.decode(encoding[:end])


@every_decoder
def test_trailing_bytes_are_refused(case: DecoderCase) -> None:
    for encoding in case.encodings:
        for surplus in (b"\0", b"\xff" * 7, encoding):
            if case.is_open_ended:
                case.decode(encoding + surplus)
            else:
                with pytest.raises(RemoteProtocolError):
                    case.decode(encoding + surplus)


@every_decoder
def test_mutations_give_a_value_or_a_remote_protocol_error(case: DecoderCase) -> None:
    reasons = set()
    for mutant in _mutate(case.encodings, MUTATIONS):
        try:
            value = case.decode(mutant)
        except RemoteProtocolError as error:
            reasons.add(error.reason)
        else:
            # What is accepted has one encoding only: the decoder overlooks nothing.
            assert case.encode is None or case.encode(value) == mutant
    assert reasons


def _mutate(encodings: list[bytes], count: int) -> Iterator[bytes]:
    """Yield damaged encodings: bytes changed, set to an extreme, cut off, added, repeated or taken out."""
    source = random.Random(20_240_607)
    draw, draw_bits = source.random, source.getrandbits
    for _ in range(count):
        mutant = bytearray(encodings[int(draw() * len(encodings))])
        for _ in range(1 + int(draw() * 3)):
            place = int(draw() * (len(mutant) + 1))
            kind = draw_bits(3)
            if kind == 0:
                del mutant[place:]
            elif kind == 1:
                mutant[place:place] = draw_bits(32).to_bytes(4, "little")
            elif kind == 2:
                mutant += mutant[place : place + 112]
            elif kind == 3:
                del mutant[place : place + 1 + draw_bits(4)]
            elif place < len(mutant):
                mutant[place] = draw_bits(8) if kind < 6 else (0, 255)[kind - 6]
        yield bytes(mutant)
