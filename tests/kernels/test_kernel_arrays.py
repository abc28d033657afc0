"""Where the arrays lie that kernels write to: large ones begin at a huge page, which NumPy has asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pet import kernels, parallel_fields
from pet.kernels import fields

HUGE = 2 << 20


@pytest.mark.parametrize("is_zeroed", [False, True])
@pytest.mark.parametrize("size", [0, 1, HUGE - 1, HUGE, HUGE + 1, 4_000_000, 3 * HUGE])
def test_arrays_have_the_shape_and_type_asked_for_and_large_ones_begin_at_a_huge_page(size: int, *, is_zeroed: bool) -> None:
    array = kernels.new_array((size,), np.uint8, is_zeroed=is_zeroed)
    assert (array.shape, array.dtype, array.flags.c_contiguous, array.flags.writeable) == ((size,), np.uint8, True, True)
    assert size < HUGE or array.ctypes.data % HUGE == 0
    assert not is_zeroed or not array.any()


def test_zeroed_arrays_are_zero_where_memory_is_used_again() -> None:
    for _ in range(4):
        array = kernels.new_array((3, 250_000), np.uint64, is_zeroed=True)
        assert array.shape == (3, 250_000)
        assert not array.any()
        array[:] = 2**64 - 1


def test_vectors_of_a_million_elements_lie_in_huge_pages() -> None:
    """They have less than the size from which NumPy asks for such pages by itself."""
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    vector = parallel_fields.new_vector(1_000_000, fields.Z32)
    assert vector.ctypes.data % HUGE == 0
    if enabled.exists() and "[never]" not in enabled.read_text():
        assert "hg" in flags_of(vector.ctypes.data)


def flags_of(address: int) -> list[str]:
    """Return what the system was asked of the memory at an address."""
    is_here = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if "-" in first:
            start, end = (int(part, 16) for part in first.split("-"))
            is_here = start <= address < end
        elif is_here and first == "VmFlags:":
            return rest
    return []
