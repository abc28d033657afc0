"""How often one source may fail to join before it has to wait. Knows no request.

Source: docs/spec/federation.md 4.1.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

MAX_FAILED_JOINS: Final = 5
_FAILED_JOINS_SECONDS: Final = 60.0
#: Sources that are remembered at the same time; the oldest goes first.
_MAX_SOURCES: Final = 10_000


class FailureLimit:
    """Counts failures per source in a sliding minute."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock: Final = clock
        self._failures: Final[OrderedDict[str, list[float]]] = OrderedDict()

    def allows(self, source: str) -> bool:
        """Return whether a source may try once more."""
        return len(self._recent(source)) < MAX_FAILED_JOINS

    def count(self, source: str) -> None:
        """Note a failure."""
        self._failures[source] = [*self._recent(source), self._clock()]
        self._failures.move_to_end(source)
        while len(self._failures) > _MAX_SOURCES:
            self._failures.popitem(last=False)

    def _recent(self, source: str) -> list[float]:
        since = self._clock() - _FAILED_JOINS_SECONDS
        return [moment for moment in self._failures.get(source, []) if moment > since]
