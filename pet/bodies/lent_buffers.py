"""Buffers that are lent to open bodies in, again and again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

#: Buffers that nobody uses are kept up to this size together, or one of them if it is larger: as many as are open at a time.
_MAX_KEPT_BYTES: Final = 64 << 20


class LentBuffers:
    """Lends one buffer after the other: pages that were never touched cost more than reading into them; any thread may call."""

    def __init__(self) -> None:
        self._free: list[bytearray] = []
        self._lock = threading.Lock()

    @contextmanager
    def lend(self, size_bytes: int) -> Iterator[memoryview]:
        """Lend a buffer of that size; its content is undefined."""
        with self._lock:
            buffer = self._free.pop() if self._free else bytearray()
        if len(buffer) < size_bytes:
            del buffer  # before the larger one is there
            buffer = bytearray(size_bytes)
        with memoryview(buffer) as whole:
            view = whole[:size_bytes]
            try:
                yield view
            finally:
                with suppress(BufferError):
                    view.release()
        self._take_back(buffer)

    def _take_back(self, buffer: bytearray) -> None:
        """Keep a buffer for the next body; one that somebody still looks at belongs to that one from now on."""
        try:
            # A bytearray refuses to change its length while there is a view of it.
            buffer.append(0)
            buffer.pop()
        except BufferError:
            return
        with self._lock:
            if not self._free or sum(map(len, self._free)) + len(buffer) <= _MAX_KEPT_BYTES:
                self._free.append(buffer)
