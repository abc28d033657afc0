"""What is fuzzed: each decoder that reads bytes of strangers, and the whole way of a message into a coordinator.

A target takes bytes and returns; it fails with any exception that a caller of the decoder need not expect, or if what it
decoded does not encode to the same bytes again. Nothing here needs atheris: fuzz.py does.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping

import numpy as np
from pet1_targets import PET1_DECODERS

from pet import Aggregation, MaskConfig, MaskedModel
from pet.coordinator.engine import CoordinatorEngine
from pet.crypto import SUM_TASK, EncryptionKeyPair, SigningKeyPair, is_eligible, seal, sign_task
from pet.errors import MalformedFrameError, PetError, RemoteProtocolError, StateError
from pet.federation.formats.encoding import parse_json_object
from pet.federation.formats.schedule import Schedule
from pet.federation.formats.secure import parse_authorization
from pet.federation.statistics.contract import Contract
from pet.messages import (
    XAYNET_PAYLOADS,
    Header,
    RoundParameters,
    Tag,
    decode_payload,
    decode_seed_dictionary,
    decode_sum_dictionary,
    encode_seed_dictionary,
    encode_sum_dictionary,
)
from pet.model_formats import decode_bincode, decode_npy, decode_safetensors
from pet.pet1.header_batch import HeaderBatch
from pet.protocol.entries import decode_entry
from pet.protocol.participant_state import SavedParticipant
from pet.protocol.round_settings import RoundSettings
from pet.protocol.windows import PhaseWindow
from pet.transports.nats.frames import decode_chunk
from pet.transports.nats.pet1_frames import decode_published, encode_published
from pet.transports.nats.splitter import LARGE_BYTES, FrameSplitter, LargeMessage

CONFIG = MaskConfig.parse("prime-f32-b0-m3")
Target = Callable[[bytes], None]


def fuzz_header(data: bytes) -> None:
    """Headers: the signature is not part of the record, and the byte of flags has bits without a meaning."""
    with contextlib.suppress(RemoteProtocolError):
        encoded = bytes(Header.decode(data).encode())
        assert (encoded[64:133], encoded[134:136]) == (data[64:133], data[134:136])


def fuzz_payload(data: bytes) -> None:
    """All payloads, and chunks: the first byte says which."""
    if not data:
        return
    tag = list(Tag)[data[0] % 3]
    with contextlib.suppress(RemoteProtocolError):
        is_chunk = bool(data[0] & 0x80)
        payload = decode_payload(tag, is_chunk, data[1:], XAYNET_PAYLOADS)
        encoded, first = b"".join(payload.encode_parts()), 8 if is_chunk else 0  # a chunk's header has bits without a meaning
        assert encoded[first:] == data[1 + first :]


def fuzz_parameters(data: bytes) -> None:
    """Round parameters."""
    with contextlib.suppress(RemoteProtocolError):
        assert RoundParameters.from_bytes(data).to_bytes() == data


def fuzz_dictionaries(data: bytes) -> None:
    """Sum and seed dictionaries."""
    with contextlib.suppress(RemoteProtocolError):
        assert encode_sum_dictionary(decode_sum_dictionary(data)) == data
    with contextlib.suppress(RemoteProtocolError):
        assert encode_seed_dictionary(decode_seed_dictionary(data)) == data


def fuzz_mask_object(data: bytes) -> None:
    """Masks and masked models, and their addition to a total."""
    try:
        masked_model = MaskedModel.from_bytes(data)
    except RemoteProtocolError:
        return
    assert masked_model.to_bytes() == data
    total = Aggregation(masked_model.config, len(masked_model))
    with contextlib.suppress(PetError):
        total.add(masked_model)
        assert total.to_masked_model().to_bytes() == data


def fuzz_aggregation(data: bytes) -> None:
    """Saved totals."""
    with contextlib.suppress(PetError):
        Aggregation.from_bytes(data)


def fuzz_models(data: bytes) -> None:
    """Global models in each format; the native decoder of fractions is behind the last."""
    for decode in (decode_npy, decode_safetensors):
        with contextlib.suppress(RemoteProtocolError):
            assert decode(data).ndim == 1
    for dtype in (np.float32, np.int64):
        with contextlib.suppress(RemoteProtocolError):
            assert decode_bincode(data, np.dtype(dtype)).dtype == dtype


def fuzz_saved_participant(data: bytes) -> None:
    """Saved participants."""
    with contextlib.suppress(StateError):
        SavedParticipant.decode(data)


def fuzz_journal_entry(data: bytes) -> None:
    """Entries of a coordinator's journal."""
    with contextlib.suppress(PetError):
        decode_entry(data)


def fuzz_nats_chunk(data: bytes) -> None:
    """Chunks of an upload over NATS."""
    with contextlib.suppress(PetError):
        decode_chunk(data)


def fuzz_nats_published(data: bytes) -> None:
    """What a coordinator of pet/1 published over NATS, and share headers in it."""
    with contextlib.suppress(PetError):
        published = decode_published(data, "event")
        if published is not None and isinstance(published.content, bytes):
            assert encode_published(published.digest, published.content) == data
            HeaderBatch.decode(published.content, 0)


def fuzz_nats_stream(data: bytes) -> None:
    """What a broker sends: it is the same in whatever pieces it comes.

    The first byte says in how many pieces, at most 32; two bytes 0xFE stand for what makes a message large.
    """
    if data:
        stream = data[1:].replace(b"\xfe", bytes(LARGE_BYTES), 2)
        assert _split(stream, LARGE_BYTES) == _split(stream, 1 + len(stream) // (1 + data[0] % 32))


def _split(stream: bytes, most: int) -> list[bytes | LargeMessage] | None:
    """Return what is found in pieces of some size, with what goes on to the library in one; None if it cannot be a stream."""
    splitter, rest, found = FrameSplitter(), memoryview(stream), list[bytes | LargeMessage]()
    while rest:
        room = splitter.room()
        assert len(room) > 0
        count = min(len(room), len(rest), most)
        room[:count], rest = rest[:count], rest[count:]
        try:
            items = splitter.take(count)
        except MalformedFrameError:
            return None
        for item in items:
            if isinstance(item, bytes) and found and isinstance(found[-1], bytes):
                found[-1] += item
            elif isinstance(item, bytes):
                found.append(item)
            else:
                assert len(item.payload) + len(item.header or b"") >= LARGE_BYTES
                found.append(item._replace(payload=memoryview(bytes(item.payload))))
                splitter.recycle(item.payload)
    return found


def fuzz_federation_texts(data: bytes) -> None:
    """Contracts, schedules, signatures of requests and their bodies."""
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(PetError):
        Contract.parse(text.splitlines())
    with contextlib.suppress(PetError):
        Schedule.parse(text)
    parse_authorization(text)
    with contextlib.suppress(PetError):
        parse_json_object(data)


class MessagePath:
    """Coordinators in their first phase, which get one message after the other.

    The first byte of an input chooses what is behind it: a body as it came, or a payload that a participant of the round signed
    and sealed properly, with any tag, whole or as a chunk. Each message must be counted exactly once.
    """

    RENEW_AFTER = 20_000

    def __init__(self) -> None:
        self._age = self.RENEW_AFTER

    def __call__(self, data: bytes) -> None:
        """Give one message to the coordinator."""
        if not data:
            return
        if self._age >= self.RENEW_AFTER:
            self._renew()
        self._age += 1
        body = bytearray(data[1:]) if data[0] < 0x40 else bytearray(seal(self._sign(data), self._coordinator_key))
        before = self._count()
        self._engine.handle_message(body)
        is_chunk = data[0] >= 0x40 and bool(data[0] & 1)
        counted = self._count() - before
        assert counted == 1 or (is_chunk and counted == 0), f"counted {counted} times"
        assert "internal_error" not in self._engine.status()["rejected"]

    def _renew(self) -> None:
        window = PhaseWindow(min_count=1, max_count=1000, min_seconds=10**6, max_seconds=10**7)
        update = PhaseWindow(min_count=3, max_count=1000, min_seconds=10**6, max_seconds=10**7)
        settings = RoundSettings.of(
            CONFIG, 4, sum_probability=0.5, update_probability=1.0, sum=window, update=update, sum2=window
        )
        entropy = np.random.default_rng(1)
        self._engine = CoordinatorEngine(settings, clock=lambda: 0.0, entropy=entropy.bytes)
        self._engine.tick()
        self._age = 0
        encoded = self._engine.parameters()
        assert encoded is not None
        parameters = RoundParameters.from_bytes(encoded)
        self._coordinator_key = parameters.coordinator_public_key
        keys = (SigningKeyPair.from_seed(number.to_bytes(32, "big")) for number in range(1000))
        self._key = next(key for key in keys if is_eligible(sign_task(key, parameters.seed, SUM_TASK), 0.5))
        self._task_signature = sign_task(self._key, parameters.seed, SUM_TASK)
        self._ephemeral_key = EncryptionKeyPair.from_seed(bytes(range(32))).public_key

    def _sign(self, data: bytes) -> bytes:
        payload = data[1:]
        if data[0] & 0x20:  # with the right signature of the task, which no fuzzer finds by itself
            payload = self._task_signature + payload
        if data[0] & 0x10:
            payload += self._ephemeral_key
        header = Header(
            participant_public_key=self._key.public_key,
            coordinator_public_key=self._coordinator_key,
            length=136 + len(payload),
            tag=list(Tag)[(data[0] >> 1) % 3],
            is_multipart=bool(data[0] & 1),
            reserved=bytes(2),
        )
        signed = bytes(header.encode())[64:] + payload
        return self._key.sign(signed) + signed

    def _count(self) -> int:
        status = self._engine.status()
        return int(status["accepted"] + status["discarded"] + sum(status["rejected"].values()))


DECODERS: Mapping[str, Target] = {
    "header": fuzz_header,
    "payload": fuzz_payload,
    "parameters": fuzz_parameters,
    "dictionaries": fuzz_dictionaries,
    "mask_object": fuzz_mask_object,
    "aggregation": fuzz_aggregation,
    "models": fuzz_models,
    "saved_participant": fuzz_saved_participant,
    "journal_entry": fuzz_journal_entry,
    "nats_chunk": fuzz_nats_chunk,
    "nats_published": fuzz_nats_published,
    "nats_stream": fuzz_nats_stream,
    "federation_texts": fuzz_federation_texts,
    **PET1_DECODERS,
}


def all_decoders(data: bytes) -> None:
    """Every decoder in one target: the first byte says which."""
    if data:
        list(DECODERS.values())[data[0] % len(DECODERS)](data[1:])


#: Objects that keep something between inputs are made where they are used.
def without_warnings(target: Target) -> Target:
    """Return a target that also fails when something warns: a decoder refuses or accepts, the same under every filter."""

    def checked(data: bytes) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            target(data)
        assert not caught, caught[0].message

    return checked


TARGETS: Mapping[str, Callable[[], Target]] = {
    **{name: lambda target=target: without_warnings(target) for name, target in DECODERS.items()},
    "all_decoders": lambda: without_warnings(all_decoders),
    "message_path": lambda: without_warnings(MessagePath()),
}
