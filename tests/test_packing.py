"""Models of several dtypes: pack and unpack."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from ml_dtypes import bfloat16

import pet
from pet.errors import ModelError

FLOATS = [np.dtype(np.float16), np.dtype(bfloat16), np.dtype(np.float32), np.dtype(np.float64)]
INTEGERS = [np.dtype(name) for name in ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")]
SHAPES = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


def elements(dtype):
    if dtype.name == "bfloat16":
        # NumPy's strategies do not know it: half of the bits of a float32.
        return st.floats(width=32, allow_nan=False, allow_infinity=False).map(bfloat16)
    if dtype.kind == "u":
        return st.integers(0, min(int(np.iinfo(dtype).max), 2**63 - 1))
    return npst.from_dtype(dtype, allow_nan=False, allow_infinity=False)


def arrays(dtype):
    return SHAPES.flatmap(
        lambda shape: st.lists(elements(dtype), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))).map(
            lambda values: np.array(values, dtype).reshape(shape)
        )
    )


ARRAYS = st.sampled_from(FLOATS + INTEGERS).flatmap(arrays)
MODELS = st.dictionaries(st.text(max_size=4), ARRAYS, min_size=1, max_size=6)


def is_same(left, right) -> bool:
    """Return whether arrays are the same to the bit."""
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@given(MODELS)
def test_what_is_packed_comes_back(model):
    weights, counts, packing = pet.pack(model)
    assert weights.shape == (packing.weight_count,)
    assert counts.shape == (packing.count_count,)
    assert (weights.dtype, counts.dtype) == (packing.weights_dtype, packing.counts_dtype)
    for back in (packing.unpack(weights, counts), pickle.loads(pickle.dumps(packing)).unpack(weights, counts)):
        assert list(back) == list(model)
        assert all(is_same(back[name], model[name]) for name in model)


@given(st.permutations(range(4)))
def test_the_digest_does_not_depend_on_the_order_of_keys(order):
    model = {"a": np.ones(2), "b": np.ones(3, np.float32), "c": np.ones(2, bool), "d": np.array(7)}
    weights, counts, packing = pet.pack(model)
    names = list(model)
    again = pet.pack({names[index]: model[names[index]] for index in order})
    assert again[2].digest == packing.digest
    assert is_same(again[0], weights)
    assert is_same(again[1], counts)


def test_the_digest_covers_names_shapes_dtypes_and_ties():
    shared = np.ones((2, 3), np.float32)
    models = [
        {"a": shared, "b": shared},
        {"a": shared, "b": shared.copy()},
        {"a": shared, "c": shared},
        {"a": shared.reshape(3, 2), "b": shared.reshape(3, 2)},
        {"a": shared.astype(np.float16), "b": shared.copy()},
        {"a": shared.astype(bfloat16), "b": shared.copy()},
        {"a": shared.astype(np.float64), "b": shared.astype(np.float64)},
        {"a": shared.astype(np.int32), "b": shared.copy()},
        {"a": {"b": shared}},
        [shared, shared],
        [shared, [shared]],
    ]
    digests = [pet.pack(model)[2].digest for model in models]
    assert len(set(digests)) == len(digests)
    assert pet.pack(models[6], dtype="float32")[2].digest != digests[6]


def test_tied_arrays_are_packed_once_and_stay_tied():
    embedding = np.arange(6, dtype=np.float32).reshape(2, 3)
    model = {"encoder": embedding, "decoder": embedding, "turned": embedding.T, "row": embedding[0], "other": embedding.copy()}
    weights, counts, packing = pet.pack(model)
    assert packing.weight_count == 6 + 6 + 3 + 6
    assert not len(counts)
    back = packing.unpack(weights + 1)
    assert back["encoder"] is back["decoder"]
    assert all(is_same(back[name], model[name] + 1) for name in model)
    back["other"][:] = 0
    assert back["encoder"].any()


def test_a_mean_within_the_step_is_rounded_to_each_dtype():
    generator = np.random.default_rng(5)
    models = [
        {
            "half": generator.uniform(-1, 1, 50).astype(np.float16),
            "brain": generator.uniform(-1, 1, 50).astype(bfloat16),
            "single": generator.uniform(-1, 1, 50).astype(np.float32),
            "steps": np.array(generator.integers(0, 1000)),
            "seen": generator.integers(0, 2, 4).astype(bool),
        }
        for _ in range(3)
    ]
    configs = [pet.MaskConfig.parse("pet-1/z32,f32,bound=1,models=8"), pet.MaskConfig.parse("pet-1/z64,int,models=8")]
    packed = [pet.pack(model) for model in models]
    packing = packed[0][2]
    assert {each.digest for _, _, each in packed} == {packing.digest}
    total = pet.VectorAggregation(configs, [packing.weight_count, packing.count_count])
    all_seeds = []
    for weights, counts, _ in packed:
        seeds, masked = pet.mask_vectors([weights, counts], configs)
        total.add(pet.MaskedVectors.from_bytes(masked.to_bytes()))
        all_seeds.append(seeds)
    by_vector = zip(total.parts, zip(*all_seeds, strict=True), strict=True)
    masks = [pet.sum_masks(seeds, part.config, len(part)) for part, seeds in by_vector]
    mean, sums = total.unmask(masks)
    back = packing.unpack(mean.to_array(), sums.to_array() / total.count)
    step = float(mean.masking_error)
    for name, resolution in (("half", 2.0**-11), ("brain", 2.0**-8), ("single", 2.0**-24)):
        exact = np.mean([model[name].astype(np.float64) for model in models], axis=0)
        assert np.abs(back[name].astype(np.float64) - exact).max() <= step + resolution
        assert back[name].dtype == models[0][name].dtype
    assert back["steps"] == round(sum(int(model["steps"]) for model in models) / 3)
    assert back["seen"].tolist() == [sum(model["seen"][index] for model in models) >= 2 for index in range(4)]


@pytest.mark.parametrize("dtype", ["complex64", "longdouble", "datetime64[s]", "U1", "O", "float8_e4m3fn"], ids=str)
def test_other_dtypes_are_refused_by_name(dtype):
    if dtype == "float8_e4m3fn":
        from ml_dtypes import float8_e4m3fn as dtype
    array = np.zeros(2, dtype)
    with pytest.raises(ModelError, match=r"array 'a/0': expected float16, bfloat16, .* got " + str(array.dtype)[:5]):
        pet.pack({"a": [array]})


def test_what_a_dtype_does_not_hold_is_refused():
    weights, counts, packing = pet.pack({"half": np.ones(1, np.float16), "bit": np.ones(1, bool), "byte": np.ones(1, np.int8)})
    assert packing.counts_dtype == np.int64
    with pytest.raises(ModelError, match="array 'half': expected weights within float16, got larger ones"):
        packing.unpack(weights * 70_000, counts)
    assert np.isinf(packing.unpack(weights * np.inf, counts)["half"])
    for index, value, name in ((0, 2, "bit"), (0, -1, "bit"), (1, 128, "byte"), (1, -129, "byte"), (1, 127.5, "byte")):
        wrong = counts.astype(np.float64)
        wrong[index] = value
        with pytest.raises(ModelError, match=f"array '{name}': expected counts within "):
            packing.unpack(weights, wrong)
    with pytest.raises(ModelError, match="array 'bit': expected finite counts, got others"):
        packing.unpack(weights, counts * np.nan)


def test_integers_of_64_bits_come_back_or_are_refused():
    largest = np.array([2**64 - 1], np.uint64)
    _, counts, packing = pet.pack([largest, np.array([True])])
    assert packing.counts_dtype == np.uint64
    assert packing.unpack(None, counts)[0][0] == 2**64 - 1
    with pytest.raises(ModelError, match=r"array '0': expected at most 2\^63 - 1 beside signed integers, got more"):
        pet.pack([largest, np.array([-1])])
    _, _, packing = pet.pack(np.array([1]))
    for value in (2.0**63, -(2.0**64)):
        with pytest.raises(ModelError, match="array the model: expected counts within int64"):
            packing.unpack(None, np.array([value]))
    assert packing.unpack(None, np.array([-(2.0**63)]))[0] == -(2**63)


def test_float64_is_rounded_only_when_asked_for():
    model = {"a": np.array([0.1]), "b": np.array([0.25], np.float32)}
    assert pet.pack(model)[0].dtype == np.float64
    weights, _, packing = pet.pack(model, dtype=np.float32)
    assert weights.dtype == np.float32
    assert packing.unpack(weights)["a"][0] == np.float64(np.float32(0.1))
    with pytest.raises(ModelError, match="array 'a': expected weights within float32, got larger ones"):
        pet.pack({"a": np.array([1e300])}, dtype="float32")


@pytest.mark.parametrize("dtype", ["float16", "int64", "nonsense", 5, object()], ids=range(5))
def test_other_dtypes_of_weights_are_refused(dtype):
    with pytest.raises(ModelError, match="dtype: expected float32 or float64, got "):
        pet.pack(np.ones(1), dtype=dtype)


def test_vectors_that_do_not_fit_are_refused():
    weights, counts, packing = pet.pack({"a": np.ones(2), "b": np.ones(3, int)})
    refused = {"NoneType": None, r"float64 of shape \(1,\)": weights[:1], "int64": weights.astype(int), "list": [1, 2]}
    for got, wrong in refused.items():
        with pytest.raises(ModelError, match=rf"weights: expected floats of shape \(2,\), got {got}"):
            packing.unpack(wrong, counts)
    with pytest.raises(ModelError, match=r"counts: expected integers or floats of shape \(3,\), got NoneType"):
        packing.unpack(weights)
    with pytest.raises(ModelError, match="weights: expected an array in which every element counts, got a masked one"):
        packing.unpack(np.ma.masked_array(weights), counts)


def test_a_model_without_arrays_is_refused():
    for nothing in ({}, [], {"a": ()}):
        with pytest.raises(ModelError, match="arrays: expected at least one array, got none"):
            pet.pack(nothing)
    weights, counts, packing = pet.pack({"empty": np.empty((0, 3), np.float16), "also": np.empty(0, np.int8)})
    back = packing.unpack(weights, counts)
    assert (back["empty"].shape, back["empty"].dtype, back["also"].dtype) == ((0, 3), np.float16, np.int8)
