"""Hypothesis strategies for the values of pet, shared by all tests. Sizes stay small: a property needs cases, not volume."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from hypothesis import strategies as st

from pet.crypto import EncryptionKeyPair, SigningKeyPair
from pet.mask_config import BoundType, DataType, GroupType, MaskConfig, MaskConfigPair, ModelType
from pet.mask_object import Mask, MaskedModel, MaskObject, MaskSeed
from pet.messages import Chunk, Header, Message, RoundParameters, Sum2Payload, SumPayload, Tag, UpdatePayload

AnyMaskObject = TypeVar("AnyMaskObject", bound=MaskObject)

public_keys = st.binary(min_size=32, max_size=32)
round_seeds = st.binary(min_size=32, max_size=32)
signatures = st.binary(min_size=64, max_size=64)
encrypted_seeds = st.binary(min_size=80, max_size=80)
probabilities = st.floats(allow_nan=False)
sum_dictionaries = st.dictionaries(public_keys, public_keys, max_size=4)
seed_dictionaries = st.dictionaries(public_keys, encrypted_seeds, max_size=4)

signing_key_pairs = st.binary(min_size=32, max_size=32).map(SigningKeyPair.from_seed)
encryption_key_pairs = st.binary(min_size=32, max_size=32).map(EncryptionKeyPair.from_seed)
mask_seeds = st.binary(min_size=32, max_size=32).map(MaskSeed)

mask_configs = st.builds(MaskConfig, *(st.sampled_from(choice) for choice in (GroupType, DataType, BoundType, ModelType)))
mask_config_pairs = st.builds(MaskConfigPair, vect=mask_configs, unit=mask_configs)


@st.composite
def mask_objects(
    draw: st.DrawFn, kind: type[AnyMaskObject], config: MaskConfigPair | None = None, length: int | None = None
) -> AnyMaskObject:
    """Draw a valid mask or masked model, of any config and up to 5 elements where nothing else is asked."""
    pair = draw(mask_config_pairs) if config is None else config
    count = draw(st.integers(0, 5)) if length is None else length
    elements = draw(st.lists(st.integers(0, pair.vect.order - 1), min_size=count, max_size=count))
    packed = b"".join(element.to_bytes(pair.vect.element_bytes, "little") for element in elements)
    vect = np.frombuffer(packed, dtype=np.uint8).reshape(count, pair.vect.element_bytes)
    return kind(pair, vect, draw(st.integers(0, pair.unit.order - 1)))


sum_payloads = st.builds(SumPayload, sum_signature=signatures, ephemeral_public_key=public_keys)
update_payloads = st.builds(
    UpdatePayload,
    sum_signature=signatures,
    update_signature=signatures,
    masked_model=mask_objects(MaskedModel),
    local_seed_dictionary=seed_dictionaries,
    encrypted_seed_bytes=st.just(80),
)
sum2_payloads = st.builds(Sum2Payload, sum_signature=signatures, mask=mask_objects(Mask))
payloads = st.one_of(sum_payloads, update_payloads, sum2_payloads)
chunks = st.builds(
    Chunk,
    chunk_id=st.integers(0, 2**16 - 1),
    message_id=st.integers(0, 2**16 - 1),
    is_last=st.booleans(),
    data=st.binary(max_size=50),
)
headers = st.builds(
    Header,
    participant_public_key=public_keys,
    coordinator_public_key=public_keys,
    length=st.integers(136, 300),
    tag=st.sampled_from(Tag),
    is_multipart=st.booleans(),
    reserved=st.binary(min_size=2, max_size=2),
)
round_parameters = st.builds(
    RoundParameters,
    coordinator_public_key=public_keys,
    sum_probability=probabilities,
    update_probability=probabilities,
    seed=round_seeds,
    mask_config=mask_config_pairs,
    model_length=st.integers(0, 2**32 - 1),
)


@st.composite
def messages(draw: st.DrawFn, participant: SigningKeyPair, coordinator: EncryptionKeyPair) -> Message:
    """Draw a message from one participant to one coordinator: a whole one or a chunk."""
    payload = draw(st.one_of(payloads, chunks))
    tag = draw(st.sampled_from(Tag)) if isinstance(payload, Chunk) else payload.tag
    return Message(
        participant_public_key=participant.public_key,
        coordinator_public_key=coordinator.public_key,
        payload=payload,
        tag=tag,
    )
