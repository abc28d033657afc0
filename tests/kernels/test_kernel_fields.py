"""The kernels of pet-1 on every back-end: the vectors of the specification, and everything else held against the reference."""

import functools
import hashlib
import random

import numpy as np
import pytest
from vector_files import load_vectors

from pet import kernels
from pet.errors import AggregationError, ModelError, UnmaskError
from pet.kernels import _reference_fields as reference
from pet.kernels import fields

ORDERS = {"pet-1/z32": fields.Z32, "pet-1/z64": fields.Z64}
#: Draws below these are made again in half, and a quarter, of all cases.
RETRYING_ORDERS = (2**31 + 11, 3 * 2**30 + 1, 3 * 2**62 + 1)
DERIVATION = load_vectors("pet1/derivation.json")
FIXED_POINT = load_vectors("pet1/fixed_point.json")
KEY = bytes(range(64, 96))
#: Around the lanes of vectors and the batches of both widths.
LENGTHS = (0, 1, 15, 16, 17, 127, 128, 129, 255, 256, 257, 600)


def packed(values, order):
    """Return integers as packed elements, at an odd address."""
    width = fields.element_bytes(order)
    memory = np.zeros(len(values) * width + 1, dtype=np.uint8)
    elements = memory[1:].reshape(len(values), width)
    elements.reshape(-1)[:] = np.frombuffer(b"".join(int(v).to_bytes(width, "little") for v in values), dtype=np.uint8)
    return elements


def drawn(order, count, seed=0):
    """Return valid elements, the extreme ones among them."""
    source = random.Random(f"{order} {count} {seed}")
    edges = [0, order - 1, 1, order - 2, order // 2, 2**32 - 1, 2**32]
    values = [source.choice(edges) % order if source.random() < 0.3 else source.randrange(order) for _ in range(count)]
    return packed(values, order), values


@functools.cache
def expansion(key, first, count, order):
    """Return elements in Python integers, which every back-end is held against: drawn once."""
    return tuple(reference.expand(key, first, count, order))


def test_places():
    for entry in DERIVATION["places"]:
        assert [list(reference.place(entry["element"], width)) for width in (4, 8)] == [entry["z32"], entry["z64"]]


def test_expansions_of_the_vectors(backend):
    for case in DERIVATION["cases"]:
        order = int(case["order"])
        vector = packed([0] * case["count"], order)
        fields.expand_add(vector, case["first"], bytes.fromhex(case["key"]), order)
        assert vector.tobytes().hex() == case["elements"], case


#: Python integers take a second for each of the long expansions; what their places are, the vectors above say as well.
LONG_WITH_INTEGERS = [
    pytest.param(name, marks=[pytest.mark.long] if name == "reference" else []) for name in kernels.available_backends()
]


@pytest.mark.parametrize("backend", LONG_WITH_INTEGERS, indirect=True)
def test_long_expansions_of_the_vectors(backend):
    for case in DERIVATION["digests"]:
        vector = packed([0] * case["count"], ORDERS[case["derivation"]])
        fields.expand_add(vector, case["first"], bytes.fromhex(case["key"]), ORDERS[case["derivation"]])
        assert hashlib.blake2b(vector.tobytes(), digest_size=32).hexdigest() == case["blake2b_256"]


@pytest.mark.parametrize("order", [*fields.ORDERS, *RETRYING_ORDERS])
def test_any_slice_is_that_of_the_whole(backend, order):
    whole = expansion(KEY, 0, 900, order)
    source = random.Random(order)
    slices = [(128, 128), (256, 300), (0, 900)] + [(source.randrange(900), source.randrange(300)) for _ in range(20)]
    for first, count in slices[:2] if backend == "reference" else slices:
        vector, before = drawn(order, len(whole[first : first + count]), first)
        fields.expand_add(vector, first, KEY, order)
        expected = [(a + b) % order for a, b in zip(before, whole[first : first + count], strict=True)]
        assert reference.to_list(vector) == expected


def test_several_keys_and_a_factor(backend):
    keys = [bytes([number]) * 32 for number in range(5)]
    for order in fields.ORDERS:
        for factor in (order - 1,) if backend == "reference" else (1, 0, 2, order - 1, order // 3):
            vector, before = drawn(order, 300)
            fields.expand_add(vector, 70, b"".join(keys), order, factor)
            sums = [sum(column) for column in zip(*(expansion(key, 70, 300, order) for key in keys), strict=True)]
            assert reference.to_list(vector) == [(a + factor * b) % order for a, b in zip(before, sums, strict=True)]
        unchanged = packed(before, order)
        fields.expand_add(unchanged, 0, b"", order)
        assert reference.to_list(unchanged) == before


def test_fixed_point_of_the_vectors(backend):
    for case in FIXED_POINT["encode"]:
        order, scalar, bound = ORDERS[case["derivation"]], float.fromhex(case["scalar"]), float.fromhex(case["bound"])
        weights = np.array([float.fromhex(weight) for weight in case["weights"]])
        elements, clipped_count = fields.encode(weights, scalar, bound, case["levels"], order)
        assert [str(value) for value in reference.to_list(elements)] == case["elements"][:-1], case
        assert clipped_count == case["clipped"]
    for case in FIXED_POINT["decode"]:
        order, highest = ORDERS[case["derivation"]], case["updates"] * case["levels"]
        total = [int(value) for value in case["total"]]
        mean = fields.decode(
            packed(total[:-1], order), float.fromhex(case["bound"]), highest, total[-1], order, np.dtype(np.float64)
        )
        assert [value.hex() for value in mean.tolist()] == case["mean"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_encoding_and_decoding_are_those_of_the_reference(backend, dtype):
    source = np.random.default_rng(3)
    for order, levels, bound, scalar in (
        (fields.Z32, 4294967, 1.0, 1.0),
        (fields.Z32, 1, 0.1, 0.3),
        (fields.Z32, fields.Z32 - 1, 3.7, 0.7),
        (fields.Z64, 2**52, 1.0, 1.0),
        (fields.Z64, 2**47 + 12345, 2.0**100, 1e-3),
        (fields.Z64, 2**52 - 1, 2.0**-100, 1.0),
    ):
        for length in LENGTHS:
            weights = (source.uniform(-1.2, 1.2, length) * bound).astype(dtype)
            weights[: 4 : length // 2 or 1] = 0
            elements, clipped_count = fields.encode(weights, scalar, bound, levels, order)
            expected = packed([0] * length, order)
            assert clipped_count == reference.field_encode(expected, weights, scalar, bound, levels, order)
            assert (elements == expected).all()
            if weights.itemsize == elements.shape[1]:
                in_place = weights.copy().view(np.uint8).reshape(elements.shape)
                fields.encode(in_place.view(dtype)[:, 0], scalar, bound, levels, order, out=in_place)
                assert (in_place == expected).all()
            model, other = fields.decode(elements, bound, levels, levels, order, np.dtype(dtype)), np.empty(length, dtype)
            reference.field_decode(other, elements, bound, levels, levels, order)
            assert model.tobytes() == other.tobytes()


def test_decoding_near_the_ends_of_the_field(backend):
    for order in fields.ORDERS:
        for highest in (order - 1, order - 2, order // 2, 2**31, 7):
            _, values = drawn(order, 257, highest)
            elements = packed([value % (highest + 1) for value in values], order)
            for unit in (1, order - 1, 12345):
                for dtype in (np.float32, np.float64):
                    model, expected = fields.decode(elements, 0.3, highest, unit, order, np.dtype(dtype)), np.empty(257, dtype)
                    reference.field_decode(expected, elements, 0.3, highest, unit, order)
                    assert model.tobytes() == expected.tobytes()


def test_what_cannot_be_encoded_or_decoded(backend):
    weights = np.zeros(600, dtype=np.float32)
    for bad, index in ((np.nan, 599), (np.inf, 0), (-np.inf, 17)):
        weights[:] = 0
        weights[index] = bad
        with pytest.raises(ModelError, match=f"index {index}"):
            fields.encode(weights, 1.0, 1.0, 1000, fields.Z32)
    for order in fields.ORDERS:
        for index in (0, 31, 599):
            values = [100] * 600
            values[index] = 101
            with pytest.raises(UnmaskError, match=f"weight {index}") as caught:
                fields.decode(packed(values, order), 1.0, 100, 5, order, np.dtype(np.float64))
            assert caught.value.reason == "out_of_range"


@pytest.mark.parametrize("order", [*fields.ORDERS, *RETRYING_ORDERS])
def test_sums_and_differences(backend, order):
    for length in LENGTHS:
        (total, before), (vector, added) = drawn(order, length), drawn(order, length, 1)
        fields.add(total, vector, order)
        assert reference.to_list(total) == [(a + b) % order for a, b in zip(before, added, strict=True)]
        fields.subtract(total, vector, order)
        fields.subtract(total, vector, order)
        assert reference.to_list(total) == [(a - b) % order for a, b in zip(before, added, strict=True)]


@pytest.mark.parametrize("order", [*fields.ORDERS, *RETRYING_ORDERS])
def test_an_invalid_element_leaves_the_total_alone(backend, order):
    total, before = drawn(order, 600)
    for index, value in ((0, order), (300, 2 ** order.bit_length() - 1), (599, order)):
        _, values = drawn(order, 600, 2)
        values[index] = value
        invalid = packed(values, order)
        for change in (fields.add, fields.subtract):
            with pytest.raises(AggregationError) as caught:
                change(total, invalid, order)
            assert caught.value.reason == "invalid_object"
            assert reference.to_list(total) == before
        assert fields.find_above(invalid, order - 1, order) == index
        assert fields.find_above(total, order - 1, order) is None


def test_finding_what_is_above_a_bound(backend):
    for order in fields.ORDERS:
        for highest in (0, 5, 2**31, order - 1):
            values = [min(value, highest) for value in drawn(order, 600)[1]]
            assert fields.find_above(packed(values, order), highest, order) is None
            for index in (599, 300, 15, 0) if highest < order - 1 else ():
                values[index] = highest + 1
                assert fields.find_above(packed(values, order), highest, order) == index


def test_products(backend):
    for order in fields.ORDERS:
        for length in LENGTHS:
            (total, before), (vector, other) = drawn(order, length), drawn(order, length, 1)
            assert fields.dot(total, vector, order) == sum(a * b for a, b in zip(before, other, strict=True)) % order
            for factor in (0, 1, 3, order - 1, order // 3, 2**31):
                changed = packed(before, order)
                fields.multiply_add(changed, vector, factor, order)
                expected = [(a + factor * b) % order for a, b in zip(before, other, strict=True)]
                assert reference.to_list(changed) == expected
        largest = packed([order - 1] * 1000, order)
        assert fields.dot(largest, largest, order) == 1000


def test_bad_arguments():
    vector, weights = packed([1, 2], fields.Z32), np.zeros(2)
    f64 = np.dtype(np.float64)
    for call in (
        lambda: fields.element_bytes(2**31),
        lambda: fields.expand_add(vector, -1, KEY, fields.Z32),
        lambda: fields.expand_add(vector, 2**32 - 1, KEY, fields.Z32),
        lambda: fields.expand_add(vector, 0, KEY[:-1], fields.Z32),
        lambda: fields.expand_add(vector, 0, KEY, fields.Z32, fields.Z32),
        lambda: fields.expand_add(vector, 0, KEY, 2**31 + 11, 2),
        lambda: fields.encode(np.zeros(2, np.int32), 1.0, 1.0, 5, fields.Z32),
        lambda: fields.encode(weights, 1.5, 1.0, 5, fields.Z32),
        lambda: fields.encode(weights, 1.0, float("inf"), 5, fields.Z32),
        lambda: fields.encode(weights, 1.0, 1.0, 2**52 + 1, fields.Z64),
        lambda: fields.decode(vector, 1.0, fields.Z32, 1, fields.Z32, f64),
        lambda: fields.decode(vector, 1.0, 5, 0, fields.Z32, f64),
        lambda: fields.decode(vector, 1.0, 5, 1, fields.Z32, f64, out=np.zeros(3)),
        lambda: fields.multiply_add(vector, vector, 1, 2**31 + 11),
        lambda: fields.find_above(vector, fields.Z32, fields.Z32),
    ):
        with pytest.raises(ModelError):
            call()
    for call in (
        lambda: fields.add(vector, packed([1], fields.Z32), fields.Z32),
        lambda: fields.add(vector[:, :3], vector, fields.Z32),
        lambda: fields.dot(vector, vector[:, ::-1], fields.Z32),
    ):
        with pytest.raises(AggregationError) as caught:
            call()
        assert caught.value.reason == "model_mismatch"
