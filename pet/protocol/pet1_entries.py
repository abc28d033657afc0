"""What an accepted message leaves behind in a round of pet/1: the bytes that the round can be built up from again.

A round is its record and its entries in order: committee, manifest, certificate and agreed set follow from them. Vectors are
not among them; their leaves are in the leaf store before an entry says that an update is complete.

An entry's bytes: kind (1) || of a member's message the slot u16 || what was signed.

Source: docs/spec/profile.md 13 (K1), 14.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from pet.buffers import Buffer
from pet.errors import StateError
from pet.messages import HEADER_BYTES
from pet.pet1.certificate import Certificate
from pet.pet1.checks import parse_sum2, read_check
from pet.pet1.committee import Committee, read_sum
from pet.pet1.leaves import Upload, read_update
from pet.pet1.manifest import UpdateManifest
from pet.pet1.messages import Pet1Tag
from pet.protocol.pet1_leaf_store import LeafStore
from pet.protocol.pet1_round import OpenUpload, Pet1Round
from pet.protocol.phases import Phase

#: Kinds of entries beside the tags of messages, each of one byte.
_CLOSED: Final = 0xFF
_SLOT_BYTES: Final = 2


@dataclass(frozen=True, slots=True)
class SlotEntry:
    """What a member's message leaves in a round.

    Attributes:
        tag: Sum, Check or Sum2.
        slot: whose.
        message: what was signed, as buffers one behind the other; of a Sum2 that came in chunks, the payload behind zeros.
    """

    tag: Pet1Tag
    slot: int
    message: tuple[Buffer, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class UploadEntry:
    """What a complete update leaves in a round, or one that is closed for good.

    Attributes:
        participant: whose.
        message: the Update message, opened.
        is_dead: a leaf that was signed has an invalid element.
    """

    participant: bytes
    message: bytes = field(repr=False)
    is_dead: bool = False


Pet1Entry: TypeAlias = SlotEntry | UploadEntry


def encode_entry(entry: Pet1Entry) -> list[Buffer]:
    """Serialise an entry, as buffers to be written one behind the other."""
    if isinstance(entry, SlotEntry):
        return [bytes([entry.tag]) + entry.slot.to_bytes(_SLOT_BYTES, "little"), *entry.message]
    return [bytes([_CLOSED if entry.is_dead else Pet1Tag.UPDATE]), entry.message]


def restore_entries(current: Pet1Round, entries: Iterable[Buffer], phase: Phase, store: LeafStore) -> None:
    """Build a round up again that nobody has taken part in yet, as far as the phase that it was in.

    Args:
        current: the round.
        entries: of `encode_entry`, in order.
        phase: that the round is in.
        store: where leaves are.

    Raises:
        StateError: something is no entry of this round, or leaves are missing.
        RemoteProtocolError: the same, found by who reads messages.
    """
    by_kind: dict[int, list[bytes]] = {}
    for entry in map(bytes, entries):
        by_kind.setdefault(entry[0], []).append(entry[1:])
    unknown = by_kind.keys() - {*Pet1Tag, _CLOSED}
    if unknown:
        raise StateError(f"entry: expected a kind of message, got {min(unknown)}")
    for data in by_kind.get(Pet1Tag.SUM, ()):
        slot, _ = read_sum(data[_SLOT_BYTES:], current.record, current.enrolment)
        current.sums[slot] = data[_SLOT_BYTES:]
    if phase is not Phase.SUM:
        current.committee = Committee.of(current.record, current.enrolment, current.sums_by_slot())
        _restore_updates(current, current.committee, by_kind, store)
    if phase in (Phase.CHECK, Phase.SUM2, Phase.UNMASK):
        current.manifest = current.list_updates()
        _restore_checks(current, current.manifest, by_kind, phase)


def _restore_updates(current: Pet1Round, committee: Committee, by_kind: dict[int, list[bytes]], store: LeafStore) -> None:
    for kind in (Pet1Tag.UPDATE, _CLOSED):
        for message in by_kind.get(kind, ()):
            header, leaf_digests = read_update(message, committee)
            upload = Upload(record=current.record, context=header.context, leaf_digests=leaf_digests)
            opened = OpenUpload(header=header, message=message, upload=upload, is_dead=kind == _CLOSED)
            current.add_upload(opened)
            if kind == _CLOSED:
                continue
            missing = set(range(len(leaf_digests))) - set(store.held(opened.name))
            if missing:
                raise StateError(f"update: expected its {len(leaf_digests)} leaves in the store, {len(missing)} are missing")
            for index in range(len(leaf_digests)):
                upload.mark(index)
            current.count_update(header.participant)


def _restore_checks(current: Pet1Round, manifest: UpdateManifest, by_kind: dict[int, list[bytes]], phase: Phase) -> None:
    committee = current.committee
    assert committee is not None, "the caller has made it"
    for data in by_kind.get(Pet1Tag.CHECK, ()):
        slot, _ = read_check(data[_SLOT_BYTES:], committee, manifest)
        current.checks[slot] = data[_SLOT_BYTES:]
    if phase is Phase.CHECK:
        return
    certificate = current.certificate = Certificate.of(current.checks_in_order(), committee, manifest)
    for data in by_kind.get(Pet1Tag.SUM2, ()):
        slot, message = int.from_bytes(data[:_SLOT_BYTES], "little"), memoryview(data)[_SLOT_BYTES:]
        if slot >= committee.plan.member_count or committee.points[slot] is None:
            raise StateError(f"entry of an answer: expected a slot that is taken, got {slot}")
        head = bytes(message[:HEADER_BYTES])
        current.heads[slot] = head if any(head) else b""
        current.answers[slot] = parse_sum2(message[HEADER_BYTES:], current.record, certificate.digest)
