"""The NEON variant, cross-compiled and emulated: every test of drawing, masking, totals and unmasking once more, with it.

Takes an aarch64 compiler and QEMU's user-mode emulator (Debian: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user).
"""

from collections.abc import Iterator

import numpy as np
import pytest
import test_kernel_drawing
import test_kernel_masking
import test_kernel_totals
import test_kernel_unmasking
import test_kernel_wide_draws
from emulated import EmulatedBackend, start_neon
from kernel_cases import EDGE_ORDERS, SEED, assert_untouched, drawn, keystream_bytes, unaligned

from pet import kernels
from pet.kernels import _backends
from pet.kernels import _reference as reference

#: Compiling for the emulator takes twelve seconds of CPU.
pytestmark = pytest.mark.long

#: Collected here as well; the fixtures `backend` and `fast` below are theirs then.
for module in (
    test_kernel_drawing,
    test_kernel_masking,
    test_kernel_totals,
    test_kernel_unmasking,
    test_kernel_wide_draws,
):
    globals().update({name: value for name, value in vars(module).items() if name.startswith("test_")})


@pytest.fixture(params=["neon"])
def backend(request: pytest.FixtureRequest, neon: EmulatedBackend, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    load = _backends.load_backend
    monkeypatch.setattr(_backends, "load_backend", lambda name: neon if name == "neon" else load(name))
    kernels.select_backend("neon")
    yield "neon"
    kernels.select_backend(None)


@pytest.fixture(params=["neon"])
def fast(request: pytest.FixtureRequest, neon: EmulatedBackend) -> EmulatedBackend:
    return neon


@pytest.fixture
def portable():
    return _backends.load_backend("portable")


def test_it_is_what_is_built_and_chosen_on_arm(neon):
    assert neon.best_variant() == "neon"
    for order in (2, 2**63, 2**127 - 1, 2**128, 2**2144 + 1):
        assert neon.covers(order)


def test_no_sanitizer_complains(neon, sanitized_driver):
    """A round of each width, compiled with the address and undefined-behaviour sanitizers: they end the process."""
    with start_neon(sanitized_driver) as sanitized:
        for order in EDGE_ORDERS:
            if keystream_bytes(order) < 1000:
                check_round(sanitized, order, 33)


def check_round(backend: EmulatedBackend, order: int, length: int) -> None:
    mask, memory = unaligned((length, kernels.element_bytes(order)))
    weights = np.linspace(-1, 1, length)
    total, model = kernels.new_total(length, order), np.empty(length, dtype=np.float32)
    after = backend.expand(mask, SEED, 5, order)
    assert (reference.to_integers(mask), after) == drawn(SEED, 5, order, length)
    backend.sum_masks(total, SEED + SEED, np.array([5, 5], dtype=np.uint64), order)
    backend.subtract(total, mask, order)
    backend.unmask_elements(mask, total, mask.copy(), order)
    assert not mask.any()
    backend.update(mask, weights, SEED, 5, kernels.Encoding(order, order // 2, order // 2, 1))
    backend.aggregate(total, [mask], order)
    backend.reduce(total, 2, order)
    backend.pack(mask, total, order)
    assert backend.find_invalid(mask, order) == length
    backend.unmask(model, total, mask, kernels.Decoding(order, 0, 1, 1, 0, order - 1))
    assert not model.any()
    assert_untouched(memory, mask)
