"""What must hold in every simulated round of pet/1, whatever happens in it.

Everything that an honest key signs passes through `Ledger`, every result through a function: `Violation` is raised at the first
thing that must not be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from pet.pet1.hashes import DIGEST_BYTES
from pet.pet1.messages import Pet1Tag


class Violation(Exception):
    """Something happened that must never happen."""


def require(holds: bool, broken: str) -> None:
    if not holds:
        raise Violation(broken)


class Ledger:
    """What each honest key has signed, by the number of the round."""

    def __init__(self) -> None:
        self._signed: defaultdict[tuple[int, bytes, str], set[bytes]] = defaultdict(set)
        self._agreed: defaultdict[int, set[frozenset[bytes]]] = defaultdict(set)

    def enter(self, number: int, message: bytes) -> None:
        """Note a message of an honest key: one Sum, one root, one certificate, one Update in a round of one number."""
        sender, tag, payload = message[64:96], Pet1Tag(message[132]), message[136:]
        self._once(number, sender, tag.name, message)
        if tag is Pet1Tag.CHECK:
            self._once(number, sender, "root", payload[:DIGEST_BYTES])
        if tag is Pet1Tag.SUM2:
            self._once(number, sender, "certificate", payload[:DIGEST_BYTES])

    def _once(self, number: int, sender: bytes, kind: str, value: bytes) -> None:
        found = self._signed[number, sender, kind]
        found.add(value)
        require(len(found) == 1, f"round {number}: a key signed two of {kind}")

    def enter_answer(self, number: int, agreed: Collection[bytes], honest: Collection[bytes]) -> None:
        """Note the set that an honest member answered for: the honest updates in it are the same for all of them.

        Holds as long as no more members collude than the plan bears (docs/spec/profile.md 10.3, 10.4).
        """
        sets = self._agreed[number]
        sets.add(frozenset(agreed) & frozenset(honest))
        require(len(sets) == 1, f"round {number}: honest members answered for sets with other honest updates")
        require(len(agreed) >= 3, f"round {number}: a sum of {len(agreed)} updates was answered")


def require_manifest(number: int, listed: Collection[bytes], accepted: Collection[bytes], sent: Collection[bytes]) -> None:
    """All accepted updates are listed, and none that was not sent whole: a sender may not hear that its update is there."""
    require(set(accepted) <= set(listed) <= set(sent), f"round {number}: the list is not the updates that were accepted")


def require_excluded(number: int, excluded: Collection[bytes], liars: Collection[bytes]) -> None:
    require(set(excluded) <= set(liars), f"round {number}: an honest update was excluded")


def require_sum(number: int, found: tuple[int, ...], expected: tuple[int, ...], is_comparable: bool) -> None:
    """A sum is exact, unless a lying member answered in a group of which no answer could be compared, which the result says."""
    require(found == expected or not is_comparable, f"round {number}: expected the sum {expected}, got {found}")
