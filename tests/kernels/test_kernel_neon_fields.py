"""The kernels of pet-1 with NEON, cross-compiled and emulated: their tests once more, and under the sanitizers.

Apart from test_kernel_neon.py, which says what this takes, because tests of both have the same names.
"""

import numpy as np
import pytest
import test_kernel_field_variants
import test_kernel_fields
from emulated import start_neon
from test_kernel_neon import backend as backend
from test_kernel_neon import fast as fast
from test_kernel_neon import portable as portable

from pet.kernels import fields

pytestmark = pytest.mark.long

#: Collected here as well, with the fixtures above. They refuse arguments before a back-end is called, or compare places alone.
SHARED = {"test_bad_arguments", "test_places"}
for module in (test_kernel_fields, test_kernel_field_variants):
    tests = {name: value for name, value in vars(module).items() if name.startswith("test_") and name not in SHARED}
    assert not tests.keys() & globals().keys(), f"{module.__name__}: a test of the other module has the same name"
    globals().update(tests)


def test_no_sanitizer_complains(neon, sanitized_driver):
    """Every kernel at lengths with and without a rest, where draws are repeated and where they are not."""
    with start_neon(sanitized_driver) as sanitized:
        for order in (*fields.ORDERS, 3 * 2**30 + 1, 3 * 2**62 + 1):
            for length in (1, 40, 701):
                check_round(sanitized, order, length)


def check_round(sanitized, order: int, length: int) -> None:
    """Encode, mask, add, unmask, decode; the products where there are any."""
    vector, total = (np.zeros((length, fields.element_bytes(order)), dtype=np.uint8) for _ in range(2))
    weights, mean = np.linspace(-1, 1, length).astype(np.float32), np.empty(length, dtype=np.float32)
    levels = 2**31
    sanitized.field_encode(vector, weights, 1.0, 1.0, levels, order)
    sanitized.field_expand_add(vector, 3, bytes(64), order, 1)
    sanitized.field_add(total, vector, order)
    mask = np.zeros_like(vector)
    sanitized.field_expand_add(mask, 3, bytes(64), order, 1)
    sanitized.field_subtract(total, mask, order)
    assert sanitized.field_find_above(total, levels, order) == length
    sanitized.field_decode(mean, total, 1.0, levels, levels, order)
    assert np.allclose(mean, weights, atol=1e-6)
    if order in fields.ORDERS:
        assert sanitized.field_dot(total, mask, order) == fields.dot(total, mask, order)
        sanitized.field_multiply_add(total, mask, order - 1, order)
        sanitized.field_add(total, mask, order)
        sanitized.field_decode(mean, total, 1.0, levels, levels, order)
        assert np.allclose(mean, weights, atol=1e-6)
