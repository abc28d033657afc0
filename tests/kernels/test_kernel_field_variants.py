"""The kernels of pet-1 with vectors, held against the portable ones where test_kernel_fields.py does not reach.

That is: whole groups of vectors with a rest behind them, slices of several keys, outputs past the caches, quotients without a
division, and what stands right beside a vector.
"""

import random

import numpy as np
import pytest
from kernel_cases import assert_untouched, unaligned

from pet.errors import AggregationError, ModelError, UnmaskError
from pet.kernels import _backends, available_backends, fields

VECTOR_BACKENDS = tuple(name for name in available_backends() if name in ("avx2", "avx512"))
#: The last repeats a quarter of all draws, and has no product.
ORDERS = (*fields.ORDERS, 3 * 2**30 + 1, 3 * 2**62 + 1)
KEYS = bytes(range(96))
#: Around vectors, groups of four of them, batches, and slices of 16 KiB.
LENGTHS = (0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 257, 511, 513, 2049, 4095, 4097, 9001)
#: Models from 1 MiB on are written past the caches (native/field_reals.h).
STREAMED_BYTES = 1 << 20


@pytest.fixture(params=VECTOR_BACKENDS or ["portable"])
def fast(request):
    return _backends.load_backend(request.param)


@pytest.fixture
def portable():
    return _backends.load_backend("portable")


def drawn(order: int, length: int, number: int) -> np.ndarray:
    """Return valid elements: the expansion of a key, with the extreme ones at some places."""
    width = fields.element_bytes(order)
    elements = np.zeros((length, width), dtype=np.uint8)
    fields.expand_add(elements, 0, bytes([number]) * 32, order)
    source = random.Random(f"{order} {length} {number}")
    for value in (0, 1, order - 1, order - 2, order // 2):
        if length:
            elements[source.randrange(length)] = np.frombuffer(value.to_bytes(width, "little"), dtype=np.uint8)
    return elements


def copied(elements: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a copy at an odd address, and the guards around it."""
    copy, memory = unaligned(elements.shape)
    copy[:] = elements
    return copy, memory


@pytest.mark.parametrize("order", ORDERS)
def test_slices_of_several_keys(fast, portable, order):
    """Lengths over several slices only where draws are not repeated, which takes long."""
    is_quick = order in fields.ORDERS
    for length in LENGTHS if is_quick else LENGTHS[:-3]:
        for first in (0, 5, 256, 2**32 - 9001) if is_quick else (5, 2**32 - 9001):
            expected = drawn(order, length, 1)
            vector, memory = copied(expected)
            fast.field_expand_add(vector, first, KEYS, order, 1)
            portable.field_expand_add(expected, first, KEYS, order, 1)
            assert (vector == expected).all()
            assert_untouched(memory, vector)


@pytest.mark.parametrize("order", ORDERS)
def test_whole_groups_added_and_subtracted(fast, portable, order):
    for length in LENGTHS:
        added = drawn(order, length, 2)
        for name in ("field_add", "field_subtract"):
            expected = drawn(order, length, 1)
            total, memory = copied(expected)
            getattr(fast, name)(total, added, order)
            getattr(portable, name)(expected, added, order)
            assert (total == expected).all()
            assert_untouched(memory, total)


@pytest.mark.parametrize("order", ORDERS)
def test_an_invalid_element_at_any_place_of_a_group(fast, order):
    width, length = fields.element_bytes(order), 200
    before, valid = drawn(order, length, 1), drawn(order, length, 2)
    for index in range(length):
        for value in (order, 256**width - 1):
            vector, total = valid.copy(), before.copy()
            vector[index] = np.frombuffer(value.to_bytes(width, "little"), dtype=np.uint8)
            assert fast.field_find_above(vector, order - 1, order) == index
            for change in (fast.field_add, fast.field_subtract):
                with pytest.raises(AggregationError, match=f"element {index} "):
                    change(total, vector, order)
                assert (total == before).all()


@pytest.mark.parametrize("order", fields.ORDERS)
def test_whole_groups_multiplied(fast, portable, order):
    for length in LENGTHS:
        vector, expected = drawn(order, length, 2), drawn(order, length, 1)
        assert fast.field_dot(vector, expected, order) == portable.field_dot(vector, expected, order)
        total, memory = copied(expected)
        for factor in (0, 1, 2, order - 1, order - 2, 2**31, 2**32 % order, order // 3):
            fast.field_multiply_add(total, vector, factor, order)
            portable.field_multiply_add(expected, vector, factor, order)
            assert (total == expected).all()
            assert_untouched(memory, total)


@pytest.mark.parametrize("order", fields.ORDERS)
def test_products_of_extreme_words(fast, portable, order):
    """Every pair of words at the ends of their range: where products carry and fold more than once."""
    width = fields.element_bytes(order)
    words = [0, 1, 4, 5, 2**16, 2**31, 2**32 - 6, 2**32 - 5, 2**32 - 2, 2**32 - 1]
    values = [a if width == 4 else a << 32 | b for a in words for b in (words if width == 8 else words[:1])]
    packed = b"".join((value % order).to_bytes(width, "little") for value in values)
    vector = np.frombuffer(packed * 8, dtype=np.uint8).reshape(-1, width)
    for value in values:
        expected = vector[::-1].copy()
        total = expected.copy()
        fast.field_multiply_add(total, vector, value % order, order)
        portable.field_multiply_add(expected, vector, value % order, order)
        assert (total == expected).all()
    assert fast.field_dot(vector, vector, order) == portable.field_dot(vector, vector, order)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", fields.ORDERS)
def test_whole_vectors_encoded(fast, portable, order, dtype):
    source = np.random.default_rng(11)
    levels = min(order - 1, 2**52)
    for length in LENGTHS:
        for scalar, bound, top in ((1.0, 1.0, levels), (0.3, 0.7, levels // 3), (0.0, 2.0**-30, 1), (1.0, 1e30, levels)):
            weights = (source.uniform(-1.1, 1.1, length) * bound / (scalar or 1)).astype(dtype)
            expected, _ = unaligned((length, fields.element_bytes(order)))
            elements, memory = unaligned(expected.shape)
            clipped = fast.field_encode(elements, weights, scalar, bound, top, order)
            assert clipped == portable.field_encode(expected, weights, scalar, bound, top, order)
            assert (elements == expected).all()
            assert_untouched(memory, elements)
            if weights.itemsize == expected.shape[1]:
                in_place = weights.view(np.uint8).reshape(expected.shape)
                assert fast.field_encode(in_place, weights, scalar, bound, top, order) == clipped
                assert (in_place == expected).all()
        for index in {0, length // 2, length - 1} if length else ():
            weights[:] = 0
            weights[index] = -np.inf
            with pytest.raises(ModelError, match=f"index {index}$"):
                fast.field_encode(elements, weights, 1.0, 1.0, 5, order)
            if weights.itemsize == elements.shape[1]:
                with pytest.raises(ModelError, match=r"index \d+$"):
                    fast.field_encode(weights.view(np.uint8).reshape(elements.shape), weights, 1.0, 1.0, 5, order)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", fields.ORDERS)
def test_means_are_rounded_once(fast, portable, order, dtype):
    """Quotients without a division are those of the division, for units with all kinds of mantissas and bounds at the ends."""
    elements = drawn(order, 5000, 3)
    units = [1, 2, 3, 7, 2**26 + 1, 2**31 - 1, order // 3, order - 1, 2**30 * 3 - 1, 94906267 % order, (2**53 - 1) % order]
    units += [random.Random(f"unit {number}").randrange(1, order) for number in range(20)]
    for unit in units:
        for bound in (1.0, 0.1, 3.7, 2.0**-100, 1.7976931348623157 / 1.3, 2.0**400, 2.0**-400, 2.0**900, 2.0**-1060):
            model, expected = np.empty(5000, dtype), np.empty(5000, dtype)
            fast.field_decode(model, elements, bound, order - 1, unit, order)
            portable.field_decode(expected, elements, bound, order - 1, unit, order)
            assert model.tobytes() == expected.tobytes(), (unit, bound)


@pytest.mark.parametrize("offset", [0, 1, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", fields.ORDERS)
def test_means_past_the_caches(fast, portable, order, dtype, offset):
    """Models past the caches, at addresses that share lines with their neighbours, and what is not a mean in them."""
    length = STREAMED_BYTES // np.dtype(dtype).itemsize + 77
    elements = drawn(order, length, 4)
    memory = np.full(length + 40, 7, dtype=dtype)
    model, expected = memory[offset : offset + length], np.empty(length, dtype=dtype)
    fast.field_decode(model, elements, 0.3, order - 1, 12345, order)
    portable.field_decode(expected, elements, 0.3, order - 1, 12345, order)
    assert model.tobytes() == expected.tobytes()
    assert (memory[:offset] == 7).all()
    assert (memory[offset + length :] == 7).all()
    elements[:, -1] &= 127
    for index in (0, 3, length // 2, length - 1):
        elements[index] = 255
        with pytest.raises(UnmaskError, match=f"weight {index}:"):
            fast.field_decode(model, elements, 1.0, order // 2 + 1, 5, order)
        elements[index] = 0
