"""Whether the sums of some rounds, added and subtracted, give away one peer: linear algebra over who took part with what.

A round is a row over the pairs (peer, version of its statistics), 1 where the pair is in its sum. A combination of rows that is
zero everywhere but at the pairs of one peer is that peer's statistics, or their change. Comparing rounds in twos is not enough:
{A, B, C} + {C, D, E} - {A, B, C, D, E} is C alone.

This file knows no statistics, no message and no time.

Source: docs/spec/federation.md 1.7.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Self

#: Who took part in a round: the version of its statistics by peer.
Versions = Mapping[str, int]

#: Ranks are computed modulo this prime, in exact integers. Nobody who only chooses sets finds one whose rank differs over the
#: rationals: a determinant would have to be a multiple of it.
_PRIME: Final = 2**61 - 1


def newly_isolated(earlier: Sequence[Versions], now: Versions) -> list[str]:
    """Return the peers whose statistics, or their change, would follow from the sums with one more round.

    Args:
        earlier: rounds whose sums somebody may know.
        now: the round in question.
    """
    with_it = _lost_ranks([*earlier, now])
    if not with_it:
        return []
    before = _lost_ranks(earlier)
    return sorted(peer for peer, lost in with_it.items() if lost > before.get(peer, 0))


def is_combination(earlier: Sequence[Versions], now: Versions) -> bool:
    """Return whether the sum of a round follows from those of earlier ones, so that it tells nothing new."""
    places = {pair: place for place, pair in enumerate(dict.fromkeys(p for one in (*earlier, now) for p in one.items()))}
    space = _Span(len(places))
    for one in earlier:
        space.add([places[pair] for pair in one.items()])
    return not space.add([places[pair] for pair in now.items()])


def without_settled(rounds: Sequence[Versions], newest: Versions) -> list[Versions]:
    """Return the rounds that can still matter.

    A pair of an older version than a peer's newest never comes again. A round with such pairs of two peers that no other round
    has is in no combination that isolates anybody: the two would remain. A round that hangs together with no pair that can come
    again, directly or through others, is in no combination with a later one.

    Args:
        rounds: oldest first.
        newest: the newest known version of each peer.
    """
    kept = list(rounds)
    while True:
        holders: dict[tuple[str, int], int] = {}
        for one in kept:
            for pair in one.items():
                holders[pair] = holders.get(pair, 0) + 1
        settled = [one for one in kept if len(_exclusive_peers(one, holders, newest)) > 1]
        if not settled:
            return _connected(kept, newest)
        kept.remove(settled[0])


def _exclusive_peers(one: Versions, holders: Mapping[tuple[str, int], int], newest: Versions) -> set[str]:
    """Return the peers of which a round has a pair that no other has, and that never comes again."""
    return {peer for peer, version in one.items() if version < newest.get(peer, 0) and holders[peer, version] == 1}


def _connected(rounds: list[Versions], newest: Versions) -> list[Versions]:
    """Return the rounds that share pairs, directly or through others, with one that can come again."""
    reached = {pair for one in rounds for pair in one.items() if pair[1] >= newest.get(pair[0], 0)}
    kept: set[int] = set()
    while more := [place for place, one in enumerate(rounds) if place not in kept and not reached.isdisjoint(one.items())]:
        kept.update(more)
        for place in more:
            reached.update(rounds[place].items())
    return [one for place, one in enumerate(rounds) if place in kept]


def _lost_ranks(rounds: Sequence[Versions]) -> dict[str, int]:
    """Return by how much the rank falls without the pairs of one peer, for each peer for which it does.

    The rank is that of the columns, one for each pair. A column that two peers have stays whichever of them goes, so only a
    column of one peer alone can make a difference, and only where the shared ones do not span it.
    """
    holders: dict[tuple[int, ...], set[str]] = {}
    for pair in dict.fromkeys(pair for one in rounds for pair in one.items()):
        column = tuple(place for place, one in enumerate(rounds) if one.get(pair[0]) == pair[1])
        holders.setdefault(column, set()).add(pair[0])
    alone = {column: next(iter(peers)) for column, peers in holders.items() if len(peers) == 1}
    shared = _Span.of(len(rounds), (column for column, peers in holders.items() if len(peers) > 1))
    whole = shared.copy()
    needed = {peer for column, peer in alone.items() if whole.add(column)}
    lost = {}
    for peer in needed:
        rest = shared.copy()
        for column, owner in alone.items():
            if owner != peer:
                rest.add(column)
        if rest.rank < whole.rank:
            lost[peer] = whole.rank - rest.rank
    return lost


class _Span:
    """The space that some vectors of zeros and ones span, as a basis in echelon form.

    Args:
        length: of the vectors.
    """

    def __init__(self, length: int) -> None:
        self._length: Final = length
        self._basis: dict[int, list[int]] = {}

    @classmethod
    def of(cls, length: int, vectors: Iterable[Sequence[int]]) -> Self:
        """Return the space of vectors, each as the places of its ones."""
        space = cls(length)
        for ones in vectors:
            space.add(ones)
        return space

    @property
    def rank(self) -> int:
        """The dimension."""
        return len(self._basis)

    def copy(self) -> _Span:
        """Return the same space, to be added to."""
        other = _Span(self._length)
        other._basis = dict(self._basis)  # its vectors are never changed
        return other

    def add(self, ones: Iterable[int]) -> bool:
        """Add a vector that is 1 at some places; returns whether it was not in the space yet."""
        vector = [0] * self._length
        for place in ones:
            vector[place] = 1
        for place in range(self._length):
            if not (factor := vector[place]):
                continue
            base = self._basis.get(place)
            if base is None:
                inverse = pow(factor, -1, _PRIME)
                self._basis[place] = [value * inverse % _PRIME for value in vector]
                return True
            vector = [(value - factor * other) % _PRIME for value, other in zip(vector, base, strict=True)]
        return False
