"""What the engine of every profile is: one protocol object, guarded so that any thread may use it, and when it is written.

Messages come in batches, one of one message included. A batch is opened in the thread that brings it, without a lock, because
decrypting and verifying is most of the work: the message's own signature, and those that say what task its sender has. The
protocol object is touched under one lock. What readers get is in immutable values that were captured when the protocol
announced them (`_update_snapshots`), so no reader ever waits for an update that is just being added.

Batches that wait for the lock together are written to the disk together: the thread that gets the lock takes all that
wait, and answers for all. Nobody is answered, and nothing is published, before what it rests on is stored.

The engine has no threads and no timer of its own: somebody calls `tick`. It knows no socket, and not what is published.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeAlias

from pet.bodies.body import SealedBody, as_sealed_body
from pet.buffers import Buffer
from pet.coordinator.durable_rounds import DurableRounds
from pet.coordinator.waiting import Sightings
from pet.crypto import EncryptionKeyPair
from pet.errors import RemoteProtocolError, StorageError
from pet.messages import Message, MessageTag
from pet.protocol.events import MachineEvent, MessageAccepted, PhaseEntered
from pet.protocol.message_checks import SenderCheck
from pet.protocol.phases import Phase
from pet.protocol.profile import EntryT, EventT, RoundT, SettingsT
from pet.protocol.round_state import Status
from pet.protocol.windows import PhaseWindow
from pet.threads import occupy
from pet.transports.base import PublishedModel

_logger: Final = logging.getLogger(__name__)

#: Why a message was refused that nothing is wrong with.
INTERNAL_ERROR: Final = "internal_error"


@dataclass(frozen=True, slots=True)
class _Gate:
    """What a body is opened with; replaced as a whole whenever the phase changes."""

    keys: EncryptionKeyPair | None
    accepted_tag: MessageTag | None


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What models are like, for people.

    Attributes:
        length: number of weights.
        mask_config: name of the config that they are masked with.
    """

    length: int
    mask_config: str


class Turn(Protocol):
    """What waits for the protocol object: a message, or whatever else changes it and is committed with others."""

    def take(self, now_seconds: float) -> None:
        """Change the protocol object; for the thread that has the lock.

        Raises:
            RemoteProtocolError: it is refused; already counted.
        """


@dataclass(slots=True)
class _OpenedMessage:
    """A message that waits for its turn, and what is known of it."""

    rounds: DurableRounds[Any, Any, Any, Any]
    message: Message
    body: SealedBody
    checked: SenderCheck | None

    def take(self, now_seconds: float) -> None:
        self.rounds.receive(self.message, now_seconds, self.body, self.checked)


class _Batch:
    """What waits for its turn together, and for one commit.

    Attributes:
        items: what was opened, or the reason why it is refused, in the order in which it came.
        is_done: whether its turn is over.
        error: why the messages are not stored.
    """

    __slots__ = ("error", "is_done", "items")

    def __init__(self) -> None:
        self.items: list[Turn | str] = []
        self.is_done = False
        self.error: StorageError | None = None


class RoundEngine(ABC, Generic[SettingsT, RoundT, EntryT, EventT]):
    """A coordinator that any thread may call: all of `pet.transports.base.Endpoint` that no profile decides.

    Args:
        settings: what the rounds are like.
        rounds: that it runs; those that it goes on with are announced by the first `tick`.
        clock: returns seconds that never go back.
    """

    def __init__(
        self,
        settings: SettingsT,
        rounds: DurableRounds[SettingsT, RoundT, EntryT, EventT],
        clock: Callable[[], float],
    ) -> None:
        self.settings: Final = settings
        self._clock: Final = clock
        self._rounds: Final = rounds
        self._protocol: Final = rounds.protocol
        self._queue: Final[deque[_Batch]] = deque()
        self._lock: Final = threading.Lock()
        self._subscribers: Final[list[Callable[[MachineEvent | EventT], None]]] = []
        self._sightings: Final = Sightings()
        self._gate = _Gate(None, None)
        self._parameters: bytes | None = None
        self._model: PublishedModel | None = rounds.model
        self._max_body_bytes = self._largest_body_bytes()
        #: Events of the protocol that are stored and not published yet.
        self._pending: Final[deque[MachineEvent | EventT]] = deque()
        self._must_retry = False
        # What a restored round has to announce waits for the first tick: nobody can have subscribed yet.
        self._open_gate()
        self._take_status()

    # ---- what a profile decides ---------------------------------------------------------------------------------------

    @abstractmethod
    def max_body_bytes_ever(self) -> int:
        """Return what `max_body_bytes` is at most, whatever the rounds will be like."""

    @abstractmethod
    def sums(self) -> bytes | None:
        """Return the encoded sum dictionary while it is published."""

    @abstractmethod
    def seeds(self, public_key: bytes) -> bytes | None:
        """Return the encoded seed dictionary of one sum participant while it is published."""

    @abstractmethod
    def describe(self) -> ModelDescription:
        """Return what the models of the next round are like."""

    @abstractmethod
    def phase_window(self, phase: Phase) -> PhaseWindow | None:
        """Return how many messages a phase takes and for how long; None for a phase that takes none."""

    @abstractmethod
    def _largest_body_bytes(self) -> int:
        """Compute what `max_body_bytes` returns until something is published that changes it."""

    @abstractmethod
    def _is_result(self, event: MachineEvent | EventT) -> bool:
        """Return whether an event is the result of a round: when the status shows a completed round, it must be there."""

    @abstractmethod
    def _waiting(self, status: Status, settings: SettingsT, now_seconds: float) -> dict[str, Any] | None:
        """Return what the status shows under "waiting", ready for JSON; None in a phase that takes no messages."""

    def _update_snapshots(self, event: MachineEvent | EventT) -> None:
        """Update what readers get with what the protocol announced."""
        match event:
            case PhaseEntered():
                self._sightings.begin_phase()
            case MessageAccepted():
                self._sightings.note_accepted(event.tag, event.participant_public_key, self._clock())
            case _:
                pass

    def _prepare_round(self) -> None:
        """Do what can be done at a time when nobody waits for anything; nothing in most profiles."""

    # ---- messages ------------------------------------------------------------------------------------------------------

    @property
    def is_durable(self) -> bool:
        """Whether messages are stored before they are answered."""
        return self._rounds.is_durable

    @property
    def was_restored(self) -> bool:
        """Whether it goes on with a round, or at least the round ids, of an earlier engine."""
        return self._rounds.was_restored

    @property
    def keeps_earlier_settings(self) -> bool:
        """Whether the round under way has other settings than those given, which count from the next round on."""
        return self._protocol.settings != self.settings

    @property
    def phases(self) -> frozenset[Phase]:
        """Every phase that rounds of its profile have."""
        return self._protocol.profile.phases.phases

    def max_body_bytes(self) -> int:
        """Return the size of the largest body that could hold a message of this round or the last one (spec 4.8)."""
        return self._max_body_bytes

    def handle_message(self, body: SealedBody | Buffer) -> None:
        """Open one sealed message and give it to the protocol; whatever is wrong with it is counted (spec 9.1).

        When this returns, the outcome of the message is stored.

        Raises:
            StorageError: it could not be stored; the sender should try again.
        """
        (error,) = self.handle_messages([as_sealed_body(body)])
        if error is not None:
            raise error

    def handle_messages(self, bodies: Sequence[SealedBody]) -> list[StorageError | None]:
        """Open sealed messages and give them to the protocol, in their order, with one commit for all.

        Args:
            bodies: left to the caller, who closes them.

        Returns:
            For each, None once its outcome is stored; why that was not possible, and its sender should try again. What is
            refused is never to be sent again.
        """
        batch = _Batch()
        with ExitStack() as lent:
            with occupy():  # so that the threads of other calls leave this one its core
                batch.items.extend(self._open_all(bodies, lent))
            self._wait_for_turn(batch)
            outcomes = [None if isinstance(item, str) else batch.error for item in batch.items]
            batch.items.clear()  # with the views of what is lent
            return outcomes

    def _take_turn(self, turn: Turn) -> None:
        """Let something have its turn, with all that waits.

        Raises:
            StorageError: its outcome could not be stored.
        """
        batch = _Batch()
        batch.items.append(turn)
        self._wait_for_turn(batch)
        if batch.error is not None:
            raise batch.error

    def _wait_for_turn(self, batch: _Batch) -> None:
        self._queue.append(batch)
        with self._lock:
            if not batch.is_done:
                self._process_queue()

    def _open_all(self, bodies: Sequence[SealedBody], lent: ExitStack) -> Sequence[Turn | str]:
        """Decrypt messages in buffers that are lent, and verify them; of each that is refused, the reason.

        No view of a buffer is left when its loan ends, unless the round keeps one.
        """
        try:
            return self._open_together(bodies, lent)
        except Exception:
            # Memory may have run out. The sender is not to blame, and an error would only make it send the same again.
            if len(bodies) == 1:
                _logger.exception("a message could not be handled")
                return [INTERNAL_ERROR]
        # One of them fails: the others need not.
        return [self._open_all([body], lent)[0] for body in bodies]

    def _open_together(self, bodies: Sequence[SealedBody], lent: ExitStack) -> Sequence[Turn | str]:
        gate, profile = self._gate, self._protocol.profile
        if gate.keys is None:
            _logger.debug("%d messages refused: expected the first round to have begun", len(bodies))
            return ["unexpected_message"] * len(bodies)
        buffers = [lent.enter_context(body.open()) for body in bodies]
        opened = profile.open_messages(buffers, gate.keys, gate.accepted_tag)
        checks = iter(self._protocol.check_senders([each for each in opened if isinstance(each, Message)]))
        items: list[Turn | str] = []
        for body, each in zip(bodies, opened, strict=True):
            if isinstance(each, Message):
                items.append(_OpenedMessage(self._rounds, each, body, next(checks)))
            else:
                _logger.debug("message refused: %s", each.description)
                items.append(each.reason)
        return items

    def _process_queue(self) -> None:
        """Take all that waits, and store what it changes in one go."""
        batches = [self._queue.popleft() for _ in range(len(self._queue))]
        items = [item for batch in batches for item in batch.items]
        is_stored = not self._rounds.is_behind or self._publish_or_wait()
        for item in items:
            if isinstance(item, str):
                self._rounds.refuse(item)
            elif is_stored:
                self._receive(item)
        if is_stored:
            if not all(isinstance(item, str) for item in items):
                self._let_time_pass()
            is_stored = self._publish_or_wait()
        for batch in batches:
            batch.is_done = True
            if not is_stored:
                batch.error = StorageError("message: expected it to be stored, but the storage does not take it now")

    def _receive(self, item: Turn) -> None:
        try:
            item.take(self._clock())
        except RemoteProtocolError as error:  # counted by the protocol object itself
            _logger.debug("message refused: %s", error)
        except Exception:
            _logger.exception("a message could not be handled")
            self._rounds.refuse(INTERNAL_ERROR)

    def _let_time_pass(self) -> None:
        """End phases that the last messages brought to their end; what fails is left to the next tick."""
        try:
            self._rounds.advance_time(self._clock())
        except Exception:
            _logger.exception("the round could not go on")

    # ---- time ----------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Let time pass: phases end, rounds begin. May take as long as unmasking a model does."""
        with self._lock:
            if self._rounds.is_behind:
                self._publish()
            self._rounds.advance_time(self._clock())
            self._publish()
            self._prepare_round()

    def seconds_until_tick(self) -> float | None:
        """Return after how many seconds `tick` should be called next, 0 or less for at once; None if never."""
        deadline = self._deadline
        if self._must_retry:
            return 0.0
        return None if deadline is None else deadline - self._clock()

    def shut_down(self) -> None:
        """Accept nothing more. What is published stays readable; an engine on the same storage goes on with the round."""
        with self._lock:
            try:
                self._rounds.stop(self._clock())
            except StorageError as error:
                _logger.warning("stopping: the time left of the phase could not be stored: %s", error)
            self._publish()

    # ---- what is published ---------------------------------------------------------------------------------------------

    def subscribe(self, callback: Callable[[MachineEvent | EventT], None]) -> None:
        """Call back for every event, in order, after it was published; quickly, and without calling the engine."""
        self._subscribers.append(callback)

    def parameters(self) -> bytes | None:
        """Return the encoded round parameters, or None before the first round."""
        return self._parameters

    def model(self) -> PublishedModel | None:
        """Return the last global model."""
        return self._model

    def status(self) -> dict[str, Any]:
        """Return the record of `GET /status`, ready for JSON."""
        (read, settings, read_seconds), now_seconds = self._status, self._clock()
        status = read.later(now_seconds - read_seconds)
        return {**status.to_json_dict(), "waiting": self._waiting(status, settings, now_seconds)}

    def _publish_or_wait(self) -> bool:
        """Store and publish; what fails is left to the next tick. Returns whether all is stored."""
        try:
            self._publish()
        except StorageError as error:
            _logger.warning("what happened cannot be stored yet: %s", error)
        except Exception:
            _logger.exception("what the round announced cannot be published yet")
        return not self._rounds.is_behind

    def _publish(self) -> None:
        """Store what happened and tell it; what fails stays for the next call."""
        try:
            self._store_then_publish()
        except BaseException:
            self._must_retry = True
            raise
        self._must_retry = False

    def _store_then_publish(self) -> None:
        """Store what happened, then update the snapshots with what the protocol announced, in order.

        The gate goes first: an answer to what is published must be accepted (spec 13, "gap"). A result goes before the
        status: when the status shows a completed round, its model must be there.
        """
        self._pending.extend(self._rounds.settle(self._clock()))
        self._open_gate()
        if not any(self._is_result(event) for event in self._pending):
            self._take_status()
        while self._pending:
            event = self._pending[0]
            self._update_snapshots(event)
            self._pending.popleft()
            if self._is_result(event):
                self._take_status()
            self._call_back(event)

    def _open_gate(self) -> None:
        self._gate = _Gate(self._protocol.encryption_keys, self._protocol.accepted_tag)
        self._deadline = self._rounds.next_deadline_seconds()

    def _call_back(self, event: MachineEvent | EventT) -> None:
        for callback in self._subscribers:
            try:
                callback(event)
            except Exception:
                # An observer must not be able to stop the round.
                _logger.exception("a subscriber failed at %s", type(event).__name__)

    def _take_status(self) -> None:
        now_seconds = self._clock()
        self._status = self._protocol.status(now_seconds), self._protocol.settings, now_seconds


#: The engine of any profile, for who only watches and runs it.
AnyEngine: TypeAlias = RoundEngine[Any, Any, Any, Any]
