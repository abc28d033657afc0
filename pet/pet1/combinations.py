"""Whether the sums of some rounds, added and subtracted, give away a few peers: linear algebra over who was in what.

A round is a row over the pairs (peer, version of its statistics), 1 where the pair is in its sum. A combination of rows that is
zero everywhere but at the pairs of a few peers is the sum of their statistics, or of their changes. Comparing rounds in twos is
not enough: {A, B, C} + {C, D, E} - {A, B, C, D, E} is C alone.

This file knows no statistics, no message and no time.

Source: docs/spec/profile.md 6.5 (F5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

#: Who was in a round: the version of its statistics by peer's key.
Versions: TypeAlias = Mapping[bytes, int]
#: A column of the matrix, as the numbers of the rows in which it is 1, and all peers that have such a pair.
_Columns: TypeAlias = list[tuple[tuple[int, ...], frozenset[bytes]]]

#: Ranks are computed modulo this prime, in exact integers. Nobody who only chooses sets finds one whose rank differs over the
#: rationals: a determinant would have to be a multiple of it.
_PRIME: Final = 2**61 - 1


def shows_few(now: Versions, own: Sequence[Versions], others: Sequence[Versions], count: int) -> bool:
    """Return whether a round's sum, with those of earlier ones, gives a combination of at most `count` peers that is not zero.

    Combinations without this round are no reason to refuse it: they are known already, or never will be. Only a sum that would
    follow from rounds that others say exist, and this peer knows nothing of, is judged with all of them: a leader could have
    made them up, so that the sum it is after would seem to tell nothing new.

    In terms of the matrix: a combination with this round's row that is zero outside of some peers' columns exists iff the unit
    vector of that row is not in the space that all other columns span. Columns that are alike count once, and stay while any of
    their peers does. Where the space contains the vector, few columns of it suffice; a choice of peers has to take one of these
    away, so few choices have to be tried. It takes no search through all sets of `count` peers.

    Args:
        now: the set of the round.
        own: sets of rounds that this peer has answered, and so judged before.
        others: of other rounds whose sums may exist.
        count: of peers, 1 or more.
    """
    rows = [now, *own, *others]
    columns, length = _columns(rows), len(rows)
    if _reaching(_columns([now, *own]), 1 + len(own), _Span.has_first) is None:
        return False  # it tells nothing beyond what this peer has answered
    is_new = _reaching(columns, length, _Span.has_first) is not None
    goal = _Span.has_first if is_new else _full_rank(columns, length)
    return _shows(columns, length, goal, frozenset(), count)


def connected(now: Versions, others: Iterable[Versions]) -> list[Versions]:
    """Return the sets that hang together with one by shared pairs of peer and version; others cannot matter."""
    found, reached, left = list[Versions](), set(now.items()), list(others)
    while near := [each for each in left if reached & each.items()]:
        found += near
        left = [each for each in left if not reached & each.items()]
        reached |= {pair for each in near for pair in each.items()}
    return found


def _columns(rows: Sequence[Versions]) -> _Columns:
    """Return the columns, each once, those of most peers first."""
    places: dict[tuple[bytes, int], list[int]] = {}
    for place, row in enumerate(rows):
        for pair in row.items():
            places.setdefault(pair, []).append(place)
    owners: dict[tuple[int, ...], set[bytes]] = {}
    for (peer, _), ones in places.items():
        owners.setdefault(tuple(ones), set()).add(peer)
    return sorted(((ones, frozenset(peers)) for ones, peers in owners.items()), key=lambda each: -len(each[1]))


def _full_rank(columns: _Columns, length: int) -> _Goal:
    """Return whether a space is that of all columns."""
    whole = _Span(length)
    for ones, _ in columns:
        whole.add(ones)
    return lambda span: len(span) == len(whole)


def _shows(columns: _Columns, length: int, goal: _Goal, removed: frozenset[bytes], count: int) -> bool:
    """Return whether the goal is missed without the columns of `removed`, or of at most `count` peers more."""
    basis = _reaching([(ones, peers) for ones, peers in columns if not peers <= removed], length, goal)
    if basis is None:
        return True
    if count == 0:
        return False
    owners = [peers - removed for peers in basis]
    near = {peer for peers in owners if len(peers) <= count for peer in peers}
    return any(_shows(columns, length, goal, removed | {peer}, count - 1) for peer in sorted(near))


def _reaching(columns: _Columns, length: int, goal: _Goal) -> list[frozenset[bytes]] | None:
    """Return the peers of each of some columns whose space reaches a goal; None if that of all columns does not."""
    span, basis = _Span(length), []
    for ones, peers in columns:
        if span.add(ones):
            basis.append(peers)
            if goal(span):
                return basis
    return None


class _Span:
    """The space that some vectors of zeros and ones span, as a basis in echelon form from the last place on.

    Its length is its dimension.
    """

    def __init__(self, length: int) -> None:
        self._length: Final = length
        self._basis: Final[dict[int, list[int]]] = {}

    def __len__(self) -> int:
        return len(self._basis)

    def add(self, ones: Iterable[int]) -> bool:
        """Add a vector that is 1 at some places; returns whether it was not in the space yet."""
        vector = [0] * self._length
        for place in ones:
            vector[place] = 1
        for place in reversed(range(self._length)):
            if not (factor := vector[place]):
                continue
            base = self._basis.get(place)
            if base is None:
                inverse = pow(factor, -1, _PRIME)
                self._basis[place] = [value * inverse % _PRIME for value in vector]
                return True
            vector = [(value - factor * other) % _PRIME for value, other in zip(vector, base, strict=True)]
        return False

    def has_first(self) -> bool:
        """Return whether the vector that is 1 at the first place alone is in the space."""
        return 0 in self._basis  # its pivot is the last place that is not 0


#: What a space is asked for; one that has it keeps it as it grows.
_Goal: TypeAlias = Callable[[_Span], bool]
