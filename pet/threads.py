"""How many threads a call may use: its own argument, else PET_THREADS, else all cores this process may run on."""

from __future__ import annotations

import operator
import os
from typing import SupportsIndex

from pet.errors import ConfigError


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
        if not text.isdecimal() or int(text) < 1:
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
