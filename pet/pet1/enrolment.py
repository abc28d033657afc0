"""Who may send updates in a round, who is a member of its committee, and how many must collude.

An enrolment vouches for nothing by itself: a peer accepts it by an `EnrolmentPolicy` of its own settings, or in a federation by
pet/pet1/federation.py. How people write one in TOML is pet/pet1/enrolment_file.py.

Source: docs/spec/profile.md 6.1.
"""

from __future__ import annotations

import bisect
import hmac
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pet.buffers import Buffer
from pet.crypto import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, SigningKeyPair
from pet.errors import ConfigError, PlanError, RemoteProtocolError, SettingsError
from pet.pet1.hashes import MAGIC_BYTES, digest, is_signed_text, magic, sign_text
from pet.pet1.refusing import is_ascending, require, split_keys
from pet.plan import Plan

NAME: Final = "pet-1 enrolment"
#: The least number of updates that any enrolment may ask for: the mean of fewer is an easy guess.
MIN_UPDATES: Final = 3
_LAYOUT: Final = struct.Struct(f"<{MAGIC_BYTES}sQQ4BII")
_MALFORMED: Final = "malformed_enrolment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """The keys of a round's participants and members, and the plan of its committee.

    Attributes:
        version: grows with every change.
        expires: Unix seconds; 0 means never.
        plan: of the committee.
        min_updates: K, the least number of updates in a sum; 3 to the number of participants.
        members: their Ed25519 keys in slot order, all different.
        participants: the Ed25519 keys of update participants, strictly ascending. A key may be in both lists.
        names: for people, by key; no part of the bytes.

    Raises:
        ConfigError: a number outside its range, or keys that are too few, repeated, of another size or out of order.
    """

    version: int
    expires: int = 0
    plan: Plan
    min_updates: int
    members: tuple[bytes, ...]
    participants: tuple[bytes, ...]
    names: Mapping[bytes, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name, number, most in (("version", self.version, 2**64), ("expires", self.expires, 2**64)):
            if type(number) is not int or not 0 <= number < most:
                raise ConfigError(f"{name}: expected a whole number from 0 to {most - 1}, got {number!r}")
        if any(len(key) != PUBLIC_KEY_BYTES for key in (*self.members, *self.participants)):
            raise ConfigError(f"enrolment: expected keys of {PUBLIC_KEY_BYTES} bytes, got one of another size")
        if len(self.members) != self.plan.member_count or len(set(self.members)) != len(self.members):
            raise ConfigError(
                f"members: expected {self.plan.member_count} different keys, got {len(self.members)}, "
                f"{len(set(self.members))} of them different"
            )
        if not is_ascending(self.participants):
            raise ConfigError("participants: expected keys that ascend strictly, got others")
        if type(self.min_updates) is not int or not MIN_UPDATES <= self.min_updates <= len(self.participants):
            raise ConfigError(
                f"least_updates: expected {MIN_UPDATES} to the number of participants, {len(self.participants)}, "
                f"got {self.min_updates!r}"
            )

    @classmethod
    def from_toml(cls, path: Path | str) -> Enrolment:
        """Read an enrolment as people write it (docs/spec/profile.md 6.6).

        Raises:
            SettingsError: the file cannot be read, or something in it is wrong; names the key, the value and the rule.
        """
        from pet.pet1.enrolment_file import read_enrolment  # tomllib, which importing pet should not load

        fields = read_enrolment(Path(path))
        try:
            return cls(**fields)
        except ConfigError as error:
            raise SettingsError(f"{path}: {error}") from None

    @classmethod
    def from_bytes(cls, data: Buffer) -> Enrolment:
        """Read the bytes of an enrolment, without a signature behind them.

        Raises:
            RemoteProtocolError: "malformed_enrolment", "weak_plan", "too_many_parts".
        """
        data = bytes(data)
        is_begun = len(data) >= _LAYOUT.size and data.startswith(magic(NAME))
        require(is_begun, _MALFORMED, f"enrolment: expected {_LAYOUT.size} or more bytes with its name, got {len(data)}")
        _, version, expires, *numbers, min_updates, count = _LAYOUT.unpack_from(data)
        try:
            plan = Plan(*numbers)
        except PlanError as error:
            raise RemoteProtocolError(error.reason, str(error)) from None
        size = _LAYOUT.size + PUBLIC_KEY_BYTES * (plan.member_count + count)
        require(len(data) == size, _MALFORMED, f"enrolment: expected {size} bytes, got {len(data)}")
        keys = split_keys(data[_LAYOUT.size :], PUBLIC_KEY_BYTES)
        try:
            return cls(
                version=version,
                expires=expires,
                plan=plan,
                min_updates=min_updates,
                members=tuple(keys[: plan.member_count]),
                participants=tuple(keys[plan.member_count :]),
            )
        except ConfigError as error:
            raise RemoteProtocolError(_MALFORMED, str(error)) from None

    def to_bytes(self) -> bytes:
        """Return the bytes that the digest and signatures cover."""
        plan = self.plan
        numbers = plan.groups, plan.members, plan.threshold, plan.quorum
        head = _LAYOUT.pack(magic(NAME), self.version, self.expires, *numbers, self.min_updates, len(self.participants))
        return b"".join([head, *self.members, *self.participants])

    @property
    def digest(self) -> bytes:
        """What a peer pins, and a round record names."""
        return digest(NAME, self.to_bytes())

    def lists_participant(self, public_key: bytes) -> bool:
        """Return whether a key may send updates."""
        place = bisect.bisect_left(self.participants, public_key)
        return place < len(self.participants) and self.participants[place] == public_key

    def sign(self, authority: SigningKeyPair) -> bytes:
        """Return the enrolment with the authority's signature behind it, as it is served."""
        return self.to_bytes() + sign_text(authority, NAME, self.to_bytes())

    def describe(self, *, is_run_by_authority: bool = False) -> str:
        """Return for people who must collude to learn a single update (docs/spec/profile.md 6.1, E4).

        Args:
            is_run_by_authority: whether the coordinator is the party that signs enrolments.
        """
        plan = self.plan
        groups = [", ".join(self._name(self.members[slot]) for slot in plan.group_slots(group)) for group in range(plan.groups)]
        who = (
            f"any {plan.threshold} of {groups[0]}"
            if plan.groups == 1
            else f"any {plan.threshold} of each of " + "; ".join(groups)
        )
        if plan.active == plan.passive:
            cheats = "the same if it cheats"
        else:
            cheats = f"{plan.active + 1} of {'them' if plan.groups == 1 else 'all members'} if it cheats"
        lines = [
            f"A single update can be read by {who}, together with the coordinator; {cheats}.",
            f"A sum has at least {self.min_updates} of {len(self.participants)} participants.",
        ]
        if is_run_by_authority:
            lines.append(
                "The coordinator also says who is enrolled: it can invent members and participants, and learn every update."
            )
        return "\n".join(lines)

    def _name(self, key: bytes) -> str:
        return self.names.get(key, key.hex()[:8])


def split_signed(data: Buffer) -> tuple[Enrolment, bytes]:
    """Read an enrolment as it is served: its bytes, and the signature behind them, which is not verified.

    Raises:
        RemoteProtocolError: as `Enrolment.from_bytes`.
    """
    data = bytes(data)
    require(len(data) >= SIGNATURE_BYTES, _MALFORMED, f"enrolment: expected a signature behind it, got {len(data)} bytes")
    return Enrolment.from_bytes(data[:-SIGNATURE_BYTES]), data[-SIGNATURE_BYTES:]


@dataclass(frozen=True, slots=True)
class SeenEnrolment:
    """The newest enrolment that a peer has accepted: what keeps removed keys from coming back.

    Attributes:
        version: its version.
        digest: its digest.
    """

    version: int
    digest: bytes

    def require_not_older(self, enrolment: Enrolment) -> None:
        """Refuse an enrolment that is older, or another one of the same version.

        Raises:
            RemoteProtocolError: "enrolment_rolled_back".
        """
        is_newer = enrolment.version > self.version
        is_same = enrolment.version == self.version and hmac.compare_digest(enrolment.digest, self.digest)
        require(
            is_newer or is_same,
            "enrolment_rolled_back",
            f"enrolment: expected version {self.version}, unchanged, or a later one, got version {enrolment.version}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StrengthPolicy:
    """How much protection a peer asks of an enrolment: its own settings say, else the coordinator could ask for less (E3).

    Attributes:
        least_passive: how many colluding members a coordinator that follows the protocol must not suffice with.
        least_active: the same for one that does anything.
        least_updates: the smallest K.
    """

    least_passive: int = 1
    least_active: int = 1
    least_updates: int = MIN_UPDATES

    def require_strong(self, enrolment: Enrolment) -> None:
        """Refuse an enrolment whose plan or minimum protects less than is asked for (E3).

        Raises:
            RemoteProtocolError: "weak_plan", "too_few_updates".
        """
        plan = enrolment.plan
        require(
            plan.passive >= self.least_passive and plan.active >= self.least_active,
            "weak_plan",
            f"plan: expected passive {self.least_passive}, active {self.least_active} or more, "
            f"got {plan.passive}, {plan.active}",
        )
        require(
            enrolment.min_updates >= self.least_updates,
            "too_few_updates",
            f"enrolment: expected sums of {self.least_updates} or more updates, got {enrolment.min_updates}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentPolicy(StrengthPolicy):
    """What a peer asks of enrolments, from its own settings: what comes from the coordinator cannot vouch for itself.

    Attributes:
        digest: of the one enrolment that is accepted without a signature; None if none is.
        authority: public key that signs enrolments; None if no signature counts.

    Raises:
        ConfigError: neither digest nor authority, or one of another size.
    """

    digest: bytes | None = None
    authority: bytes | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.digest, self.authority) if value is not None]
        if not given or any(len(value) != PUBLIC_KEY_BYTES for value in given):
            raise ConfigError("enrolment policy: expected a digest or the key of an authority, 32 bytes each, got neither")

    def accept(self, data: Buffer, *, now: int, seen: SeenEnrolment | None = None) -> Enrolment:
        """Read an enrolment with the 64 bytes behind it, and apply E1 to E3.

        Args:
            data: as it is served.
            now: the peer's own time, Unix seconds.
            seen: the newest enrolment accepted before.

        Raises:
            RemoteProtocolError: as `Enrolment.from_bytes`; "unknown_enrolment", "enrolment_expired", "enrolment_rolled_back",
                "weak_plan", "too_few_updates".
        """
        enrolment, signature = split_signed(data)
        is_pinned = self.digest is not None and hmac.compare_digest(enrolment.digest, self.digest)
        is_signed = self.authority is not None and is_signed_text(self.authority, NAME, enrolment.to_bytes(), signature)
        require(is_pinned or is_signed, "unknown_enrolment", "enrolment: expected the pinned one, or the authority's signature")
        is_valid = enrolment.expires == 0 or now <= enrolment.expires
        require(is_valid, "enrolment_expired", f"enrolment: expected one valid at {now}, got one until {enrolment.expires}")
        if seen is not None:
            seen.require_not_older(enrolment)
        self.require_strong(enrolment)
        return enrolment
