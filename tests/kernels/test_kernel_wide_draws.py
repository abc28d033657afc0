"""Elements of more than 16 bytes: draws of many words, which cross the borders of blocks and of batches, and their sums.

Every vector variant is held against the portable one, which the other tests hold against the reference.
"""

import numpy as np
import pytest
from in_turn import in_turn
from kernel_cases import SEED, assert_rest_untouched, assert_untouched, total_range, unaligned, width

from pet import kernels
from pet.kernels import Encoding, _backends
from pet.kernels import _reference as reference

#: Draws of 4, 5, 6, 10, 66, 67 and 68 words, most of them below the order. One leaves the top word with a single byte, one
#: stores a byte less than it draws, and of the planes of one the highest is empty.
ORDERS = (
    200 * 256**15 + 1,
    200 * 256**16 + 5,
    2**144,
    255 * 256**19,
    250 * 256**23 + 7,
    3 * 256**36,
    2**320 - 1,
    154 * 256**263 + 11,
    128 * 256**264,
    36 * 256**267 + 1,
    256**272 - 1,
)
#: A batch is up to 512 words, and each of these starts differently in it; the last lie where the block counter's upper word
#: turns 1.
POSITIONS = (0, 1, 15, 16, 63, 100, 127, 128, 437, 444, 445, 446, 510, 511, 512, 16 * 2**32 - 70, 16 * 2**32 - 1, 2**40 + 5)


#: The compiled back-ends with vectors; the other tests hold numba against the reference.
FAST = [name for name in kernels.available_backends() if name not in ("portable", "numba", "reference")]


@pytest.fixture
def portable():
    return _backends.load_backend("portable")


@pytest.fixture(params=FAST or ["portable"])
def fast(request):
    return _backends.load_backend(request.param)


def drawn_by(backend, length, position, order, seed=SEED):
    elements, memory = unaligned((length, kernels.element_bytes(order)))
    after = backend.expand(elements, seed, position, order)
    assert_untouched(memory, elements)
    return elements, after


@in_turn("order", ORDERS, ids=width)
def test_every_length(fast, portable, order):
    expected, _ = drawn_by(portable, 41, 3, order)
    for length in range(41):
        elements, after = drawn_by(fast, length, 3, order)
        assert (elements == expected[:length]).all()
        assert after == (drawn_by(portable, length, 3, order)[1] if length else 3)


@in_turn("order", ORDERS, ids=width)
def test_every_position(fast, portable, order):
    for position in (*POSITIONS, *range(200, 270)):
        expected, end = drawn_by(portable, 9, position, order)
        elements, after = drawn_by(fast, 9, position, order)
        assert (elements == expected).all()
        assert after == end


@in_turn("order", [*ORDERS, 256**16 + 9, 2 * 256**36 + 1, 256**264, 9 * 256**267], ids=width)
def test_many(fast, portable, order):
    length = 1003 if order in ORDERS else 60
    expected, end = drawn_by(portable, length, 5, order)
    elements, after = drawn_by(fast, length, 5, order)
    assert (elements == expected).all()
    assert after == end


@in_turn("length", [1, 3, 4, 5, 7, 8, 9, 48, 57, 700])
@in_turn("order", ORDERS, ids=width)
def test_sums(fast, portable, order, length):
    seeds, positions = SEED + bytes(32) + b"\x07" * 32, np.array([0, 17, 511], dtype=np.uint64)
    start = [order - 1 - i % 2 for i in range(length)]
    expected, _ = total_range(start, order)
    total, larger = total_range(start, order)
    expected_positions = positions.copy()
    portable.sum_masks(expected, seeds, expected_positions, order)
    fast.sum_masks(total, seeds, positions, order)
    assert (total == expected).all()
    assert (positions == expected_positions).all()
    assert_rest_untouched(larger, length)


@in_turn("order", ORDERS, ids=width)
def test_sums_carry_through_all_planes(fast, order):
    """The largest total takes a carry through every plane of ones, and a total of 0 none."""
    drawn, _ = drawn_by(fast, 33, 0, order)
    values = reference.to_integers(drawn)
    for start in ([0] * 33, [order - value for value in values], [order - value - 1 for value in values], [order - 1] * 33):
        begin = [value % order for value in start]
        total, _ = total_range(begin, order)
        fast.sum_masks(total, SEED, np.zeros(1, dtype=np.uint64), order)
        sums = [reference.read_total(total, i) for i in range(33)]
        assert sums == [(a + b) % order for a, b in zip(begin, values, strict=True)]


@in_turn("dtype", [np.float32, np.float64, np.int32, np.int64], ids=lambda dtype: np.dtype(dtype).name)
@in_turn("order", [ORDERS[0], ORDERS[1], ORDERS[6], ORDERS[7]], ids=width)
def test_updates(fast, portable, order, dtype):
    """More than one piece, from the middle of a batch."""
    weights = np.random.default_rng(3).uniform(-1000, 1000, 1040).astype(dtype)
    encoding = Encoding(order, order // 2 - 1, order // 1500, 1)
    expected, memory = unaligned((1040, kernels.element_bytes(order)))
    masked, fast_memory = unaligned(expected.shape)
    answers = [back_end.update(out, weights, SEED, 3, encoding) for back_end, out in ((portable, expected), (fast, masked))]
    assert (masked == expected).all()
    assert answers[0] == answers[1]
    assert_untouched(memory, expected)
    assert_untouched(fast_memory, masked)
