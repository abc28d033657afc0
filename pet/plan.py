"""Who holds which part of a mask, and how shares become the mask again: the arithmetic of a committee, without any vector.

Members stand in groups; any `threshold` of a group recover the mask, one fewer miss exactly one part. Numbers only: what is
done with vectors is in pet/shares.py.

Source: docs/spec/profile.md 5 and 11.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pet.errors import PlanError

#: Members of one group, members of all groups, and parts of a mask, at most.
MAX_GROUP: Final = 32
MAX_MEMBERS: Final = 255
MAX_PARTS: Final = 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """How many groups of how many members, how many of a group recover the mask, and how many members agree on a set.

    Slots, 0 to `groups * members - 1`, number the members group by group; parts are numbered group by group as well.

    Attributes:
        groups: number of groups.
        members: of each group, at most 32.
        threshold: how many answers of each group give the mask.
        quorum: how many members, of all groups, certify one set of updates; more than half of them.

    Raises:
        PlanError: a number outside its range (reason "weak_plan"), or more than 1024 parts (reason "too_many_parts").
    """

    groups: int
    members: int
    threshold: int
    quorum: int

    def __post_init__(self) -> None:
        numbers = self.groups, self.members, self.threshold, self.quorum
        count = self.groups * self.members if all(type(number) is int for number in numbers) else 0
        is_strong = count > 0 and self.groups >= 1 and 1 <= self.threshold <= self.members <= MAX_GROUP
        if not (is_strong and count <= MAX_MEMBERS and count < 2 * self.quorum <= 2 * count):
            raise PlanError(
                "weak_plan",
                f"plan: expected 1 or more groups of at most {MAX_GROUP} members, {MAX_MEMBERS} in all, a threshold of 1 to the"
                " members of a group, and a quorum of more than half of all members,"
                f" got groups, members, threshold, quorum {numbers}",
            )
        if self.part_count > MAX_PARTS:
            raise PlanError("too_many_parts", f"plan: expected at most {MAX_PARTS} parts, got {self.part_count}")

    @property
    def member_count(self) -> int:
        """Members of all groups: the number of slots."""
        return self.groups * self.members

    @property
    def passive(self) -> int:
        """How many members may collude and learn nothing, together with a coordinator that follows the protocol."""
        return self.groups * self.threshold - 1

    @property
    def active(self) -> int:
        """How many members may collude and learn nothing, together with a coordinator that does whatever it likes."""
        return min(self.passive, 2 * self.quorum - self.member_count - 1)

    @property
    def part_count(self) -> int:
        """How many expansions make a mask: for each group, one for each set of `threshold - 1` members that lack it."""
        return self.groups * math.comb(self.members, self.threshold - 1)

    def held_parts(self, slot: int) -> tuple[int, ...]:
        """Return the numbers of the parts that a slot holds, ascending.

        Raises:
            PlanError: no such slot (reason "unknown_slot").
        """
        return _held_parts(self.members, self.threshold, *self._place(slot))

    def share_factor(self, part: int, slot: int, order: int) -> int:
        """Return what a slot multiplies a part with in its share: the polynomial that is 1 at 0 and 0 at who lacks the part.

        Raises:
            PlanError: no such slot, or a part that it does not hold (reasons "unknown_slot", "part_not_held").
        """
        if part not in self.held_parts(slot):
            raise PlanError("part_not_held", f"part: expected one that slot {slot} holds, got {part}")
        missing = _missing_sets(self.members, self.threshold)
        _, position = self._place(slot)
        return math.prod((a - position) * pow(a, -1, order) for a in missing[part % len(missing)]) % order

    def share_factors(self, slot: int, order: int) -> tuple[int, ...]:
        """Return the factors of all parts that a slot holds, in their order."""
        return tuple(self.share_factor(part, slot, order) for part in self.held_parts(slot))

    def group_slots(self, group: int) -> range:
        """Return the slots of a group."""
        return range(group * self.members, (group + 1) * self.members)

    def interpolation_factors(self, slots: Sequence[int], order: int) -> tuple[int, ...]:
        """Return what the shares of these slots of one group are multiplied with so that their sum is the group's mask.

        Raises:
            PlanError: not `threshold` different slots of one group (reason "unknown_slot").
        """
        places = [self._place(slot) for slot in slots]
        if len({group for group, _ in places}) != 1 or len(set(slots)) != len(slots) or len(slots) != self.threshold:
            raise PlanError("unknown_slot", f"slots: expected {self.threshold} different ones of one group, got {list(slots)}")
        return interpolation_factors([position for _, position in places], order)

    def find_consistent(self, fingerprints: Mapping[int, Sequence[int]], order: int) -> tuple[int, ...]:
        """Return the largest set of a group's slots whose fingerprints lie on one polynomial, ascending.

        Where there are e answers outside of it and 2 e is at most the number of answers less the threshold, no other set is
        as large, and those outside are wrong.

        Args:
            fingerprints: of each slot that answered; all of one group, `threshold` or more, each with as many numbers.
            order: of the field.

        Raises:
            PlanError: fewer answers, or of several groups (reason "unknown_slot"); fingerprints without numbers, or not of as
                many (reason "uneven_fingerprints").
        """
        counts = {len(numbers) for numbers in fingerprints.values()}
        if fingerprints and (len(counts) != 1 or 0 in counts):
            raise PlanError("uneven_fingerprints", f"fingerprints: expected as many numbers of each slot, got {sorted(counts)}")
        slots = sorted(fingerprints)
        if len({self._place(slot)[0] for slot in slots}) != 1 or len(slots) < self.threshold:
            raise PlanError("unknown_slot", f"slots: expected {self.threshold} or more of one group, got {slots}")
        best: tuple[int, ...] = ()
        for chosen in itertools.combinations(slots, self.threshold):
            agreeing = tuple(slot for slot in slots if self._agrees(slot, chosen, fingerprints, order))
            if len(agreeing) > len(best):
                best = agreeing
            if 2 * (len(slots) - len(best)) <= len(slots) - self.threshold:
                break
        return best

    def _agrees(self, slot: int, chosen: Sequence[int], fingerprints: Mapping[int, Sequence[int]], order: int) -> bool:
        """Return whether a slot's fingerprint lies on the polynomial through those of the chosen slots."""
        if slot in chosen:
            return True
        points = tuple(self._place(each)[1] for each in chosen)
        factors = interpolation_factors(points, order, at=self._place(slot)[1])
        expected = [
            sum(factor * fingerprints[each][k] for factor, each in zip(factors, chosen, strict=True)) % order
            for k in range(len(fingerprints[slot]))
        ]
        return expected == list(fingerprints[slot])

    def _place(self, slot: int) -> tuple[int, int]:
        """Return the group of a slot, and its position there, from 1."""
        if type(slot) is not int or not 0 <= slot < self.member_count:
            raise PlanError("unknown_slot", f"slot: expected 0 to {self.member_count - 1}, got {slot!r}")
        return slot // self.members, slot % self.members + 1


def interpolation_factors(points: Sequence[int], order: int, at: int = 0) -> tuple[int, ...]:
    """Return the factors that give a polynomial's value at a place from its values at these different points (Lagrange)."""

    def factor(point: int) -> int:
        return math.prod((at - other) * pow(point - other, -1, order) for other in points if other != point) % order

    return tuple(map(factor, points))


@functools.lru_cache(maxsize=1024)
def _held_parts(members: int, threshold: int, group: int, position: int) -> tuple[int, ...]:
    """Return the parts of a place: every header of a round asks for those of every slot."""
    missing = _missing_sets(members, threshold)
    return tuple(group * len(missing) + k for k, lacking in enumerate(missing) if position not in lacking)


@functools.lru_cache(maxsize=64)
def _missing_sets(members: int, threshold: int) -> tuple[tuple[int, ...], ...]:
    """Return, for each part of a group, the positions that lack it, in lexicographic order."""
    return tuple(itertools.combinations(range(1, members + 1), threshold - 1))
