"""Which back-end runs: found on first use, forced by PET_BACKEND or by `select_backend`, one for the whole process.

Knows the back-ends by name only; what they compute is for pet/kernels/__init__.py.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
from typing import Final, cast

from pet._extras import install_command
from pet._installation import COMPILED_BACKENDS, has_module
from pet.errors import BackendError
from pet.kernels._arrays import Backend, element_bytes

_LOGGER = logging.getLogger(__name__)

#: Every back-end, the most wanted first.
BACKEND_NAMES: Final = (*COMPILED_BACKENDS, "numba", "reference")

#: An installer may have taken such a build out of its cache, long after PET_ALLOW_PURE was set for it.
_WITHOUT_MODULE: Final = (
    "pet is installed without its compiled kernels and runs on %s; to compile them, install it again from its sources: "
    "pip install --no-cache-dir --force-reinstall --no-deps, without PET_ALLOW_PURE. "
    "PET_BACKEND=numba or PET_BACKEND=reference accepts that, without this warning."
)

_active: Backend | None = None
_reported: set[tuple[str, int]] = set()


def load_backend(name: str) -> Backend:
    """Load one back-end by name.

    Raises:
        BackendError: the name is unknown, or the back-end cannot run here.
    """
    if name not in BACKEND_NAMES:
        raise BackendError(f"kernel back-end: expected one of {', '.join(BACKEND_NAMES)}, got {name!r}")
    try:
        if name in COMPILED_BACKENDS:
            return cast("Backend", importlib.import_module("pet.kernels._compiled").load(name))
        return cast("Backend", importlib.import_module(f"pet.kernels._{name}"))
    except ImportError as error:
        if name in COMPILED_BACKENDS and has_module():
            raise BackendError(
                f"the compiled kernels of pet do not load: {error}; build them again on this machine: pip install -e . in a "
                "source tree, else pip install --force-reinstall --no-deps"
            ) from error
        hint = install_command("numba") if name == "numba" else "a C compiler when pet is installed"
        raise BackendError(f"kernel back-end {name!r} is not installed ({error}); it needs {hint}") from error


def available_backends() -> tuple[str, ...]:
    """Return the names of the back-ends that can run here, the most wanted first."""
    names = []
    for name in BACKEND_NAMES:
        try:
            load_backend(name)
        except BackendError:
            continue
        names.append(name)
    return tuple(names)


def select_backend(name: str | None) -> str:
    """Use one back-end from now on, in the whole process; None goes back to PET_BACKEND or the best.

    Returns:
        The name of the back-end that is now in use.

    Raises:
        BackendError: the name is unknown, or the back-end cannot run here; the one in use stays.
    """
    global _active
    _active = load_backend(name) if name is not None else _choose()
    return _active.name


def active_backend() -> str:
    """Return the name of the back-end in use: "avx512", "avx2", "neon", "portable", "numba" or "reference".

    Raises:
        BackendError: PET_BACKEND names one that is unknown or cannot run here.
    """
    return backend_for().name


def _choose() -> Backend:
    forced = os.environ.get("PET_BACKEND", "")
    if forced:
        return load_backend(forced)
    if has_module():
        load_backend("portable")  # every module has it: one that does not load is an error, not a reason to be slow
    for name in BACKEND_NAMES:
        try:
            backend = load_backend(name)
        except BackendError:
            continue
        if name not in COMPILED_BACKENDS:
            _warn_of("numba" if name == "numba" else "Python integers, about a thousand times slower")
        return backend
    raise AssertionError("the reference back-end needs nothing, so it always loads")


@functools.cache
def _warn_of(engine: str) -> None:
    _LOGGER.warning(_WITHOUT_MODULE, engine)


def backend_for(order: int | None = None) -> Backend:
    """Return the back-end in use; say once per width of element if it leaves an order to the portable one."""
    global _active
    if _active is None:
        _active = _choose()
    if order is not None and not _active.covers(order):
        key = (_active.name, element_bytes(order))
        if key not in _reported:
            _reported.add(key)
            _LOGGER.info("%s has no kernels for elements of %d bytes; portable ones are used", *key)
    return _active
