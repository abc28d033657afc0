"""How the numba back-end compiles: lazily, once per kernel, for one signature that is written down.

This file knows numba and nothing of what the kernels compute.

A signature that is given keeps the number of compilations at one per kernel: left to itself numba compiles again for every
mixture of read-only and writable arrays.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

import numba
from numba import types

#: The types of arguments and results in signatures.
INTEGER: Final = types.int64
WORD: Final = types.uint64
FLOAT: Final = types.float64
BYTES_IN: Final = types.Array(types.uint8, 1, "C", readonly=True)
BYTES_OUT: Final = types.Array(types.uint8, 1, "C")
WORDS_IN: Final = types.Array(types.uint64, 1, "C", readonly=True)
WORDS_OUT: Final = types.Array(types.uint64, 1, "C")
INTEGERS_IN: Final = types.Array(types.int64, 1, "C", readonly=True)
INTEGERS_OUT: Final = types.Array(types.int64, 1, "C")
FLOATS_OUT: Final = types.Array(types.float64, 1, "C")
INTEGER_PAIR: Final = types.UniTuple(types.int64, 2)  # type: ignore[no-untyped-call]  # numba has few annotations

#: Kernels are called from Python alone, what they inline from nowhere else: entries for others took a fifth of the time of
#: compilation. numba has no annotations of these two options.
_NO_ENTRY_FROM_C: Final[Any] = {"no_cfunc_wrapper": True}
_NO_ENTRIES: Final[Any] = {"no_cpython_wrapper": True, **_NO_ENTRY_FROM_C}

_Function = TypeVar("_Function", bound=Callable[..., Any])

_compiling = threading.Lock()


def inlined(function: _Function) -> _Function:
    """Mark a function that kernels call; it becomes part of their code."""
    compiled: _Function = numba.njit(nogil=True, forceinline=True, **_NO_ENTRIES)(function)
    return compiled


class Kernel:
    """A function that is compiled when it is first called, for one signature; it runs without the interpreter's lock."""

    def __init__(self, function: Callable[..., Any], signature: Any) -> None:
        self._function = function
        self._signature = signature
        self._compiled: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        compiled = self._compiled
        if compiled is None:
            with _compiling:
                compiled = self._compiled = self._compiled or self._compile()
        return compiled(*arguments)

    def _compile(self) -> Callable[..., Any]:
        compiled: Callable[..., Any]
        try:
            compiled = numba.njit(self._signature, nogil=True, **_NO_ENTRY_FROM_C, cache=True)(self._function)
        except RuntimeError:  # numba found no directory that it may write its cache to
            compiled = numba.njit(self._signature, nogil=True, **_NO_ENTRY_FROM_C)(self._function)
        return compiled


def kernel(result: Any, *arguments: Any) -> Callable[[Callable[..., Any]], Kernel]:
    """Make a function a kernel with these types of result and arguments."""
    return lambda function: Kernel(function, result(*arguments))
