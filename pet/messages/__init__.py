"""Messages of the protocol and their bytes, as docs/messages.md lists them: no keys are kept here and no phase is known."""

from pet.messages.batch import Refused, open_messages
from pet.messages.chunk_collector import ChunkCollector, ChunkLimits, HeadCheck
from pet.messages.chunk_store import ChunkPile, ChunkStore, MemoryChunkStore
from pet.messages.chunks import MIN_MAX_MESSAGE_SIZE, Chunk, max_payload_bytes, split_payload
from pet.messages.codec import XAYNET_PAYLOADS, AnyVariantPayload, PayloadCodec
from pet.messages.dictionaries import (
    ENCRYPTED_SEED_BYTES,
    EncodedSeeds,
    LocalSeedDictionary,
    SeedDictionary,
    SumDictionary,
    decode_seed_dictionary,
    decode_sum_dictionary,
    encode_seed_dictionary,
    encode_sum_dictionary,
)
from pet.messages.header import HEADER_BYTES, Header, MessageTag, Tag
from pet.messages.incomplete_payload import CHUNK_OVERHEAD_BYTES
from pet.messages.message import (
    MIN_BODY_BYTES,
    AnyPayload,
    Message,
    decode_payload,
    encode_message,
    open_message,
    seal_message,
    split_message,
)
from pet.messages.parameters import ROUND_PARAMETERS_BYTES, RoundParameters
from pet.messages.payloads import Payload, Sum2Payload, SumPayload, UpdatePayload, update_payload_bytes

__all__ = [
    "CHUNK_OVERHEAD_BYTES",
    "ENCRYPTED_SEED_BYTES",
    "HEADER_BYTES",
    "MIN_BODY_BYTES",
    "MIN_MAX_MESSAGE_SIZE",
    "ROUND_PARAMETERS_BYTES",
    "XAYNET_PAYLOADS",
    "AnyPayload",
    "AnyVariantPayload",
    "Chunk",
    "ChunkCollector",
    "ChunkLimits",
    "ChunkPile",
    "ChunkStore",
    "EncodedSeeds",
    "HeadCheck",
    "Header",
    "LocalSeedDictionary",
    "MemoryChunkStore",
    "Message",
    "MessageTag",
    "Payload",
    "PayloadCodec",
    "Refused",
    "RoundParameters",
    "SeedDictionary",
    "Sum2Payload",
    "SumDictionary",
    "SumPayload",
    "Tag",
    "UpdatePayload",
    "decode_payload",
    "decode_seed_dictionary",
    "decode_sum_dictionary",
    "encode_message",
    "encode_seed_dictionary",
    "encode_sum_dictionary",
    "max_payload_bytes",
    "open_message",
    "open_messages",
    "seal_message",
    "split_message",
    "split_payload",
    "update_payload_bytes",
]
