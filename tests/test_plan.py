"""The arithmetic of a committee (docs/spec/profile.md 5 and 11), without vectors."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_files import load_vectors

import pet
from pet.kernels import fields
from pet.plan import interpolation_factors

VECTORS = load_vectors("pet1/shares.json")
ORDERS = {"pet-1/z32": fields.Z32, "pet-1/z64": fields.Z64}


def plan_of(entry):
    return pet.Plan(groups=entry["g"], members=entry["m"], threshold=entry["t"], quorum=entry["q"])


def test_plans_of_the_vectors():
    for entry in VECTORS["plans"]:
        plan = plan_of(entry)
        assert (plan.passive, plan.active, plan.part_count) == (entry["passive"], entry["active"], len(entry["parts"]))
        assert [list(plan.held_parts(slot)) for slot in range(plan.member_count)] == entry["held"]
        for part, (group, lacking) in enumerate(entry["parts"]):
            lacking_slots = {group * plan.members + position - 1 for position in lacking}
            holders = {slot for slot in range(plan.member_count) if part in plan.held_parts(slot)}
            assert holders == set(plan.group_slots(group)) - lacking_slots
        for name, factors in entry["factors"].items():
            order = ORDERS[name]
            assert [[str(f) for f in plan.share_factors(slot, order)] for slot in range(plan.member_count)] == factors


def test_interpolation_of_the_vectors():
    for entry in VECTORS["weights"]:
        factors = interpolation_factors(entry["points"], ORDERS[entry["derivation"]], entry["at"])
        assert [str(factor) for factor in factors] == entry["weights"]


def test_plans_that_the_vectors_refuse():
    for entry in VECTORS["refused"]:
        with pytest.raises(pet.PlanError) as caught:
            pet.Plan(*entry["plan"])
        assert caught.value.reason == entry["reason"]
        assert isinstance(caught.value, pet.ConfigError)


def test_numbers_slots_and_parts_that_cannot_be():
    for numbers in ((1, 3, 2, 2.5), (True, 3, 2, 2), ("1", 3, 2, 2), (-1, -3, 2, 2), (1, 0, 0, 0)):
        with pytest.raises(pet.PlanError) as caught:
            pet.Plan(*numbers)
        assert caught.value.reason == "weak_plan"
    plan = pet.Plan(groups=2, members=3, threshold=2, quorum=5)
    for slot in (-1, 6, 1.0, None):
        for call in (plan.held_parts, lambda slot: plan.share_factors(slot, fields.Z32)):
            with pytest.raises(pet.PlanError, match="slot: expected 0 to 5"):
                call(slot)
    with pytest.raises(pet.PlanError) as caught:
        plan.share_factor(0, 0, fields.Z32)
    assert caught.value.reason == "part_not_held"
    for slots in ([0], [0, 0], [0, 3], [0, 1, 2]):
        with pytest.raises(pet.PlanError, match="expected 2 different ones of one group"):
            plan.interpolation_factors(slots, fields.Z32)
    for prints in ({0: (1, 2), 1: (1,), 2: (1, 2)}, {0: (), 1: (), 2: ()}):
        with pytest.raises(pet.PlanError, match="expected as many numbers of each slot, got") as caught:
            plan.find_consistent(prints, fields.Z32)
        assert caught.value.reason == "uneven_fingerprints"
    for prints in ({}, {0: (1,)}, {0: (1,), 4: (1,)}):
        with pytest.raises(pet.PlanError, match="expected 2 or more of one group"):
            plan.find_consistent(prints, fields.Z32)


@st.composite
def plans(draw, most_parts=60):
    groups, members = draw(st.integers(1, 3)), draw(st.integers(1, 7))
    threshold = draw(st.integers(1, members))
    count = groups * members
    plan = pet.Plan(groups, members, threshold, draw(st.integers(count // 2 + 1, count)))
    return plan if plan.part_count <= most_parts else pet.Plan(1, 3, 2, 3)


@settings(deadline=None)
@given(plans(), st.sampled_from(fields.ORDERS), st.randoms(use_true_random=False))
def test_any_threshold_of_members_recovers_and_one_fewer_misses_one_part(plan, order, source):
    parts = [source.randrange(order) for _ in range(plan.part_count)]
    total = 0
    for group in range(plan.groups):
        own = range(group * plan.part_count // plan.groups, (group + 1) * plan.part_count // plan.groups)
        slots = sorted(source.sample(plan.group_slots(group), plan.threshold))
        assert {part for slot in slots for part in plan.held_parts(slot)} == set(own)
        assert len(set(own) - {part for slot in slots[1:] for part in plan.held_parts(slot)}) == 1
        shares = {
            slot: sum(f * parts[k] for f, k in zip(plan.share_factors(slot, order), plan.held_parts(slot), strict=True))
            for slot in slots
        }
        factors = plan.interpolation_factors(slots, order)
        total += sum(factor * shares[slot] for factor, slot in zip(factors, slots, strict=True))
    assert total % order == sum(parts) % order


@settings(deadline=None)
@given(plans(), st.sampled_from(fields.ORDERS), st.randoms(use_true_random=False))
def test_the_largest_consistent_set(plan, order, source):
    answers = sorted(source.sample(range(plan.members), source.randint(plan.threshold, plan.members)))
    wrong = set(source.sample(answers, source.randint(0, (len(answers) - plan.threshold) // 2)))
    coefficients = [[source.randrange(order) for _ in range(plan.threshold)] for _ in range(2)]
    prints = {
        slot: tuple((sum(c * (slot + 1) ** k for k, c in enumerate(row)) + (slot in wrong)) % order for row in coefficients)
        for slot in answers
    }
    assert plan.find_consistent(prints, order) == tuple(slot for slot in answers if slot not in wrong)


def test_a_set_too_small_to_name_anybody_is_returned_as_it_is():
    plan, order = pet.Plan(1, 5, 3, 4), fields.Z32
    prints = {slot: (random.Random(slot).randrange(order),) for slot in range(5)}
    best = plan.find_consistent(prints, order)
    assert len(best) == 3
    agreeing = [set(chosen) for chosen in itertools.combinations(range(5), 3)]
    assert set(best) in agreeing
