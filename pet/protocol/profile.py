"""What a variant of the protocol is: everything that a coordinator's machine does not do by itself.

The machine (pet/protocol/round_machine.py) knows time, phases, counters and whole messages. What messages say, when a phase has
enough of them, who has which task, what a message does to a round, what is published and what a round results in are the
profile's. There are no defaults here: xaynet's profile is pet/protocol/xaynet.py.

Source: none; the format is ours. docs/protocol.md describes it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

from pet.buffers import Buffer
from pet.crypto import EncryptionKeyPair
from pet.errors import RemoteProtocolError
from pet.messages import ChunkCollector, ChunkStore, HeadCheck, Message, MessageTag, PayloadCodec, Refused
from pet.protocol.phases import Phase, PhaseTable
from pet.protocol.windows import WindowState


class OpenRound(Protocol):
    """What the machine has to know of a round; the rest is the profile's."""

    @property
    def keys(self) -> EncryptionKeyPair:
        """The coordinator's key pair of this round."""

    @property
    def chunks(self) -> ChunkCollector:
        """Pieces of unfinished messages of the current phase."""


class CollectingWindow(Protocol):
    """When a phase that collects messages ends; `PhaseWindow` is the one that counts and waits."""

    @property
    def min_count(self) -> int:
        """Accepted messages that the phase needs."""

    @property
    def max_seconds(self) -> float:
        """How long the phase lasts at most."""

    def is_full(self, accepted: int) -> bool:
        """Return whether further messages are to be discarded."""

    def state(self, started_seconds: float, now_seconds: float, accepted: int) -> WindowState:
        """Return whether a phase that began at `started_seconds` goes on at `now_seconds`."""

    def deadline_seconds(self, started_seconds: float, accepted: int) -> float:
        """Return when time alone would next end the phase, if no further message came."""


OpenTogether: TypeAlias = Callable[[Sequence[memoryview], EncryptionKeyPair, MessageTag | None], Sequence[Message | Refused]]

SettingsT = TypeVar("SettingsT")
RoundT = TypeVar("RoundT", bound=OpenRound)
EntryT = TypeVar("EntryT")
EventT = TypeVar("EventT")


@dataclass(frozen=True, slots=True)
class RoundFailure:
    """Why a round gives no result.

    Attributes:
        reason: a short stable identifier.
        description: a sentence for people, without secrets.
    """

    reason: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundStart(Generic[RoundT]):
    """What a round begins with.

    Attributes:
        round_id: its number.
        previous: the round before; None before the first.
        previous_seed: round seed of the round before.
        entropy: returns as many random bytes as it is asked for.
        chunk_store: where pieces of unfinished messages lie; None means memory.
    """

    round_id: int
    previous: RoundT | None
    previous_seed: bytes
    entropy: Callable[[int], bytes]
    chunk_store: ChunkStore | None


class RoundRules(ABC, Generic[SettingsT, RoundT, EntryT, EventT]):
    """How the rounds of a variant run: settings in, entries and events out; no state of its own."""

    @abstractmethod
    def windows(self, settings: SettingsT, current: RoundT | None, /) -> Mapping[Phase, CollectingWindow]:
        """Return when each collecting phase ends; a window may look at the round, which is None before the first."""

    @abstractmethod
    def begin(self, settings: SettingsT, start: RoundStart[RoundT]) -> tuple[RoundT, bytes, Sequence[EventT]]:
        """Open a round.

        Returns:
            The round, its seed, and what is published at its start.
        """

    @abstractmethod
    def require_first(self, current: RoundT, participant_public_key: bytes, tag: MessageTag, /) -> None:
        """Refuse a participant whose message of that kind is in the round already.

        Raises:
            RemoteProtocolError: it is.
        """

    def admit(self, current: RoundT, participant_public_key: bytes, tag: MessageTag) -> None:
        """Refuse a participant of whom no message of that kind is wanted, whatever it says: before its chunks are kept.

        Raises:
            RemoteProtocolError: as `require_first`, which is all that is asked unless a profile knows more.
        """
        self.require_first(current, participant_public_key, tag)

    def head_check(
        self,
        current: RoundT,  # noqa: ARG002 - what an override needs
        participant_public_key: bytes,  # noqa: ARG002
        tag: MessageTag,  # noqa: ARG002
        /,
    ) -> HeadCheck | None:
        """Return what can be checked of a payload in chunks before it is whole; None if nothing can."""
        return None

    @abstractmethod
    def check_sender(self, current: RoundT, message: Message, payload: object, /) -> None:
        """Check who sent a message and whether it has the task it claims: what can be known from the round's beginning on.

        Any thread may call this while others change the round: it looks at nothing that changes.

        Args:
            current: the round.
            message: who sent it.
            payload: what it says; of a message in chunks, what they say together.

        Raises:
            RemoteProtocolError: the sender may not say this.
        """

    @abstractmethod
    def take(self, current: RoundT, message: Message, payload: object) -> EntryT | None:
        """Check what a message says, whose sender was checked; then take it into the round.

        Args:
            current: the round.
            message: who sent it.
            payload: what it says; of a message in chunks, what they say together.

        Returns:
            What the message left in the round; None if it is in it already, and is taken again without counting.

        Raises:
            RemoteProtocolError: the message is refused, the round is as before.
        """

    def check_senders(self, current: RoundT, messages: Sequence[Message]) -> list[Refused | None]:
        """Check who sent messages that came whole, as `check_sender` does with each; a profile may know a faster way for many.

        Returns:
            For each message, why its sender may not say this; None if it may.
        """
        return [self._sender_refusal(current, message) for message in messages]

    def _sender_refusal(self, current: RoundT, message: Message) -> Refused | None:
        try:
            self.check_sender(current, message, message.payload)
        except RemoteProtocolError as error:
            return Refused.of(error)
        return None

    def unfinished(self, current: RoundT, phase: Phase, /) -> Sequence[str]:  # noqa: ARG002 - what an override needs
        """Return why what is not whole when a phase ends is refused, one reason for each message; none in most variants."""
        return ()

    @abstractmethod
    def end_phase(self, round_id: int, current: RoundT, phase: Phase) -> Sequence[EventT] | RoundFailure:
        """Return what a phase that has enough messages publishes for the participants of the next one."""

    @abstractmethod
    def time_out(self, phase: Phase) -> tuple[str, str]:
        """Return the reason of a phase's time-out, and what to add for people to the sentence that describes it."""

    @abstractmethod
    def finish(self, round_id: int, current: RoundT) -> EventT | RoundFailure:
        """Return the result of a round as it is published."""

    @abstractmethod
    def withdraw(self, round_id: int, current: RoundT | None, /) -> Sequence[EventT]:
        """Return what ends the publications of a round that failed, or is given up; there may be none yet."""

    @abstractmethod
    def announce(self, round_id: int, current: RoundT, phase: Phase, /) -> Sequence[EventT]:
        """Return what was published of a round until a phase, oldest first: for a restart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile(Generic[SettingsT, RoundT, EntryT, EventT]):
    """A variant of the protocol.

    Attributes:
        name: for people and for settings.
        codec: tags and payloads.
        open_message: opens the body of a request with the keys of the round, for the kind of message that a phase takes; raises
            RemoteProtocolError.
        phases: phases and transitions.
        rules: windows, tasks, what messages do, what is published, and the derivation of masks: a round's settings say it.
        open_together: does the same as `open_message` with many bodies in writable buffers, faster; None where nothing does.
    """

    name: str
    codec: PayloadCodec
    open_message: Callable[[Buffer, EncryptionKeyPair, MessageTag | None], Message]
    phases: PhaseTable
    rules: RoundRules[SettingsT, RoundT, EntryT, EventT]
    open_together: OpenTogether | None = None

    def open_messages(
        self, bodies: Sequence[memoryview], keys: EncryptionKeyPair, accepted_tag: MessageTag | None
    ) -> Sequence[Message | Refused]:
        """Open bodies, each as `open_message` does; or say why one is refused."""
        if self.open_together is not None:
            return self.open_together(bodies, keys, accepted_tag)
        return [self._open(body, keys, accepted_tag) for body in bodies]

    def _open(self, body: memoryview, keys: EncryptionKeyPair, accepted_tag: MessageTag | None) -> Message | Refused:
        try:
            return self.open_message(body, keys, accepted_tag)
        except RemoteProtocolError as error:
            return Refused.of(error)
