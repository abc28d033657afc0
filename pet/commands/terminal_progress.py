"""How far a command is, its rate and the time left, on standard error and only where somebody looks.

What takes less than two seconds shows nothing. This file knows rich, and nothing of what is under way.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn
from rich.text import Text

_QUIET_SECONDS: Final = 2.0


class ShownProgress:
    """One thing that is under way; without a terminal its calls do nothing."""

    def __init__(self, progress: Progress, what: str, total: float | None, unit: str) -> None:
        self._progress: Final = progress
        self._task: Final = progress.add_task(what, total=total, unit=unit)

    def update(self, done: float, total: float | None = None) -> None:
        """Say how much is done, and of how much if that was not known before."""
        # An estimate that turned out too low: the rest is unknown then.
        known = self._progress.tasks[0].total if total is None else total
        changes: dict[str, Any] = {} if known is None else {"total": max(known, done)}
        self._progress.update(self._task, completed=done, **changes)

    def describe(self, what: str) -> None:
        """Say what is under way now."""
        self._progress.update(self._task, description=what)


@contextmanager
def shown_progress(what: str, total: float | None = None, unit: str = "") -> Iterator[ShownProgress]:
    """Show how far something is while it lasts.

    Args:
        what: a few words.
        total: how much there is, as far as that is known.
        unit: of what; "B" for bytes, in thousands where that is shorter; empty for what is only waited for.
    """
    console, is_watched = Console(stderr=True, highlight=False), sys.stderr.isatty()
    columns = (
        [TimeElapsedColumn()]
        if not unit
        else [BarColumn(bar_width=16), _AmountColumn(), TimeLeftColumn(elapsed_when_finished=True)]
    )
    # Markup in a description would come from outside: names of files and back-ends.
    text = TextColumn("{task.description}", markup=False)
    progress = Progress(
        SpinnerColumn(),
        text,
        *columns,
        console=console,
        transient=True,
        disable=not is_watched,
        # Lines that are printed meanwhile stand above, if they go to the same terminal; elsewhere they are left alone.
        redirect_stdout=sys.stdout.isatty(),
    )
    shown = ShownProgress(progress, what, total, unit)
    later = threading.Timer(_QUIET_SECONDS, progress.start)
    later.daemon = True
    if is_watched:
        later.start()
    try:
        yield shown
    finally:
        if is_watched:
            later.cancel()
            later.join()  # it may just be starting
            progress.stop()


class _AmountColumn(ProgressColumn):
    """Done and total with their unit, and the rate."""

    def render(self, task: Task) -> Text:
        """Return, for example, 12,000 of about 48,000 rows, 3,100 rows/s."""
        unit = str(task.fields["unit"])
        total = "" if task.total is None else f" of {_amount(task.total, unit)}"
        rate = "" if not task.speed else f", {_amount(task.speed, unit)}{_word(unit)}/s"
        return Text(f"{_amount(task.completed, unit)}{total}{_word(unit)}{rate}")


def _amount(number: float, unit: str) -> str:
    if unit == "B":
        return decimal(round(number))
    return f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"


def _word(unit: str) -> str:
    return "" if unit == "B" else f" {unit}"
