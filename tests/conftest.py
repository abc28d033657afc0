"""What every test may use: each kernel back-end in turn."""

import functools
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import chromium
from hypothesis import HealthCheck, settings
from open_databases import check_connections
from programs import require_program
from remembered import derive_password_keys_cheaply, remember_authorities

# Named twice, so that the linter sees that these are for pytest to find.
from session import pytest_collection as pytest_collection
from session import pytest_collection_finish as pytest_collection_finish
from session import pytest_collection_modifyitems as pytest_collection_modifyitems
from session import pytest_configure as pytest_configure
from session import pytest_pycollect_makeitem as pytest_pycollect_makeitem
from session import pytest_terminal_summary as pytest_terminal_summary
from session import pytest_xdist_auto_num_workers as pytest_xdist_auto_num_workers

from pet import kernels
from pet.kernels import _reference, _reference_fields
from pet.kernels._reference_keystream import chacha20_block

# A shell that starts the tests in the background makes them ignore Ctrl-C, and every process they start would inherit that,
# also those that have to end on it. With a handler here they start with the default.
signal.signal(signal.SIGINT, signal.default_int_handler)

check_connections()
remember_authorities()
derive_password_keys_cheaply()

# How long an example takes, or is made, says how busy the machine is, and nothing of what is tested. Each run makes up
# others, so twenty find in five runs what a hundred find in one; CI takes more.
EXAMPLES = 50 if os.environ.get("CI") == "true" else 20
settings.register_profile("shared", deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


@functools.lru_cache(maxsize=40_000)
def remembered_block(key: tuple[int, ...], counter: int, stream: int) -> list[int]:
    return chacha20_block(key, counter, stream)


@functools.cache
def compile_in_one_process() -> None:
    """Let numba compile each kernel in one process of the session; the others wait, and load it from numba's cache.

    Without that every process compiled all of them in a fresh clone, fifteen seconds of CPU.
    """
    import fcntl

    from pet.kernels._numba_jit import Kernel

    compile_kernel = Kernel._compile

    def compile_alone(kernel: Kernel) -> Any:
        with (Path(tempfile.gettempdir()) / f"pet-numba-{os.getuid()}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return compile_kernel(kernel)

    Kernel._compile = compile_alone  # type: ignore[method-assign]


@pytest.fixture(params=kernels.available_backends())
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run the test on every back-end of this machine, and go back to the default afterwards.

    The reference computes every block of a keystream once: most tests expand a seed several times, and its Python integers took
    a seventh of the CPU time of all tests.
    """
    if request.param == "reference":
        remembered = lambda key, counter, stream=0: remembered_block(tuple(key), counter, stream)  # noqa: E731
        for module in (_reference, _reference_fields):
            monkeypatch.setattr(module, "chacha20_block", remembered)
    if request.param == "numba":
        compile_in_one_process()
    kernels.select_backend(request.param)
    yield request.param
    kernels.select_backend(None)


@pytest.fixture(params=kernels.available_backends())
def measured_backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test on every back-end of this machine as it is: what is measured must compute everything."""
    if request.param == "numba":
        compile_in_one_process()
    kernels.select_backend(request.param)
    yield request.param
    kernels.select_backend(None)


@pytest.fixture
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    with chromium() as driver:
        yield driver


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full-length", action="store_true", help="tests/kernels/test_kernel_configs.py: vectors of 10^5 + 3 weights"
    )
    parser.addoption(
        "--local-type",
        choices=["cpu", "gpu"],
        default="cpu",
        help="tests/federation: where statistics compute the sums of rows",
    )


@pytest.fixture(scope="session")
def drivers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of the cross-compiled kernels: in pytest's cache, unless this session has none."""
    if cache := getattr(request.config, "cache", None):
        return Path(cache.mkdir("drivers"))
    folder = tmp_path_factory.getbasetemp()
    # The folder of a worker is one of several in that of the session.
    return (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "drivers"


@pytest.fixture(scope="session")
def neon(drivers: Path) -> Iterator[Any]:
    """Give the NEON kernels as a back-end: cross-compiled, and run in an emulator."""
    import emulated  # beside the tests that ask for it

    for name in (emulated.COMPILER, emulated.ARCHIVER, emulated.EMULATOR):
        require_program(name)
    with emulated.start_neon(emulated.remembered_driver(drivers, emulated.build_driver)) as backend:
        yield backend


@pytest.fixture(scope="session")
def sanitized_driver(drivers: Path) -> Path:
    """Give the NEON kernels with sanitizers, for the emulator."""
    import emulated

    return emulated.remembered_driver(drivers, emulated.build_sanitized_driver)
