"""Drawing elements and summing masks: every back-end draws what the reference draws, and uses up as much keystream."""

import numpy as np
import pytest
from in_turn import in_turn
from kernel_cases import (
    EDGE_ORDERS,
    LENGTHS,
    SEED,
    assert_rest_untouched,
    assert_untouched,
    config_orders,
    drawn,
    keystream_bytes,
    pack_integers,
    random_integers,
    total_integers,
    total_range,
    unaligned,
    width,
)

from pet import kernels
from pet.errors import ModelError
from pet.kernels import _backends
from pet.kernels import _reference as reference

#: 17 elements take at most 17 KB from these, where the reference draws them in Python.
CHEAP_ORDERS = tuple(order for order in EDGE_ORDERS if keystream_bytes(order) < 1000)
#: Word 16 * 2^32 begins the block at which the counter's upper word turns 1.
POSITIONS = (0, 1, 15, 16, 17, 63, 64, 65, 127, 16 * 2**32 - 3, 2**40 + 5)


@in_turn("order", EDGE_ORDERS, ids=width)
def test_expand_edge_orders(backend, order):
    length = 17 if order in CHEAP_ORDERS else 2
    expected, after = drawn(SEED, 5, order, length)
    elements, memory = unaligned((length, kernels.element_bytes(order)))
    assert _backends.load_backend(backend).expand(elements, SEED, 5, order) == after
    assert reference.to_integers(elements) == expected
    assert_untouched(memory, elements)


def test_expand_orders_of_all_configs(backend):
    for order in config_orders():
        if keystream_bytes(order) < 1500:
            expected, after = drawn(SEED, 0, order, 2)
            elements, position = kernels.expand(SEED, order, 2)
            assert (reference.to_integers(elements), position) == (expected, after)


@in_turn("length", LENGTHS)
@in_turn("order", [2**32 - 5, 3 * 2**42, 2**64, 2**80 - 1], ids=width)
def test_expand_lengths(backend, order, length):
    expected, after = drawn(SEED, 1, order, length)
    elements, memory = unaligned((length, kernels.element_bytes(order)))
    assert _backends.load_backend(backend).expand(elements, SEED, 1, order) == after
    assert reference.to_integers(elements) == expected
    assert_untouched(memory, elements)


@in_turn("position", POSITIONS)
@in_turn("order", [3 * 2**42, 2**65, 7 * 2**100], ids=width)
def test_expand_starts_at_any_word(backend, order, position):
    expected, after = drawn(SEED, position, order, 3)
    elements, moved = kernels.expand(SEED, order, 3, position)
    assert (reference.to_integers(elements), moved) == (expected, after)


@pytest.mark.parametrize("order", [3 * 2**46, 3 * 2**78], ids=width)
def test_expand_many(backend, order):
    expected, after = drawn(SEED, 0, order, 1003)
    elements, position = kernels.expand(SEED, order, 1003)
    assert (reference.to_integers(elements), position) == (expected, after)


@in_turn("order", [257, 20_000_000_000_021, 2**64, 2**127 - 1, 2**301 - 5], ids=width)
def test_expand_in_pieces_equals_one_piece(backend, order):
    whole, end = kernels.expand(SEED, order, 60)
    position, pieces = 0, []
    for length in (1, 0, 7, 16, 33, 3):
        piece, position = kernels.expand(SEED, order, length, position)
        pieces.append(piece)
    assert position == end
    assert (np.concatenate(pieces) == whole).all()


def test_expand_follows_the_seed(backend):
    first, _ = kernels.expand(SEED, 2**128, 4)
    second, _ = kernels.expand(bytes(32), 2**128, 4)
    assert (first != second).any()


@in_turn("order", EDGE_ORDERS, ids=width)
def test_sum_masks_edge_orders(backend, order):
    length = 9 if order in CHEAP_ORDERS else 1
    seeds, positions = [SEED, bytes(32), b"\x01" * 32], [0, 3, 16]
    start = random_integers(length, order)
    draws = [drawn(seed, position, order, length) for seed, position in zip(seeds, positions, strict=True)]
    total, larger = total_range(start, order)
    moved = np.array(positions, dtype=np.uint64)
    kernels.sum_masks(total, b"".join(seeds), moved, order)
    assert moved.tolist() == [after for _, after in draws]
    columns = zip(start, *(values for values, _ in draws), strict=True)
    assert total_integers(total) == [sum(column) % order for column in columns]
    assert_rest_untouched(larger, length)


@in_turn("length", [0, 1, 17, 1027])
@in_turn("seed_count", [0, 1, 2, 9])
def test_sum_masks_counts(backend, length, seed_count):
    """Two elements fill the plane of this order, so sums are reduced again and again; 1027 is more than one piece."""
    if backend == "reference" and length * seed_count > 3000:
        length = 33
    order = 2**63
    seeds = b"".join(bytes([k]) * 32 for k in range(seed_count))
    total = kernels.new_total(length, order)
    positions = np.zeros(seed_count, dtype=np.uint64)
    kernels.sum_masks(total, seeds, positions, order)
    expected = np.zeros(length, dtype=np.uint64)
    for k in range(seed_count):
        elements, position = kernels.expand(seeds[32 * k : 32 * k + 32], order, length)
        expected = (expected + elements.view(np.uint64)[:, 0]) % np.uint64(order)
        assert positions[k] == position
    assert (total[0] == expected).all()


@pytest.mark.parametrize("order", [20_000_000_000_021, 2**64, 2**127 - 1, 2**301 - 5], ids=width)
def test_sum_masks_in_pieces_equals_one_piece(backend, order):
    seeds = SEED + bytes(32)
    whole, pieces = kernels.new_total(40, order), kernels.new_total(40, order)
    whole_positions, positions = np.zeros(2, dtype=np.uint64), np.zeros(2, dtype=np.uint64)
    kernels.sum_masks(whole, seeds, whole_positions, order)
    for begin, end in ((0, 1), (1, 17), (17, 17), (17, 40)):
        kernels.sum_masks(pieces[:, begin:end], seeds, positions, order)
    assert (pieces == whole).all()
    assert (positions == whole_positions).all()


def test_drawing_refuses_bad_arguments(backend):
    with pytest.raises(ModelError, match="32 bytes, got 31"):
        kernels.expand(bytes(31), 257, 1)
    with pytest.raises(ModelError, match="expected 2 or more, got 1"):
        kernels.expand(SEED, 1, 1)
    with pytest.raises(ModelError, match="expected 0 or more, got -1"):
        kernels.expand(SEED, 257, -1)
    total = kernels.new_total(2, 257)
    with pytest.raises(ModelError, match="expected 2 of 32 bytes"):
        kernels.sum_masks(total, SEED, np.zeros(2, dtype=np.uint64), 257)
    with pytest.raises(ModelError, match="positions"):
        kernels.sum_masks(total, SEED, np.zeros(1, dtype=np.int64), 257)


def test_a_packed_vector_is_the_wire_form(backend):
    assert pack_integers([1, 258], 2**16).tolist() == [[1, 0], [2, 1]]
    total, _ = total_range([1, 258], 2**16)
    assert kernels.pack(total, 2**16).tolist() == [[1, 0], [2, 1]]
