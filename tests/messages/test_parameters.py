"""Round parameters (spec 1.4, 5.3)."""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from strategies import round_parameters

from pet.errors import ConfigError, CryptoError, RemoteProtocolError
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.messages import ROUND_PARAMETERS_BYTES, RoundParameters

WORKED = bytes.fromhex(
    "2000000000000000 5730800ab340fcb18ce5111eda9d705f91388b41e4544cbd103ba5942db2233e"
    "000000000000e03f cdccccccccccec3f"
    "2000000000000000 cdc32bad8c799dad787666d75958fc5f2e5f4ae12dfbab38bdec0562cc9f51e3"
    "01000000 00000000 00000000 00000000  01000000 00000000 00000000 00000000  0400000000000000"
)
PARAMETERS = RoundParameters(
    coordinator_public_key=bytes.fromhex("5730800ab340fcb18ce5111eda9d705f91388b41e4544cbd103ba5942db2233e"),
    sum_probability=0.5,
    update_probability=0.9,
    seed=bytes.fromhex("cdc32bad8c799dad787666d75958fc5f2e5f4ae12dfbab38bdec0562cc9f51e3"),
    mask_config=MaskConfigPair.of(MaskConfig.parse("prime-f32-b0-m3")),
    model_length=4,
)


def refusal_reason(data: bytes) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        RoundParameters.from_bytes(data)
    return caught.value.reason


def test_bincode_is_the_worked_one() -> None:
    assert PARAMETERS.to_bytes() == WORKED
    assert RoundParameters.from_bytes(WORKED) == PARAMETERS
    assert len(WORKED) == ROUND_PARAMETERS_BYTES == 136


@given(round_parameters)
def test_decoding_inverts_encoding(parameters: RoundParameters) -> None:
    assert RoundParameters.from_bytes(parameters.to_bytes()) == parameters


def test_digest_is_that_of_the_record() -> None:
    assert PARAMETERS.digest() == hashlib.sha256(WORKED).digest()
    assert PARAMETERS.digest() != replace(PARAMETERS, model_length=5).digest()


@pytest.mark.parametrize("offset", [0, 56])
def test_a_size_other_than_32_is_refused(offset: int) -> None:
    data = bytearray(WORKED)
    data[offset] = 33
    assert refusal_reason(data) == "malformed_parameters"


@pytest.mark.parametrize("offset", [40, 48])
def test_nan_probabilities_are_refused(offset: int) -> None:
    data = bytearray(WORKED)
    struct.pack_into("<d", data, offset, math.nan)
    assert refusal_reason(data) == "malformed_parameters"


def test_a_model_longer_than_a_message_can_carry_is_refused() -> None:
    assert RoundParameters.from_bytes(WORKED[:128] + (2**32 - 1).to_bytes(8, "little")).model_length == 2**32 - 1
    assert refusal_reason(WORKED[:128] + (2**32).to_bytes(8, "little")) == "malformed_parameters"


@pytest.mark.parametrize("offset", [96, 100, 104, 108, 112, 127])
def test_unknown_mask_configs_are_refused(offset: int) -> None:
    data = bytearray(WORKED)
    data[offset] = 5
    assert refusal_reason(data) == "malformed_mask_config"


def test_a_wrong_number_of_bytes_is_refused() -> None:
    assert refusal_reason(WORKED[:-1]) == "malformed_parameters"
    assert refusal_reason(WORKED + b"\0") == "trailing_bytes"


def test_parameters_that_cannot_be_published_are_not_made() -> None:
    with pytest.raises(CryptoError, match="coordinator_public_key: expected 32 bytes, got 31"):
        replace(PARAMETERS, coordinator_public_key=bytes(31))
    with pytest.raises(CryptoError, match="seed: expected 32 bytes, got 0"):
        replace(PARAMETERS, seed=b"")
    with pytest.raises(ConfigError, match=r"expected numbers, got 0\.5 and nan"):
        replace(PARAMETERS, update_probability=math.nan)
    with pytest.raises(ConfigError, match="model_length: expected 0 to 4294967295, got -1"):
        replace(PARAMETERS, model_length=-1)
