"""Whether this copy of pet has its compiled module: asked before anything large is imported. It never loads the module.

Without the module pet is a thousand times slower, so nobody should get that by accident: a source tree whose kernels were never
built, or a copy of its files, is refused. A build that was allowed to leave the module out leaves a marker instead (setup.py).
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pet.errors import KernelsNotBuiltError

#: The variants of the compiled module, the most wanted first; every other back-end runs without it.
COMPILED_BACKENDS: Final = ("avx512", "avx2", "neon", "portable")
#: What setup.py writes in place of the module, beside it.
PURE_MARKER: Final = "_pure.txt"

_PACKAGE: Final = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - a Path costs half a millisecond at import


def has_module(package: str = _PACKAGE) -> bool:
    """Return whether a folder of pet has the compiled module."""
    stem = os.path.join(package, "kernels", "_native")  # noqa: PTH118
    return any(os.path.exists(stem + suffix) for suffix in importlib.machinery.EXTENSION_SUFFIXES)  # noqa: PTH110


def is_pure(package: str = _PACKAGE) -> bool:
    """Return whether a folder of pet was built without the compiled module, as PET_ALLOW_PURE=1 permits."""
    return os.path.exists(os.path.join(package, "kernels", PURE_MARKER))  # noqa: PTH110, PTH118


def check_module() -> None:
    """Refuse a copy of pet whose kernels were never built, unless PET_BACKEND names a back-end that needs no compiled module.

    Raises:
        KernelsNotBuiltError: this is a source tree, or a copy of its files; says whether another pet is installed behind it.
    """
    if has_module() or is_pure():
        return
    forced = os.environ.get("PET_BACKEND", "")
    if not forced or forced in COMPILED_BACKENDS:
        raise KernelsNotBuiltError(_describe(Path(_PACKAGE)))


def _describe(package: Path) -> str:
    """Return what is wrong with a folder of pet without the compiled module, and what helps."""
    is_source_tree = (package.parent / "setup.py").exists()
    kind = "this is the source tree" if is_source_tree else "this is a copy of pet's Python files"
    help_ = ["build them with: pip install -e ." if is_source_tree else "install pet with: pip install ."]
    hidden = next(_built_elsewhere(package), None)
    if hidden is not None:
        help_.insert(0, f"it hides the pet that is installed in {hidden}: run Python in another folder than {package.parent}")
    help_.append("or run slowly without them: PET_BACKEND=numba or PET_BACKEND=reference")
    return f"{kind}; its kernels are not built: expected {package / 'kernels' / '_native'}.*, got none; {'; '.join(help_)}"


def _built_elsewhere(own: Path) -> Iterator[Path]:
    """Yield the other folders of pet, with a compiled module, that Python would find if this one were not before them."""
    path_finder = importlib.machinery.PathFinder
    specs = [path_finder.find_spec("pet", [entry]) for entry in sys.path]
    # Editable installs have finders of their own, asked after the path.
    specs += [
        finder.find_spec("pet", None) for finder in sys.meta_path if finder is not path_finder and hasattr(finder, "find_spec")
    ]
    for spec in specs:
        folder = Path(spec.origin).resolve().parent if spec is not None and spec.origin is not None else own
        if folder != own.resolve() and has_module(str(folder)):
            yield folder
