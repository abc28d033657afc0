"""Every mask, masked model, sum and unmasked fraction of the originals, bit for bit, on every back-end.

Origin of the vectors: tests/vectors/README.md.
"""

from fractions import Fraction

import numpy as np
import pytest
from in_turn import in_turn
from vector_files import load_vectors

import pet
from pet import kernels

VECTORS = load_vectors("masking_all_configs.json")
LENGTH = 6


def read_weights(texts: list[str], dtype: np.dtype) -> np.ndarray:
    """Integers are decimal, floats the hexadecimal digits of their bits, the highest first."""
    if dtype.kind == "i":
        return np.array([int(text) for text in texts], dtype=dtype)
    return np.array([int(text, 16) for text in texts], dtype=f"u{dtype.itemsize}").view(dtype)


def is_quick(entry: dict) -> bool:
    """Return whether a vector is done with Python integers too, which take most of the time: one in four."""
    return entry["config"][3] == "M3" and entry["config"][1:3] != ["F64", "Bmax"]


def name_of(entry: dict) -> str:
    return "-".join(entry["config"]).lower()


@pytest.mark.parametrize("backend", [name for name in kernels.available_backends() if name != "reference"], indirect=True)
@in_turn("entry", VECTORS, ids=name_of)
def test_vectors(entry, backend):
    assert_vector_holds(entry)


@pytest.mark.parametrize("group", ["Prime", *(pytest.param(name, marks=pytest.mark.long) for name in ("Integer", "Power2"))])
@pytest.mark.parametrize("backend", ["reference"], indirect=True)
def test_vectors_of_integers(group, backend):
    entries = [entry for entry in VECTORS if entry["config"][0] == group and is_quick(entry)]
    assert entries
    for entry in entries:
        assert_vector_holds(entry)


@pytest.mark.very_long
@pytest.mark.parametrize("group", sorted({entry["config"][0] for entry in VECTORS}))
@pytest.mark.parametrize("backend", ["reference"], indirect=True)
def test_other_vectors_of_integers(group, backend):
    for entry in VECTORS:
        if entry["config"][0] == group and not is_quick(entry):
            assert_vector_holds(entry)


def assert_vector_holds(entry: dict) -> None:
    config = pet.MaskConfig.parse("-".join(entry["config"]))
    total = pet.Aggregation(config, LENGTH)
    seeds = []
    for part in entry["parts"]:
        seed = pet.MaskSeed(bytes.fromhex(part["seed"]))
        seeds.append(seed)
        mask = seed.derive_mask(config, LENGTH)
        weights = read_weights(part["weights"], config.data_type.dtype)
        _, masked_model = pet.mask_model(weights, config, Fraction(*map(int, part["scalar"])), seed)
        assert mask.to_bytes().hex() == part["mask"]
        assert masked_model.to_bytes().hex() == part["masked"]
        total.add(pet.MaskedModel.from_bytes(bytes.fromhex(part["masked"])))
    aggregated_mask = pet.sum_masks(seeds, config, LENGTH)
    assert total.to_masked_model().to_bytes().hex() == entry["aggregated_masked"]
    assert aggregated_mask.to_bytes().hex() == entry["aggregated_mask"]
    model = total.unmask(aggregated_mask)
    fractions = [Fraction(int(numerator), int(denominator)) for numerator, denominator in entry["unmasked"]]
    assert model.to_fractions() == fractions
    assert_bincode_holds(b"".join(model.iter_bincode(float_fractions=False)), fractions)
    assert_array_is_near(model.to_array(), fractions)


def assert_bincode_holds(body: bytes, fractions: list[Fraction]) -> None:
    """The published bytes are the fractions in lowest terms, written here by the specification's text (5.6)."""

    def integer(value: int) -> bytes:
        limbs = -(-abs(value).bit_length() // 32)
        sign = b"\x00" if value == 0 else b"\x01" if value > 0 else b"\xff"
        return sign + limbs.to_bytes(8, "little") + abs(value).to_bytes(4 * limbs, "little")

    expected = b"".join(integer(fraction.numerator) + integer(fraction.denominator) for fraction in fractions)
    assert body == len(fractions).to_bytes(8, "little") + expected


def assert_array_is_near(array: np.ndarray, fractions: list[Fraction]) -> None:
    """Floats within a unit or two in the last place; integers truncated; beyond the type, its nearest finite value."""
    for value, fraction in zip(array.tolist(), fractions, strict=True):
        if array.dtype.kind == "i":
            limits = np.iinfo(array.dtype)
            assert value == max(int(limits.min), min(int(limits.max), int(fraction)))
        else:
            limit = Fraction(float(np.finfo(array.dtype).max))
            exact = max(-limit, min(limit, fraction))
            rounded = array.dtype.type(float(exact))
            spacing = abs(Fraction(float(rounded)) - Fraction(float(np.nextafter(rounded, array.dtype.type(0)))))
            assert abs(Fraction(value) - exact) <= (2 if array.dtype.itemsize == 8 else 1) * spacing
