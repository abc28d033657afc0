"""The linear algebra that keeps sums of rounds from giving one peer away, against a slow and obvious form of it."""

import itertools
import random
from fractions import Fraction

from pet.federation.peer.rank_test import is_combination, newly_isolated, without_settled


def a_round(text):
    """'a1 b1 c2' as versions by peer."""
    return {pair[0]: int(pair[1:]) for pair in text.split()}


def rounds(*texts):
    return [a_round(text) for text in texts]


def rank(rows):
    """Over the rationals, by the schoolbook."""
    rows, found = [[Fraction(value) for value in row] for row in rows], 0
    for column in range(len(rows[0]) if rows else 0):
        pivot = next((row for row in rows[found:] if row[column]), None)
        if pivot is None:
            continue
        rows.remove(pivot)
        rows.insert(found, pivot)
        found += 1
        for place in range(found, len(rows)):
            factor = rows[place][column] / pivot[column]
            rows[place] = [value - factor * other for value, other in zip(rows[place], pivot, strict=True)]
    return found


def isolated(rounds_so_far):
    """The test of the specification word for word: the rank falls without the columns of one peer."""
    pairs = sorted({pair for one in rounds_so_far for pair in one.items()})
    matrix = [[int(one.get(peer) == version) for peer, version in pairs] for one in rounds_so_far]
    lost = {}
    for peer in {peer for peer, _ in pairs}:
        rest = [[value for value, pair in zip(row, pairs, strict=True) if pair[0] != peer] for row in matrix]
        if rank(matrix) > rank(rest):
            lost[peer] = rank(matrix) - rank(rest)
    return lost


def test_sums_that_give_a_peer_away():
    for earlier, now, expected in (
        ([], "a1 b1 c1", []),
        (["a1 b1 c1"], "a1 b1 c1", []),
        (["a1 b1 c1"], "a2 b1 c1", ["a"]),
        (["a1 b1 c1"], "a2 b2 c1", []),
        (["a1 b1 c1"], "a1 b1 c1 d1", ["d"]),
        (["a1 b1 c1 d1"], "a1 b1 c1", ["d"]),
        (["a1 b1 c1 d1"], "a2 b1 c1", []),
        # No two of these differ by one peer; together they are c alone.
        (["a1 b1 c1", "c1 d1 e1"], "a1 b1 c1 d1 e1", ["c"]),
        (["a1 b1 c1 d1", "a1 b1 c2 d2"], "a1 b1 c1 d2", ["c", "d"]),
        # What is known already is nobody's fault now.
        (["a1 b1 c1", "a2 b1 c1"], "a2 b2 c2", []),
    ):
        assert newly_isolated(rounds(*earlier), a_round(now)) == expected, (earlier, now)


def test_it_is_the_test_of_the_specification_for_random_rounds():
    draw = random.Random(5)
    found = 0
    for _ in range(150):
        history = []
        for _ in range(draw.randint(1, 5)):
            peers = draw.sample("abcdef", draw.randint(3, 6))
            history.append({peer: draw.randint(1, 2) for peer in peers})
        *earlier, now = history
        before, after = isolated(earlier) if earlier else {}, isolated(history)
        expected = sorted(peer for peer in after if after[peer] > before.get(peer, 0))
        assert newly_isolated(earlier, now) == expected, history
        found += bool(expected)
    assert 4 < found < 105, "both answers occur"


def test_rounds_that_no_longer_matter_may_go_and_no_others():
    """A history whose rounds were dropped as they settled refuses what the whole one refuses."""
    draw = random.Random(6)
    dropped = 0
    for _ in range(100):
        whole, kept, versions = [], [], dict.fromkeys("abcdef", 1)
        for _ in range(7):
            for peer in versions:
                versions[peer] += draw.random() < 0.5
            now = {peer: versions[peer] for peer in draw.sample("abcdef", draw.randint(3, 6))}
            assert newly_isolated(kept, now) == newly_isolated(whole, now), (whole, kept, now)
            assert not is_combination(kept, now) or is_combination(whole, now)
            if not newly_isolated(whole, now):
                whole.append(now)
                kept = without_settled([*kept, now], versions)
        dropped += len(whole) - len(kept)
    assert dropped > 50


def test_a_round_that_tells_nothing_new():
    earlier = rounds("a1 b1 c1 d1", "a1 b1 c1 e1", "a1 b1 f1 d1")
    assert is_combination(earlier, earlier[0])
    assert is_combination(earlier, a_round("a1 b1 f1 e1")), "second - first + third"
    assert not is_combination(earlier, a_round("a1 b1 c1 f1"))
    assert not is_combination([], earlier[0])


def test_many_rounds_of_many_peers_are_quick_to_judge():
    """A leader that calls different sets of the same thousand peers makes the largest matrices; it stalls nobody."""
    draw = random.Random(7)
    peers = [f"p{number}" for number in range(1000)]
    history = [dict.fromkeys(draw.sample(peers, 900), 1) for _ in range(12)]
    assert newly_isolated(history, dict.fromkeys(peers, 1)) == []
    for first, second in itertools.pairwise(history):
        assert first != second
