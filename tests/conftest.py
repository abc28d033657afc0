"""What every test may use: each kernel back-end in turn, and the vectors of the originals."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pet import kernels

# A shell that starts the tests in the background makes them ignore Ctrl-C, and every process they start would inherit that,
# also those that have to end on it. With a handler here they start with the default.
signal.signal(signal.SIGINT, signal.default_int_handler)

VECTORS = Path(__file__).parent / "vectors"


@pytest.fixture(params=kernels.available_backends())
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test on every back-end of this machine, and go back to the default afterwards."""
    kernels.select_backend(request.param)
    yield request.param
    kernels.select_backend(None)


def load_vectors(name: str) -> Any:
    """Read a file of tests/vectors."""
    return json.loads((VECTORS / name).read_text())
