"""Who holds how much of something that everybody needs, and who has to give some of it back when there is too little.

A fixed bound for each address would be wrong both ways: ten thousand participants can share one address, and one address can
be an attacker. So an address may hold everything but a reserve as long as nobody else asks; when there is too little, the one
that holds most loses what it took last, and is the first to be refused. In the long run all that ask get the same, and nothing
lies idle. The same table serves memory, files, connections and answers: it counts units, and does not know of what.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

#: What no single holder gets of a resource: one part of this number of parts.
RESERVED_PART: Final = 8


class Holding:
    """One thing that somebody holds.

    Attributes:
        holder: who.
        amount: how much, in units of the resource; 0 after it was evicted.
    """

    __slots__ = ("amount", "evict", "holder")

    def __init__(self, holder: str, evict: Callable[[], None] | None) -> None:
        self.holder: Final = holder
        self.amount = 0
        self.evict = evict


class HolderTable:
    """The holders of one resource; not thread-safe.

    Args:
        capacity: how much there is, in units of the resource.
        reserve: what one holder alone may not have; None means an eighth.
    """

    def __init__(self, capacity: int, reserve: int | None = None) -> None:
        self.capacity: Final = capacity
        #: The most that one holder may have: at least one unit, or there would be no use in having any.
        self.most_of_one: Final = max(1, capacity - (capacity // RESERVED_PART if reserve is None else reserve))
        self.used = 0
        self._amounts: dict[str, int] = {}
        #: By holder, what can be evicted, the newest last.
        self._evictable: dict[str, dict[Holding, None]] = {}

    def held_by(self, holder: str) -> int:
        """Return how much somebody holds."""
        return self._amounts.get(holder, 0)

    def __len__(self) -> int:
        """Return how many hold something."""
        return len(self._amounts)

    def left_for(self, holder: str) -> int:
        """Return how much more somebody could have without anybody's loss."""
        return max(0, min(self.capacity - self.used, self.most_of_one - self.held_by(holder)))

    def begin(self, holder: str, evict: Callable[[], None] | None = None) -> Holding:
        """Return a holding of nothing yet.

        Args:
            holder: who; "" is a holder like others.
            evict: called, at most once, when the holding is taken away; must only arrange for an end. None if that is
                impossible.
        """
        holding = Holding(holder, evict)
        if evict is not None:
            self._evictable.setdefault(holder, {})[holding] = None
        return holding

    def take(self, holder: str, amount: int, evict: Callable[[], None] | None = None) -> Holding | None:
        """Return a holding of `amount`, if necessary at the expense of those who hold more; None if there is not enough.

        More than one holder may have is given to who asks while nothing else is held.
        """
        if not self.make_room(holder, amount):
            return None
        holding = self.begin(holder, evict)
        self.change(holding, amount)
        return holding

    def has_room(self, holder: str, amount: int) -> bool:
        """Return whether `take` would give as much now."""
        return self._fits(holder, amount) or (self._may_have(holder, amount) and self._could_evict(holder, amount))

    def make_room(self, holder: str, amount: int) -> bool:
        """Evict from those who hold more until somebody can have `amount` more; returns whether that is so."""
        if self._fits(holder, amount):
            return True
        if not self._may_have(holder, amount) or not self._could_evict(holder, amount):
            return False
        while self.used + amount > self.capacity:
            if not self.evict_larger(holder, amount):
                return False
        return True

    def evict_larger(self, holder: str, amount: int) -> bool:
        """Evict one holding of the largest holder, if that has more than `holder` would with `amount` more.

        What it held counts as free from now on: its owner ends it as soon as it gets to it.
        """
        victim = self._largest_above(holder, self.held_by(holder) + amount)
        if victim is None:
            return False
        holding = next(holding for holding in reversed(self._evictable[victim]) if holding.amount)
        evict = holding.evict
        self.release(holding)
        assert evict is not None, "only those are in the table of the evictable"
        evict()
        return True

    def is_largest(self, holder: str) -> bool:
        """Return whether nobody holds more."""
        return self.held_by(holder) >= max(self._amounts.values(), default=0)

    def change(self, holding: Holding, amount: int) -> None:
        """Let a holding be of this amount from now on; whether there is room is for the caller to know."""
        difference = amount - holding.amount
        self.used += difference
        held = self.held_by(holding.holder) + difference
        if held:
            self._amounts[holding.holder] = held
        else:
            self._amounts.pop(holding.holder, None)
        holding.amount = amount

    def keep(self, holding: Holding) -> None:
        """Let a holding stay until it is released, whatever others need."""
        holding.evict = None
        evictable = self._evictable.get(holding.holder)
        if evictable is not None and evictable.pop(holding, holding) is None and not evictable:
            del self._evictable[holding.holder]

    def release(self, holding: Holding) -> None:
        """Give back what is held; calling it twice does no harm."""
        self.keep(holding)
        self.change(holding, 0)

    def _fits(self, holder: str, amount: int) -> bool:
        if not self.used:
            return True
        return self.used + amount <= self.capacity and self._may_have(holder, amount)

    def _may_have(self, holder: str, amount: int) -> bool:
        return self.held_by(holder) + amount <= self.most_of_one

    def _could_evict(self, holder: str, amount: int) -> bool:
        """Return whether evicting from those who hold more could make room: nothing is evicted for nothing."""
        least = self.held_by(holder) + amount
        missing = self.used + amount - self.capacity
        for other, evictable in self._evictable.items():
            held = self.held_by(other)
            for holding in reversed(evictable):
                if other == holder or held <= least:
                    break
                missing -= holding.amount
                held -= holding.amount
                if missing <= 0:
                    return True
        return False

    def _largest_above(self, holder: str, amount: int) -> str | None:
        """Return who holds most of those that hold more than `amount` and something that can be evicted."""
        largest = None
        for other, evictable in self._evictable.items():
            held = self.held_by(other)
            if other != holder and held > amount and any(holding.amount for holding in evictable):
                largest, amount = other, held
        return largest
