"""Models of named arrays: flatten and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import pet

ARRAYS = npst.arrays(
    np.float32, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3), elements=st.floats(-1, 1, width=32)
)
TREES = st.recursive(
    ARRAYS,
    lambda children: st.one_of(
        st.lists(children, max_size=3),
        st.tuples(children, children),
        st.dictionaries(st.text(max_size=4), children, max_size=3),
    ),
    max_leaves=6,
)


def same(left, right) -> bool:
    if isinstance(left, np.ndarray):
        return left.shape == right.shape and np.array_equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))


def has_array(tree) -> bool:
    if isinstance(tree, np.ndarray):
        return True
    return any(map(has_array, tree.values() if isinstance(tree, dict) else tree))


@given(TREES.filter(has_array))
def test_unflatten_gives_back_what_was_flattened(tree):
    vector, layout = pet.flatten(tree)
    assert vector.shape == (layout.length,)
    assert same(layout.unflatten(vector), tree)


def test_the_order_of_keys_does_not_matter():
    kernel, bias = np.ones((2, 3), dtype=np.float32), np.zeros(3, dtype=np.float32)
    one, layout = pet.flatten({"kernel": kernel, "bias": bias})
    other, other_layout = pet.flatten({"bias": bias, "kernel": kernel})
    assert one.tolist() == other.tolist()
    assert layout.digest == other_layout.digest
    assert list(layout.unflatten(one)) == ["kernel", "bias"]


def test_digest_tells_structures_apart():
    array = np.ones(2, dtype=np.float32)
    trees = [{"a": {"b": array}}, {"a/b": array}, {"a": array}, [array], {"a": array.reshape(1, 2)}, {"a": np.ones(2)}]
    assert len({pet.flatten(tree)[1].digest for tree in trees}) == len(trees)


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
