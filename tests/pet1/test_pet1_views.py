"""What coalitions of pet/1 learn, by linear algebra over a small field: section 1.3 of docs/spec/profile.md.

The expansions of parts are uniform and independent, so the view of a coordinator with some members is affine in them and in the
updates. What it learns is the linear functions of the updates in which no expansion is left; which they are decides, not how
many: a weighted sum or a difference is a break, too.
"""

from __future__ import annotations

import itertools

import pytest

from pet import Plan
from pet.pet1.federation import federation_plan

P = 101
#: Updates whose inputs the coalition does not know.
UPDATES = 3
ALL = tuple(range(UPDATES))

Row = list[int]


def eliminate(rows: list[Row], width: int) -> tuple[list[Row], int]:
    """Bring rows into echelon form in their first `width` columns; return them and the rank of these."""
    work, rank = [row[:] for row in rows], 0
    for column in range(width):
        pivot = next((index for index in range(rank, len(work)) if work[index][column]), None)
        if pivot is None:
            continue
        work[rank], work[pivot] = work[pivot], work[rank]
        inverse = pow(work[rank][column], -1, P)
        work[rank] = [value * inverse % P for value in work[rank]]
        for index in range(rank + 1, len(work)):
            if factor := work[index][column]:
                work[index] = [(a - factor * b) % P for a, b in zip(work[index], work[rank], strict=True)]
        rank += 1
    return work, rank


def learnt(rows: list[tuple[Row, Row]]) -> list[Row]:
    """Return a basis of the functions of the inputs that rows of (expansions, inputs) determine."""
    width = len(rows[0][0])
    work, rank = eliminate([hidden + inputs for hidden, inputs in rows], width)
    functions = [row[width:] for row in work[rank:] if any(row[width:])]
    reduced, count = eliminate(functions, len(functions[0])) if functions else ([], 0)
    return reduced[:count]


def view(plan: Plan, coalition: tuple[int, ...], answers: dict[int, tuple[int, ...]]) -> list[Row]:
    """Return what a coordinator and a coalition learn when honest slots answer for these sets of updates."""
    known = {part for slot in coalition for part in plan.held_parts(slot)}
    columns = {pair: index for index, pair in enumerate((i, k) for i in ALL for k in range(plan.part_count) if k not in known)}
    rows = []
    for i in ALL:
        masked = [int(pair[0] == i) for pair in columns]
        rows.append((masked, [int(i == other) for other in ALL]))
    for slot, updates in answers.items():
        row = [0] * len(columns)
        for part in set(plan.held_parts(slot)) - known:
            for i in updates:
                row[columns[i, part]] = plan.share_factor(part, slot, P)
        rows.append((row, [0] * UPDATES))
    return learnt(rows)


def coalitions(count: int) -> list[tuple[int, ...]]:
    return [chosen for size in range(count + 1) for chosen in itertools.combinations(range(count), size)]


SMALL = [
    (1, 1, 1, 1),
    (1, 2, 2, 2),
    (1, 3, 2, 3),
    (1, 3, 3, 3),
    (1, 4, 2, 3),
    (1, 4, 3, 4),
    (2, 2, 2, 3),
    (1, 5, 3, 4),
    (1, 5, 4, 5),
    (2, 3, 2, 5),
    (3, 2, 2, 5),
]
LARGE = [(1, 6, 5, 6), (1, 7, 3, 5), (1, 7, 4, 5), (2, 4, 2, 6)]


@pytest.mark.parametrize(
    "numbers",
    [*SMALL, *(pytest.param(numbers, marks=pytest.mark.long) for numbers in LARGE)],
    ids=lambda numbers: f"{numbers[0]}x{numbers[2]}of{numbers[1]}",
)
def test_with_one_certified_set_a_coalition_learns_its_sum_or_nothing(numbers: tuple[int, ...]) -> None:
    """Every coalition, every pattern of silence; and with the threshold of every group, everything: the bound is tight."""
    plan = Plan(*numbers)
    for coalition in coalitions(plan.member_count):
        honest = [slot for slot in range(plan.member_count) if slot not in coalition]
        groups = [plan.group_slots(group) for group in range(plan.groups)]
        if all(sum(slot in coalition for slot in group) >= plan.threshold for group in groups):
            assert len(coalition) > plan.passive
            assert len(view(plan, coalition, {})) == UPDATES
            continue
        for silent in itertools.product((True, False), repeat=len(honest)):
            answers = {slot: () if is_silent else ALL for slot, is_silent in zip(honest, silent, strict=True)}
            present = {*coalition, *(slot for slot, updates in answers.items() if updates)}
            is_enough = all(len(present & set(group)) >= plan.threshold for group in groups)
            assert view(plan, coalition, answers) == ([[1] * UPDATES] if is_enough else [])


def test_without_a_certificate_a_threshold_is_not_enough() -> None:
    """2 of 3 and no colluder: some sets shown to members give a weighted sum."""
    plan = Plan(groups=1, members=3, threshold=2, quorum=3)
    sets = [updates for count in range(UPDATES + 1) for updates in itertools.combinations(ALL, count)]
    odd = 0
    for shown in itertools.product(sets, repeat=3):
        found = view(plan, (), dict(enumerate(shown)))
        odd += any(value not in (0, 1) for row in found for value in row)
    assert odd


@pytest.mark.parametrize("peers", [3, 4])
def test_two_rounds_of_a_federation_give_the_sums_of_those_that_enough_have_answered(peers: int) -> None:
    """The same vectors, masked afresh, in a round without some peers: what is learnt is spanned by the sums, never more."""
    cases = 0
    for colluders in range(peers - 1):
        coalition, honest = set(range(peers - colluders, peers)), set(range(peers - colluders))
        for answered in coalitions(len(honest)):
            for second in (some for size in range(3, peers + 1) for some in itertools.combinations(range(peers), size)):
                rest = set(second) & honest
                for silent in ([], [min(rest)], sorted(rest)) if rest else ():
                    rounds = [
                        (tuple(range(peers)), set(answered) | coalition),
                        (second, (rest - set(silent)) | (set(second) & coalition)),
                    ]
                    sums = [
                        [int(peer in listed and peer in honest) for peer in range(peers)]
                        for listed, present in rounds
                        if len(present) >= len(listed) - 1
                    ]
                    found = two_rounds(rounds, coalition, peers)
                    _, rank = eliminate(sums, peers)
                    assert len(found) == rank
                    assert eliminate(found + sums, peers)[1] == rank
                    cases += 1
    assert cases > 10


def two_rounds(rounds: list[tuple[tuple[int, ...], set[int]]], coalition: set[int], peers: int) -> list[Row]:
    """Return what several rounds with the same inputs determine; of each its listed peers, and which of them answered."""
    columns: dict[tuple[int, int, int], int] = {}
    sparse: list[tuple[dict[tuple[int, int, int], int], Row]] = []
    for number, (listed, present) in enumerate(rounds):
        plan = federation_plan(len(listed))
        known = {part for slot, peer in enumerate(listed) if peer in coalition for part in plan.held_parts(slot)}
        hidden = [part for part in range(plan.part_count) if part not in known]
        honest = [peer for peer in listed if peer not in coalition]
        sparse += [
            ({(number, peer, part): 1 for part in hidden}, [int(peer == other) for other in range(peers)]) for peer in honest
        ]
        for slot, answering in enumerate(listed):
            if answering in present and answering not in coalition:
                held = set(plan.held_parts(slot)) & set(hidden)
                row = {(number, peer, part): plan.share_factor(part, slot, P) for part in held for peer in honest}
                sparse.append((row, [0] * peers))
        for peer in honest:
            for part in hidden:
                columns[number, peer, part] = len(columns)
    return learnt([([row.get(column, 0) for column in columns], inputs) for row, inputs in sparse])
