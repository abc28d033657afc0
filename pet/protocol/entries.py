"""What an accepted message leaves behind in a round: one record per message, from which the round can be built up again.

A round is the sum of its entries. The intake makes an entry once all checks have passed, and the entry changes the round; after
a restart the stored entries change an empty round in the same order, through the same function, into the same round. The large
part of an entry (a masked model, a mask) is kept apart from its bytes: an update that is in a saved total, or a mask that can
no longer win, is not needed again.

An entry's bytes: kind (1) || public key of the participant (32) || what the kind says.

This file decides nothing about messages (pet/protocol/intake.py), and knows no storage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from pet.buffers import Buffer
from pet.crypto import PUBLIC_KEY_BYTES
from pet.errors import RemoteProtocolError, StateError
from pet.mask_object import Mask, MaskedModel
from pet.messages.dictionaries import EncodedSeeds, decode_local_seed_dictionary, encode_local_seed_dictionary
from pet.protocol.round_state import RoundState
from pet.protocol.votes import MASK_DIGEST_BYTES, digest_mask

_SUM: Final = 1
_UPDATE: Final = 2
_SUM2: Final = 3
_BODY_START: Final = 1 + PUBLIC_KEY_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class SumEntry:
    """A sum participant and its ephemeral key.

    Attributes:
        participant_public_key: who.
        ephemeral_public_key: the key that mask seeds are encrypted for.
        signed_bytes: the Sum message as it came; empty if its bytes are not known.
    """

    participant_public_key: bytes
    ephemeral_public_key: bytes
    signed_bytes: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateEntry:
    """A masked model and its encrypted mask seeds.

    Attributes:
        participant_public_key: who.
        encrypted_seeds: the encrypted mask seed by sum participant.
        masked_model: what is to be added to the sum; None if the sum has it already.
    """

    participant_public_key: bytes
    encrypted_seeds: Mapping[bytes, bytes] = field(repr=False)
    masked_model: MaskedModel | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum2Entry:
    """A vote for a mask.

    Attributes:
        participant_public_key: who.
        mask_digest: digest of the mask voted for.
        mask: the mask; None if it is known not to be needed, as another one leads after this vote, or led before already.
    """

    participant_public_key: bytes
    mask_digest: bytes
    mask: Mask | None


Entry: TypeAlias = SumEntry | UpdateEntry | Sum2Entry


def apply_entry(state: RoundState, entry: Entry) -> None:
    """Let an entry change a round. Whether it may was decided when it was made.

    Raises:
        AggregationError: a masked model that cannot be added; the round is as before.
    """
    participant = entry.participant_public_key
    if isinstance(entry, SumEntry):
        state.sum_dictionary[participant] = entry.ephemeral_public_key
        state.seed_dictionary[participant] = EncodedSeeds()
        if entry.signed_bytes:
            state.signed_sums[participant] = entry.signed_bytes
    elif isinstance(entry, UpdateEntry):
        if entry.masked_model is not None:
            # The only step that can fail, and the only one that takes long: it comes first.
            state.aggregation.add(entry.masked_model)
        state.update_participants.add(participant)
        for sum_participant, encrypted_seed in entry.encrypted_seeds.items():
            state.seed_dictionary[sum_participant].add(participant, encrypted_seed)
    else:
        state.votes.add(participant, entry.mask_digest, entry.mask)


def encode_entry(entry: Entry) -> bytes:
    """Serialise an entry without its large part."""
    if isinstance(entry, SumEntry):
        kind, body = _SUM, entry.ephemeral_public_key + entry.signed_bytes
    elif isinstance(entry, UpdateEntry):
        kind, body = _UPDATE, encode_local_seed_dictionary(entry.encrypted_seeds)
    else:
        kind, body = _SUM2, entry.mask_digest
    return bytes([kind]) + entry.participant_public_key + body


def decode_entry(data: Buffer) -> Entry:
    """Read an entry; its large part is to be put back with `with_large_part`.

    Raises:
        StateError: bytes that are no entry.
    """
    if len(data) <= _BODY_START:
        raise StateError(f"entry: expected more than {_BODY_START} bytes, got {len(data)}")
    kind, participant, body = data[0], bytes(data[1:_BODY_START]), bytes(data[_BODY_START:])
    if kind == _SUM and len(body) >= PUBLIC_KEY_BYTES:
        ephemeral, signed_bytes = body[:PUBLIC_KEY_BYTES], body[PUBLIC_KEY_BYTES:]
        return SumEntry(participant_public_key=participant, ephemeral_public_key=ephemeral, signed_bytes=signed_bytes)
    if kind == _UPDATE:
        return UpdateEntry(participant_public_key=participant, encrypted_seeds=_decode_seeds(body), masked_model=None)
    if kind == _SUM2 and len(body) == MASK_DIGEST_BYTES:
        return Sum2Entry(participant_public_key=participant, mask_digest=body, mask=None)
    raise StateError(f"entry: expected one of kind 1, 2 or 3, got kind {kind} with {len(body)} bytes")


def with_large_part(entry: Entry, data: Buffer) -> Entry:
    """Put the masked model of an update, or the mask of a vote, back in its place; it is a view of `data`.

    Raises:
        StateError: bytes that are not what belongs there.
    """
    try:
        if isinstance(entry, UpdateEntry):
            return replace(entry, masked_model=MaskedModel.from_bytes(data))
        if isinstance(entry, Sum2Entry):
            mask = Mask.from_bytes(data)
            if digest_mask(mask) != entry.mask_digest:
                raise StateError("entry of a vote: expected the mask voted for, got another one")
            return replace(entry, mask=mask)
    except RemoteProtocolError as error:
        raise StateError(f"entry: its large part cannot be read: {error}") from None
    raise StateError("entry of a sum participant: expected no large part, got one")


def _decode_seeds(body: bytes) -> Mapping[bytes, bytes]:
    try:
        seeds, used = decode_local_seed_dictionary(body)
    except RemoteProtocolError as error:
        raise StateError(f"entry of an update: its encrypted seeds cannot be read: {error}") from None
    if used != len(body):
        raise StateError(f"entry of an update: expected {used} bytes of encrypted seeds, got {len(body)}")
    return seeds
