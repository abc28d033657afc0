"""The engine: one protocol object, guarded so that any thread may use it, and what it has published so far.

Messages come in batches, one of one message included. A batch is opened in the thread that brings it, without a lock, because
decrypting and verifying is most of the work: the message's own signature, and those that say what task its sender has. The
protocol object is touched under one lock. What readers get (parameters, dictionaries, model, status) are immutable values that
were captured when the protocol announced them, so no reader ever waits for an update that is just being added.

Batches that wait for the lock together are written to the disk together: the thread that gets the lock takes all that
wait, and answers for all. Nobody is answered, and nothing is published, before what it rests on is stored.

The engine has no threads and no timer of its own: somebody calls `tick`. It knows no socket.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Unpack

from pet.bodies.body import SealedBody, as_sealed_body
from pet.buffers import Buffer
from pet.coordinator.open_rounds import RoundOptions, open_rounds
from pet.coordinator.waiting import Sightings, waiting_record
from pet.crypto import EncryptionKeyPair
from pet.errors import RemoteProtocolError, StorageError
from pet.messages import (
    MIN_BODY_BYTES,
    EncodedSeeds,
    Message,
    MessageTag,
    encode_sum_dictionary,
    update_payload_bytes,
)
from pet.protocol.events import (
    DictionariesWithdrawn,
    Event,
    MessageAccepted,
    ModelPublished,
    ParametersPublished,
    PhaseEntered,
    SeedDictionaryPublished,
    SumDictionaryPublished,
)
from pet.protocol.message_checks import SenderCheck
from pet.protocol.phases import Phase
from pet.protocol.round_settings import RoundSettings
from pet.threads import occupy
from pet.transports.base import PublishedModel

_logger: Final = logging.getLogger(__name__)

#: Why a message was refused that nothing is wrong with.
_INTERNAL_ERROR: Final = "internal_error"
#: The header of a chunk is added when somebody sends a whole payload as one chunk; the rest is for senders that pad.
_SPARE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class _Gate:
    """What a body is opened with; replaced as a whole whenever the phase changes."""

    keys: EncryptionKeyPair | None
    accepted_tag: MessageTag | None


@dataclass(slots=True)
class _OpenedMessage:
    """A message that waits for its turn, and what is known of it."""

    message: Message
    body: SealedBody
    checked: SenderCheck | None


class _Batch:
    """Messages that wait for their turn together, and for one commit.

    Attributes:
        items: what was opened, or the reason why it is refused, in the order in which it came.
        is_done: whether its turn is over.
        error: why the messages are not stored.
    """

    __slots__ = ("error", "is_done", "items")

    def __init__(self) -> None:
        self.items: list[_OpenedMessage | str] = []
        self.is_done = False
        self.error: StorageError | None = None


class CoordinatorEngine:
    """A coordinator that any thread may call; implements `pet.transports.base.Endpoint`.

    Args:
        settings: what the rounds are like.
        clock: returns seconds that never go back.
        options: where rounds and models are kept, and what else they are made with: see `RoundOptions`. An engine goes on with
            the rounds that another one left in a storage.

    Raises:
        StateError: what is stored is damaged, or not of a coordinator of this version.
        StorageError: a store cannot be reached.
    """

    def __init__(
        self, settings: RoundSettings, *, clock: Callable[[], float] = time.monotonic, **options: Unpack[RoundOptions]
    ) -> None:
        self.settings: Final = settings
        self._clock: Final = clock
        self._rounds: Final = open_rounds(settings, now_seconds=clock(), **options)
        self._protocol: Final = self._rounds.protocol
        self._queue: Final[deque[_Batch]] = deque()
        self._lock: Final = threading.Lock()
        self._subscribers: Final[list[Callable[[Event], None]]] = []
        self._prepared_round_id = 0
        self._sightings: Final = Sightings()
        self._gate = _Gate(None, None)
        self._parameters: bytes | None = None
        self._sums: bytes | None = None
        self._seeds: Mapping[bytes, EncodedSeeds] | None = None
        self._model: PublishedModel | None = self._rounds.model
        #: Sizes of the sum dictionaries of this round and the last one: a late update may still answer the last one.
        self._sum_dictionary_sizes = (0, 0)
        self._max_body_bytes = self._largest_body_bytes()
        #: Events of the protocol that are stored and not published yet.
        self._pending: Final[deque[Event]] = deque()
        self._must_retry = False
        # What a restored round has to announce waits for the first tick: nobody can have subscribed yet.
        self._open_gate()
        self._sightings.expect_masks(self._protocol.state)
        self._take_status()

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

    def max_body_bytes(self) -> int:
        """Return the size of the largest body that could hold a message of this round or the last one (spec 4.8)."""
        return self._max_body_bytes

    def max_body_bytes_ever(self) -> int:
        """Return what `max_body_bytes` is at most, with as many sum participants as the settings allow."""
        return MIN_BODY_BYTES + self.settings.max_payload_bytes + _SPARE_BYTES

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
                batch.items.extend(self._open(body, lent) for body in bodies)
            self._queue.append(batch)
            with self._lock:
                if not batch.is_done:
                    self._process_queue()
            outcomes = [None if isinstance(item, str) else batch.error for item in batch.items]
            batch.items.clear()  # with the views of what is lent
            return outcomes

    def _open(self, body: SealedBody, lent: ExitStack) -> _OpenedMessage | str:
        """Decrypt a message in a buffer that is lent, and verify it; return the reason if it is refused.

        No view of the buffer is left when the loan ends, unless the round keeps one.
        """
        gate = self._gate
        try:
            buffer = lent.enter_context(body.open())
            if gate.keys is None:
                raise RemoteProtocolError("unexpected_message", "message: expected the first round to have begun")
            message = self._protocol.profile.open_message(buffer, gate.keys, gate.accepted_tag)
            return _OpenedMessage(message, body, self._protocol.check_sender(message))
        except RemoteProtocolError as error:
            _logger.debug("message refused: %s", error)
            return error.reason
        except Exception:
            # Memory may have run out. The sender is not to blame, and an error would only make it send the same again.
            _logger.exception("a message could not be handled")
            return _INTERNAL_ERROR

    def _process_queue(self) -> None:
        """Take all messages that wait, and store what they change in one go."""
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

    def _receive(self, item: _OpenedMessage) -> None:
        try:
            self._rounds.receive(item.message, self._clock(), item.body, item.checked)
        except RemoteProtocolError as error:  # counted by the protocol object itself
            _logger.debug("message refused: %s", error)
        except Exception:
            _logger.exception("a message could not be handled")
            self._rounds.refuse(_INTERNAL_ERROR)

    def _let_time_pass(self) -> None:
        """End phases that the last messages brought to their end; what fails is left to the next tick."""
        try:
            self._rounds.advance_time(self._clock())
        except Exception:
            _logger.exception("the round could not go on")

    def tick(self) -> None:
        """Let time pass: phases end, rounds begin. May take as long as unmasking a model does."""
        with self._lock:
            if self._rounds.is_behind:
                self._publish()
            self._rounds.advance_time(self._clock())
            self._publish()
            self._prepare_round()

    def _prepare_round(self) -> None:
        """At the beginning of a round, while nobody waits for anything, get the memory of its total."""
        current = self._protocol.state.round
        if current is not None and self._protocol.phase is Phase.SUM and self._prepared_round_id != self._protocol.round_id:
            self._prepared_round_id = self._protocol.round_id
            current.aggregation.prepare()

    def seconds_until_tick(self) -> float | None:
        """Return after how many seconds `tick` should be called next, 0 or less for at once; None if never."""
        deadline = self._deadline
        if self._must_retry:
            return 0.0
        return None if deadline is None else deadline - self._clock()

    def subscribe(self, callback: Callable[[Event], None]) -> None:
        """Call back for every event, in order, after it was published; quickly, and without calling the engine."""
        self._subscribers.append(callback)

    def shut_down(self) -> None:
        """Accept nothing more. What is published stays readable; an engine on the same storage goes on with the round."""
        with self._lock:
            try:
                self._rounds.stop(self._clock())
            except StorageError as error:
                _logger.warning("stopping: the time left of the phase could not be stored: %s", error)
            self._publish()

    def parameters(self) -> bytes | None:
        """Return the encoded round parameters, or None before the first round."""
        return self._parameters

    def sums(self) -> bytes | None:
        """Return the encoded sum dictionary while it is published."""
        return self._sums

    def seeds(self, public_key: bytes) -> bytes | None:
        """Return the encoded seed dictionary of one sum participant while it is published: the same object every time."""
        seeds = self._seeds
        if seeds is None or public_key not in seeds:
            return None
        self._sightings.note_request(public_key, self._clock())
        return seeds[public_key].to_bytes()

    def model(self) -> PublishedModel | None:
        """Return the last global model."""
        return self._model

    def status(self) -> dict[str, Any]:
        """Return the record of `GET /status`, ready for JSON."""
        (read, settings, read_seconds), now_seconds = self._status, self._clock()
        status = read.later(now_seconds - read_seconds)
        waiting = waiting_record(status, settings, self._sightings, now_seconds)
        return {**status.to_json_dict(), "waiting": waiting}

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

        The gate goes first: an answer to a published dictionary must be accepted (spec 13, "gap"). A model goes before the
        status: when the status shows a completed round, its model must be there.
        """
        self._pending.extend(self._rounds.settle(self._clock()))
        self._open_gate()
        if not any(isinstance(event, ModelPublished) for event in self._pending):
            self._take_status()
        while self._pending:
            event = self._pending[0]
            self._update_snapshots(event)
            self._pending.popleft()
            if isinstance(event, ModelPublished):
                self._take_status()
            self._call_back(event)

    def _largest_body_bytes(self) -> int:
        """Compute what `max_body_bytes` returns until settings or dictionaries change."""
        entries = max(self._sum_dictionary_sizes)
        payload_bytes = max(
            update_payload_bytes(settings.mask_config, settings.model_length, entries)
            for settings in (self._protocol.settings, self.settings)
        )
        return MIN_BODY_BYTES + payload_bytes + _SPARE_BYTES

    def _open_gate(self) -> None:
        self._gate = _Gate(self._protocol.encryption_keys, self._protocol.accepted_tag)
        self._deadline = self._rounds.next_deadline_seconds()

    def _call_back(self, event: Event) -> None:
        for callback in self._subscribers:
            try:
                callback(event)
            except Exception:
                # An observer must not be able to stop the round.
                _logger.exception("a subscriber failed at %s", type(event).__name__)

    def _take_status(self) -> None:
        now_seconds = self._clock()
        self._status = self._protocol.status(now_seconds), self._protocol.settings, now_seconds

    def _update_snapshots(self, event: Event) -> None:
        match event:
            case PhaseEntered():
                self._sightings.begin_phase()
            case MessageAccepted():
                self._sightings.note_accepted(event.tag, event.participant_public_key, self._clock())
            case ParametersPublished():
                self._sightings.begin_round()
                self._sum_dictionary_sizes = (0, self._sum_dictionary_sizes[0])
                self._max_body_bytes = self._largest_body_bytes()
                self._parameters = event.parameters.to_bytes()
            case SumDictionaryPublished():
                self._sum_dictionary_sizes = (len(event.sum_dictionary), self._sum_dictionary_sizes[1])
                self._max_body_bytes = self._largest_body_bytes()
                self._sums = encode_sum_dictionary(event.sum_dictionary)
            case SeedDictionaryPublished():
                self._sightings.expect_masks(self._protocol.state)
                self._seeds = event.seed_dictionary
            case DictionariesWithdrawn():
                self._sums = self._seeds = None
            case ModelPublished():
                self._model = self._rounds.model
            case _:
                pass  # counters and phases are in the status
