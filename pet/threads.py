"""How many threads a call may use, and the threads themselves: a few that the whole process shares.

A call's own `threads=` wins over PET_THREADS, which wins over all cores this process may run on. A number that a call asks for
is what it gets. A call that leaves it open takes only threads that no other call of the process keeps busy just now, so
that a coordinator whose workers are all at work is not oversubscribed. This file knows no kernel.
"""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, SupportsIndex

from pet.errors import ConfigError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

#: More threads than this are never alive at once; work that asks for more waits for them, or is done by its caller.
_MAX_HELPERS: Final = 256

_lock = threading.Lock()
#: How many threads are at work inside `occupy`, helpers included.
_busy_count = 0
_own: Final = threading.local()
_pool: ThreadPoolExecutor | None = None


def resolve_threads(threads: SupportsIndex | None) -> int:
    """Return the number of threads for a call.

    Args:
        threads: what the caller asked for; None leaves it to PET_THREADS, then to the machine.

    Raises:
        ConfigError: the argument or PET_THREADS is not a whole number of 1 or more.
    """
    if threads is None:
        text = os.environ.get("PET_THREADS", "")
        if not text:
            return available_cores()
        if not (text.isdecimal() and len(text) <= 9 and int(text) >= 1):
            raise ConfigError(f"PET_THREADS: expected a whole number of 1 or more, got {text!r}")
        return int(text)
    try:
        count = operator.index(threads)
    except TypeError:
        raise ConfigError(f"threads: expected a whole number or None, got {threads!r}") from None
    if count < 1:
        raise ConfigError(f"threads: expected 1 or more, got {threads}")
    return count


def available_cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def occupy(threads: SupportsIndex | None = 1, most: int | None = None) -> Iterator[int]:
    """Count threads as busy while the block runs; gives how many it may use, its own among them.

    Args:
        threads: how many are asked for. None means as many as PET_THREADS or the cores allow in the whole process, less
            those that are busy already; at least one.
        most: how many the work is worth; None means any number.

    Raises:
        ConfigError: as `resolve_threads`.
    """
    global _busy_count
    wanted = resolve_threads(threads)
    is_outermost = not getattr(_own, "is_counted", False)
    with _lock:
        free = wanted if threads is not None else max(1, wanted - _busy_count + (not is_outermost))
        count = max(1, min(free, wanted if most is None else most))
        counted = count - (not is_outermost)
        _busy_count += counted
    _own.is_counted = True
    try:
        yield count
    finally:
        _own.is_counted = not is_outermost
        with _lock:
            _busy_count -= counted


def run_together(work: Callable[[], None], count: int) -> None:
    """Call `work` in this thread and in count - 1 others, and wait for all; an error of one of them is raised.

    The calls share the work out among themselves: when one returns, none is left that nobody has begun. So fewer threads do as
    well, where the system starts no more; a call that it has queued by then finds nothing to do.
    """
    helpers = []
    with suppress(RuntimeError, MemoryError):
        for _ in range(count - 1):
            helpers.append(_helpers().submit(work))  # noqa: PERF401 - those that were begun are to be known
    try:
        work()
    finally:
        # A helper that has not started would find nothing to do. The others still write to the caller's arrays.
        begun = [helper for helper in helpers if not helper.cancel()]
        errors = [helper.exception() for helper in begun]
    for error in errors:
        if error is not None:
            raise error


def _helpers() -> ThreadPoolExecutor:
    """Return the process's threads; they are started when first needed, and kept."""
    global _pool
    from concurrent.futures import ThreadPoolExecutor  # here, because importing pet should not pay for it

    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(_MAX_HELPERS, thread_name_prefix="pet-kernel")
        return _pool


def _start_over() -> None:
    """Forget threads that a fork left behind in the parent, and what they were doing."""
    global _pool, _busy_count, _lock
    _pool, _busy_count = None, 0
    _lock = threading.Lock()  # another thread may have held it at the fork
    _own.is_counted = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)
