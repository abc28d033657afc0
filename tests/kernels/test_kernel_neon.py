"""The NEON variant, cross-compiled and emulated: every test of drawing, masking, totals and unmasking once more, with it.

Takes an aarch64 compiler and QEMU's user-mode emulator (Debian: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user).
"""

import os
from collections.abc import Iterator

import emulated
import pytest
import test_kernel_drawing
import test_kernel_masking
import test_kernel_totals
import test_kernel_unmasking
import test_kernel_wide_draws
from emulated import EMULATOR, EmulatedBackend

from pet import kernels
from pet.kernels import _backends
from pet.kernels._compiled import lib

#: Collected here as well; the fixtures `backend` and `fast` below are theirs then.
for module in (
    test_kernel_drawing,
    test_kernel_masking,
    test_kernel_totals,
    test_kernel_unmasking,
    test_kernel_wide_draws,
):
    globals().update({name: value for name, value in vars(module).items() if name.startswith("test_")})


@pytest.fixture(scope="module")
def neon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedBackend]:
    missing = emulated.missing_tools()
    if missing and os.environ.get("CI") != "true":
        pytest.skip(f"not installed: {', '.join(missing)}")
    assert not missing, "CI tests every variant"
    driver = emulated.build_driver(tmp_path_factory.mktemp("neon"))
    backend = EmulatedBackend([EMULATOR, driver], lib.PET_VARIANT_NEON)
    yield backend
    backend.close()


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
