"""What is done to a vector before it is masked."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import pet
from pet.errors import ModelError


def vectors(dtype):
    numbers = npst.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False)
    return npst.arrays(dtype, st.integers(0, 20), elements=numbers)


VECTORS = st.sampled_from([np.float32, np.float64]).flatmap(vectors)


def exact_norm(vector) -> float:
    return math.hypot(*map(float, vector))


@given(VECTORS, st.floats(0, 1e300))
def test_a_clipped_vector_is_within_the_bound_and_points_the_same_way(vector, bound):
    clipped = pet.clip_norm(vector, bound)
    assert clipped.dtype == vector.dtype
    assert exact_norm(clipped) <= bound * (1 + 1e-15)
    assert np.array_equal(np.sign(clipped) * np.sign(vector) >= 0, np.ones(len(vector), bool))
    if exact_norm(vector) < bound * (1 - 1e-15):
        assert clipped is vector


@given(npst.arrays(np.float32, 30, elements=st.floats(-100, 100, width=32)), st.floats(0.125, 10))
def test_clipping_keeps_the_direction(vector, bound):
    clipped = pet.clip_norm(vector, bound)
    norm = exact_norm(vector)
    if norm > bound:
        assert np.allclose(clipped, vector * (bound / norm), rtol=1e-5, atol=1e-30)
        assert exact_norm(clipped) >= bound * (1 - 1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_that_can_hardly_be_divided_are_clipped_too(dtype):
    """Below the normal numbers, rounding gives back what a small factor takes away."""
    smallest = float(np.finfo(dtype).smallest_subnormal)
    for count, bound in ((4, 1.5 * smallest), (9, 2 * smallest), (100, 3 * smallest), (2, smallest)):
        clipped = pet.clip_norm(np.full(count, smallest, dtype), bound)
        assert exact_norm(clipped) <= bound


@pytest.mark.parametrize("bound", [-1, math.nan, math.inf, None, "1", [1]], ids=range(6))
def test_other_bounds_are_refused(bound):
    with pytest.raises(ModelError, match="bound: expected a finite number of 0 or more, got "):
        pet.clip_norm(np.ones(2), bound)


def test_a_difference():
    after, before = np.array([1.5, 2], np.float32), np.array([1, 4], np.float32)
    assert pet.delta(after, before).tolist() == [0.5, -2]
    with pytest.raises(ModelError, match=r"before: expected float32 of shape \(2,\), as after has, got float64"):
        pet.delta(after, before.astype(np.float64))
    with pytest.raises(ModelError, match=r"as after has, got float32 of shape \(1,\)"):
        pet.delta(after, before[:1])
    with pytest.raises(ModelError, match="delta: expected finite differences"):
        pet.delta(after * np.nan, before)
    with pytest.raises(ModelError, match="delta: expected finite differences"):
        pet.delta(np.full(1, 3e38, np.float32), np.full(1, -3e38, np.float32))


@pytest.mark.parametrize("vector", [None, [1.0], np.ones((2, 2)), np.ones(2, int), np.ones(2, np.float16)], ids=range(5))
def test_other_vectors_are_refused(vector):
    for call in (
        lambda: pet.clip_norm(vector, 1),
        lambda: pet.delta(vector, np.ones(2)),
        lambda: pet.delta(np.ones(2), vector),
    ):
        with pytest.raises(ModelError, match=r"expected float32 or float64 of one dimension, got "):
            call()


def test_vectors_that_hide_elements_are_refused():
    with pytest.raises(ModelError, match="vector: expected an array in which every element counts, got a masked one"):
        pet.clip_norm(np.ma.masked_array([1.0, 2.0], [True, False]), 1)
    with pytest.raises(ModelError, match="vector: expected finite weights, got others"):
        pet.clip_norm(np.array([np.inf]), 1)
