"""What each kind of message does to a round: check everything, then change, so that a refused message changes nothing.

One function per kind checks, and makes the entry that the message leaves in the round; the entry makes the change
(pet/protocol/entries.py). By the time they are called, the message is known to be of the right kind for the phase and from a
participant that has the task. They know neither phases nor time, and do not count.

Source: docs/spec/pet.md 3.6, 7.1, 9.3.
"""

from __future__ import annotations

from pet.crypto import is_low_order
from pet.errors import AggregationError, RemoteProtocolError
from pet.messages import Message, MessageTag, Payload, Sum2Payload, SumPayload, Tag, UpdatePayload
from pet.protocol.entries import Entry, Sum2Entry, SumEntry, UpdateEntry, apply_entry
from pet.protocol.round_state import RoundState
from pet.protocol.votes import digest_mask


def take_payload(state: RoundState, message: Message, payload: Payload) -> Entry:
    """Take a message into the round.

    Args:
        state: the round.
        message: who sent it, and its bytes if it is a Sum message.
        payload: what it says; of a message in chunks, what they say together.

    Returns:
        What the message left in the round: together the entries of a round make it again.

    Raises:
        RemoteProtocolError: as the function of its kind, and the reasons of `Aggregation.add`; the round is as before.
    """
    if isinstance(payload, SumPayload):
        entry: Entry = check_sum(state, message, payload)
    elif isinstance(payload, UpdatePayload):
        entry = check_update(state, message.participant_public_key, payload)
    else:
        entry = check_sum2(state, message.participant_public_key, payload)
    try:
        apply_entry(state, entry)
    except AggregationError as error:
        raise RemoteProtocolError(error.reason, f"masked model: {error}") from None
    return entry


def require_first(state: RoundState, participant_public_key: bytes, tag: MessageTag) -> None:
    """Refuse a participant whose message of that kind is in the round already.

    Raises:
        RemoteProtocolError: "already_registered" (even with the same key; the first one stays), "update_already_submitted",
            "mask_already_submitted".
    """
    if tag is Tag.SUM and participant_public_key in state.sum_dictionary:
        raise RemoteProtocolError("already_registered", "expected one Sum message per participant, got another one")
    if tag is Tag.UPDATE and participant_public_key in state.update_participants:
        raise RemoteProtocolError("update_already_submitted", "expected one update per participant, got another one")
    if tag is Tag.SUM2 and participant_public_key in state.votes.voters:
        raise RemoteProtocolError("mask_already_submitted", "expected one mask per sum participant, got another one")


def require_sum_participant(state: RoundState, participant_public_key: bytes) -> None:
    """Refuse who has sent no Sum message in this round.

    Raises:
        RemoteProtocolError: "unknown_sum_participant".
    """
    if participant_public_key not in state.sum_dictionary:
        raise RemoteProtocolError("unknown_sum_participant", "expected a participant that sent its key in the Sum phase")


def check_sum(state: RoundState, message: Message, payload: SumPayload) -> SumEntry:
    """Check that a sum participant with its ephemeral key can be registered.

    Raises:
        RemoteProtocolError: "already_registered", "low_order_key" (nobody could encrypt a seed to such a key).
    """
    require_first(state, message.participant_public_key, payload.tag)
    if is_low_order(payload.ephemeral_public_key):
        raise RemoteProtocolError("low_order_key", "expected an ephemeral public key to encrypt to, got one of low order")
    return SumEntry(
        participant_public_key=message.participant_public_key,
        ephemeral_public_key=payload.ephemeral_public_key,
        signed_bytes=message.signed_bytes or b"",
    )


def check_update(state: RoundState, participant_public_key: bytes, payload: UpdatePayload) -> UpdateEntry:
    """Check what can be known of an update without a pass over its model.

    The masked model is judged before the dictionary, as in xaynet; adding it, the only thing that can still fail (an element
    not below the order), comes with the entry.

    Raises:
        RemoteProtocolError: the reasons of `Aggregation.check`; "seed_dictionary_length", "unknown_sum_participant",
            "update_already_submitted".
    """
    try:
        state.aggregation.check(payload.masked_model)
    except AggregationError as error:
        raise RemoteProtocolError(error.reason, f"masked model: {error}") from None
    _check_seeds(state, participant_public_key, payload)
    return UpdateEntry(
        participant_public_key=participant_public_key,
        encrypted_seeds=payload.local_seed_dictionary,
        masked_model=payload.masked_model,
    )


def _check_seeds(state: RoundState, participant_public_key: bytes, payload: UpdatePayload) -> None:
    """Check that an update carries one seed for each sum participant, and is the participant's first (spec 7.1)."""
    seeds = payload.local_seed_dictionary
    if len(seeds) != len(state.sum_dictionary):
        raise RemoteProtocolError(
            "seed_dictionary_length",
            f"expected an encrypted seed for each of {len(state.sum_dictionary)} sum participants, got {len(seeds)}",
        )
    if not seeds.keys() <= state.sum_dictionary.keys():
        raise RemoteProtocolError(
            "unknown_sum_participant", "expected seeds for the sum participants, got one for somebody else"
        )
    require_first(state, participant_public_key, payload.tag)


def check_sum2(state: RoundState, participant_public_key: bytes, payload: Sum2Payload) -> Sum2Entry:
    """Check that a sum participant's mask can be counted.

    xaynet counts any mask; one that could not be taken off the sum is refused here, as it would only fail the round.

    Raises:
        RemoteProtocolError: "unknown_sum_participant", "mask_already_submitted", "mask_mismatch" (another mask config or
            length), "invalid_mask" (an element that is not below the order).
    """
    require_sum_participant(state, participant_public_key)
    require_first(state, participant_public_key, payload.tag)
    mask, expected = payload.mask, state.parameters
    if mask.config != expected.mask_config or len(mask) != expected.model_length:
        raise RemoteProtocolError(
            "mask_mismatch",
            f"mask: expected {expected.mask_config.vect} and {expected.mask_config.unit}, {expected.model_length} elements, "
            f"got {mask.config.vect} and {mask.config.unit}, {len(mask)} elements",
        )
    try:
        mask.validate()
    except AggregationError as error:
        raise RemoteProtocolError("invalid_mask", f"mask: {error}") from None
    return Sum2Entry(participant_public_key=participant_public_key, mask_digest=digest_mask(mask), mask=mask)
