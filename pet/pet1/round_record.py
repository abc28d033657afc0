"""The record of a round: 192 bytes that fix everything numeric, and what each peer derives from them.

Source: docs/spec/profile.md 6.2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from pet.buffers import Buffer
from pet.crypto import PUBLIC_KEY_BYTES, ROUND_SEED_BYTES
from pet.errors import ConfigError, RemoteProtocolError
from pet.field_config import FieldConfig
from pet.mask_choices import Derivation, FieldValues
from pet.pet1.hashes import DIGEST_BYTES, MAGIC_BYTES, digest, magic
from pet.pet1.refusing import require

NAME: Final = "pet-1 round"
VERSION: Final = 1
#: An update_share that selects everybody.
EVERYBODY: Final = 2**32 - 1
#: The unit is one more element, and a Sum2 message in one piece says its length in 32 bits.
MAX_MODEL_LENGTH: Final = 2**32 - 2
_DERIVATIONS: Final = {1: Derivation.Z32, 2: Derivation.Z64}
_VALUES: Final = {0: FieldValues.F32, 1: FieldValues.F64, 2: FieldValues.INT}
_LAYOUT: Final = struct.Struct(f"<{MAGIC_BYTES}sHBBIIIQdIIII{PUBLIC_KEY_BYTES}s{ROUND_SEED_BYTES}s32s32s")
RECORD_BYTES: Final[int] = _LAYOUT.size
_MALFORMED: Final = "malformed_round"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRecord:
    """What a coordinator announces of a round.

    Attributes:
        config: derivation, data type, bound A and max_updates (N_max).
        model_length: number of weights; vectors have one element more.
        min_updates: the least number of updates in the sum, 3 to N_max.
        number: above every number that this coordinator's key file ever used.
        update_share: the share of participants that may send updates, times 2^32 - 1.
        update_seconds: longest time of the Update phase.
        check_seconds: of the Check phase.
        sum2_seconds: of the Sum2 phase.
        coordinator_key: X25519 key of the round.
        seed: round seed.
        enrolment_digest: of the enrolment that the round goes by.
        model_digest: of the model that participants start from; zeros if there is none.
        digest: what Sum messages and the committee name.

    Raises:
        ConfigError: a number outside its range, or a field of another size.
    """

    config: FieldConfig
    model_length: int
    min_updates: int
    number: int
    update_share: int = EVERYBODY
    update_seconds: int
    check_seconds: int
    sum2_seconds: int
    coordinator_key: bytes
    seed: bytes
    enrolment_digest: bytes
    model_digest: bytes = bytes(DIGEST_BYTES)
    digest: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ranges = (
            ("model_length", 1, MAX_MODEL_LENGTH),
            ("min_updates", 3, self.config.max_model_count),
            ("number", 0, 2**64 - 1),
            ("update_share", 0, EVERYBODY),
            ("update_seconds", 0, 2**32 - 1),
            ("check_seconds", 0, 2**32 - 1),
            ("sum2_seconds", 0, 2**32 - 1),
        )
        for name, least, most in ranges:
            number = getattr(self, name)
            if type(number) is not int or not least <= number <= most:
                raise ConfigError(f"{name}: expected {least} to {most}, got {number!r}")
        for name in ("coordinator_key", "seed", "enrolment_digest", "model_digest"):
            if len(getattr(self, name)) != DIGEST_BYTES:
                raise ConfigError(f"{name}: expected {DIGEST_BYTES} bytes, got {len(getattr(self, name))}")
        # Once: every object of the round is checked against it.
        object.__setattr__(self, "digest", digest(NAME, self.to_bytes()))

    @classmethod
    def from_bytes(cls, data: Buffer) -> RoundRecord:
        """Read a record.

        Raises:
            RemoteProtocolError: "unknown_version", "malformed_round".
        """
        data = bytes(data)
        is_begun = len(data) >= MAGIC_BYTES + 2 and data.startswith(magic(NAME))
        require(is_begun, _MALFORMED, f"round record: expected {RECORD_BYTES} bytes with its name, got {len(data)}")
        version = int.from_bytes(data[MAGIC_BYTES : MAGIC_BYTES + 2], "little")
        require(version == VERSION, "unknown_version", f"round record: expected version {VERSION}, got {version}")
        require(len(data) == RECORD_BYTES, _MALFORMED, f"round record: expected {RECORD_BYTES} bytes, got {len(data)}")
        _, _, derivation, values, length, most, least, number, bound, share, *rest = _LAYOUT.unpack(data)
        is_known = derivation in _DERIVATIONS and values in _VALUES
        require(is_known, _MALFORMED, f"round record: expected a derivation and data type, got {derivation} and {values}")
        try:
            return cls(
                config=FieldConfig(_DERIVATIONS[derivation], _VALUES[values], most, bound),
                model_length=length,
                min_updates=least,
                number=number,
                update_share=share,
                **dict(zip(_NAMES, rest, strict=True)),
            )
        except ConfigError as error:
            raise RemoteProtocolError(_MALFORMED, f"round record: {error}") from None

    def to_bytes(self) -> bytes:
        """Return the 192 bytes."""
        config = self.config
        return _LAYOUT.pack(
            magic(NAME),
            VERSION,
            next(code for code, derivation in _DERIVATIONS.items() if derivation is config.derivation),
            next(code for code, values in _VALUES.items() if values is config.values),
            self.model_length,
            config.max_model_count,
            self.min_updates,
            self.number,
            config.bound,
            self.update_share,
            *(getattr(self, name) for name in _NAMES),
        )

    @property
    def vector_length(self) -> int:
        """Elements of a vector, the unit included."""
        return self.model_length + 1

    @property
    def vector_bytes(self) -> int:
        """Bytes of a vector."""
        return self.vector_length * self.config.element_bytes

    def selects(self, participant_public_key: bytes) -> bool:
        """Return whether a participant may send an update in this round: a draw that it cannot influence."""
        drawn = digest("pet-1 select", self.seed, participant_public_key)[:4]
        return self.update_share == EVERYBODY or int.from_bytes(drawn, "little") < self.update_share


_NAMES: Final = (
    "update_seconds",
    "check_seconds",
    "sum2_seconds",
    "coordinator_key",
    "seed",
    "enrolment_digest",
    "model_digest",
)
