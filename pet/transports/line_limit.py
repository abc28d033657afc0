"""A bound on the lines that peers can cause in the log: by address, and for all of them together.

Who calls it decides what a line says and at what level; nothing here knows a connection.
"""

from __future__ import annotations

import logging
import time
from typing import Final

#: One peer gets one line in this time, so that one that tries again and again does not fill the log.
_SECONDS_PER_LINE: Final = 10.0
#: Lines in that time for all peers together.
_MAX_LINES: Final = 20


class LineLimit:
    """Counts lines by peer; for one event loop."""

    def __init__(self, seconds: float = _SECONDS_PER_LINE, max_lines: int = _MAX_LINES) -> None:
        self._seconds, self._max_lines = seconds, max_lines
        self._began = float("-inf")
        self._peers: set[str] = set()
        self._left_out = 0

    def admit(self, peer: str, now_seconds: float) -> int | None:
        """Return how many lines were left out since the last one, or None to leave out this one too."""
        if now_seconds - self._began >= self._seconds:
            self._began = now_seconds
            self._peers.clear()
        if peer in self._peers or len(self._peers) >= self._max_lines:
            self._left_out += 1
            return None
        self._peers.add(peer)
        left_out, self._left_out = self._left_out, 0
        return left_out

    def log(self, logger: logging.Logger, level: int, peer: str, text: str, *arguments: object) -> None:
        """Log a line that a peer caused, unless it has had one lately; the line says how many were left out before it."""
        if (left_out := self.admit(peer, time.monotonic())) is not None:
            more = f" ({left_out} more such lines were left out)" if left_out else ""
            logger.log(level, f"{text}%s", *arguments, more)
