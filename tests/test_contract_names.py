"""The names that users rely on: they exist, under these names, with these parameters in this order."""

import inspect

import numpy as np
import pytest

import pet
from pet.commands import entries

CONFIG = pet.MaskConfig(pet.GroupType.PRIME, pet.DataType.F32, pet.BoundType.B0, pet.ModelType.M3)
PAIR = pet.MaskConfigPair(vect=CONFIG, unit=CONFIG)

#: The leading parameters, without self; more may follow if they have defaults.
SIGNATURES = {
    "MaskConfig.parse": ["text"],
    "MaskConfigPair": ["vect", "unit"],
    "MaskSeed": ["seed"],
    "MaskSeed.generate": [],
    "MaskSeed.derive_mask": ["config", "length"],
    "mask_model": ["weights", "config", "scalar", "seed"],
    "sum_masks": ["seeds", "config", "length", "threads"],
    "Aggregation": ["config", "length"],
    "Aggregation.add": ["masked_model"],
    "Aggregation.merge": ["other"],
    "Aggregation.to_masked_model": [],
    "Aggregation.unmask": ["mask"],
    "GlobalModel.to_array": ["dtype"],
    "GlobalModel.to_fractions": [],
    "MaskedModel.to_bytes": [],
    "MaskedModel.from_bytes": ["data"],
    "Mask.to_bytes": [],
    "Mask.from_bytes": ["data"],
    "flatten": ["arrays"],
    "Layout.unflatten": ["vector"],
    "pack": ["arrays"],
    "Packing.unpack": ["weights", "counts"],
    "clip_norm": ["vector", "bound"],
    "kernels.active_backend": [],
}
COMMANDS = [
    *(
        "coordinator",
        "demo",
        "test-drive",
        "member",
        "model get",
        "key new",
        "key show",
        "bench",
        "config check",
        "config advise",
    ),
    *("enrol new", "enrol add", "enrol sign", "enrol show"),
]
FEDERATION_COMMANDS = [
    "serve",
    "create",
    "invite",
    "join",
    "learn",
    "forget",
    "start",
    "stop",
    "sync",
    "status",
    "page",
    "log",
    "accept-contract",
    "members",
    "confirm",
    "credentials",
    "leave",
    "remove",
    "delete",
    "user",
    "demo",
]


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name):
    target = pet
    for part in name.split("."):
        target = getattr(target, part)
    parameters = [parameter for parameter in inspect.signature(target).parameters.values() if parameter.name != "self"]
    expected = SIGNATURES[name]
    assert [parameter.name for parameter in parameters[: len(expected)]] == expected
    assert all(parameter.default is not parameter.empty for parameter in parameters[len(expected) :])


def test_defaults():
    parameters = inspect.signature(pet.mask_model).parameters
    assert (parameters["scalar"].default, parameters["seed"].default, parameters["on_clip"].default) == (1, None, "count")
    assert inspect.signature(pet.sum_masks).parameters["threads"].default is None
    assert inspect.signature(pet.GlobalModel.to_array).parameters["dtype"].default is None


def test_what_a_mask_config_tells():
    assert pet.MaskConfig.parse("prime-f32-b0-m3") == CONFIG
    for name in (
        "order",
        "add_shift",
        "exp_shift",
        "max_model_count",
        "element_bytes",
        "draw_bytes",
        "keystream_bytes_per_draw",
    ):
        assert isinstance(getattr(CONFIG, name), int)
    assert CONFIG.mean_keystream_bytes == pytest.approx(112.59, abs=0.01)


@pytest.mark.parametrize("config", [CONFIG, PAIR], ids=["config", "pair"])
def test_a_round_as_the_contract_writes_it(config):
    weights = np.array([0.25, -0.5], dtype=np.float32)
    seed, masked_model = pet.mask_model(weights, config, scalar=1, seed=None)
    blob = masked_model.to_bytes()
    total, other = pet.Aggregation(config, 2), pet.Aggregation(config, 2)
    total.add(pet.MaskedModel.from_bytes(blob))
    total.merge(other)
    assert total.count == 1
    assert total.to_masked_model() == masked_model
    model = total.unmask(seed.derive_mask(config, 2))
    assert isinstance(model, pet.GlobalModel)
    assert model.scalar_sum == 1
    assert masked_model.clipped_count == 0
    assert np.allclose(model.to_array(), [float(value) for value in model.to_fractions()])
    total.add(masked_model)  # unmasking did not use the total up
    assert total.count == 2


def test_flatten_and_back():
    flat, layout = pet.flatten({"dense/kernel": np.ones((2, 3), np.float32), "dense/bias": np.zeros(3, np.float32)})
    assert flat.shape == (9,)
    assert layout.unflatten(flat)["dense/kernel"].shape == (2, 3)


def test_commands():
    named = [
        f"{name} {inner}".strip()
        for name, entry in entries.COMMANDS.items()
        for inner in ([""] if isinstance(entry, entries.CommandEntry) else entry.commands)
    ]
    assert sorted(named) == sorted([*COMMANDS, *(f"federation {name}" for name in FEDERATION_COMMANDS)])
