"""Orders, lengths and arrays on which the kernels of every back-end are held against the reference.

The reference draws a keystream in Python, a quarter of a millisecond for 64 bytes, so what it computes is kept for the next
back-end.
"""

import functools
import random
from fractions import Fraction
from typing import Any

import numpy as np
from vector_files import load_vectors

from pet import kernels
from pet.kernels import _reference as reference

#: Orders on the edges: of a byte, a word, a limb, a plane, the 16 bytes of the vector kernels, and of everything.
EDGE_ORDERS = (
    2,
    3,
    255,
    256,
    257,
    2**16,
    2**32 - 5,
    2**32,
    2**32 + 1,
    2**44 + 7,
    2**62,
    2**63,  # the largest of one plane, which then holds the sum of two elements
    2**63 + 1,
    2**64 - 1,
    2**64,  # 9 bytes are drawn, 8 are stored
    2**64 + 1,
    2**96 + 1,
    2**127 - 1,  # the largest of two planes
    2**127 + 1,
    2**128,
    2**128 + 1,
    2**129,
    256 ** (272 - 1) + 3,  # the widest order: 272 bytes
    256**272 - 1,
)
#: Around 8 and 16, the lanes of vectors and the blocks of a batch, and 0 and 1.
LENGTHS = (0, 1, 7, 8, 9, 15, 16, 17, 33)

SEED = bytes(range(128, 160))


@functools.cache
def config_orders() -> tuple[int, ...]:
    """Return the orders of the 240 configs, each once."""
    return tuple(sorted({int(entry["order"]) for entry in load_vectors("mask_orders.json")["orders"]}))


def keystream_bytes(order: int) -> float:
    """Return the mean keystream that one element takes."""
    draw_bytes = -(-order.bit_length() // 8)
    return 4 * -(-draw_bytes // 4) * float(Fraction(256**draw_bytes, order))


def width(order: int) -> str:
    """Name an order in the id of a test."""
    return f"{order.bit_length()}bits-{order % 97}"


def unaligned(shape: tuple[int, ...], offset: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return an array of bytes at an odd address, and the guards around it, to be checked with `assert_untouched`."""
    size = int(np.prod(shape))
    memory = np.full(size + 64 + offset, 0xA5, dtype=np.uint8)
    return memory[offset + 32 : offset + 32 + size].reshape(shape), memory


def assert_untouched(memory: np.ndarray, array: np.ndarray) -> None:
    """The guards around an array of `unaligned` are as they were."""
    start = array.ctypes.data - memory.ctypes.data
    assert (memory[:start] == 0xA5).all()
    assert (memory[start + array.size :] == 0xA5).all()


def pack_integers(values: list[int], order: int) -> np.ndarray:
    """Write integers as packed elements at an odd address."""
    elements, _ = unaligned((len(values), kernels.element_bytes(order)))
    for i, value in enumerate(values):
        reference.write_element(elements, i, value)
    return elements


def random_integers(length: int, order: int, seed: int = 1) -> list[int]:
    """Draw elements, those at the edges first."""
    source = random.Random(f"{order} {length} {seed}")
    edges = [order - 1, 0, order // 2, order - 2, 1][:length]
    return edges + [source.randrange(order) for _ in range(length - len(edges))]


def random_elements(length: int, order: int, seed: int = 1) -> np.ndarray:
    """Draw packed elements."""
    return pack_integers(random_integers(length, order, seed), order)


def total_range(values: list[int], order: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a total that is a range of a larger one, and the larger one, which is all ones elsewhere."""
    larger = np.full((kernels.plane_count(order), len(values) + 7), 2**64 - 1, dtype=np.uint64)
    total = larger[:, 3 : 3 + len(values)]
    for i, value in enumerate(values):
        reference.write_total(total, i, value)
    return total, larger


def assert_rest_untouched(larger: np.ndarray, length: int) -> None:
    """What surrounds the range of `total_range` is as it was."""
    assert (larger[:, :3] == 2**64 - 1).all()
    assert (larger[:, 3 + length :] == 2**64 - 1).all()


def total_integers(total: np.ndarray) -> list[int]:
    """Read a total."""
    return [reference.read_total(total, i) for i in range(total.shape[1])]


@functools.cache
def drawn(seed: bytes, position: int, order: int, length: int) -> tuple[list[int], int]:
    """Return what the reference draws, and the position after it."""
    elements = np.empty((length, kernels.element_bytes(order)), dtype=np.uint8)
    after = reference.expand(elements, seed, position, order)
    return reference.to_integers(elements), after


def assert_close(got: np.ndarray, expected: list[Any]) -> None:
    """Integers are equal; floats within one unit in the last place, or two for float64."""
    units = 2 if got.dtype == np.float64 else 1
    for value, wanted in zip(got.tolist(), expected, strict=True):
        if got.dtype.kind == "i":
            assert value == wanted
        else:
            below = np.nextafter(got.dtype.type(abs(wanted)), got.dtype.type(0))
            unit = max(
                Fraction(abs(float(wanted))) - Fraction(float(below)), Fraction(float(np.finfo(got.dtype).smallest_subnormal))
            )
            assert abs(Fraction(value) - Fraction(float(wanted))) <= units * unit
