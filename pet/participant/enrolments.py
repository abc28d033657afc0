"""Which enrolments a participant or a member accepts: from its own settings, never from the coordinator.

Source: docs/spec/profile.md 6.1 (E1, E3, E4), 15.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from pet.crypto import PUBLIC_KEY_BYTES, decode_public_key
from pet.errors import ConfigError, RemoteProtocolError
from pet.files import shown_fault
from pet.pet1.enrolment import MIN_UPDATES, NAME, Enrolment, EnrolmentPolicy, split_signed
from pet.pet1.federation import FederationPolicy
from pet.pet1.hashes import magic

#: What says which enrolments count: a file, an enrolment, its digest, or the public key of the authority that signs it.
EnrolmentSource: TypeAlias = Enrolment | Path | str | bytes

#: An enrolment of two million participants; a coordinator that serves a larger one is not read to the end.
MAX_ENROLMENT_BYTES: Final = 1 << 26


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentTrust:
    """Which enrolments count, and how they are shown to people.

    Attributes:
        policy: what is accepted.
        pinned: the one that is accepted; None where only its digest or an authority is known.
        names: of keys, for people.
    """

    policy: EnrolmentPolicy | FederationPolicy
    pinned: Enrolment | None = None
    names: Mapping[bytes, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        source: EnrolmentSource,
        *,
        least_passive: int = 1,
        least_active: int = 1,
        least_updates: int = MIN_UPDATES,
    ) -> EnrolmentTrust:
        """Read what a caller gave.

        A digest and the key of an authority have the same form, and one is never the other: to find a key whose bytes are the
        digest of an enrolment, or the other way round, is to invert a hash. So either may be what was meant.

        Args:
            source: path of an enrolment as `pet enrol` writes it, TOML or signed; an enrolment; or 32 bytes, or their text: its
                digest, or the public key of the authority that signs it.
            least_passive: see `StrengthPolicy`.
            least_active: see `StrengthPolicy`.
            least_updates: see `StrengthPolicy`.

        Raises:
            ConfigError: none of these, or an enrolment with less protection than is asked for.
        """
        least: dict[str, Any] = {"least_passive": least_passive, "least_active": least_active, "least_updates": least_updates}
        for name, number in least.items():
            if type(number) is not int or number < 0:
                raise ConfigError(f"{name}: expected a whole number of 0 or more, got {number!r}")
        value = _read(source)
        if isinstance(value, bytes):
            return cls(policy=EnrolmentPolicy(digest=value, authority=value, **least))
        policy = EnrolmentPolicy(digest=value.digest, **least)
        try:
            policy.require_strong(value)
        except RemoteProtocolError as error:
            raise ConfigError(f"enrolment: {error}") from None
        return cls(policy=policy, pinned=value, names=value.names)

    def describe(self, enrolment: Enrolment, coordinator_key: bytes | None = None) -> str:
        """Say in one line who must collude to read a single update (E4).

        Args:
            enrolment: that rounds go by.
            coordinator_key: of the coordinator, where it is pinned.
        """
        is_run_by_authority = coordinator_key is not None and coordinator_key == self.policy.authority
        named = replace(enrolment, names=self.names)
        return named.describe(is_run_by_authority=is_run_by_authority).replace("\n", " ")


def _read(source: EnrolmentSource) -> Enrolment | bytes:
    if isinstance(source, Enrolment):
        return source
    if isinstance(source, bytes):
        if len(source) != PUBLIC_KEY_BYTES:
            raise ConfigError(f"enrolment: expected a digest or a public key of {PUBLIC_KEY_BYTES} bytes, got {len(source)}")
        return source
    if isinstance(source, str) and (value := decode_public_key(source)) is not None:
        return value
    if not isinstance(source, str | Path):
        raise ConfigError(f"enrolment: expected a path, an Enrolment, a digest or a key, got {type(source).__name__}")
    path = Path(source)
    try:
        with path.open("rb") as file:  # public keys only: who may read it does not matter
            data = file.read(MAX_ENROLMENT_BYTES)
    except OSError as error:
        raise ConfigError(shown_fault(error, path, "an enrolment")) from None
    if not data.startswith(magic(NAME)):
        return Enrolment.from_toml(path)
    try:
        return split_signed(data)[0]
    except RemoteProtocolError as error:
        raise ConfigError(f"{path}: {error}") from None
