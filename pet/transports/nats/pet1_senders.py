"""Who may send an update of pet/1 at the moment: so few at a time that what is under way stays below what a broker holds.

A sender gets its turn when it opens an update, and keeps it until its update is over, as long as leaves come. Who finds no
turn is remembered in the order of asking, and the first of them that asks again is the next. A turn ends early where nothing
comes for `SILENT_SECONDS`; and while others wait, where it brings more leaves than an update has, or too few in a while. So who
opens updates and brings no leaves, or the same ones again and again, takes its turn like others, and no more.

A sender is a name in a subject: only where the broker lets each participant use its own name alone (docs/nats.md) can nobody
have the turns of several. Bookkeeping alone: the time is given.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Final

from pet.bodies.memory_budget import PROGRESS_SHARE

#: Senders at the same time. With a window of eight leaves of half a MiB each they are 32 MiB, half of what a broker holds
#: (docs/spec/federation.md 5.1, fact 2).
DEFAULT_SENDERS: Final = 8
#: Leaves that one sender may have under way: those of its window, and some that were sent again after a break.
MAX_LEAVES: Final = 12
#: How long a turn is kept without a leaf.
SILENT_SECONDS: Final = 2.0
#: How long somebody who found no turn keeps its place.
_FORGOTTEN_SECONDS: Final = 15.0
_MAX_WAITING: Final = 4096


@dataclass(slots=True)
class _Turn:
    """A sender that may send now.

    Attributes:
        milestone_seconds: when it last had brought the part of an update that it has to bring in a while.
        latest_seconds: when it began, or a leaf came last or was answered; to open an update again does not count.
        taken: leaves that were taken.
        since_milestone: those of them since `milestone_seconds`.
    """

    milestone_seconds: float
    latest_seconds: float
    taken: int = 0
    since_milestone: int = 0


class Pet1Senders:
    """The senders of one coordinator.

    Args:
        count: how many may send at the same time.
        stall_seconds: in how long a sixteenth of an update must come, while others wait.
    """

    def __init__(self, count: int, stall_seconds: float) -> None:
        self._count: Final = count
        self._stall_seconds: Final = stall_seconds
        self._turns: Final[dict[str, _Turn]] = {}
        #: Leaves that were taken and are not answered, of each sender; they may outlive its turn.
        self._under_way: Final[Counter[str]] = Counter()
        #: Who waits, in the order of asking, and when they asked last.
        self._waiting: Final[OrderedDict[str, float]] = OrderedDict()

    def may_send(self, peer: str, leaves: int, now_seconds: float) -> bool:
        """Return whether a sender has its turn, after it got one if there is one for it.

        Args:
            peer: who.
            leaves: of an update of this round.
            now_seconds: the time.
        """
        turn = self._turns.get(peer)
        if turn is None or self._is_over(peer, turn, leaves, now_seconds):
            for other, theirs in list(self._turns.items()):
                if self._is_over(other, theirs, leaves, now_seconds):
                    del self._turns[other]
            if self._count_before(peer, now_seconds) >= self._count - len(self._turns):
                self._wait(peer, now_seconds)
                return False
            self._waiting.pop(peer, None)
            self._turns[peer] = _Turn(now_seconds, now_seconds)
        return True

    def take_leaf(self, peer: str, leaves: int, now_seconds: float) -> bool:
        """Count a leaf that came; False if its sender has no turn, or too many are under way. `end_leaf` follows True."""
        if not self.may_send(peer, leaves, now_seconds):
            return False
        if self._under_way.get(peer, 0) >= MAX_LEAVES or self.count_under_way() >= self._count * MAX_LEAVES:
            return False
        turn = self._turns[peer]
        self._under_way[peer] += 1
        turn.taken += 1
        turn.latest_seconds = now_seconds
        turn.since_milestone += 1
        if turn.since_milestone * PROGRESS_SHARE >= leaves:
            turn.since_milestone, turn.milestone_seconds = 0, now_seconds
        return True

    def end_leaf(self, peer: str, now_seconds: float) -> None:
        """Note that a leaf is answered."""
        self._under_way[peer] -= 1
        if not self._under_way[peer]:
            del self._under_way[peer]
        if (turn := self._turns.get(peer)) is not None:
            turn.latest_seconds = now_seconds

    def count_under_way(self) -> int:
        """Return how many leaves of all senders were taken and are not answered."""
        return self._under_way.total()

    def end_turn(self, peer: str) -> None:
        """Note that a sender is through, or refused."""
        self._turns.pop(peer, None)

    def _is_over(self, peer: str, turn: _Turn, leaves: int, now_seconds: float) -> bool:
        if peer not in self._under_way and now_seconds - turn.latest_seconds > SILENT_SECONDS:
            return True
        is_slow = now_seconds - turn.milestone_seconds > self._stall_seconds
        return bool(self._waiting) and (is_slow or turn.taken >= leaves + 2 * MAX_LEAVES)

    def _count_before(self, peer: str, now_seconds: float) -> int:
        """Return how many wait before a sender, as far as turns would go round; those that went away are forgotten."""
        before, absent = 0, list[str]()
        for other, asked_seconds in self._waiting.items():
            if other == peer or before >= self._count:
                break
            if now_seconds - asked_seconds > _FORGOTTEN_SECONDS:
                absent.append(other)
            else:
                before += 1
        for other in absent:
            del self._waiting[other]
        return before

    def _wait(self, peer: str, now_seconds: float) -> None:
        """Remember that a sender waits; it keeps its place. Who comes when too many wait is not remembered."""
        if peer in self._waiting or len(self._waiting) < _MAX_WAITING:
            self._waiting[peer] = now_seconds
