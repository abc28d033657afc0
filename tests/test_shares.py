"""Shares of a mask: any plan's parts give the exact mean, and wrong shares are named (docs/spec/profile.md 5 and 11)."""

import contextlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_plan import plans

import pet
from pet import parallel
from pet.errors import AggregationError, ConfigError, ModelError, PlanError, UnmaskError
from pet.kernels import _reference_fields as reference
from pet.shares import combine_parts, derive_share, fingerprints, recover_mask

Z32 = pet.MaskConfig.parse("pet-1/z32,f32,bound=1,models=10")
Z64 = pet.MaskConfig.parse("pet-1/z64,int,models=10")
PLAN = pet.Plan(groups=2, members=5, threshold=2, quorum=8)
LENGTH = 700


def seeds_of(plan, updates):
    """Return, for each update, the seeds of its parts."""
    return [[pet.MaskSeed.generate() for _ in range(plan.part_count)] for _ in range(updates)]


def seeds_for(plan, slot, seeds):
    """Return the seeds that a slot holds, by part."""
    return {part: [own[part] for own in seeds] for part in plan.held_parts(slot)}


def shares_of(plan, config, length, seeds, slots):
    return {slot: derive_share(plan, slot, seeds_for(plan, slot, seeds), config, length) for slot in slots}


def total_mask(config, length, seeds):
    return pet.sum_masks([seed for own in seeds for seed in own], config, length)


def spoiled(share, element=3, by=7):
    vect = share.vect.copy()
    order = share.config.vect.order
    value = (reference.to_list(vect[element : element + 1])[0] + by) % order
    reference.write(vect[element : element + 1], [value])
    return pet.Mask(share.config, vect, share.unit)


@pytest.mark.parametrize("config", [Z32, Z64], ids=str)
def test_shares_of_all_and_of_a_few_give_the_mask(config, backend, monkeypatch):
    monkeypatch.setattr(parallel, "ELEMENTS_WORTH_A_THREAD", 100)
    plan = pet.Plan(groups=1, members=3, threshold=2, quorum=3)
    seeds = seeds_of(plan, 2)
    expected = total_mask(config, 300, seeds)
    shares = shares_of(plan, config, 300, seeds, range(3))
    for threads in (1, 3):
        assert derive_share(plan, 1, seeds_for(plan, 1, seeds), config, 300, threads=threads) == shares[1]
        for slots in ((0, 1), (2, 0), (1, 2), (0, 1, 2)):
            result = recover_mask(plan, {slot: shares[slot] for slot in slots}, threads=threads)
            assert result.mask == expected
            assert result.mask.seed_count == 2 * plan.part_count
            assert (result.wrong_slots, result.unchecked_groups) == ((), () if len(slots) == 3 else (0,))


def test_shares_are_those_of_the_sums_of_each_part():
    seeds = seeds_of(PLAN, 3)
    for slot in (0, 4, 7):
        by_part = seeds_for(PLAN, slot, seeds)
        masks = {part: pet.sum_masks(own, Z32, LENGTH) for part, own in by_part.items()}
        share = derive_share(PLAN, slot, by_part, Z32, LENGTH)
        assert combine_parts(PLAN, slot, masks) == share
        assert combine_parts(PLAN, slot, masks).seed_count == share.seed_count == 3 * len(PLAN.held_parts(slot))
        exact = [0] * (LENGTH + 1)
        for part, factor in zip(PLAN.held_parts(slot), PLAN.share_factors(slot, Z32.order), strict=True):
            vector = [*reference.to_list(masks[part].vect), masks[part].unit]
            exact = [(a + factor * b) % Z32.order for a, b in zip(exact, vector, strict=True)]
        assert [*reference.to_list(share.vect), share.unit] == exact


def test_fingerprints_are_inner_products_with_the_unit(monkeypatch):
    monkeypatch.setattr(parallel, "ELEMENTS_WORTH_A_THREAD", 100)
    monkeypatch.setattr("pet.parallel_fields._PIECE_LENGTH", 130)
    keys = [bytes([k]) * 32 for k in range(3)]
    for config in (Z32, Z64):
        shares = {slot: pet.MaskSeed(bytes([slot]) * 32).derive_mask(config, LENGTH) for slot in (1, 5)}
        expansions = [reference.expand(key, 0, LENGTH + 1, config.order) for key in keys]
        for threads in (1, 2, 3):
            for slot, prints in fingerprints(shares, keys, threads=threads).items():
                vector = [*reference.to_list(shares[slot].vect), shares[slot].unit]
                assert list(prints) == [
                    sum(a * b for a, b in zip(vector, expansion, strict=True)) % config.order for expansion in expansions
                ]


# ---- wrong shares -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [Z32, Z64], ids=str)
def test_wrong_shares_are_named_and_left_out_as_far_as_others_can_tell(config):
    seeds = seeds_of(PLAN, 1)
    expected = total_mask(config, LENGTH, seeds)
    shares = shares_of(PLAN, config, LENGTH, seeds, range(10))
    unit_changed = pet.Mask(shares[9].config, shares[9].vect, (shares[9].unit + 1) % config.order)
    last_changed, swapped = spoiled(shares[3], LENGTH - 1), {2: shares[1], 7: shares[2]}
    for wrong in ({0: spoiled(shares[0])}, {3: last_changed}, {9: unit_changed}, swapped):
        result = recover_mask(PLAN, {**shares, **wrong})
        assert result.mask == expected
        assert (result.wrong_slots, result.unchecked_groups) == (tuple(wrong), ())
    # two of five in one group: 2 * 2 > 5 - 2
    with pytest.raises(UnmaskError, match="group 0: expected answers that fit together, got 2 of 5") as caught:
        recover_mask(PLAN, {**shares, 0: spoiled(shares[0]), 1: spoiled(shares[1], by=9)})
    assert caught.value.reason == "wrong_share"
    # one of three: noticed, and nobody can tell whose
    few = {slot: shares[slot] for slot in (0, 1, 2, 5, 6)}
    with pytest.raises(UnmaskError, match="got 1 of 3") as caught:
        recover_mask(PLAN, {**few, 1: spoiled(shares[1])})
    assert caught.value.reason == "wrong_share"
    # one of two: nothing could be compared, and the answer says so
    result = recover_mask(PLAN, {**few, 5: spoiled(shares[5])})
    assert result.mask != expected
    assert result.unchecked_groups == (1,)


def test_answers_that_cannot_be_used():
    seeds = seeds_of(PLAN, 1)
    shares = shares_of(PLAN, Z32, 5, seeds, (0, 1, 5, 6))
    for missing in (0, 6):
        with pytest.raises(UnmaskError, match="expected 2 answers or more, got 1") as caught:
            recover_mask(PLAN, {slot: share for slot, share in shares.items() if slot != missing})
        assert caught.value.reason == "too_few_members"
    with pytest.raises(UnmaskError):
        recover_mask(PLAN, {})
    with pytest.raises(ModelError, match="shares: expected a dictionary, got list"):
        recover_mask(PLAN, list(shares.values()))
    # Without random vectors every answer fits every other, and nothing would say that nothing was compared.
    for keys, words in (
        ([], "one or more, got none"),
        ([b"1"], "32 bytes each"),
        ([bytes(64)], "32 bytes"),
        (["a" * 32], "32"),
    ):
        for call in (recover_mask, lambda plan, shares, keys: fingerprints(shares, keys)):
            with pytest.raises(ModelError, match=f"keys: expected .*{words}"):
                call(PLAN, shares, keys=keys)
    assert fingerprints({}, [bytes(32)]) == {}
    with pytest.raises(PlanError, match="slot: expected 0 to 9"):
        recover_mask(PLAN, {**shares, 10: shares[0]})
    invalid = pet.Mask(Z32, np.full((5, 4), 255, np.uint8), 0)
    with pytest.raises(AggregationError):
        recover_mask(PLAN, {**shares, 1: invalid})
    for other in (shares[1][:4], pet.MaskSeed.generate().derive_mask(Z64, 5), pet.mask_model(np.zeros(5, np.float32), Z32)[1]):
        with pytest.raises(ModelError, match="share: expected"):
            recover_mask(PLAN, {**shares, 1: other})
    xaynet = pet.MaskSeed.generate().derive_mask(pet.MaskConfig.parse("prime-f32-b0-m3"), 5)
    with pytest.raises(ConfigError, match="expected a config of pet-1"):
        recover_mask(PLAN, dict.fromkeys((0, 1, 5, 6), xaynet))


def test_seeds_and_masks_that_do_not_make_a_share():
    seeds = seeds_of(PLAN, 2)
    own = seeds_for(PLAN, 0, seeds)
    first = min(own)
    for wrong, words in (
        ({}, "expected those of the parts"),
        ({**own, 99: own[first]}, "expected those of the parts"),
        ({**own, first: own[first][:1]}, "expected as many for each part"),
        ({**own, first: [bytes(32)] * 2}, "expected MaskSeed objects"),
        ({**own, first: own[first][0]}, "expected several MaskSeed objects, got MaskSeed"),
        ({str(part): mine for part, mine in own.items()}, "expected those of the parts"),
        (None, "seeds: expected a dictionary, got NoneType"),
    ):
        with pytest.raises(ModelError, match=words):
            derive_share(PLAN, 0, wrong, Z32, 5)
    once = {part: iter(mine) for part, mine in own.items()}
    assert derive_share(PLAN, 0, once, Z32, 5) == derive_share(PLAN, 0, own, Z32, 5)
    for masks, words in (({}, "expected those of the parts"), (list(own), "masks: expected a dictionary, got list")):
        with pytest.raises(ModelError, match=words):
            combine_parts(PLAN, 0, masks)
    with pytest.raises(ConfigError):
        derive_share(PLAN, 0, own, pet.MaskConfig.parse("prime-f32-b0-m3"), 5)


# ---- any plan ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(plans(most_parts=20), st.sampled_from(["z32", "z64"]), st.booleans(), st.randoms(use_true_random=False))
def test_any_plan_gives_the_exact_mean_or_totals(plan, field, is_integer, source):
    updates, length = source.randint(1, 3), 3
    config = pet.MaskConfig.parse(f"pet-1/{field},int,models=5" if is_integer else f"pet-1/{field},f64,bound=0.5,models=5")
    seeds = seeds_of(plan, updates)
    total = pet.Aggregation(config, length)
    rows, scalars = [], []
    for own in seeds:
        scalar = source.randint(1, 9) if is_integer else Fraction(source.random()) + Fraction(1, 10**6)
        row = [source.randint(0, config.levels) if is_integer else source.uniform(-0.5, 0.5) for _ in range(length)]
        scalar = min(scalar, Fraction(1)) if not is_integer else scalar
        total.add(pet.mask_model(np.array(row, dtype=config.dtype), config, scalar, seed=own)[1])
        rows.append(row)
        scalars.append(Fraction(scalar))
    slots: list[int] = []
    for group in range(plan.groups):
        slots += source.sample(plan.group_slots(group), source.randint(plan.threshold, plan.members))
    shares = shares_of(plan, config, length, seeds, slots)
    for group in range(plan.groups):
        own = [slot for slot in plan.group_slots(group) if slot in shares]
        if len(own) - plan.threshold >= 2:
            shares[own[0]] = spoiled(shares[own[0]], 1)
    model = total.unmask(recover_mask(plan, shares).mask)
    if is_integer:
        assert model.to_array().tolist() == [sum(column) for column in zip(*rows, strict=True)]
        assert model.scalar_sum == sum(scalars)
        return
    if config.encoding_steps * updates >= config.levels * sum(scalars):
        return
    for got, column in zip(model.to_fractions(), zip(*rows, strict=True), strict=True):
        exact = sum(s * Fraction(w) for s, w in zip(scalars, column, strict=True)) / sum(scalars)
        assert abs(got - exact) <= model.masking_error


def shifted(plan, slot, share, honest, scale):
    """Return a share plus a multiple of the polynomial that vanishes at `honest`, threshold - 1 slots: as colluders would.

    Shares that are changed like this lie on one polynomial with those of `honest`.
    """
    order = share.config.vect.order
    for other in honest:
        scale = scale * (slot - other) % order
    values = [(value + scale * (k + 1)) % order for k, value in enumerate([*reference.to_list(share.vect), share.unit])]
    vect = share.vect.copy()
    reference.write(vect, values[:-1])
    return pet.Mask(share.config, vect, values[-1])


@settings(deadline=None, max_examples=40)
@given(plans(most_parts=20), st.sampled_from(["z32", "z64"]), st.booleans(), st.data())
def test_wrong_shares_of_any_plan_are_named_as_far_as_the_specification_says(plan, field, do_collude, data):
    """Of r answers of a group, up to (r - threshold) / 2 wrong ones are named, up to r - threshold noticed (11), at least."""
    config = pet.MaskConfig.parse(f"pet-1/{field},int,models=5")
    seeds = seeds_of(plan, 1)
    expected, shares, wrong, unchecked = total_mask(config, 2, seeds), {}, [], []
    are_named, result = True, None
    for group in range(plan.groups):
        slots = data.draw(st.permutations(plan.group_slots(group)))
        answers = slots[: data.draw(st.integers(plan.threshold, plan.members))]
        spare = len(answers) - plan.threshold
        bad, honest = [], answers
        if spare:
            count = data.draw(st.integers(0, spare))
            bad, honest = answers[:count], answers[count:]
        are_named = are_named and 2 * len(bad) <= spare
        own = shares_of(plan, config, 2, seeds, answers)
        for slot in bad:
            if do_collude:
                own[slot] = shifted(plan, slot, own[slot], honest[: plan.threshold - 1], 5)
            else:
                own[slot] = spoiled(own[slot], slot % 2, data.draw(st.integers(1, config.order - 1)))
        shares.update(own)
        wrong += bad
        unchecked += [] if spare else [group]
    if not are_named and not do_collude:
        with pytest.raises(UnmaskError) as caught:
            recover_mask(plan, shares)
        assert caught.value.reason == "wrong_share"
        return
    with contextlib.nullcontext() if are_named else contextlib.suppress(UnmaskError):
        result = recover_mask(plan, dict(reversed(shares.items())))
    if not are_named:  # colluders who outvote the others: nobody can tell who lies, but that somebody does
        assert result is None or result.wrong_slots
        return
    assert result is not None
    assert sorted(result.wrong_slots) == sorted(wrong)
    assert result.unchecked_groups == tuple(unchecked)
    assert result.mask == expected
