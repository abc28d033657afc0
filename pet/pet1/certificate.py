"""The certificate: Check messages of a quorum under one manifest; and the agreed set that everybody computes from it.

Source: docs/spec/profile.md 10.3, 10.4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from pet.buffers import Buffer
from pet.errors import RemoteProtocolError
from pet.messages import HEADER_BYTES
from pet.pet1.checks import judge_complaint, read_check_of
from pet.pet1.committee import Committee
from pet.pet1.hashes import DIGEST_BYTES, MAGIC_BYTES, digest, magic, u16
from pet.pet1.manifest import UpdateManifest
from pet.pet1.messages import message_bytes
from pet.pet1.refusing import require

NAME: Final = "pet-1 certified"
_HEAD_BYTES: Final = MAGIC_BYTES + DIGEST_BYTES + 2
_MALFORMED: Final = "malformed_certificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate that is valid for a manifest, and what follows from it.

    Attributes:
        root: of the manifest.
        checks: the Check messages by slot, ascending.
        agreed: participants whose updates are summed, ascending.
        worthless: how many complaints changed nothing, by reason: "unproven_complaint", "unfounded_complaint", or
            "unknown_update" for one about a key outside the manifest. They void nothing.
    """

    root: bytes
    checks: dict[int, bytes] = field(repr=False)
    agreed: tuple[bytes, ...] = field(repr=False)
    worthless: Counter[str] = field(compare=False)

    @classmethod
    def of(cls, messages: Iterable[bytes], committee: Committee, manifest: UpdateManifest) -> Certificate:
        """Judge whole Check messages in the order of their slots, and compute the agreed set.

        Raises:
            RemoteProtocolError: as `judge`; "too_few_updates".
        """
        certificate = cls.judge(messages, committee, manifest)
        certificate.require_updates(committee)
        return certificate

    def require_updates(self, committee: Committee) -> None:
        """Check that enough updates are agreed on.

        Raises:
            RemoteProtocolError: "too_few_updates".
        """
        count, least = len(self.agreed), committee.min_updates
        require(count >= least, "too_few_updates", f"agreed set: expected {least} or more updates, got {count}")

    @classmethod
    def judge(cls, messages: Iterable[bytes], committee: Committee, manifest: UpdateManifest) -> Certificate:
        """Compute the agreed set, however few updates are in it: what is excluded is evidence all the same.

        Raises:
            RemoteProtocolError: as `read_signers`.
        """
        checks, bad, worthless = dict[int, bytes](), set[bytes](), Counter[str]()
        for slot, message, complaints in read_signers(messages, committee, manifest.root, len(manifest.headers)):
            checks[slot] = message
            for participant, proof in complaints.items():
                reason = _judge(participant, proof, slot, committee, manifest)
                if reason is None:
                    bad.add(participant)
                else:
                    worthless[reason] += 1
        agreed = tuple(participant for participant in manifest.headers if participant not in bad)
        return cls(root=manifest.root, checks=checks, agreed=agreed, worthless=worthless)

    @classmethod
    def from_bytes(cls, data: Buffer, committee: Committee, manifest: UpdateManifest) -> Certificate:
        """Read a certificate.

        Raises:
            RemoteProtocolError: "malformed_certificate", "wrong_root", and as `of`.
        """
        named, messages = read_checks(data)
        require(named == manifest.root, "wrong_root", "certificate: expected the root of this manifest, got another")
        return cls.of(messages, committee, manifest)

    def to_bytes(self) -> bytes:
        """Return the bytes that the digest covers."""
        return b"".join([magic(NAME), self.root, u16(len(self.checks)), *self.checks.values()])

    @property
    def digest(self) -> bytes:
        """What Sum2 answers: a member answers one certificate a round."""
        return digest(NAME, self.to_bytes())


def read_checks(data: Buffer) -> tuple[bytes, list[bytes]]:
    """Take a certificate apart.

    Returns:
        The root that it names, and its Check messages, none of which is looked at.

    Raises:
        RemoteProtocolError: "malformed_certificate".
    """
    data = bytes(data)
    is_begun = len(data) >= _HEAD_BYTES and data.startswith(magic(NAME))
    require(is_begun, _MALFORMED, f"certificate: expected {_HEAD_BYTES} or more bytes with its name, got {len(data)}")
    count, place = int.from_bytes(data[_HEAD_BYTES - 2 : _HEAD_BYTES], "little"), _HEAD_BYTES
    messages = list[bytes]()
    for _ in range(count):
        size = message_bytes(data, place)
        is_inside = HEADER_BYTES <= size <= len(data) - place
        require(is_inside, _MALFORMED, f"certificate: expected {count} whole messages, got {len(messages)}")
        messages.append(data[place : place + size])
        place += size
    require(place == len(data), _MALFORMED, f"certificate: expected {place} bytes, got {len(data)}")
    return data[MAGIC_BYTES : MAGIC_BYTES + DIGEST_BYTES], messages


def read_signers(
    messages: Iterable[bytes], committee: Committee, root: bytes, max_count: int
) -> Iterator[tuple[int, bytes, dict[bytes, bytes]]]:
    """Yield slot, message and complaints of each Check message of a certificate; what came before an error is worth nothing.

    Args:
        messages: whole Check messages in the order of their slots.
        committee: of the round.
        root: of the manifest that is certified.
        max_count: complaints of a message at most.

    Raises:
        RemoteProtocolError: as `read_check_of`; "wrong_slot" (slots that do not ascend), "no_quorum".
    """
    last, count, quorum = -1, 0, committee.plan.quorum
    for message in messages:
        slot, complaints = read_check_of(message, committee, root, max_count)
        require(slot > last, "wrong_slot", f"certificate: expected slots that ascend strictly, got {slot}")
        last, count = slot, count + 1
        yield slot, message, complaints
    require(count >= quorum, "no_quorum", f"certificate: expected {quorum} or more members, got {count}")


def _judge(participant: bytes, proof: bytes, slot: int, committee: Committee, manifest: UpdateManifest) -> str | None:
    """Return why a complaint is worth nothing; None if it proves an update bad."""
    header = manifest.headers.get(participant)
    if header is None:
        return "unknown_update"
    try:
        judge_complaint(proof, header, committee, slot)
    except RemoteProtocolError as error:
        return error.reason
    return None
