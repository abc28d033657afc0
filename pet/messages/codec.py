"""What the payloads of a variant of the protocol look like: its tags, what reads the payload of each, what is kept as it came.

Variants share the header and the sealing (pet/messages/message.py), and differ here and in pet/protocol/profile.py. A codec
must never know a key or a round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol

from pet.buffers import Buffer
from pet.messages.header import MessageTag, Tag
from pet.messages.payloads import Sum2Payload, SumPayload, UpdatePayload


class AnyVariantPayload(Protocol):
    """What a message says, in any variant of the protocol."""

    @property
    def tag(self) -> MessageTag:
        """What kind of message it belongs to."""

    @property
    def size_bytes(self) -> int:
        """Size of the serialised payload."""

    def encode_parts(self) -> list[Buffer]:
        """Return the serialised payload as buffers to be sent one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadCodec:
    """The payloads of a variant of the protocol.

    Attributes:
        tags: the numbers of its kinds of messages.
        decoders: for each tag the function that reads its payload; it raises RemoteProtocolError.
        published_tags: tags of messages that are published, or forwarded, as they were signed: their bytes are kept.
    """

    tags: type[MessageTag]
    # The payload of each is of another class; who decodes for a tag knows which.
    decoders: Mapping[Any, Callable[[Buffer], Any]]
    published_tags: frozenset[MessageTag] = field(default=frozenset())


#: PET as xaynet v0.11.0 and later speak it (docs/spec/pet.md 4.2 to 4.4).
XAYNET_PAYLOADS: Final = PayloadCodec(
    tags=Tag,
    decoders=MappingProxyType({Tag.SUM: SumPayload.decode, Tag.UPDATE: UpdatePayload.decode, Tag.SUM2: Sum2Payload.decode}),
    published_tags=frozenset({Tag.SUM}),
)
