"""Signals that end a command, taken where nothing is left behind: for commands that start processes and make folders.

Between the start of a process and the line that remembers it, an exception would leave the process running; within clean-up it
would leave the rest. So signals wait, but in the parts that say they may be interrupted.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Final, Self

#: Of a terminal that is closed there is none on Windows.
_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class StopSignals:
    """Takes SIGINT, SIGTERM and SIGHUP while it is entered; outside of the main thread it does nothing."""

    def __init__(self) -> None:
        self._earlier: dict[signal.Signals, Any] = {}
        self._received: int | None = None
        self._may_raise = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._earlier = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        if kind is None and self._received is not None:
            raise self._error()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal that came, or comes in this part, end it.

        Raises:
            KeyboardInterrupt: on SIGINT.
            SystemExit: on the others, with the status that a shell shows for them.
        """
        self._may_raise = True
        try:
            if self._received is not None:
                raise self._error()
            yield
        finally:
            self._may_raise = False

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self._received = number
        if self._may_raise:
            self._may_raise = False  # a second one does not interrupt the clean-up
            raise self._error()

    def _error(self) -> BaseException:
        assert self._received is not None, "asked after a signal"
        return KeyboardInterrupt() if self._received == signal.SIGINT else SystemExit(128 + self._received)


@contextmanager
def call_on_stop(stop: Callable[[], None]) -> Iterator[None]:
    """Have Ctrl-C and SIGTERM call a function instead of ending the process; outside of the main thread they are left alone.

    A second one ends the process at once, as the system does it: an exception could come in the middle of anything.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        stop()
        signal.signal(number, signal.SIG_DFL)

    earlier: dict[int, Any] = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
