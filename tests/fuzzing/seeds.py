"""Write valid inputs of every target into tests/fuzzing/corpus, where fuzzing begins from them.

python tests/fuzzing/seeds.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pet1_targets import pet1_seeds

import pet
from pet.crypto import EncryptionKeyPair, SigningKeyPair
from pet.messages import (
    Chunk,
    Header,
    RoundParameters,
    Sum2Payload,
    SumPayload,
    Tag,
    UpdatePayload,
    encode_seed_dictionary,
    encode_sum_dictionary,
)
from pet.model_formats import encode_npy, encode_safetensors
from pet.protocol import ParticipantMachine

CORPUS = Path(__file__).parent / "corpus"
CONFIG = pet.MaskConfig.parse("prime-f32-b0-m3")
WEIGHTS = np.array([0.5, -0.25, 0.75, 0.125], dtype=np.float32)


def seeds() -> Iterator[tuple[str, bytes]]:
    """Yield target and input."""
    key = SigningKeyPair.from_seed(bytes(32)).public_key
    ephemeral = EncryptionKeyPair.from_seed(bytes(32)).public_key
    header = Header(
        participant_public_key=key,
        coordinator_public_key=ephemeral,
        length=140,
        tag=Tag.UPDATE,
        is_multipart=True,
        reserved=bytes(2),
    )
    yield "header", bytes(header.encode()) + bytes(4)
    _, masked_model = pet.mask_model(WEIGHTS, CONFIG, seed=pet.MaskSeed(bytes(32)))
    mask = pet.MaskSeed(bytes(32)).derive_mask(CONFIG, 4)
    payloads = [
        SumPayload(sum_signature=bytes(64), ephemeral_public_key=ephemeral),
        UpdatePayload(
            sum_signature=bytes(64),
            update_signature=bytes(64),
            masked_model=masked_model,
            local_seed_dictionary={key: bytes(80)},
        ),
        Sum2Payload(sum_signature=bytes(64), mask=mask),
    ]
    for number, payload in enumerate(payloads):
        encoded = b"".join(payload.encode_parts())
        yield "payload", bytes([number]) + encoded
        yield "message_path", bytes([0x40 | number << 1]) + encoded
        yield "message_path", bytes([0x61 | number << 1]) + encoded[64:]
    chunk = Chunk(chunk_id=0, message_id=7, is_last=True, data=b"piece")
    yield "payload", b"\x80" + b"".join(chunk.encode_parts())
    yield "message_path", b"\x70"
    yield "message_path", b"\x00" + bytes(248)
    yield (
        "parameters",
        RoundParameters(
            coordinator_public_key=ephemeral,
            sum_probability=0.5,
            update_probability=0.9,
            seed=bytes(32),
            mask_config=pet.MaskConfigPair.of(CONFIG),
            model_length=4,
        ).to_bytes(),
    )
    yield "dictionaries", encode_sum_dictionary({key: ephemeral})
    yield "dictionaries", encode_seed_dictionary({key: bytes(80)})
    yield "mask_object", masked_model.to_bytes()
    total = pet.Aggregation(CONFIG, 4)
    total.add(masked_model)
    yield "aggregation", total.to_bytes()
    yield "models", encode_npy(WEIGHTS)
    yield "models", encode_safetensors(WEIGHTS)
    yield "models", b"".join(total.unmask(mask).iter_bincode())
    machine = ParticipantMachine(signing_key=SigningKeyPair.from_seed(bytes(32)), entropy=bytes)
    yield "saved_participant", machine.save()
    yield "nats_chunk", b"PETC\x01\x00\x00\x00" + bytes(16) + bytes([0, 0, 0, 0, 0, 0, 0, 1]) + bytes(7) + b"\x04data"
    yield "nats_published", b"\1" + bytes(32) + b"\4\0\0\0data"
    yield "nats_published", b"\2" + bytes(32) + b'{"subject": "a", "size_bytes": 1, "chunk_bytes": 1, "sha256": ""}'
    for text in (
        "# at least\nCOUNT(fraud) >= 500 AND (MEAN(age) < 60 OR STDDEV(age) > 1e-3)",
        'PCT_OF_TRUE("sex$female", cancer) >= 40',
        "m30",
        "PET1-HMAC-SHA256 keyid=c1,ts=1700000000,nonce=AAAAAAAAAAAAAAAAAAAAAA,sig=" + "A" * 43,
        json.dumps({"fed_name": "one", "sync_sched": "m1"}),
    ):
        yield "federation_texts", text.encode()
    yield "nats_stream", b"\x07PING\r\nMSG a 1 b 3\r\nabc\r\nMSG a.b 2 65537\r\n\xfe1\r\nPONG\r\n"
    yield "nats_stream", b"\x50HMSG a 1 r 12 65548\r\nNATS/1.0\r\n\r\n\xfe\r\nMSG a 1 65536\r\n\xfe\r\nMSG a 1 1\r\nx\r\n"
    yield from pet1_seeds()


def main() -> None:
    for number, (target, data) in enumerate(seeds()):
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"seed-{number:02}").write_bytes(data)


if __name__ == "__main__":
    main()
