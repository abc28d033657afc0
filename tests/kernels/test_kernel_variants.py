"""Draws of one to four words: every vector variant draws what the portable one draws, however many draws are accepted.

The variants choose between layouts by the number of words, the position and the acceptance, and end a vector in several ways;
the orders, lengths and positions here reach all of them. Masks drawn in pieces must not depend on the pieces.
"""

import numpy as np
import pytest
from in_turn import in_turn
from kernel_cases import SEED, assert_rest_untouched, assert_untouched, random_integers, total_range, unaligned, width

from pet import kernels
from pet.kernels import _backends

#: The compiled back-ends with vectors; the other tests hold numba against the reference.
FAST = [name for name in kernels.available_backends() if name not in ("portable", "numba", "reference")]

#: By words of a draw, from one in fifty to nearly all of them accepted, and one with the least top word.
ORDERS = (
    *(
        int(share * 2**bits) + 1
        for bits in (32, 48, 56, 64, 72, 88, 96, 104, 120, 128)
        for share in (0.02, 0.11, 0.3, 0.5, 0.99)
    ),
    *(2**32, 2**40, 2**64, 2**96, 2**127 - 1, 2**64 - 1, 2**96 - 1),
)
#: The borders of blocks and of batches of every width, and the end of the lower half of the block counter.
POSITIONS = (*range(40), *range(120, 135), *range(500, 530), 16 * 2**32 - 5, 16 * 2**32 - 2, 2**40 + 7)


@pytest.fixture
def portable():
    return _backends.load_backend("portable")


@pytest.fixture(params=FAST or ["portable"])
def fast(request):
    return _backends.load_backend(request.param)


def drawn_by(backend, length, position, order):
    elements, memory = unaligned((length, kernels.element_bytes(order)))
    after = backend.expand(elements, SEED, position, order)
    assert_untouched(memory, elements)
    return elements, after


@in_turn("order", ORDERS, ids=width)
def test_every_length(fast, portable, order):
    for length in (*range(36), 1023, 1024, 1025, 2500):
        expected, end = drawn_by(portable, length, 3, order)
        elements, after = drawn_by(fast, length, 3, order)
        assert (elements == expected).all()
        assert after == (end if length else 3)


@in_turn("order", ORDERS, ids=width)
def test_every_position(fast, portable, order):
    for position in POSITIONS:
        expected, end = drawn_by(portable, 11, position, order)
        elements, after = drawn_by(fast, 11, position, order)
        assert (elements == expected).all()
        assert after == end


@in_turn("order", ORDERS, ids=width)
def test_pieces(fast, portable, order):
    """The position after each piece is behind its last draw, so the next piece begins with the next attempt."""
    whole, end = drawn_by(portable, 300, 2, order)
    position, pieces = 2, []
    for length in (1, 2, 7, 8, 9, 33, 100, 140):
        piece, position = drawn_by(fast, length, position, order)
        pieces.append(piece)
    assert (np.concatenate(pieces) == whole).all()
    assert position == end


@in_turn("length", [1, 5, 8, 1027])
@in_turn("order", ORDERS, ids=width)
def test_sums(fast, portable, order, length):
    seeds, positions = SEED + bytes(32) + b"\x07" * 32, np.array([0, 17, 511], dtype=np.uint64)
    start = random_integers(length, order)
    expected, _ = total_range(start, order)
    total, larger = total_range(start, order)
    expected_positions = positions.copy()
    portable.sum_masks(expected, seeds, expected_positions, order)
    fast.sum_masks(total, seeds, positions, order)
    assert (total == expected).all()
    assert (positions == expected_positions).all()
    assert_rest_untouched(larger, length)
