"""What update participants and members of pet/1 have in common: which round they take part in, and what of it is durable.

A peer's state is a small record, ready for JSON. It says when secrets were used for the last time, so an older copy of it is a
second signature waiting to happen: a peer that restores one counts as a colluder of that round.

Source: docs/spec/profile.md 6.1, 13 (E1 to E4), 14.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

from pet.buffers import Buffer
from pet.errors import StateError
from pet.pet1.enrolment import Enrolment, SeenEnrolment
from pet.pet1.federation import FederationPolicy, require_federation_round
from pet.pet1.hashes import DIGEST_BYTES
from pet.pet1.refusing import require
from pet.pet1.round_record import RoundRecord

#: Makes a state durable before it returns; an exception means that it may not be.
Store: TypeAlias = Callable[[bytes], None]

_WARNING: Final = "do not restore this from a backup: a restored peer counts as a colluder"
_VERSION: Final = 1


class Policy(Protocol):
    """What a peer asks of enrolments: `EnrolmentPolicy` or `FederationPolicy`."""

    def accept(self, data: Buffer, *, now: int, seen: SeenEnrolment | None = None) -> Enrolment:
        """Read an enrolment as it is served, or refuse it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerState:
    """What every peer keeps.

    Attributes:
        role: "update participant" or "member": neither reads the other's state.
        last_number: highest number of a round that it sent something for; None before the first.
        seen: the newest enrolment that was used.
        secrets: what the role adds, texts by name; secret.
    """

    role: str
    last_number: int | None = None
    seen: SeenEnrolment | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    def encode(self) -> bytes:
        """Return the record as JSON."""
        record = {
            "warning": _WARNING,
            "format": _VERSION,
            "role": self.role,
            "last_number": self.last_number,
            "enrolment": None if self.seen is None else [self.seen.version, self.seen.digest.hex()],
            "round": dict(self.secrets),
        }
        return json.dumps(record).encode()

    @classmethod
    def decode(cls, data: bytes, role: str) -> PeerState:
        """Read a record.

        Raises:
            StateError: it is none, of another version, or of another role.
        """
        with StateError.reading(f"saved {role}"):
            record: dict[str, Any] = json.loads(data)
            _expect(record["format"] == _VERSION, f"expected format {_VERSION}, got {record['format']}")
            _expect(record["role"] == role, f"expected the state of another role: {role}")
            last, seen, secrets = record["last_number"], record["enrolment"], record["round"]
            _expect(last is None or (type(last) is int and 0 <= last < 2**64), "last_number: expected a number of a round")
            _expect(all(isinstance(value, str) for value in secrets.values()), "round: expected texts")
            return cls(role=role, last_number=last, seen=None if seen is None else _seen(*seen), secrets=secrets)


def _seen(version: int, digest: str) -> SeenEnrolment:
    value = bytes.fromhex(digest)
    _expect(type(version) is int and len(value) == DIGEST_BYTES, "enrolment: expected a version and a digest")
    return SeenEnrolment(version, value)


def _expect(holds: bool, broken: str) -> None:
    if not holds:
        raise StateError(broken)


def open_round(
    record: Buffer, enrolment: Buffer, policy: Policy, *, now: int, seen: SeenEnrolment | None
) -> tuple[RoundRecord, Enrolment]:
    """Read what a round is announced with, and apply E1 to E3.

    Args:
        record: the 192 bytes.
        enrolment: as it is served.
        policy: the peer's own.
        now: the peer's own time, Unix seconds.
        seen: the newest enrolment used before.

    Raises:
        RemoteProtocolError: as `RoundRecord.from_bytes` and the policy; "unknown_enrolment" (not the one that the record
            names); in a federation "wrong_round".
    """
    opened, accepted = RoundRecord.from_bytes(record), policy.accept(enrolment, now=now, seen=seen)
    is_named = opened.enrolment_digest == accepted.digest
    require(is_named, "unknown_enrolment", "round record: expected the enrolment that came with it, got another one's digest")
    if isinstance(policy, FederationPolicy):
        require_federation_round(opened, accepted)
    return opened, accepted
