"""A member's share of a total mask, and the mask from the shares of some members, even where some of them are wrong.

Pure functions over packed vectors of pet-1; who is a member, and who agreed on the updates, is a protocol's business.

    shares = {slot: pet.shares.derive_share(plan, slot, seeds, config, length) for slot in (0, 2, 3)}
    mask = pet.shares.recover_mask(plan, shares).mask

Source: docs/spec/profile.md 5 and 11.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, SupportsIndex

import numpy as np

from pet import parallel_fields
from pet.errors import ConfigError, ModelError, UnmaskError
from pet.field_config import FieldConfig
from pet.kernels import fields
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.mask_object import Mask, MaskSeed, validate_seeds
from pet.packed_object import validate_length
from pet.plan import Plan

#: Random vectors that make a fingerprint: an error survives with a probability below 2^-127.
FINGERPRINT_COUNT: Final = {fields.Z32: 4, fields.Z64: 2}


@dataclass(frozen=True, slots=True)
class RecoveredMask:
    """A total mask, and what comparing the answers showed.

    Attributes:
        mask: the sum of the masks of all seeds.
        wrong_slots: slots whose answers do not fit the others of their group; they were left out.
        unchecked_groups: groups with no more answers than the threshold: nothing could be compared.
    """

    mask: Mask
    wrong_slots: tuple[int, ...]
    unchecked_groups: tuple[int, ...]


def derive_share(
    plan: Plan,
    slot: int,
    seeds: Mapping[int, Iterable[MaskSeed]],
    config: MaskConfig | MaskConfigPair,
    length: int,
    *,
    threads: SupportsIndex | None = None,
) -> Mask:
    """Return the share of a slot: the sum, over the parts that it holds, of factor * the sum of the part's masks.

    Args:
        plan: of the committee.
        slot: whose share.
        seeds: for each part that the slot holds, the seeds of all updates of the agreed set.
        config: a config of pet-1.
        length: number of weights.
        threads: how many threads to use; None means PET_THREADS, else all cores that pet leaves idle. The result is the same
            for any number.

    Returns:
        A mask object whose vector is the share; `seed_count` is the number of seeds in it.

    Raises:
        PlanError: no such slot.
        ModelError: seeds of other parts than those it holds, or not of as many updates for each; no length.
        ConfigError: a config of xaynet; `threads`, or PET_THREADS, is no whole number of 1 or more.
    """
    pair, field = _require_field(config)
    validate_length(length)
    held = plan.held_parts(slot)
    _require_parts("seeds", seeds, held, slot)
    listed = {part: validate_seeds(seeds[part]) for part in held}
    counts = {len(own) for own in listed.values()}
    if len(counts) != 1:
        raise ModelError(f"seeds: expected as many for each part, got {sorted(counts)}")
    share = parallel_fields.new_vector(length, field.order)
    unit = parallel_fields.new_vector(1, field.order)
    for part, factor in zip(held, plan.share_factors(slot, field.order), strict=True):
        keys = b"".join(seed.to_bytes() for seed in listed[part])
        parallel_fields.expand_add(share, 0, keys, field.order, threads, factor)
        fields.expand_add(unit, length, keys, field.order, factor)
    return Mask(pair, share, int.from_bytes(unit.tobytes(), "little"), counts.pop() * len(held))


def combine_parts(plan: Plan, slot: int, masks: Mapping[int, Mask], *, threads: SupportsIndex | None = None) -> Mask:
    """Return the share of a slot from the sums of the masks of each part that it holds.

    Args:
        plan: of the committee.
        slot: whose share.
        masks: for each part that the slot holds, the sum of the masks of all updates of the agreed set.
        threads: as `derive_share`.

    Raises:
        PlanError: no such slot.
        ModelError: masks of other parts than those it holds, or that do not have one config and length.
        AggregationError: an element of a mask is not below the order (reason "invalid_object").
        ConfigError: as `derive_share`.
    """
    held = plan.held_parts(slot)
    _require_parts("masks", masks, held, slot)
    chosen = [masks[part] for part in held]
    _validate_alike(chosen, threads)
    _, field = _require_field(chosen[0].config)
    return _weighted_sum(chosen, plan.share_factors(slot, field.order), threads, _sum_counts(chosen))


def recover_mask(
    plan: Plan,
    shares: Mapping[int, Mask],
    *,
    keys: Sequence[bytes] | None = None,
    threads: SupportsIndex | None = None,
) -> RecoveredMask:
    """Return the total mask from the shares of `threshold` or more members of each group.

    With more, they are compared by fingerprints: of r answers of a group, up to (r - threshold) / 2 wrong ones are named and
    left out. The random vectors have to be drawn after the last share came; so they are, unless `keys` says otherwise.

    Args:
        plan: of the committee.
        shares: of the slots that answered.
        keys: 32 bytes for each random vector, for tests; fresh ones if None.
        threads: as `derive_share`.

    Raises:
        PlanError: no such slot.
        UnmaskError: fewer than `threshold` answers of a group (reason "too_few_members"), or more wrong ones than can be named
            (reason "wrong_share").
        ModelError: shares that do not have one config and length; no keys, or one that has not 32 bytes.
        AggregationError: an element of a share is not below the order (reason "invalid_object").
        ConfigError: as `derive_share`.
    """
    _require_mapping("shares", shares)
    answers = [{slot: shares[slot] for slot in plan.group_slots(group) if slot in shares} for group in range(plan.groups)]
    for slot in shares:
        plan.held_parts(slot)  # refuses slots that there are not
    for group, own in enumerate(answers):
        if len(own) < plan.threshold:
            expected = f"group {group}: expected {plan.threshold} answers or more, got {len(own)}"
            raise UnmaskError("too_few_members", expected)
    _validate_alike(list(shares.values()), threads)
    _, field = _require_field(next(iter(shares.values())).config)
    random = [os.urandom(fields.KEY_BYTES) for _ in range(FINGERPRINT_COUNT[field.order])] if keys is None else list(keys)
    _validate_keys(random)
    used: list[int] = []
    wrong: list[int] = []
    for group, own in enumerate(answers):
        agreeing = _consistent(plan, group, own, random, threads)
        wrong += [slot for slot in own if slot not in agreeing]
        used += agreeing[: plan.threshold]
    factors = [
        factor
        for start in range(0, len(used), plan.threshold)
        for factor in plan.interpolation_factors(used[start : start + plan.threshold], field.order)
    ]
    mask = _weighted_sum([shares[slot] for slot in used], factors, threads, _total_count(plan, [shares[slot] for slot in used]))
    unchecked = tuple(group for group, own in enumerate(answers) if len(own) == plan.threshold)
    return RecoveredMask(mask, tuple(wrong), unchecked)


def fingerprints(
    shares: Mapping[int, Mask], keys: Sequence[bytes], *, threads: SupportsIndex | None = None
) -> dict[int, tuple[int, ...]]:
    """Return the inner products of each share, its unit included, with the expansion of each key, modulo the order.

    Args:
        shares: valid, of one config and length.
        keys: one or more, 32 bytes each.
        threads: as `derive_share`.

    Raises:
        ModelError: no keys, or one that has not 32 bytes.
    """
    _validate_keys(keys)
    if not shares:
        return {}
    slots, vectors = list(shares), [share.vect for share in shares.values()]
    _, field = _require_field(next(iter(shares.values())).config)
    length = len(vectors[0])
    units = [np.frombuffer(share.unit.to_bytes(field.element_bytes, "little"), np.uint8)[None] for share in shares.values()]
    sums = parallel_fields.fingerprints(vectors, 0, list(keys), field.order, threads)
    last = parallel_fields.fingerprints(units, length, list(keys), field.order, 1)
    return {
        slot: tuple((a + b) % field.order for a, b in zip(own, more, strict=True))
        for slot, own, more in zip(slots, sums, last, strict=True)
    }


def _consistent(
    plan: Plan, group: int, shares: Mapping[int, Mask], keys: Sequence[bytes], threads: SupportsIndex | None
) -> tuple[int, ...]:
    """Return the slots of a group whose answers belong together."""
    if len(shares) == plan.threshold:
        return tuple(shares)
    order = next(iter(shares.values())).config.vect.order
    agreeing = plan.find_consistent(fingerprints(shares, keys, threads=threads), order)
    wrong_count = len(shares) - len(agreeing)
    if 2 * wrong_count > len(shares) - plan.threshold:
        raise UnmaskError(
            "wrong_share", f"group {group}: expected answers that fit together, got {wrong_count} of {len(shares)} that do not"
        )
    return agreeing


def _weighted_sum(masks: Sequence[Mask], factors: Sequence[int], threads: SupportsIndex | None, seed_count: int | None) -> Mask:
    pair, field = _require_field(masks[0].config)
    vect = parallel_fields.new_vector(len(masks[0]), field.order)
    for mask, factor in zip(masks, factors, strict=True):
        parallel_fields.multiply_add(vect, mask.vect, factor, field.order, threads)
    unit = sum(factor * mask.unit for mask, factor in zip(masks, factors, strict=True)) % field.order
    return Mask(pair, vect, unit, seed_count)


def _validate_alike(masks: Sequence[Mask], threads: SupportsIndex | None) -> None:
    for mask in masks:
        if not isinstance(mask, Mask):
            raise ModelError(f"share: expected a Mask, got {type(mask).__name__}")
        if (mask.config, len(mask)) != (masks[0].config, len(masks[0])):
            expected, got = f"{masks[0].config.vect} of {len(masks[0])} weights", f"{mask.config.vect} of {len(mask)}"
            raise ModelError(f"share: expected {expected}, as the first, got {got}")
        _require_field(mask.config)
        mask.validate(threads=threads)


def _require_mapping(name: str, given: object) -> None:
    if not isinstance(given, Mapping):
        raise ModelError(f"{name}: expected a dictionary, got {type(given).__name__}")


def _require_parts(name: str, given: Mapping[int, object], held: Sequence[int], slot: int) -> None:
    _require_mapping(name, given)
    if set(given) != set(held):
        raise ModelError(f"{name}: expected those of the parts {list(held)} that slot {slot} holds, got {list(given)}")


def _validate_keys(keys: Sequence[bytes]) -> None:
    """Refuse keys that compare nothing, or not what they seem to: without any, every answer would fit."""
    for key in keys:
        if not isinstance(key, bytes) or len(key) != fields.KEY_BYTES:
            raise ModelError(f"keys: expected {fields.KEY_BYTES} bytes each, got another")
    if not keys:
        raise ModelError("keys: expected one or more, got none")


def _require_field(config: MaskConfig | MaskConfigPair) -> tuple[MaskConfigPair, FieldConfig]:
    pair = MaskConfigPair.of(config)
    if not isinstance(pair.vect, FieldConfig):
        raise ConfigError(f"shares: expected a config of pet-1, got {pair.vect}")
    return pair, pair.vect


def _sum_counts(masks: Sequence[Mask]) -> int | None:
    counts = [mask.seed_count for mask in masks]
    return None if None in counts else sum(count for count in counts if count is not None)


def _total_count(plan: Plan, shares: Sequence[Mask]) -> int | None:
    """Return how many seeds the total mask holds: each share knows its own parts of every update."""
    counts = {share.seed_count for share in shares}
    held = len(plan.held_parts(0))
    count = counts.pop()
    return None if counts or count is None or count % held else count // held * plan.part_count
