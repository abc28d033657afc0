"""Sum, update and sum2 payloads (spec 4.2 to 4.6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from decoder_cases import KEYS, LOCAL_SEEDS, MASKED_MODEL, SIGNATURE, join
from hypothesis import given
from strategies import payloads

from pet.errors import CryptoError, RemoteProtocolError
from pet.mask_config import MaskConfig
from pet.mask_object import Mask, MaskedModel
from pet.messages import Payload, Sum2Payload, SumPayload, Tag, UpdatePayload

SUM = SumPayload(sum_signature=SIGNATURE, ephemeral_public_key=KEYS[0])
UPDATE = UpdatePayload(
    sum_signature=SIGNATURE, update_signature=b"\x14" * 64, masked_model=MASKED_MODEL, local_seed_dictionary=LOCAL_SEEDS
)
SUM2 = Sum2Payload(sum_signature=SIGNATURE, mask=Mask(MASKED_MODEL.config, MASKED_MODEL.vect, MASKED_MODEL.unit))

# spec 4.9, from the payload on; the constants are those of xaynet's own serialisation tests.
WORKED_UPDATE = bytes.fromhex(
    "11" * 64
    + "14" * 64
    + "00020003 00000004 010000000000 020000000000 030000000000 040000000000 00020003 010000000000"
    + "000000e4"
    + ("55" * 32 + "66" * 80)
    + ("77" * 32 + "88" * 80)
)


def refusal_reason(decode: Callable[[bytes], Any], data: bytes) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        decode(data)
    return caught.value.reason


@given(payloads)
def test_decoding_inverts_encoding(payload: Payload) -> None:
    encoded = join(payload)
    assert len(encoded) == payload.size_bytes
    assert type(payload).decode(encoded) == payload


def test_the_update_payload_is_the_worked_one() -> None:
    assert join(UPDATE) == WORKED_UPDATE
    decoded = UpdatePayload.decode(WORKED_UPDATE)
    assert decoded == UPDATE
    assert decoded.masked_model.config.vect == MaskConfig.parse("integer-i32-b0-m3")
    assert decoded.masked_model.vect[:, 0].tolist() == [1, 2, 3, 4]


def test_sizes_are_those_of_the_specification() -> None:
    config = MaskConfig.parse("prime-f32-b0-m3")
    vect, unit = np.zeros((5, config.element_bytes), dtype=np.uint8), 0
    update = replace(UPDATE, masked_model=MaskedModel(config, vect, unit))
    assert SUM.size_bytes + 136 == 232
    assert update.size_bytes + 136 == 540
    assert replace(SUM2, mask=Mask(config, vect, unit)).size_bytes + 136 == 248


def test_tags_belong_to_payloads() -> None:
    assert [kind.tag for kind in (SumPayload, UpdatePayload, Sum2Payload)] == [Tag.SUM, Tag.UPDATE, Tag.SUM2]


@pytest.mark.parametrize(
    ("decoded", "vect"),
    [
        (UpdatePayload.decode, lambda payload: payload.masked_model.vect),
        (Sum2Payload.decode, lambda payload: payload.mask.vect),
    ],
    ids=["update", "sum2"],
)
def test_vectors_are_views_of_the_message(decoded: Callable[[Any], Any], vect: Callable[[Any], Any]) -> None:
    buffer = bytearray(WORKED_UPDATE if decoded == UpdatePayload.decode else join(SUM2))
    payload = decoded(memoryview(buffer))
    start = buffer.index(bytes.fromhex("00000004")) + 4
    assert vect(payload)[0, 0] == 1
    buffer[start] = 9
    assert vect(payload)[0, 0] == 9


def test_large_vectors_are_not_copied_for_sending() -> None:
    vector_part = UPDATE.encode_parts()[3]
    assert np.shares_memory(np.frombuffer(vector_part, dtype=np.uint8), MASKED_MODEL.vect)


def test_each_fault_has_its_reason() -> None:
    assert refusal_reason(SumPayload.decode, join(SUM)[:-1]) == "malformed_sum"
    assert refusal_reason(SumPayload.decode, join(SUM) + b"\0") == "trailing_bytes"
    assert refusal_reason(UpdatePayload.decode, WORKED_UPDATE[:127]) == "malformed_update"
    assert refusal_reason(UpdatePayload.decode, WORKED_UPDATE[:130]) == "malformed_mask_object"
    assert refusal_reason(UpdatePayload.decode, b"\xff" * 200) == "malformed_mask_config"
    assert refusal_reason(UpdatePayload.decode, WORKED_UPDATE[:-1]) == "malformed_seed_dictionary"
    assert refusal_reason(UpdatePayload.decode, WORKED_UPDATE.replace(b"\x77" * 32, b"\x55" * 32)) == "duplicate_key"
    assert refusal_reason(UpdatePayload.decode, WORKED_UPDATE + b"\0") == "trailing_bytes"
    assert refusal_reason(Sum2Payload.decode, join(SUM2)[:63]) == "malformed_sum2"
    assert refusal_reason(Sum2Payload.decode, join(SUM2)[:-1]) == "malformed_mask_object"
    assert refusal_reason(Sum2Payload.decode, join(SUM2) + b"\0") == "trailing_bytes"


def test_an_element_count_beyond_the_message_is_refused_before_anything_is_allocated() -> None:
    data = bytearray(WORKED_UPDATE)
    data[132:136] = b"\xff" * 4
    assert refusal_reason(UpdatePayload.decode, data) == "malformed_mask_object"


def test_encrypted_seeds_of_another_profile_have_another_size() -> None:
    update = replace(UPDATE, local_seed_dictionary={KEYS[0]: bytes(100)}, encrypted_seed_bytes=100)
    assert len(join(update)) == update.size_bytes
    assert UpdatePayload.decode(join(update), 100) == update
    with pytest.raises(CryptoError, match="expected entries of 32 and 80 bytes, got 32 and 100"):
        replace(update, encrypted_seed_bytes=80).encode_parts()


def test_signatures_and_keys_of_a_wrong_size_are_refused() -> None:
    with pytest.raises(CryptoError, match="sum signature: expected 64 bytes, got 0"):
        replace(SUM, sum_signature=b"")
    with pytest.raises(CryptoError, match="ephemeral public key: expected 32 bytes, got 31"):
        replace(SUM, ephemeral_public_key=bytes(31))
    with pytest.raises(CryptoError, match="update signature: expected 64 bytes, got 65"):
        replace(UPDATE, update_signature=bytes(65))
    with pytest.raises(CryptoError, match="sum signature: expected 64 bytes, got 65"):
        replace(UPDATE, sum_signature=bytes(65))
    with pytest.raises(CryptoError, match="sum signature: expected 64 bytes, got 65"):
        replace(SUM2, sum_signature=bytes(65))


def test_repr_leaves_the_seeds_out() -> None:
    assert "local_seed_dictionary" not in repr(UPDATE)
    assert "length=4" in repr(UPDATE)
