"""Whole messages: signed, sealed, opened (spec 4.1, 9.1)."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from decoder_cases import KEYS, LOCAL_SEEDS, MASKED_MODEL, SIGNATURE, join
from hypothesis import given
from hypothesis import strategies as st
from strategies import messages

from pet.crypto import EncryptionKeyPair, SigningKeyPair, open_sealed, seal, sign_in_place, verify_signed
from pet.errors import CryptoError, LocalProtocolError, RemoteProtocolError
from pet.mask_config import MaskConfig
from pet.mask_object import Mask, MaskedModel
from pet.messages import (
    MIN_BODY_BYTES,
    XAYNET_PAYLOADS,
    Chunk,
    ChunkCollector,
    ChunkLimits,
    Header,
    Message,
    PayloadCodec,
    Sum2Payload,
    SumPayload,
    Tag,
    UpdatePayload,
    decode_payload,
    encode_message,
    open_message,
    seal_message,
    split_message,
)

PARTICIPANT = SigningKeyPair.from_seed(bytes(range(0x20)))
COORDINATOR = EncryptionKeyPair.from_seed(bytes(range(0x20, 0x40)))
EPHEMERAL = EncryptionKeyPair.from_seed(bytes(range(0x60, 0x80)))

# spec 14.4
WORKED_SUM_MESSAGE = bytes.fromhex(
    "cbc0fcb80b0679cbe1bb0bacf4ce8ae874beec93ed7f8c455e930bf27b02aacb"
    "6e1d47b0ec62c47ddb56e99914399c2d957080e95fe020fccd59817ab4939404"
    "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
    "5730800ab340fcb18ce5111eda9d705f91388b41e4544cbd103ba5942db2233e"
    "000000e8 01 00 0000"
    "63044434e265141e75aa37eec8dd347624f46f162b8725c57949acc032a46794"
    "46fc35086dae6bbeb827e86821e4ac20a03e40982fb7a6512b02052228a2640f"
    "e240f142b821efa128c8a1b1ee98c5c2d0d6186429edeedd3cccde89f7bf754a"
)


def message_of(payload: SumPayload | UpdatePayload | Sum2Payload) -> Message:
    return Message(
        participant_public_key=PARTICIPANT.public_key,
        coordinator_public_key=COORDINATOR.public_key,
        payload=payload,
        tag=payload.tag,
    )


SUM = message_of(SumPayload(sum_signature=WORKED_SUM_MESSAGE[136:200], ephemeral_public_key=EPHEMERAL.public_key))
UPDATE = message_of(
    UpdatePayload(
        sum_signature=SIGNATURE, update_signature=b"\x14" * 64, masked_model=MASKED_MODEL, local_seed_dictionary=LOCAL_SEEDS
    )
)


def sign_again(message: bytes | bytearray) -> bytes:
    """Give a message that was tampered with a valid signature."""
    signed = bytearray(message)
    sign_in_place(signed, PARTICIPANT)
    return bytes(signed)


def refusal_reason(message: bytes | bytearray, accepted_tag: Tag | None = Tag.SUM) -> str:
    body = seal(bytes(message), COORDINATOR.public_key)
    with pytest.raises(RemoteProtocolError) as caught:
        open_message(body, COORDINATOR, accepted_tag)
    return caught.value.reason


def test_the_sum_message_is_the_worked_one() -> None:
    assert encode_message(SUM, PARTICIPANT) == WORKED_SUM_MESSAGE
    body = seal_message(SUM, PARTICIPANT)
    assert len(body) == 280
    assert open_sealed(body, COORDINATOR) == WORKED_SUM_MESSAGE
    assert open_message(body, COORDINATOR, Tag.SUM) == SUM


def test_the_update_message_has_the_worked_layout() -> None:
    encoded = encode_message(UPDATE, PARTICIPANT)
    assert encoded[64:136] == PARTICIPANT.public_key + COORDINATOR.public_key + bytes.fromhex("00000216 02 00 0000")
    assert len(encoded) == 534
    assert encoded[136:] == join(UPDATE.payload)


@given(st.data())
def test_opening_inverts_sealing(data: st.DataObject) -> None:
    message = data.draw(messages(PARTICIPANT, COORDINATOR))
    assert verify_signed(encode_message(message, PARTICIPANT), PARTICIPANT.public_key)
    assert open_message(seal_message(message, PARTICIPANT), COORDINATOR, message.tag) == message


def test_a_bytearray_is_opened_in_place_and_bytes_are_left_alone() -> None:
    body = seal_message(UPDATE, PARTICIPANT)
    kept = bytes(body)
    assert open_message(kept, COORDINATOR, Tag.UPDATE) == UPDATE
    assert kept == body
    opened = open_message(body, COORDINATOR, Tag.UPDATE)
    assert isinstance(opened.payload, UpdatePayload)
    assert np.shares_memory(opened.payload.masked_model.vect, np.frombuffer(body, dtype=np.uint8))
    assert not opened.payload.masked_model.vect.flags.writeable


def test_sending_copies_a_vector_once_and_receiving_never() -> None:
    config = MaskConfig.parse("prime-f32-b0-m3")
    vect = np.zeros((500_000, config.element_bytes), dtype=np.uint8)
    message = message_of(Sum2Payload(sum_signature=SIGNATURE, mask=Mask(config, vect, 0)))
    sign_in_place(bytearray(2**21), PARTICIPANT)  # loads what signs large messages
    tracemalloc.start()
    body = seal_message(message, PARTICIPANT)
    _, sending = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    open_message(body, COORDINATOR, Tag.SUM2)
    _, receiving = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sending < vect.nbytes + 50_000
    assert receiving < vect.nbytes + 50_000


def test_what_does_not_decrypt_is_refused_as_such() -> None:
    other_round = seal(WORKED_SUM_MESSAGE, EPHEMERAL.public_key)
    for body in (b"", bytes(47), bytes(MIN_BODY_BYTES), other_round, seal_message(SUM, PARTICIPANT)[:-1]):
        with pytest.raises(RemoteProtocolError) as caught:
            open_message(body, COORDINATOR, Tag.SUM)
        assert caught.value.reason == "decryption"


def test_each_check_has_its_reason() -> None:
    assert refusal_reason(b"") == "message_too_short"
    assert refusal_reason(WORKED_SUM_MESSAGE[:135]) == "message_too_short"
    assert refusal_reason(WORKED_SUM_MESSAGE[:-1]) == "length_mismatch"
    assert refusal_reason(WORKED_SUM_MESSAGE + b"\0") == "length_mismatch"
    assert refusal_reason(WORKED_SUM_MESSAGE[:132] + b"\x04" + WORKED_SUM_MESSAGE[133:]) == "unknown_tag"
    assert refusal_reason(WORKED_SUM_MESSAGE, Tag.SUM2) == "unexpected_message"
    assert refusal_reason(WORKED_SUM_MESSAGE, None) == "unexpected_message"
    assert refusal_reason(b"\0" + WORKED_SUM_MESSAGE[1:]) == "invalid_signature"
    other_key = EncryptionKeyPair.from_seed(bytes(32)).public_key
    assert (
        refusal_reason(encode_message(replace(SUM, coordinator_public_key=other_key), PARTICIPANT)) == "wrong_coordinator_key"
    )
    wrong_payload = bytearray(encode_message(UPDATE, PARTICIPANT))
    wrong_payload[132] = Tag.SUM
    assert refusal_reason(sign_again(wrong_payload)) == "trailing_bytes"


def test_checks_come_in_the_order_of_the_specification() -> None:
    """Each message here has all faults that the one after it has, and one more."""
    good = bytearray(WORKED_SUM_MESSAGE)
    short = good[:-1]
    short[131] -= 1
    assert refusal_reason(sign_again(short)) == "malformed_sum"
    short[96] ^= 1
    assert refusal_reason(sign_again(short)) == "wrong_coordinator_key"
    assert refusal_reason(short) == "invalid_signature"
    assert refusal_reason(short, Tag.UPDATE) == "unexpected_message"
    short[132] = 9
    assert refusal_reason(short, Tag.UPDATE) == "unknown_tag"
    short[131] -= 1
    assert refusal_reason(short, Tag.UPDATE) == "length_mismatch"
    assert refusal_reason(short[:100], Tag.UPDATE) == "message_too_short"


def test_length_field_below_64_does_not_stop_a_coordinator() -> None:
    """Spec 13: xaynet aborts on such a message, which anybody can send."""
    for length in (0, 10, 63):
        message = WORKED_SUM_MESSAGE[:128] + length.to_bytes(4, "big") + WORKED_SUM_MESSAGE[132:]
        assert refusal_reason(message) == "length_mismatch"


def test_a_coordinator_with_a_low_order_key_gets_no_message() -> None:
    """Spec 13: sealing for such a key must be noticed, not sent without encryption."""
    message = replace(SUM, coordinator_public_key=bytes(32))
    with pytest.raises(CryptoError, match="is of low order"):
        seal_message(message, PARTICIPANT)


def test_any_signed_payload_gives_a_message_or_a_remote_protocol_error() -> None:
    source = random.Random(3)
    reasons = set()
    for _ in range(2000):
        tag = source.choice(list(Tag))
        payload = (
            bytearray(join(UPDATE.payload)) if source.random() < 0.5 else bytearray(source.randbytes(source.randrange(300)))
        )
        if payload:
            payload[source.randrange(len(payload))] ^= 1 << source.randrange(8)
        header = Header(
            participant_public_key=PARTICIPANT.public_key,
            coordinator_public_key=COORDINATOR.public_key,
            length=136 + len(payload),
            tag=tag,
            is_multipart=source.random() < 0.2,
        )
        body = seal(sign_again(header.encode() + payload), COORDINATOR.public_key)
        try:
            assert open_message(body, COORDINATOR, tag).tag is tag
        except RemoteProtocolError as error:
            reasons.add(error.reason)
    assert reasons >= {"malformed_sum", "malformed_mask_config", "trailing_bytes"}
    assert not reasons & {"decryption", "length_mismatch", "invalid_signature"}


def test_a_message_within_the_bound_is_sent_whole() -> None:
    assert list(split_message(UPDATE, None, 7)) == [UPDATE]
    assert list(split_message(UPDATE, 534 + 48, 7)) == [UPDATE]


def test_a_larger_message_is_sent_in_chunks_of_the_bound() -> None:
    whole = replace(UPDATE, payload=replace(UPDATE.payload, local_seed_dictionary={KEYS[0]: bytes(80)}))
    limits = ChunkLimits(max_bytes_per_participant=10**6, max_bytes=10**6, max_messages=1, patience_seconds=60)
    collector = ChunkCollector(limits)
    sizes, payload = [], None
    for part in split_message(whole, 300, 7):
        body = seal_message(part, PARTICIPANT)
        sizes.append(len(body))
        opened = open_message(body, COORDINATOR, Tag.UPDATE)
        assert opened.is_multipart
        assert isinstance(opened.payload, Chunk)
        payload = collector.add(opened.participant_public_key, opened.tag, opened.payload)
    assert sizes == [300, 300, 194 - 2 + 70]
    assert payload is not None
    assert decode_payload(Tag.UPDATE, is_multipart=False, data=payload) == whole.payload


def test_split_messages_are_one_byte_too_large_at_least() -> None:
    parts = list(split_message(UPDATE, 534 + 48 - 1, 7))
    assert [len(seal_message(part, PARTICIPANT)) for part in parts] == [581, 48 + 136 + 8 + 9]


def test_messages_that_cannot_be_are_not_made() -> None:
    with pytest.raises(LocalProtocolError, match="expected the payload's tag SUM, got SUM2"):
        replace(SUM, tag=Tag.SUM2)
    with pytest.raises(CryptoError, match="public key of the participant: expected 32 bytes, got 31"):
        replace(SUM, participant_public_key=bytes(31))
    with pytest.raises(CryptoError, match="public key of the coordinator: expected 32 bytes, got 33"):
        replace(SUM, coordinator_public_key=bytes(33))
    with pytest.raises(CryptoError, match="the signing key is not that of its sender"):
        encode_message(SUM, SigningKeyPair.from_seed(bytes(32)))


def test_a_message_beyond_its_length_field_is_refused_before_it_is_built() -> None:
    config = MaskConfig.parse("prime-f64-bmax-m3")
    # 264 bytes of memory, seen as more elements than 4 GiB hold.
    vect = np.zeros((1, config.element_bytes), dtype=np.uint8)
    huge = MaskedModel(config, vect, 0)
    huge.vect = np.broadcast_to(vect, (2**32 // config.element_bytes + 1, config.element_bytes))
    message = replace(UPDATE, payload=replace(UPDATE.payload, masked_model=huge))
    with pytest.raises(LocalProtocolError, match="expected at most 4294967295 bytes, got 42"):
        encode_message(message, PARTICIPANT)


def test_a_codec_decides_what_payloads_look_like() -> None:
    long_seeds = PayloadCodec(
        tags=Tag,
        decoders={**XAYNET_PAYLOADS.decoders, Tag.UPDATE: lambda data: UpdatePayload.decode(data, 100)},
        published_tags=frozenset({Tag.UPDATE}),
    )
    payload = replace(UPDATE.payload, local_seed_dictionary={KEYS[0]: bytes(100)}, encrypted_seed_bytes=100)
    message = replace(UPDATE, payload=payload)
    opened = open_message(seal_message(message, PARTICIPANT), COORDINATOR, Tag.UPDATE, codec=long_seeds)
    assert opened == message
    assert opened.signed_bytes == encode_message(message, PARTICIPANT)
