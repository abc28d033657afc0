"""The source of pet as syntax trees, for tests that read it: parsed once in a process, and not before a test asks."""

import ast
import functools
import gc
from collections.abc import Iterable
from pathlib import Path

import pet

ROOT = Path(pet.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))


@functools.cache
def trees() -> dict[Path, ast.Module]:
    """Return the tree of each file of the package; nobody may change one."""
    return parse(FILES)


def parse(files: Iterable[Path]) -> dict[Path, ast.Module]:
    """Parse files, without the garbage collector: it would look at all nodes again and again, for two thirds of the time."""
    gc.disable()
    try:
        parsed = {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}
    finally:
        gc.enable()
    return parsed
