r"""The states of a participant, every transition between them in one table, and the form in which a state is saved.

How to think about it: a participant polls. Each step asks for the round parameters; if they differ from those it holds, a new
round began and whatever was under way is void (`ROUND_CHANGED`, from every state). If they are the same, the step does the work
of its state, which either fires one trigger of the table or nothing ("pending").

    AWAITING <- NEW_ROUND -> SUM -> SENDING_SUM -> SUM2 -> SENDING_SUM2 -> AWAITING
                         \-> UPDATE -> SENDING_UPDATE -> AWAITING

This file parses no message and does no work of a state: that is pet/protocol/participant.py. Source: docs/spec/pet.md 8.1.

A saved state is of our own format; xaynet's is not even compatible between its own versions. It contains **secret keys in
clear**.

    magic (8) || version u16 || header length u32 || header (JSON) || payload || sealed message || SHA-256 of all before (32)
"""

from __future__ import annotations

import enum
import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final

from pet.errors import StateError
from pet.messages import RoundParameters, Tag
from pet.secret import hidden


class ParticipantState(enum.Enum):
    """Where a participant is in the round."""

    AWAITING = "awaiting"  # nothing to do before the next round
    NEW_ROUND = "new_round"  # the task of the round is not known yet
    SUM = "sum"  # sum participant with fresh ephemeral keys, message not built
    SENDING_SUM = "sending_sum"
    SUM2 = "sum2"  # waits for the seeds addressed to it
    SENDING_SUM2 = "sending_sum2"
    UPDATE = "update"  # waits for a model and for the sum dictionary
    SENDING_UPDATE = "sending_update"


class ParticipantTrigger(enum.Enum):
    """What can move a participant to another state."""

    ROUND_CHANGED = "round_changed"  # the coordinator shows other parameters
    SUM_SELECTED = "sum_selected"
    UPDATE_SELECTED = "update_selected"
    NOT_SELECTED = "not_selected"
    MESSAGE_BUILT = "message_built"
    ALL_SENT = "all_sent"  # the last part of the message arrived
    ABANDONED = "abandoned"  # the task cannot be finished: wait for the next round


_State = ParticipantState
_Trigger = ParticipantTrigger

PARTICIPANT_TRANSITIONS: Final[Mapping[tuple[ParticipantState, ParticipantTrigger], ParticipantState]] = MappingProxyType(
    {
        **{(state, _Trigger.ROUND_CHANGED): _State.NEW_ROUND for state in ParticipantState},
        (_State.NEW_ROUND, _Trigger.SUM_SELECTED): _State.SUM,
        (_State.NEW_ROUND, _Trigger.UPDATE_SELECTED): _State.UPDATE,
        (_State.NEW_ROUND, _Trigger.NOT_SELECTED): _State.AWAITING,
        (_State.NEW_ROUND, _Trigger.ABANDONED): _State.AWAITING,
        (_State.SUM, _Trigger.MESSAGE_BUILT): _State.SENDING_SUM,
        (_State.SENDING_SUM, _Trigger.ALL_SENT): _State.SUM2,
        (_State.SENDING_SUM, _Trigger.ABANDONED): _State.AWAITING,
        (_State.SUM2, _Trigger.MESSAGE_BUILT): _State.SENDING_SUM2,
        (_State.SUM2, _Trigger.ABANDONED): _State.AWAITING,
        (_State.SENDING_SUM2, _Trigger.ALL_SENT): _State.AWAITING,
        (_State.SENDING_SUM2, _Trigger.ABANDONED): _State.AWAITING,
        (_State.UPDATE, _Trigger.MESSAGE_BUILT): _State.SENDING_UPDATE,
        (_State.UPDATE, _Trigger.ABANDONED): _State.AWAITING,
        (_State.SENDING_UPDATE, _Trigger.ALL_SENT): _State.AWAITING,
        (_State.SENDING_UPDATE, _Trigger.ABANDONED): _State.AWAITING,
    }
)

#: The states that hold a message to send, and its tag.
SENDING_TAGS: Final[Mapping[ParticipantState, Tag]] = MappingProxyType(
    {_State.SENDING_SUM: Tag.SUM, _State.SENDING_SUM2: Tag.SUM2, _State.SENDING_UPDATE: Tag.UPDATE}
)

#: The states in which the ephemeral keys are still needed: they open the seeds in Sum2.
EPHEMERAL_KEY_STATES: Final = frozenset({_State.SUM, _State.SENDING_SUM, _State.SUM2})


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedOutbox:
    """What is left to send of a message.

    Attributes:
        tag: the tag of the whole message.
        message_id: the id that all its chunks carry.
        next_chunk_id: the first chunk that is not sealed yet.
        payload: the whole payload if it goes out in chunks, else empty: the sealed message is all that is needed.
        sealed: the part that was sealed and has not arrived, kept as it is; empty if there is none.
    """

    tag: Tag
    message_id: int
    next_chunk_id: int
    payload: bytes = field(repr=False)
    sealed: bytes | bytearray = field(repr=False)

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            StateError: an id that 16 bits cannot hold.
        """
        _expect(0 <= self.message_id < 2**16, f"the message id is {self.message_id}")
        _expect(0 <= self.next_chunk_id <= 2**16, f"the next chunk is {self.next_chunk_id}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedParticipant:
    """Everything a participant needs to go on where it was; the model it was given is not part of it.

    A model that was set and not yet taken is asked for again: it is the application's, and may be large.

    The digest of the parameters of the round in which a masked model was signed last is kept, so that no second, different one
    is signed in the same round: two of them, under two seeds, would let a coordinator that shows the same round twice choose
    which of them counts, or take both.
    """

    state: ParticipantState
    signing_seed: bytes = hidden()  # the signing key pair follows from it
    scalar: Fraction
    max_message_size: int | None
    parameters: RoundParameters | None
    ephemeral_seed: bytes | None = hidden()  # as does the ephemeral one
    signed_round: bytes | None  # digest of its parameters
    outbox: SavedOutbox | None

    def __post_init__(self) -> None:
        """Check that the state has what it needs, and nothing that belongs to another one.

        Raises:
            StateError: it has not.
        """
        tag = self.outbox.tag if self.outbox else None
        _expect(tag == SENDING_TAGS.get(self.state), f"the message to send in state {self.state.value} cannot be {tag!r}")
        has_ephemeral_key = self.ephemeral_seed is not None
        _expect(
            has_ephemeral_key == (self.state in EPHEMERAL_KEY_STATES),
            f"an ephemeral key in state {self.state.value}: {has_ephemeral_key}",
        )
        _expect(
            self.parameters is not None or self.state is ParticipantState.AWAITING,
            f"state {self.state.value} needs round parameters",
        )
        if tag is Tag.UPDATE and self.parameters:
            _expect(self.signed_round == self.parameters.digest(), "a masked model was signed for another round")

    def encode(self) -> bytes:
        """Return the saved form. It contains secret keys in clear."""
        header = json.dumps(self._to_header(), sort_keys=True).encode()
        prefix = _PREFIX.pack(_MAGIC, _VERSION, len(header))
        blobs = (self.outbox.payload, self.outbox.sealed) if self.outbox else ()
        body = b"".join((prefix, header, *blobs))
        return body + hashlib.sha256(body).digest()

    def _to_header(self) -> dict[str, Any]:
        return {
            "state": self.state.value,
            "signing_seed": self.signing_seed.hex(),
            # Hexadecimal, because Python refuses to print integers of more than 4300 decimal digits.
            "scalar": [hex(self.scalar.numerator), hex(self.scalar.denominator)],
            "max_message_size": self.max_message_size,
            "parameters": self.parameters.to_bytes().hex() if self.parameters else None,
            "ephemeral_seed": self.ephemeral_seed.hex() if self.ephemeral_seed is not None else None,
            "signed_round": self.signed_round.hex() if self.signed_round is not None else None,
            "outbox": {
                "tag": int(self.outbox.tag),
                "message_id": self.outbox.message_id,
                "next_chunk_id": self.outbox.next_chunk_id,
                "payload_bytes": len(self.outbox.payload),
                "sealed_bytes": len(self.outbox.sealed),
            }
            if self.outbox
            else None,
        }

    @classmethod
    def decode(cls, data: bytes) -> SavedParticipant:
        """Read a saved form.

        Raises:
            StateError: damaged in any way, of another version, or not the state of a participant.
        """
        # Where the digest is right, the bytes are as somebody wrote them: not us, or a version that forgot to say so.
        with StateError.reading("saved participant"):
            header, blobs = _split(data)
            return cls._from_header(json.loads(header), blobs)

    @classmethod
    def _from_header(cls, header: dict[str, Any], blobs: memoryview) -> SavedParticipant:
        numerator, denominator = header["scalar"]
        parameters, signed_round, ephemeral = header["parameters"], header["signed_round"], header["ephemeral_seed"]
        return cls(
            state=ParticipantState(header["state"]),
            signing_seed=_key(header["signing_seed"]),
            scalar=Fraction(int(numerator, 16), int(denominator, 16)),
            max_message_size=int(header["max_message_size"]) if header["max_message_size"] is not None else None,
            parameters=RoundParameters.from_bytes(bytes.fromhex(parameters)) if parameters is not None else None,
            ephemeral_seed=_key(ephemeral) if ephemeral is not None else None,
            signed_round=_key(signed_round) if signed_round is not None else None,
            outbox=_outbox(header["outbox"], blobs),
        )


_MAGIC: Final = b"PETPARTC"
_VERSION: Final = 2
_PREFIX: Final = struct.Struct("<8sHI")
_DIGEST_BYTES: Final = 32
_KEY_BYTES: Final = 32


def _expect(condition: bool, broken: str) -> None:
    if not condition:
        raise StateError(f"expected a consistent state, got one where {broken}")


def _split(data: bytes) -> tuple[bytes, memoryview]:
    """Check magic, version and digest; return the header and what follows it."""
    if len(data) < _PREFIX.size + _DIGEST_BYTES:
        raise StateError(f"expected at least {_PREFIX.size + _DIGEST_BYTES} bytes, got {len(data)}")
    magic, version, header_bytes = _PREFIX.unpack_from(data)
    if magic != _MAGIC:
        raise StateError(f"expected the magic bytes {_MAGIC!r}, got {magic!r}")
    if version != _VERSION:
        raise StateError(f"expected version {_VERSION}, got {version}")
    body = memoryview(data)[:-_DIGEST_BYTES]
    if hashlib.sha256(body).digest() != data[-_DIGEST_BYTES:]:
        raise StateError("expected the digest of the bytes at their end, got another: the state is damaged")
    rest = body[_PREFIX.size :]
    if header_bytes > len(rest):
        raise StateError(f"expected a header of {header_bytes} bytes, got {len(rest)}")
    return bytes(rest[:header_bytes]), rest[header_bytes:]


def _key(text: str) -> bytes:
    value = bytes.fromhex(text)
    _expect(len(value) == _KEY_BYTES, f"{len(value)} bytes stand where {_KEY_BYTES} should")
    return value


def _outbox(header: dict[str, Any] | None, blobs: memoryview) -> SavedOutbox | None:
    payload_bytes, sealed_bytes = (header["payload_bytes"], header["sealed_bytes"]) if header else (0, 0)
    _expect(payload_bytes >= 0 and sealed_bytes >= 0, "a message has fewer than 0 bytes")
    expected_bytes = payload_bytes + sealed_bytes
    _expect(len(blobs) == expected_bytes, f"{len(blobs)} bytes of messages follow where {expected_bytes} should")
    if header is None:
        return None
    return SavedOutbox(
        tag=Tag(header["tag"]),
        message_id=int(header["message_id"]),
        next_chunk_id=int(header["next_chunk_id"]),
        payload=bytes(blobs[:payload_bytes]),
        sealed=bytes(blobs[payload_bytes:]),
    )
