"""Messages of every kind, good and bad, for whatever round a session is in: by name, with the reason of a refusal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from coordinator_driver import CONFIG, Session, largest_element, with_element

from pet.mask_config import MaskConfig, MaskConfigPair
from pet.mask_object import MaskSeed
from pet.messages import Message, Tag, split_message

OTHER_CONFIG = MaskConfig.parse("power2-f32-b2-m6")
LOW_ORDER_KEYS = [
    bytes(32),
    bytes([1]) + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
]

Builder = Callable[[Session, int], Message]


def sum_by(session: Session, number: int) -> Message:
    return session.round.sum(session.round.keys("sum", number + 1)[number])


def update_by(session: Session, number: int) -> Message:
    return session.round.update(session.round.keys("update", number + 1)[number], session.sum_dictionary)


def sum2_by(session: Session, number: int) -> Message:
    key = session.round.keys("sum", number + 1)[number]
    return session.round.sum2(key, session.seed_dictionary.get(key.public_key, {}))


def replaced(builder: Builder, **changes: object) -> Builder:
    def build(session: Session, number: int) -> Message:
        message = builder(session, number)
        return replace(message, payload=replace(message.payload, **changes))

    return build


def from_other_round(builder: Builder) -> Builder:
    def build(session: Session, number: int) -> Message:
        return replace(builder(session, number), coordinator_public_key=b"k" * 32)

    return build


def sum_by_update_participant(session: Session, number: int) -> Message:
    return session.round.sum(session.round.keys("update", number + 1)[number])


def update_by_sum_participant(session: Session, number: int) -> Message:
    return session.round.update(session.round.keys("sum", number + 1)[number], session.sum_dictionary)


def update_by_unselected(session: Session, number: int) -> Message:
    return session.round.update(session.round.keys("none", number + 1)[number], session.sum_dictionary)


def update_with_config(vect: MaskConfig, unit: MaskConfig) -> Builder:
    def build(session: Session, number: int) -> Message:
        key = session.round.keys("update", number + 1)[number]
        return session.round.update(key, session.sum_dictionary, config=MaskConfigPair(vect=vect, unit=unit))

    return build


def update_of_other_length(session: Session, number: int) -> Message:
    key = session.round.keys("update", number + 1)[number]
    return session.round.update(key, session.sum_dictionary, [0.5] * 4)


def update_with_invalid_element(session: Session, number: int) -> Message:
    message = update_by(session, number)
    masked_model = with_element(message.payload.masked_model, largest_element(CONFIG))
    return replace(message, payload=replace(message.payload, masked_model=masked_model))


def update_without_a_seed(session: Session, number: int) -> Message:
    key = session.round.keys("update", number + 1)[number]
    return session.round.update(key, dict(list(session.sum_dictionary.items())[1:]))


def update_for_a_stranger(session: Session, number: int) -> Message:
    message = update_by(session, number)
    seeds = dict(message.payload.local_seed_dictionary)
    seeds.pop(next(iter(seeds), b""), None)
    seeds[b"stranger" * 4] = bytes(80)
    return replace(message, payload=replace(message.payload, local_seed_dictionary=seeds))


def sum2_by_absent_sum_participant(session: Session, number: int) -> Message:
    return sum2_by(session, number + 3)


def sum2_of_other_config(session: Session, number: int) -> Message:
    return session.round.sum2_with(
        session.round.keys("sum", number + 1)[number], MaskSeed(bytes(32)).derive_mask(OTHER_CONFIG, 3)
    )


def sum2_of_other_length(session: Session, number: int) -> Message:
    return session.round.sum2_with(session.round.keys("sum", number + 1)[number], MaskSeed(bytes(32)).derive_mask(CONFIG, 2))


def sum2_with_invalid_element(session: Session, number: int) -> Message:
    mask = MaskSeed(bytes(32)).derive_mask(CONFIG, 3)
    return session.round.sum2_with(session.round.keys("sum", number + 1)[number], with_element(mask, largest_element(CONFIG)))


def chunk_of(builder: Builder, index: int, max_message_size: int = 260) -> Builder:
    def build(session: Session, number: int) -> Message:
        return list(split_message(builder(session, number), max_message_size, message_id=7))[index]

    return build


def contradicting_chunk(builder: Builder) -> Builder:
    """Return the last chunk again, under an id after itself: there cannot be two last ones."""

    def build(session: Session, number: int) -> Message:
        message = chunk_of(builder, -1)(session, number)
        return replace(message, payload=replace(message.payload, chunk_id=message.payload.chunk_id + 1))

    return build


GOOD: dict[Tag, Builder] = {Tag.SUM: sum_by, Tag.UPDATE: update_by, Tag.SUM2: sum2_by}

BAD: dict[str, tuple[Tag, Builder, str]] = {
    "sum of another round": (Tag.SUM, from_other_round(sum_by), "wrong_coordinator_key"),
    "sum without the task": (Tag.SUM, sum_by_update_participant, "not_sum_eligible"),
    "sum with an invalid signature": (Tag.SUM, replaced(sum_by, sum_signature=bytes(64)), "not_sum_eligible"),
    **{
        f"sum with low-order key {number}": (Tag.SUM, replaced(sum_by, ephemeral_public_key=key), "low_order_key")
        for number, key in enumerate(LOW_ORDER_KEYS)
    },
    "update of another round": (Tag.UPDATE, from_other_round(update_by), "wrong_coordinator_key"),
    "update by a sum participant": (Tag.UPDATE, update_by_sum_participant, "not_update_eligible"),
    "update without the task": (Tag.UPDATE, update_by_unselected, "not_update_eligible"),
    "update with an invalid signature": (Tag.UPDATE, replaced(update_by, update_signature=bytes(64)), "not_update_eligible"),
    "update with an invalid sum signature": (Tag.UPDATE, replaced(update_by, sum_signature=bytes(64)), "invalid_sum_signature"),
    "update of another config": (Tag.UPDATE, update_with_config(OTHER_CONFIG, CONFIG), "model_mismatch"),
    "update of another config of the unit": (Tag.UPDATE, update_with_config(CONFIG, OTHER_CONFIG), "scalar_mismatch"),
    "update of another length": (Tag.UPDATE, update_of_other_length, "model_mismatch"),
    "update with an invalid element": (Tag.UPDATE, update_with_invalid_element, "invalid_object"),
    "update without a seed": (Tag.UPDATE, update_without_a_seed, "seed_dictionary_length"),
    "update for a stranger": (Tag.UPDATE, update_for_a_stranger, "unknown_sum_participant"),
    "sum2 of another round": (Tag.SUM2, from_other_round(sum2_by), "wrong_coordinator_key"),
    "sum2 by a participant that did not sum": (Tag.SUM2, sum2_by_absent_sum_participant, "unknown_sum_participant"),
    "sum2 without the task": (Tag.SUM2, replaced(sum2_by, sum_signature=bytes(64)), "not_sum_eligible"),
    "sum2 of another config": (Tag.SUM2, sum2_of_other_config, "mask_mismatch"),
    "sum2 of another length": (Tag.SUM2, sum2_of_other_length, "mask_mismatch"),
    "sum2 with an invalid element": (Tag.SUM2, sum2_with_invalid_element, "invalid_mask"),
}

CHUNKS: dict[str, tuple[Tag, Builder]] = {
    f"chunk {index} of {tag.name}": (tag, chunk_of(builder, index, 240)) for tag, builder in GOOD.items() for index in (0, 1)
}
