"""Which variant of the protocol is spoken: what payloads look like and how long an encrypted seed is.

There is one today, PET as xaynet speaks it. The object exists so that a second one, with other payloads under the same header,
needs no second copy of the layers above; it must never know a key or a round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pet.buffers import Buffer
from pet.messages.dictionaries import ENCRYPTED_SEED_BYTES
from pet.messages.header import Tag
from pet.messages.payloads import Payload, Sum2Payload, SumPayload, UpdatePayload


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A variant of the protocol.

    Attributes:
        name: for people and for saved states.
        payload_decoders: for each tag of the variant the function that reads its payload; it raises RemoteProtocolError.
        encrypted_seed_bytes: size of the opaque entries of seed dictionaries.
    """

    name: str
    payload_decoders: Mapping[Tag, Callable[[Buffer], Payload]]
    encrypted_seed_bytes: int


#: PET as xaynet v0.11.0 and later speak it (docs/spec/pet.md).
PET_PROFILE: Final = Profile(
    name="pet",
    payload_decoders=MappingProxyType(
        {Tag.SUM: SumPayload.decode, Tag.UPDATE: UpdatePayload.decode, Tag.SUM2: Sum2Payload.decode}
    ),
    encrypted_seed_bytes=ENCRYPTED_SEED_BYTES,
)
