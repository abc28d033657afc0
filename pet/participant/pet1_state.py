"""What is saved of a participant of pet/1: JSON with its identity, and what it has sent and seen.

    {"warning": "do not restore this from a backup ...", "format": 1, "signing_seed": ..., "scalar": ..., "peer": {...}}

An update that was on its way is no part of it: after a restart a participant is idle until the next round, which costs one
update, and nothing is kept that guesses of the weights could be tested with. Source: docs/spec/profile.md 13 (U7), 14.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

from pet.crypto import KEY_SEED_BYTES
from pet.errors import StateError
from pet.secret import hidden

_FORMAT: Final = 1
_WARNING: Final = "secret keys in clear; do not restore this from a backup: a restored peer counts as a colluder"
_START: Final = b'{"warning": '


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedPet1Participant:
    """Everything that a participant of pet/1 needs after a restart.

    Attributes:
        signing_seed: the signing key pair follows from it.
        scalar: weight of its models.
        max_message_size: largest body of a request, in bytes; None if it is not limited.
        peer: what `UpdateParticipant` stored last; None before its first round.
    """

    signing_seed: bytes = hidden()
    scalar: Fraction
    max_message_size: int | None
    peer: bytes | None = field(repr=False)

    def encode(self) -> bytes:
        """Return the saved form. It contains a secret key in clear."""
        record = {
            "warning": _WARNING,
            "format": _FORMAT,
            "signing_seed": self.signing_seed.hex(),
            # Hexadecimal, because Python refuses to print integers of more than 4300 decimal digits.
            "scalar": [hex(self.scalar.numerator), hex(self.scalar.denominator)],
            "max_message_size": self.max_message_size,
            "peer": None if self.peer is None else json.loads(self.peer),
        }
        return json.dumps(record).encode()

    @classmethod
    def decode(cls, data: bytes) -> SavedPet1Participant:
        """Read a saved form.

        Raises:
            StateError: it is none, of another version, or of a participant of xaynet's profile.
        """
        if not is_pet1_state(data):
            raise StateError("saved participant: expected one of pet/1, as an enrolment is given, got something else")
        with StateError.reading("saved participant"):
            record: dict[str, Any] = json.loads(data)
            if record["format"] != _FORMAT:
                raise StateError(f"expected format {_FORMAT}, got {record['format']!r}")
            seed, size, peer = bytes.fromhex(record["signing_seed"]), record["max_message_size"], record["peer"]
            if len(seed) != KEY_SEED_BYTES or not (size is None or type(size) is int):
                raise StateError(f"expected a key of {KEY_SEED_BYTES} bytes and a size, got others")
            numerator, denominator = record["scalar"]
            scalar = Fraction(int(numerator, 16), int(denominator, 16))
            if scalar < 0:
                raise StateError("expected a scalar of 0 or more, got one below")
            return cls(
                signing_seed=seed,
                scalar=scalar,
                max_message_size=size,
                peer=None if peer is None else json.dumps(peer).encode(),
            )


def is_pet1_state(data: bytes) -> bool:
    """Return whether a saved participant is one of pet/1."""
    return data.startswith(_START)
