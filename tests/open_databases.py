"""Connections to SQLite that warn when they are collected unclosed, as Python does from 3.13 on; a warning fails a test."""

import functools
import sqlite3
import sys
import warnings


class CheckedConnection(sqlite3.Connection):
    """A connection that knows whether it was closed."""

    _is_closed = False

    def close(self) -> None:
        """Close it."""
        self._is_closed = True
        super().close()

    def __del__(self) -> None:
        """Warn, where nobody closed it."""
        if not self._is_closed:
            warnings.warn(f"unclosed database in {self!r}", ResourceWarning, source=self, stacklevel=1)
            super().close()


def check_connections() -> None:
    """Have every connection of this process checked."""
    if sys.version_info < (3, 13):
        sqlite3.connect = functools.partial(sqlite3.connect, factory=CheckedConnection)
