"""Numbers and texts that nobody means, in public calls: errors of pet, and never those of what is beneath."""

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest

import pet
from pet.coordinator.settings import load_settings
from pet.errors import ConfigError, ModelError, PetError, SettingsError
from pet.model_formats import encode_safetensors
from pet.participant import BackOff
from pet.transports.nats import NatsSettings, parse_size

CONFIG = pet.MaskConfig.parse("prime-f32-b0-m3")
SEED = pet.MaskSeed(bytes(32))
NUMBERS = [
    None,
    True,
    -1,
    10**400,
    math.nan,
    math.inf,
    "",
    "x",
    "1" * 5000,
    "\udcff",
    np.array([1, 2]),
    Fraction(10**400),
    1j,
    [[1]],
]


@pytest.mark.parametrize("length", [*NUMBERS, 2**63, 2**32, 0.5, np.float32(2)], ids=range(len(NUMBERS) + 4))
def test_lengths(length):
    for call in (
        lambda: pet.Aggregation(CONFIG, length),
        lambda: SEED.derive_mask(CONFIG, length),
        lambda: pet.sum_masks([SEED], CONFIG, length),
    ):
        with pytest.raises(ModelError, match="length: expected a whole number of 0 or more and at most 4294967295, got"):
            call()


@pytest.mark.parametrize("value", NUMBERS, ids=range(len(NUMBERS)))
def test_numbers_of_records(value):
    for record, fields in (
        (BackOff, {"initial_seconds", "factor", "max_seconds", "jitter"}),
        (NatsSettings, {"request_timeout_seconds", "stream_max_bytes", "replicas", "chunk_bytes", "mode", "storage"}),
    ):
        assert fields <= {field.name for field in dataclasses.fields(record)}
        for name in fields - ({"jitter"} if value is True else set()):
            with pytest.raises(ConfigError, match="expected"):
                record(**{name: value})


def test_numbers_of_numpy_are_numbers():
    assert NatsSettings(replicas=np.int64(3), request_timeout_seconds=np.float32(2)).replicas == 3
    assert BackOff(initial_seconds=np.float32(1), max_seconds=np.int64(2)).max_seconds == 2


@pytest.mark.parametrize("text", ["9" * 5000, "1e400", "K", "", "\udcff", "٣"])
def test_sizes(text):
    with pytest.raises(ConfigError, match="size: expected"):
        parse_size(text)


@pytest.mark.parametrize("value", ["9" * 5000, "0", "x", "1.5", "-1"])
def test_threads_of_the_environment(monkeypatch, value):
    monkeypatch.setenv("PET_THREADS", value)
    with pytest.raises(ConfigError, match="PET_THREADS: expected a whole number of 1 or more"):
        pet.sum_masks([SEED], CONFIG, 2)


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([1j]), np.array([object()]), np.zeros(2, np.float16)])
def test_models_of_other_types_are_no_files(array):
    with pytest.raises(ModelError, match="model: expected floats or integers of 4 or 8 bytes"):
        encode_safetensors(array)


SETTINGS = {
    "deep": "x = " + "[" * 100_000,
    "many digits": "x = " + "9" * 5000,
    "many keys": ".".join("a" * 5_000) + " = 1",
    "no number": "[pet.sum]\nprob = nan",
    "infinite": "[pet.sum.time]\nmin = inf\nmax = inf",
    "huge": f"[model]\nlength = {'9' * 400}",
    "huge seconds": f"[service]\nstall_seconds = {'9' * 400}",
    "a date": "[pet.sum]\nprob = 2020-01-01",
    "a nul": "\x00",
    "a port": f'[api]\nbind_address = "127.0.0.1:{"9" * 5000}"',
}


@pytest.mark.parametrize("text", SETTINGS.values(), ids=SETTINGS)
def test_settings_files(tmp_path, text):
    path = tmp_path / "settings.toml"
    path.write_text(text + "\n")
    with pytest.raises(SettingsError, match="expected"):
        load_settings(path, {})


@pytest.mark.parametrize("value", ["", "nan", "1e400", "9" * 5000, "\udcff", "[" * 100_000, "-1", "127.0.0.1:" + "9" * 5000])
@pytest.mark.parametrize(
    "name", ["PET__SUM__PROB", "MODEL__LENGTH", "API__BIND_ADDRESS", "NATS__HOSTS", "REDIS__URL", "S3__REGION"]
)
def test_settings_of_the_environment(name, value):
    try:
        load_settings(None, {"PET__MODEL__LENGTH": "4", f"PET__{name}": value})
    except PetError as error:
        str(error).encode()  # can be printed


FIELD = pet.MaskConfig.parse("pet-1/z32,f32,bound=1,models=10")


@pytest.mark.parametrize("value", [None, "text", 5, [1], object(), np.ones((4, 4))[:, :2]], ids=range(6))
def test_what_is_no_buffer(value):
    for call in (
        pet.MaskedModel.from_bytes,
        pet.Mask.from_bytes,
        pet.Mask.decode_prefix,
        pet.MaskedVectors.from_bytes,
        lambda data: pet.Mask.from_vector(FIELD, data),
    ):
        with pytest.raises(ModelError, match="bytes: expected a contiguous buffer, got "):
            call(value)


@pytest.mark.parametrize("config", [CONFIG, FIELD], ids=str)
@pytest.mark.parametrize("dtype", ["nonsense", 5, [1], object, "int8", "V4"], ids=range(6))
def test_what_is_no_dtype_of_a_model(config, dtype):
    seed, masked = pet.mask_model(np.ones(2, np.float32), config)
    total = pet.Aggregation(config, 2)
    total.add(masked)
    with pytest.raises(ModelError, match="dtype: expected "):
        total.unmask(seed.derive_mask(config, 2)).to_array(dtype)
