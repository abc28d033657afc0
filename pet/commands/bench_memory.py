"""How much memory this machine has and how large its caches are: what `pet bench` sizes its data by.

This file asks the operating system and knows no kernel. Where the system gives no answer, a conservative constant stands in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: Data that a kernel rotates through is at least this large: 64 MiB is beyond the share of a cache that one core usually gets.
MIN_ROTATION_BYTES: Final = 64 << 20
#: And at most this, so that a machine with a cache of a gigabyte can still be measured in reasonable time.
MAX_ROTATION_BYTES: Final = 512 << 20
#: A rotation takes no more than this share of the memory that is free.
_ROTATION_SHARE: Final = 16
#: Free memory is assumed where the system does not report it: every machine that trains models has as much.
_ASSUMED_BYTES: Final = 2 << 30
#: Part of the free memory that a measurement may fill; the rest is for the interpreter, the probe and everybody else.
_USABLE_SHARE: Final = 0.8

_CACHES: Final = Path("/sys/devices/system/cpu/cpu0/cache")
_MEMORY: Final = Path("/proc/meminfo")
#: Limits of a container: version 2 of control groups, then version 1. A line that is no number sets no limit.
_CONTAINER_LIMITS: Final = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
_UNITS: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def rotation_bytes() -> int:
    """Return how much different data a kernel should touch before the first of it comes again: twice the largest cache."""
    wanted = min(max(MIN_ROTATION_BYTES, 2 * largest_cache_bytes()), MAX_ROTATION_BYTES)
    return min(wanted, usable_bytes() // _ROTATION_SHARE)


def largest_cache_bytes() -> int:
    """Return the size of the largest cache of the first core; 0 where the system does not report it."""
    return max((_parse_size(_read(path)) for path in _CACHES.glob("index*/size")), default=0)


def usable_bytes() -> int:
    """Return how many bytes a measurement may allocate: most of what the machine, or the container, has free."""
    return int(min(_free_bytes()) * _USABLE_SHARE)


def _free_bytes() -> Iterator[int]:
    """Yield each known limit of the memory that is free."""
    free = _meminfo_bytes()
    yield free or _physical_bytes() or _ASSUMED_BYTES
    for limit_file, used_file in _CONTAINER_LIMITS:
        limit, used = _read(limit_file), _read(used_file)
        if limit.isdecimal() and used.isdecimal():
            yield max(0, int(limit) - int(used))


def _meminfo_bytes() -> int:
    for line in _read(_MEMORY).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def _physical_bytes() -> int:
    """Return the size of the memory, for systems that have sysconf and no /proc."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _parse_size(text: str) -> int:
    """Return the bytes of a size as the kernel writes it, 1024K for example; 0 if it is none."""
    number, unit = text[:-1], text[-1:]
    return int(number) * _UNITS[unit] if number.isdecimal() and unit in _UNITS else 0


def _read(path: Path) -> str:
    """Return what a file of the system holds; nothing if it is not there or may not be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
