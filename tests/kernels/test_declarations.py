"""The Python files say for which declarations they were written, so that a module of others is refused."""

import runpy
from pathlib import Path

from pet.kernels._compiled import DECLARATIONS


def test_the_number_is_that_of_the_declarations(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    built = runpy.run_path("native/build_native.py")["NUMBER"]
    assert built == DECLARATIONS, f"pet_kernels.h has changed: DECLARATIONS in pet/kernels/_compiled.py is {built:#010X} now"
