"""SHA-256 of parts and CRC-32 against Python's, where they are computed natively and where they are not."""

import hashlib
import random
import zlib

import pytest

from pet.kernels import _native, digests
from pet.kernels.digests import crc32, digest_parts

RANDOM = random.Random(31)
#: The heads of parts, and parts that begin at an odd address.
HEADS = [RANDOM.randbytes(64) for _ in range(40)]
DATA = memoryview(RANDOM.randbytes(1 + 40 * 320))[1:]


@pytest.fixture(params=["native", "without the module", "without the instructions"])
def _computed(request, monkeypatch):
    """Compute natively, or as where pet was built without its module, or on a processor that lacks what it takes."""
    if request.param == "without the module":
        monkeypatch.setattr(digests, "_native", lambda: None)
    elif request.param == "without the instructions":

        class Lib:
            PET_OK = _native.lib.PET_OK
            pet_digest_parts = pet_crc32 = staticmethod(lambda *_: _native.lib.PET_BAD_VARIANT)

        monkeypatch.setattr(digests, "_native", lambda: (_native.ffi, Lib))


@pytest.mark.parametrize("part_bytes", [64, 320])
@pytest.mark.parametrize("count", [0, 1, 4, 5, 15, 16, 17, 40])
@pytest.mark.usefixtures("_computed")
def test_digests(count, part_bytes):
    parts = [bytes(DATA[start : start + part_bytes]) for start in range(0, count * part_bytes, part_bytes)]
    expected = [hashlib.sha256(head + part).digest() for head, part in zip(HEADS, parts, strict=False)]
    assert digest_parts(HEADS[:count], DATA[: count * part_bytes], part_bytes) == expected
    for rest in (1, part_bytes - 1) if 0 < count < len(HEADS) else ():
        last = hashlib.sha256(HEADS[count] + DATA[count * part_bytes :][:rest]).digest()
        assert digest_parts(HEADS[: count + 1], DATA[: count * part_bytes + rest], part_bytes) == [*expected, last]


def test_the_length_in_the_padding_takes_several_bytes():
    data = bytes(2**16) * 5
    assert digest_parts(HEADS[:5], data, 2**16) == [hashlib.sha256(head + bytes(2**16)).digest() for head in HEADS[:5]]


@pytest.mark.usefixtures("_computed")
def test_checksums():
    for size in (*range(150), *range(250, 600, 7), 1000, 4096, 12_345):
        assert crc32(DATA[:size]) == zlib.crc32(DATA[:size])


def test_arguments_out_of_range_are_refused():
    lib, ffi = _native.lib, _native.ffi
    out = ffi.new("uint8_t[32]")
    assert lib.pet_digest_parts(out, bytes(64), bytes(64), 1, 0) in {lib.PET_BAD_ARGUMENT, lib.PET_BAD_VARIANT}
    assert lib.pet_digest_parts(out, bytes(64), bytes(100), 1, 100) in {lib.PET_BAD_ARGUMENT, lib.PET_BAD_VARIANT}
    assert bytes(out) == bytes(32)
    for size in (0, 48, 65):
        crc = ffi.new("uint32_t *", 7)
        assert lib.pet_crc32(crc, bytes(80), size) in {lib.PET_BAD_ARGUMENT, lib.PET_BAD_VARIANT}
        assert crc[0] == 7
