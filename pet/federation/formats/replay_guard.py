"""What counts as recent, and the memory of what came within that time, so that nothing signed counts twice.

Requests and messages of peers alike: each carries its time and an id that its sender drew. No clock is read here, and no file:
pet/federation/server/replay_log.py keeps the ids over a restart.

Source: docs/spec/federation.md 4.2, 4.3.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

#: What is signed may be this much older than the clock of who receives it, or newer: clocks are kept by NTP.
MAX_AGE_SECONDS: Final = 300
MAX_LEAD_SECONDS: Final = 60
#: A little more than the window, so that no id is forgotten while what carries it could still be repeated.
MEMORY_SECONDS: Final = MAX_AGE_SECONDS + MAX_LEAD_SECONDS + 60


def is_recent(age_seconds: float) -> bool:
    """Return whether something of this age, negative where the sender's clock is ahead, may still be new."""
    return -MAX_LEAD_SECONDS <= age_seconds <= MAX_AGE_SECONDS


class Known(NamedTuple):
    """An id, who drew it, and when it came."""

    sender: str
    identifier: str
    seconds: float


class ReplayGuard:
    """The ids of the last minutes, per sender.

    Args:
        max_ids: of one sender; beyond that it is refused, and nobody else, and no id is forgotten.
        known: ids that came before, oldest first.
        note: gets each id before it counts as remembered; may raise.
    """

    def __init__(self, max_ids: int, *, known: Iterable[Known] = (), note: Callable[[Known], object] | None = None) -> None:
        self._max_ids: Final = max_ids
        self._note: Final = note
        self._seen: Final[dict[str, OrderedDict[str, float]]] = {}
        for sender, identifier, seconds in known:
            self._seen.setdefault(sender, OrderedDict())[identifier] = seconds

    def remember(self, sender: str, identifier: str, now_seconds: float) -> bool:
        """Note an id; False if it was there already, or if its sender has no room left: then what carries it must be refused.

        Call it only for what has a right signature, or strangers could take up a sender's room.
        """
        seen = self._seen.setdefault(sender, OrderedDict())
        while seen and next(iter(seen.values())) < now_seconds - MEMORY_SECONDS:
            seen.popitem(last=False)
        if identifier in seen or len(seen) >= self._max_ids:
            return False
        if self._note is not None:
            self._note(Known(sender, identifier, now_seconds))
        seen[identifier] = now_seconds
        return True
