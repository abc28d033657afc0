"""Totals: adding, checking, subtracting, reducing and packing, in every order, on every back-end."""

import numpy as np
import pytest
from in_turn import in_turn
from kernel_cases import (
    EDGE_ORDERS,
    LENGTHS,
    assert_rest_untouched,
    assert_untouched,
    config_orders,
    pack_integers,
    random_elements,
    random_integers,
    total_integers,
    total_range,
    unaligned,
    width,
)

from pet import kernels
from pet.errors import AggregationError, ModelError
from pet.kernels import _backends
from pet.kernels import _reference as reference

#: Orders that leave room for values that are no elements.
LOOSE_ORDERS = tuple(order for order in EDGE_ORDERS if order < 256 ** kernels.element_bytes(order))


@in_turn("order", EDGE_ORDERS, ids=width)
def test_aggregate(backend, order):
    vector_count = min(kernels.capacity(order) - 1, 11)
    start = random_integers(9, order, 2)
    vectors = [random_integers(9, order, k) for k in range(vector_count)]
    total, larger = total_range(start, order)
    kernels.aggregate(total, [pack_integers(vector, order) for vector in vectors], order)
    assert total_integers(total) == [sum(column) for column in zip(start, *vectors, strict=True)]
    assert_rest_untouched(larger, 9)


def test_a_sum_through_numba():
    """Whatever else numba computes is tested by long tests (tests/session.py)."""
    pytest.importorskip("numba")
    vectors = [random_integers(9, 2**45, seed) for seed in range(3)]
    kernels.select_backend("numba")
    try:
        total = kernels.new_total(9, 2**45)
        kernels.aggregate(total, [pack_integers(vector, 2**45) for vector in vectors], 2**45)
        assert kernels.active_backend() == "numba"
    finally:
        kernels.select_backend(None)
    assert total_integers(total) == [sum(column) for column in zip(*vectors, strict=True)]


@in_turn("length", [*LENGTHS, 1003])
@in_turn("order", [20_000_000_000_021, 2**63, 2**80 - 1, 2**200], ids=width)
def test_total_lengths(backend, order, length):
    """One vector in, one out again, and the rest as packed bytes."""
    first, second = random_integers(length, order, 1), random_integers(length, order, 2)
    total, larger = total_range(first, order)
    kernels.aggregate(total, [pack_integers(second, order)], order)
    kernels.reduce(total, 2, order)
    assert total_integers(total) == [(a + b) % order for a, b in zip(first, second, strict=True)]
    assert reference.to_integers(kernels.pack(total, order)) == total_integers(total)
    kernels.subtract(total, pack_integers(first, order), order)
    assert total_integers(total) == second
    assert_rest_untouched(larger, length)


def test_totals_in_orders_of_all_configs(backend):
    for order in config_orders():
        first, second = random_integers(5, order, 1), random_integers(5, order, 2)
        total, _ = total_range(first, order)
        kernels.aggregate(total, [pack_integers(second, order)], order)
        kernels.reduce(total, 2, order)
        elements = kernels.unmask_elements(total, pack_integers(first, order), order)
        assert reference.to_integers(elements) == second


@in_turn("order", LOOSE_ORDERS, ids=width)
def test_invalid_elements_are_found(backend, order):
    largest = 256 ** kernels.element_bytes(order) - 1
    for invalid in (order, largest):
        for index in (0, 7, 8, 16, 32):
            values = random_integers(33, order)
            values[index] = invalid
            assert kernels.find_invalid(pack_integers(values, order), order) == index
    assert kernels.find_invalid(random_elements(33, order), order) is None
    assert kernels.find_invalid(random_elements(0, order), order) is None


@in_turn("order", LOOSE_ORDERS, ids=width)
def test_an_invalid_element_leaves_the_total_alone(backend, order):
    vectors = [random_elements(33, order, k) for k in range(10)]
    for bad_vector, index in ((0, 0), (3, 17), (8, 31), (9, 32)):
        spoiled = [vector.copy() for vector in vectors]
        for k in range(bad_vector, 10):
            reference.write_element(spoiled[k], index, order)
        total, larger = total_range(random_integers(33, order), order)
        before = larger.copy()
        with pytest.raises(AggregationError) as caught:
            kernels.aggregate(total, spoiled, order)
        assert (caught.value.reason, caught.value.vector_index) == ("invalid_object", bad_vector)
        assert (larger == before).all()


@in_turn("order", EDGE_ORDERS, ids=width)
def test_reduce_to_the_capacity(backend, order):
    capacity = kernels.capacity(order)
    room = 2 ** (64 * kernels.plane_count(order))
    for bound in {1, 2, min(3, capacity), min(1000, capacity), capacity}:
        limit = min(bound * order, room)
        values = [value % limit for value in (0, order - 1, order, limit - 1, limit - order, limit // 2, limit // 3)]
        total, larger = total_range(values, order)
        kernels.reduce(total, bound, order)
        assert total_integers(total) == [value % order for value in values]
        assert_rest_untouched(larger, len(values))


@in_turn("order", EDGE_ORDERS, ids=width)
def test_subtract_pack_and_unmask_elements(backend, order):
    values, mask = random_integers(17, order, 1), random_integers(17, order, 2)
    mask[0], values[0] = order - 1, 0
    differences = [(a - b) % order for a, b in zip(values, mask, strict=True)]
    total, larger = total_range(values, order)
    low_level = _backends.load_backend(backend)
    elements, memory = unaligned((17, kernels.element_bytes(order)))
    low_level.unmask_elements(elements, total, pack_integers(mask, order), order)
    assert reference.to_integers(elements) == differences
    kernels.subtract(total, pack_integers(mask, order), order)
    assert total_integers(total) == differences
    low_level.pack(elements, total, order)
    assert reference.to_integers(elements) == differences
    assert_untouched(memory, elements)
    assert_rest_untouched(larger, 17)


def test_totals_refuse_bad_arguments(backend):
    total = kernels.new_total(3, 257)
    with pytest.raises(ModelError, match="bound: expected 1 to"):
        kernels.reduce(total, 0, 257)
    with pytest.raises(ModelError, match="bound: expected 1 to 4294967295"):
        kernels.reduce(total, 2**32, 257)
    with pytest.raises(ModelError, match="total: expected uint64 of shape"):
        kernels.pack(total.astype(np.int64), 257)
    with pytest.raises(ModelError, match="strided"):
        kernels.pack(kernels.new_total(6, 257)[:, ::2], 257)
    with pytest.raises(AggregationError, match=r"uint8 of shape \(3, 2\)"):
        kernels.aggregate(total, [np.zeros((4, 2), dtype=np.uint8)], 257)
    kernels.aggregate(total, [], 257)
    assert not total.any()
