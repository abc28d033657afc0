"""Threads of a service that are all there before the first call.

A pool of the standard library starts a thread when a call finds none idle. Where the system has no more, the call raises after
it was queued: its caller waits for a result that no thread will make. And a thread that runs out of memory before it signals
that it began leaves the thread that starts it, here the event loop, waiting for ever. So a coordinator learns at its start
whether it can have its threads, and starts none later. Knows nothing of what is called.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from pet.errors import ThreadStartError


def start_threads(count: int, name: str) -> ThreadPoolExecutor:
    """Return a pool whose threads run.

    Args:
        count: how many.
        name: how those of the pool are called.

    Raises:
        ThreadStartError: the system does not start as many; none of the pool is left.
    """
    pool = ThreadPoolExecutor(count, thread_name_prefix=name)
    are_all_there = threading.Event()
    try:
        # Nobody is idle as long as everybody waits: each call needs a thread of its own.
        for _ in range(count):
            pool.submit(are_all_there.wait)
    except (RuntimeError, MemoryError) as error:
        are_all_there.set()
        pool.shutdown(cancel_futures=True)
        found = str(error) or "too little memory"
        raise ThreadStartError(
            f"expected the system to start {count} threads ({name}), got: {found}; raise its limits"
        ) from None
    are_all_there.set()
    return pool
