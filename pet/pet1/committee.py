"""The members of a round: Sum messages, one for each slot that is taken, as they were signed.

A `Committee` also is what all later objects of the round are read with: it holds the record and the enrolment.

Source: docs/spec/profile.md 6.3, 7.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pet.buffers import Buffer
from pet.crypto import SigningKeyPair
from pet.edwards import POINT_BYTES, is_point
from pet.messages import HEADER_BYTES
from pet.pet1.enrolment import Enrolment
from pet.pet1.hashes import DIGEST_BYTES, MAGIC_BYTES, digest, magic, u16
from pet.pet1.messages import Pet1Tag, read_message, sign_message
from pet.pet1.refusing import require
from pet.pet1.round_record import RoundRecord
from pet.plan import Plan

NAME: Final = "pet-1 committee"
SUM_PAYLOAD_BYTES: Final = DIGEST_BYTES + 2 + POINT_BYTES
SUM_MESSAGE_BYTES: Final = HEADER_BYTES + SUM_PAYLOAD_BYTES
_HEAD_BYTES: Final = MAGIC_BYTES + DIGEST_BYTES + 2
_MALFORMED: Final = "malformed_committee"


def build_sum(key: SigningKeyPair, record: RoundRecord, slot: int, point: bytes) -> bytes:
    """Return a member's signed Sum message: its fresh point P for this round."""
    return sign_message(key, record.coordinator_key, Pet1Tag.SUM, record.digest + u16(slot) + point)


def read_sum(message: Buffer, record: RoundRecord, enrolment: Enrolment) -> tuple[int, bytes]:
    """Read a Sum message.

    Returns:
        The slot, and the point P.

    Raises:
        RemoteProtocolError: as `read_message`; "malformed_sum", "wrong_round", "wrong_slot", "invalid_point".
    """
    key, payload = read_message(message, record.coordinator_key, Pet1Tag.SUM)
    is_sized = len(payload) == SUM_PAYLOAD_BYTES
    require(is_sized, "malformed_sum", f"sum payload: expected {SUM_PAYLOAD_BYTES} bytes, got {len(payload)}")
    require(payload[:DIGEST_BYTES] == record.digest, "wrong_round", "sum payload: expected this round's record, got another")
    slot, point = int.from_bytes(payload[DIGEST_BYTES : DIGEST_BYTES + 2], "little"), payload[-POINT_BYTES:]
    is_own = slot < len(enrolment.members) and enrolment.members[slot] == key
    require(is_own, "wrong_slot", f"sum payload: expected the slot of its sender, got {slot}")
    require(is_point(point), "invalid_point", "sum payload: expected a point of prime order, got something else")
    return slot, point


@dataclass(frozen=True, slots=True, kw_only=True)
class Committee:
    """The members that take part in a round.

    Attributes:
        record: of the round.
        enrolment: that the round goes by.
        sums: for each slot the Sum message, whole; None where the slot is empty.
        points: for each slot the point P; None where it is empty.
        digest: what share headers and the manifest name.
    """

    record: RoundRecord
    enrolment: Enrolment
    sums: tuple[bytes | None, ...] = field(repr=False)
    points: tuple[bytes | None, ...] = field(repr=False)
    digest: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Once: every header of the round is checked against it.
        object.__setattr__(self, "digest", digest(NAME, self.to_bytes()))

    @classmethod
    def of(cls, record: RoundRecord, enrolment: Enrolment, sums: Sequence[bytes | None]) -> Committee:
        """Put a committee together from one Sum message, or none, for each slot.

        Raises:
            RemoteProtocolError: as `read_sum`, each for its own slot; "too_few_members".
        """
        points: list[bytes | None] = []
        for slot, message in enumerate(sums):
            if message is None:
                points.append(None)
                continue
            claimed, point = read_sum(message, record, enrolment)
            require(claimed == slot, "wrong_slot", f"committee: expected the Sum message of slot {slot}, got one of {claimed}")
            points.append(point)
        committee = cls(record=record, enrolment=enrolment, sums=tuple(sums), points=tuple(points))
        committee._require_enough()
        return committee

    @classmethod
    def from_bytes(cls, data: Buffer, record: RoundRecord, enrolment: Enrolment) -> Committee:
        """Read a committee, every signature included (C1 and C2).

        Raises:
            RemoteProtocolError: "malformed_committee", "wrong_round", and as `of`.
        """
        data, count = bytes(data), enrolment.plan.member_count
        is_begun = len(data) >= _HEAD_BYTES and data.startswith(magic(NAME))
        require(is_begun, _MALFORMED, f"committee: expected {_HEAD_BYTES} or more bytes with its name, got {len(data)}")
        named = data[MAGIC_BYTES : MAGIC_BYTES + DIGEST_BYTES]
        require(named == record.digest, "wrong_round", "committee: expected this round's record, got another")
        slots = int.from_bytes(data[_HEAD_BYTES - 2 : _HEAD_BYTES], "little")
        require(slots == count, _MALFORMED, f"committee: expected {count} slots, got {slots}")
        sums, place = list[bytes | None](), _HEAD_BYTES
        for slot in range(count):
            presence = data[place : place + 1]
            require(presence in (b"\0", b"\1"), _MALFORMED, f"committee: expected 0 or 1 for slot {slot}, got {presence!r}")
            size = SUM_MESSAGE_BYTES if presence == b"\1" else 0
            message = data[place + 1 : place + 1 + size]
            require(len(message) == size, _MALFORMED, f"committee: expected {size} bytes of slot {slot}, got {len(message)}")
            sums.append(message or None)
            place += 1 + size
        require(place == len(data), _MALFORMED, f"committee: expected {place} bytes, got {len(data)}")
        return cls.of(record, enrolment, sums)

    def to_bytes(self) -> bytes:
        """Return the bytes that the digest covers."""
        slots = (b"\0" if message is None else b"\1" + message for message in self.sums)
        return b"".join([magic(NAME), self.record.digest, u16(len(self.sums)), *slots])

    @property
    def plan(self) -> Plan:
        """The plan of the enrolment."""
        return self.enrolment.plan

    @property
    def min_updates(self) -> int:
        """The least number of updates in a manifest and in the agreed set."""
        return max(self.record.min_updates, self.enrolment.min_updates)

    def slot_of(self, public_key: bytes) -> int | None:
        """Return the slot of a member's key; None if it is nobody's."""
        members = self.enrolment.members
        return members.index(public_key) if public_key in members else None

    def _require_enough(self) -> None:
        """Refuse a committee that could certify or unmask nothing (C2)."""
        plan, taken = self.plan, [point is not None for point in self.points]
        groups = [sum(taken[slot] for slot in plan.group_slots(group)) for group in range(plan.groups)]
        require(
            sum(taken) >= plan.quorum and min(groups) >= plan.threshold,
            "too_few_members",
            f"committee: expected {plan.quorum} members, {plan.threshold} of each group, got {groups} of the groups",
        )
