"""Every decoder of pet.messages with valid encodings to start from: shared by the tests that feed decoders badly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pet.mask_codec import decode_mask_config, decode_variant_indices, encode_mask_config, encode_variant_indices
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.mask_object import Mask, MaskedModel
from pet.messages import (
    Chunk,
    Header,
    RoundParameters,
    Sum2Payload,
    SumPayload,
    Tag,
    UpdatePayload,
    decode_seed_dictionary,
    decode_sum_dictionary,
    encode_seed_dictionary,
    encode_sum_dictionary,
)
from pet.messages.dictionaries import decode_local_seed_dictionary, encode_local_seed_dictionary

I32 = MaskConfig.parse("integer-i32-b0-m3")
WIDE = MaskConfig.parse("prime-f64-bmax-m3")
SIGNATURE = b"\x11" * 64
KEYS = [bytes([value]) * 32 for value in (0x55, 0x77, 0x99)]


def pack(config: MaskConfig, *elements: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Pack elements as they lie in a message."""
    joined = b"".join(element.to_bytes(config.element_bytes, "little") for element in elements)
    return np.frombuffer(joined, dtype=np.uint8).reshape(len(elements), config.element_bytes)


MASKED_MODEL = MaskedModel(I32, pack(I32, 1, 2, 3, 4), 1)
MASKED_MODELS = [
    MASKED_MODEL,
    MaskedModel(I32, pack(I32), 0),
    MaskedModel(MaskConfigPair(vect=WIDE, unit=I32), pack(WIDE, 5), 1),
]
LOCAL_SEEDS = {KEYS[0]: b"\x66" * 80, KEYS[1]: b"\x88" * 80}
PARAMETERS = RoundParameters(
    coordinator_public_key=KEYS[0],
    sum_probability=0.5,
    update_probability=0.9,
    seed=KEYS[1],
    mask_config=MaskConfigPair(vect=I32, unit=WIDE),
    model_length=4,
)


def join(value: Any) -> bytes:
    """Serialise what has `encode_parts`."""
    return b"".join(value.encode_parts())


@dataclass(frozen=True)
class DecoderCase:
    """A decoder, and encodings that it must accept.

    Attributes:
        encode: what turns a decoded value back into the very same bytes; None where some bits are ignored on read.
        is_open_ended: every longer input is valid as well, since the data reaches to the end.
    """

    name: str
    decode: Callable[[Any], Any]
    encodings: list[bytes]
    encode: Callable[[Any], bytes] | None = None
    is_open_ended: bool = False


def _header_with_payload(tag: Tag, payload_bytes: int) -> bytes:
    header = Header(
        participant_public_key=KEYS[0], coordinator_public_key=KEYS[1], length=136 + payload_bytes, tag=tag, is_multipart=True
    )
    return header.encode() + bytes(payload_bytes)


def _decode_local_seeds(data: bytes) -> dict[bytes, bytes]:
    """Read a local seed dictionary that fills its buffer, as the end of an update payload does."""
    dictionary, used = decode_local_seed_dictionary(data)
    assert used <= len(data)
    return dictionary


CASES = [
    DecoderCase("header", Header.decode, [_header_with_payload(tag, size) for tag in Tag for size in (0, 96)]),
    DecoderCase("sum", SumPayload.decode, [join(SumPayload(sum_signature=SIGNATURE, ephemeral_public_key=KEYS[0]))], join),
    DecoderCase(
        "update",
        UpdatePayload.decode,
        [
            join(
                UpdatePayload(
                    sum_signature=SIGNATURE, update_signature=SIGNATURE, masked_model=model, local_seed_dictionary=seeds
                )
            )
            for model, seeds in zip(MASKED_MODELS, (LOCAL_SEEDS, {}, LOCAL_SEEDS), strict=True)
        ],
        join,
    ),
    DecoderCase(
        "sum2",
        Sum2Payload.decode,
        [
            join(Sum2Payload(sum_signature=SIGNATURE, mask=Mask(model.config, model.vect, model.unit)))
            for model in MASKED_MODELS
        ],
        join,
    ),
    DecoderCase(
        "chunk",
        Chunk.decode,
        [join(Chunk(chunk_id=1, message_id=2, is_last=is_last, data=b"data")) for is_last in (False, True)],
        is_open_ended=True,
    ),
    DecoderCase("local_seeds", _decode_local_seeds, [encode_local_seed_dictionary(LOCAL_SEEDS)], is_open_ended=True),
    DecoderCase(
        "sums",
        decode_sum_dictionary,
        [encode_sum_dictionary({}), encode_sum_dictionary(dict.fromkeys(KEYS, KEYS[0]))],
        encode_sum_dictionary,
    ),
    DecoderCase(
        "seeds",
        decode_seed_dictionary,
        [encode_seed_dictionary({}), encode_seed_dictionary(LOCAL_SEEDS)],
        encode_seed_dictionary,
    ),
    DecoderCase("parameters", RoundParameters.from_bytes, [PARAMETERS.to_bytes()], RoundParameters.to_bytes),
    DecoderCase("masked_model", MaskedModel.from_bytes, [model.to_bytes() for model in MASKED_MODELS], MaskedModel.to_bytes),
    DecoderCase("mask_config", decode_mask_config, [encode_mask_config(I32), encode_mask_config(WIDE)], encode_mask_config),
    DecoderCase(
        "variant_indices",
        decode_variant_indices,
        [encode_variant_indices(I32), encode_variant_indices(WIDE)],
        encode_variant_indices,
    ),
]
