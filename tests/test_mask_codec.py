"""The bytes of mask configs and mask objects: strict decoding."""

import random

import numpy as np
import pytest

import pet
from pet import mask_codec

CONFIG = pet.MaskConfig.parse("prime-f64-b2-m9")
OBJECT = pet.MaskSeed(bytes(32)).derive_mask(pet.MaskConfigPair(vect=pet.MaskConfig.parse("prime-f32-b0-m3"), unit=CONFIG), 3)


def test_variant_indices():
    assert mask_codec.encode_variant_indices(CONFIG).hex() == "01000000010000000100000002000000"
    assert mask_codec.decode_variant_indices(mask_codec.encode_variant_indices(CONFIG)) == CONFIG


@pytest.mark.parametrize("data", [b"", b"\1\0\0", b"\3\0\0\3", b"\0\4\0\3", b"\0\0\1\3", b"\0\0\0\0", b"\1\0\0\3\0"])
def test_wrong_config_bytes_are_refused(data):
    with pytest.raises(pet.RemoteProtocolError) as caught:
        mask_codec.decode_mask_config(data)
    assert caught.value.reason == "malformed_mask_config"


@pytest.mark.parametrize("data", [b"", bytes(15), b"\3" + bytes(15), bytes(12) + b"\4\0\0\0"])
def test_wrong_variant_indices_are_refused(data):
    with pytest.raises(pet.RemoteProtocolError) as caught:
        mask_codec.decode_variant_indices(data)
    assert caught.value.reason == "malformed_mask_config"


def test_objects_are_read_in_place():
    data = bytearray(OBJECT.to_bytes())
    decoded, used = pet.Mask.decode_prefix(memoryview(data))
    assert used == len(data)
    data[8] ^= 255
    assert decoded.vect[0, 0] == OBJECT.vect[0, 0] ^ 255


def test_every_truncation_and_left_over_bytes_are_refused():
    data = OBJECT.to_bytes()
    for end in range(len(data)):
        with pytest.raises(pet.RemoteProtocolError):
            pet.Mask.from_bytes(data[:end])
    with pytest.raises(pet.RemoteProtocolError) as caught:
        pet.Mask.from_bytes(data + b"\0")
    assert caught.value.reason == "trailing_bytes"


def test_a_count_that_does_not_fit_allocates_nothing():
    with pytest.raises(pet.RemoteProtocolError, match="expected at least"):
        pet.Mask.from_bytes(bytes.fromhex("01000003ffffffff") + bytes(100))


def test_mutations_never_raise_anything_else():
    generator = random.Random(4)
    original = OBJECT.to_bytes()
    for _ in range(20_000):
        data = bytearray(original)
        for _ in range(generator.randint(1, 3)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        try:
            decoded = pet.Mask.from_bytes(bytes(data[: generator.choice([len(data)] * 3 + [generator.randrange(len(data))])]))
        except pet.RemoteProtocolError:
            continue
        assert isinstance(decoded.vect, np.ndarray)
