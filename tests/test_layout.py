"""Models of named arrays: flatten and back."""

import pickle
from collections import OrderedDict, defaultdict
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import pet


class Pair(NamedTuple):
    left: Any
    right: Any


SHAPES = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
#: Keys that joined names would mix up, beside arbitrary ones.
KEYS = st.one_of(st.sampled_from(["", "/", "a", "b", "a/b", "\0", "a\0b", "0", "1", "\ud800"]), st.text(max_size=3))
DTYPES = st.sampled_from([np.float32, np.float64, np.float16, np.int32, np.int64, np.int8])


def arrays(dtype):
    """Arrays in any order of memory, some of them without weights, some of them read backwards."""
    numbers = npst.arrays(dtype, SHAPES, elements=npst.from_dtype(np.dtype(dtype), allow_nan=False))
    return st.tuples(numbers, st.sampled_from("CF"), st.booleans()).map(lambda choice: _laid_out(*choice))


def _laid_out(array, order, is_backwards):
    array = np.asarray(array, order=order)
    return array[::-1] if is_backwards and array.ndim else array


def trees(leaves):
    return st.recursive(
        leaves,
        lambda children: st.one_of(
            st.lists(children, max_size=3),
            st.lists(children, max_size=3).map(tuple),
            st.builds(Pair, children, children),
            st.dictionaries(KEYS, children, max_size=3),
            st.dictionaries(KEYS, children, max_size=3).map(OrderedDict),
        ),
        max_leaves=8,
    )


TREES = DTYPES.flatmap(lambda dtype: trees(arrays(dtype)))


def same(left, right) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, np.ndarray):
        return left.shape == right.shape and left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    return len(left) == len(right) and all(map(same, left, right))


def has_array(tree) -> bool:
    if isinstance(tree, np.ndarray):
        return True
    return any(map(has_array, tree.values() if isinstance(tree, dict) else tree))


@given(TREES.filter(has_array))
def test_unflatten_gives_back_what_was_flattened(tree):
    vector, layout = pet.flatten(tree)
    assert vector.shape == (layout.length,)
    assert vector.dtype == layout.dtype
    assert same(layout.unflatten(vector), tree)
    assert same(pickle.loads(pickle.dumps(layout)).unflatten(vector, copy=True), tree)


#: What users hand over beside what comes back exactly.
ODD_VALUES = st.sampled_from(
    [
        None,
        1.0,
        np.float32(1),
        np.ones((1, 1)).view(np.matrix),
        np.ma.masked_array([1.0, 2.0], [False, True]),
        np.array([None]),
        np.array([(1.0,)], dtype=[("weight", "f8")]),
        np.rec.array([(1.0,)], dtype=[("weight", "f8")]),
        np.array([True]),
        np.array([1j]),
        np.array([1], dtype=np.uint8),
        np.array(["x"]),
        np.array([1.0], dtype=np.dtype(float).newbyteorder()),
        np.array([1.0], dtype=np.float32),
        np.array([1.0]),
        {1: np.ones(1), "1": np.ones(1)},
        {np.str_("a"): np.ones(1)},
        {b"a": np.ones(1)},
        defaultdict(list, a=np.ones(1)),
        MappingProxyType({"a": np.ones(1)}),
        range(2),
        {1, 2},
        "text",
    ]
)


@given(trees(ODD_VALUES))
def test_what_is_flattened_comes_back_exactly_or_is_refused(tree):
    try:
        vector, layout = pet.flatten(tree)
    except pet.ModelError:
        return
    assert same(layout.unflatten(vector), tree)


@pytest.mark.parametrize(
    "tree",
    [
        {"": {"w": np.ones(2)}, "w": np.zeros(2)},
        {"a/b": np.ones(2), "a": {"b": np.zeros(2)}},
        {"a\0b": np.ones(2), "a": {"b": np.zeros(2)}},
        {"x": [np.ones(1), np.zeros(1)], "y": {"0": np.ones(1), "1": np.zeros(1)}},
        {"": {"": {"": np.ones(1)}}, "/": np.zeros(1)},
        [[np.ones(1)], {"0": np.zeros(1)}, [], {}, ()],
    ],
)
def test_names_that_look_alike_are_kept_apart(tree):
    vector, layout = pet.flatten(tree)
    assert same(layout.unflatten(vector), tree)


def test_an_array_that_stands_in_two_places_comes_back_as_two():
    shared = np.ones(2)
    vector, layout = pet.flatten({"encoder": shared, "decoder": shared})
    back = layout.unflatten(vector)
    back["encoder"][:] = 5
    assert vector.shape == (4,)
    assert back["decoder"].tolist() == [1, 1]


def test_the_order_of_keys_does_not_matter():
    kernel, bias = np.ones((2, 3), dtype=np.float32), np.zeros(3, dtype=np.float32)
    one, layout = pet.flatten({"kernel": kernel, "bias": bias})
    other, other_layout = pet.flatten({"bias": bias, "kernel": kernel})
    assert one.tolist() == other.tolist()
    assert layout.digest == other_layout.digest
    assert list(layout.unflatten(one)) == ["kernel", "bias"]


def test_digest_tells_structures_apart():
    array = np.ones(2, dtype=np.float32)
    different = [
        {"a": {"b": array}},
        {"a/b": array},
        {"a\0b": array},
        {"a": array},
        {"": array},
        {"0": array},
        [array],
        array,
        {"a": array, "b": {}},
        {"a": array.reshape(1, 2)},
        {"a": array[:1], "b": array[1:]},
        {"a": np.ones(2)},
    ]
    assert len({pet.flatten(tree)[1].digest for tree in different}) == len(different)


def test_digest_does_not_depend_on_what_flattens_alike():
    array = np.ones(2, dtype=np.float32)
    alike = [{"a": [array]}, {"a": (array,)}, OrderedDict(a=[array]), {"a": [np.asfortranarray(array)]}]
    assert len({pet.flatten(tree)[1].digest for tree in alike}) == 1
    assert pet.flatten({"ä\ud800": np.ones((2, 1), np.float32)})[1].digest == "df5daea4744c4323"


def test_views_and_copies():
    vector, layout = pet.flatten([np.zeros(2), np.zeros(1)])
    layout.unflatten(vector)[0][0] = 5
    layout.unflatten(vector, copy=True)[0][1] = 7
    assert vector.tolist() == [5, 0, 0]


def nested(depth: int):
    return np.zeros(1) if depth == 0 else [nested(depth - 1)]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "at least one array"),
        ([], "at least one array"),
        ({"a": 1.0}, "'a': expected an array, a dictionary or a list, got float"),
        (None, "got NoneType"),
        ({1: np.zeros(2)}, "expected text, got 1"),
        ([np.zeros(2), np.zeros(2, dtype=np.float32)], "one dtype, got float64 in '0' and float32 in '1'"),
        ({"a": np.array(["x"])}, "expected floats or integers"),
        ({"a": np.ones((1, 1)).view(np.matrix)}, "array 'a': expected a plain numpy.ndarray, got matrix"),
        ({"a": np.ma.masked_array([1.0])}, "array 'a': expected a plain numpy.ndarray, got MaskedArray"),
        ([np.array([1.0], dtype=np.dtype(float).newbyteorder())], "array '0': expected the machine's byte order, got [<>]f8"),
        ([defaultdict(list)], "'0': expected an array, a dictionary or a list, got defaultdict: convert it with dict"),
        ({"": {np.str_("a"): np.ones(1)}}, "key in '': expected text, got "),
        ({"a" * 500: {(1,) * 500: np.ones(1)}}, r"key in 'a{80}\.\.\.': expected text, got .{80}$"),
        (nested(70), "at most 64 levels"),
    ],
)
def test_what_cannot_be_flattened(tree, message):
    with pytest.raises(pet.ModelError, match=message):
        pet.flatten(tree)


@pytest.mark.parametrize("vector", [np.zeros(3), np.zeros((2, 1)), [0, 0]])
def test_vectors_of_another_length_are_refused(vector):
    _, layout = pet.flatten(np.zeros(2))
    with pytest.raises(pet.ModelError, match=r"expected an array of shape \(2,\)"):
        layout.unflatten(vector)


def test_a_masked_vector_is_refused_and_a_mapped_one_gives_plain_arrays(tmp_path):
    _, layout = pet.flatten([np.zeros(2)])
    with pytest.raises(pet.ModelError, match="every weight counts, got a masked one"):
        layout.unflatten(np.ma.masked_array([1.0, 2.0], [True, False]))
    np.save(tmp_path / "model.npy", np.ones(2))
    mapped = np.load(tmp_path / "model.npy", mmap_mode="r")
    assert same(layout.unflatten(mapped), [np.ones(2)])


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (None, "the model: expected an array, a dictionary or a list, got NoneType"),
        ({"a": [np.ones(1), 2.0]}, "'a/1': expected an array, a dictionary or a list, got float"),
        ({"a": {1: np.ones(1)}}, "key in 'a': expected text, got 1"),
        ([np.ones(1, bool)], "array '0': expected floats or integers, got bool"),
    ],
)
def test_errors_name_the_place_as_people_write_it(tree, message):
    with pytest.raises(pet.ModelError, match=message):
        pet.flatten(tree)


def test_a_model_that_contains_itself_is_refused_with_a_short_name():
    tree: list = [np.ones(1)]
    tree.append(tree)
    with pytest.raises(pet.ModelError, match=r"^arrays: expected at most 64 levels, got more at '1/1/.{60,90}\.\.\.'$"):
        pet.flatten(tree)
