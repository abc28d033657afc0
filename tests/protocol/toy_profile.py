"""A variant of the protocol with two phases that has nothing of xaynet's: no masks, seeds, mask configs or votes.

In "sum" participants join, in "update" those who joined send a number each, and the result is the sum of the numbers. It
exists to show that nothing outside of a profile assumes more.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from pet.buffers import Buffer
from pet.crypto import EncryptionKeyPair, hash_sha256
from pet.errors import RemoteProtocolError
from pet.messages import ChunkCollector, ChunkLimits, Message, MessageTag, PayloadCodec, open_message
from pet.profile import Profile
from pet.protocol import Phase, PhaseWindow, Trigger
from pet.protocol.phases import PhaseTable
from pet.protocol.profile import CollectingWindow, RoundFailure, RoundRules, RoundStart

NUMBER_BYTES = 40
MOST = 1000


class ToyTag(MessageTag):
    JOIN = 0x21
    NUMBER = 0x22


@dataclass(frozen=True)
class Join:
    tag: ClassVar[MessageTag] = ToyTag.JOIN
    size_bytes: ClassVar[int] = 0

    def encode_parts(self) -> list[Buffer]:
        return []

    @classmethod
    def decode(cls, data: Buffer) -> Join:
        if len(data):
            raise RemoteProtocolError("malformed_join", f"expected no bytes, got {len(data)}")
        return cls()


@dataclass(frozen=True)
class Number:
    number: int
    tag: ClassVar[MessageTag] = ToyTag.NUMBER
    size_bytes: ClassVar[int] = NUMBER_BYTES

    def encode_parts(self) -> list[Buffer]:
        return [self.number.to_bytes(NUMBER_BYTES, "big")]

    @classmethod
    def decode(cls, data: Buffer) -> Number:
        if len(data) != NUMBER_BYTES:
            raise RemoteProtocolError("malformed_number", f"expected {NUMBER_BYTES} bytes, got {len(data)}")
        return cls(int.from_bytes(data, "big"))


@dataclass(frozen=True)
class ToySettings:
    join: PhaseWindow
    number: PhaseWindow


@dataclass
class ToyRound:
    keys: EncryptionKeyPair
    chunks: ChunkCollector
    joined: set[bytes] = field(default_factory=set)
    numbers: dict[bytes, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    what: str
    value: object


Taken: TypeAlias = tuple[bytes, object]


class ToyRules(RoundRules[ToySettings, ToyRound, Taken, Published]):
    def windows(self, settings: ToySettings, current: ToyRound | None, /) -> Mapping[Phase, CollectingWindow]:
        return {Phase.SUM: settings.join, Phase.UPDATE: settings.number}

    def begin(self, settings: ToySettings, start: RoundStart[ToyRound]) -> tuple[ToyRound, bytes, Sequence[Published]]:
        keys = EncryptionKeyPair.from_seed(start.entropy(32))
        limits = ChunkLimits(max_bytes_per_participant=1000, max_bytes=1000, max_messages=10, patience_seconds=60)
        current = ToyRound(keys, ChunkCollector(limits, start.chunk_store))
        return current, hash_sha256(start.previous_seed), [Published("key", keys.public_key)]

    def require_first(self, current: ToyRound, participant_public_key: bytes, tag: MessageTag) -> None:
        if participant_public_key in (current.joined if tag is ToyTag.JOIN else current.numbers):
            raise RemoteProtocolError("seen", "expected one message of a kind, got another one")

    def check_sender(self, current: ToyRound, message: Message, payload: object) -> None:
        """Let everybody say everything."""

    def take(self, current: ToyRound, message: Message, payload: object) -> Taken:
        participant = message.participant_public_key
        self.require_first(current, participant, message.tag)
        if isinstance(payload, Number):
            if participant not in current.joined:
                raise RemoteProtocolError("not_joined", "expected a participant that joined, got another one")
            current.numbers[participant] = payload.number
        else:
            current.joined.add(participant)
        return participant, payload

    def end_phase(self, round_id: int, current: ToyRound, phase: Phase) -> Sequence[Published] | RoundFailure:
        if phase is Phase.SUM:
            return [Published("joined", len(current.joined))]
        if current.joined - current.numbers.keys():
            return RoundFailure("incomplete", "expected a number of everybody who joined")
        return []

    def time_out(self, phase: Phase) -> tuple[str, str]:
        return "too_late", "!"

    def finish(self, round_id: int, current: ToyRound) -> Published | RoundFailure:
        total = sum(current.numbers.values())
        return Published("total", total) if total <= MOST else RoundFailure("too_much", f"expected at most {MOST}, got {total}")

    def withdraw(self, round_id: int, current: ToyRound | None, /) -> Sequence[Published]:
        return [Published("nothing", None)]

    def announce(self, round_id: int, current: ToyRound, phase: Phase) -> Sequence[Published]:
        return [Published("key", current.keys.public_key)]


PHASES = PhaseTable(
    transitions={
        (Phase.IDLE, Trigger.PARAMETERS_DRAWN): Phase.SUM,
        (Phase.SUM, Trigger.ENOUGH_MESSAGES): Phase.UPDATE,
        (Phase.UPDATE, Trigger.ENOUGH_MESSAGES): Phase.UNMASK,
        (Phase.UNMASK, Trigger.MODEL_UNMASKED): Phase.IDLE,
        (Phase.FAILURE, Trigger.FAILURE_RECORDED): Phase.IDLE,
        **{(phase, Trigger.ROUND_FAILED): Phase.FAILURE for phase in (Phase.SUM, Phase.UPDATE, Phase.UNMASK)},
        **{(phase, Trigger.SHUT_DOWN): Phase.SHUTDOWN for phase in (Phase.IDLE, Phase.SUM, Phase.UPDATE, Phase.FAILURE)},
    },
    accepted_tags={Phase.SUM: ToyTag.JOIN, Phase.UPDATE: ToyTag.NUMBER},
)

CODEC = PayloadCodec(tags=ToyTag, decoders={ToyTag.JOIN: Join.decode, ToyTag.NUMBER: Number.decode})

TOY: Profile[ToySettings, ToyRound, Taken, Published] = Profile(
    name="toy",
    codec=CODEC,
    open_message=functools.partial(open_message, codec=CODEC),
    phases=PHASES,
    rules=ToyRules(),
)
