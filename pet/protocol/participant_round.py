"""What a participant holds and does in a round: the state, the task, the model, and the message on its way.

Given what the coordinator answered, it moves through the table of participant_state.py, does the mathematics, and returns what
to ask for next. It neither knows nor counts requests: participant.py does.

Source: docs/spec/pet.md 8.1, with the handling of defects of spec 13.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Final, Literal, assert_never

from numpy.typing import NDArray

from pet import crypto
from pet.crypto import EncryptionKeyPair, SigningKeyPair
from pet.errors import LocalProtocolError, ModelError, UnusableSeedsError
from pet.messages import Payload, RoundParameters, Tag, UpdatePayload, decode_seed_dictionary
from pet.protocol.participant_checks import read_sums, require_bounded_scalar, require_fit, smaller_message_size
from pet.protocol.participant_delivery import SentMessage, SentSum, SentUpdate
from pet.protocol.participant_events import (
    Event,
    GetParameters,
    GetSeeds,
    GetSums,
    MessageDelivered,
    MessageLate,
    MessageSplit,
    ModelDropped,
    ModelMasked,
    ModelWanted,
    NewRound,
    NotSelected,
    Request,
    SendMessage,
    SumSelected,
    TaskAbandoned,
    UpdateSelected,
)
from pet.protocol.participant_outbox import Envelope, Outbox
from pet.protocol.participant_state import (
    EPHEMERAL_KEY_STATES,
    PARTICIPANT_TRANSITIONS,
    ParticipantState,
    ParticipantTrigger,
    SavedParticipant,
)
from pet.protocol.participant_work import TaskSignatures, UpdateWork, build_sum, build_sum2, build_update
from pet.protocol.strategies import TaskChoice
from pet.secret import hidden

_SEED_BYTES: Final = 32
#: Events nobody reads must not pile up; a step emits at most four.
_MAX_PENDING_EVENTS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantOptions:
    """What the application decides for all rounds; see `ParticipantMachine`."""

    signing_key: SigningKeyPair = field(repr=False)
    entropy: Callable[[int], bytes]
    scalar: Fraction
    threads: int | None
    choose_task: TaskChoice
    on_clip: Literal["count", "raise"]
    ephemeral_seed: bytes | None = hidden(default=None)


class ParticipantRound:
    """One participant's part in a round, and what of it outlives the round.

    Attributes:
        state: where the participant is in the round.
        parameters: of the round, or None before the first.
        model: what the next Update state takes, or None.
        outbox: the message on its way; only in Sending states.
        sent: a message that was sent whole, until it is known whether it came in time; no part of a saved state.
        max_message_size: largest sealed message in bytes; smaller after one was refused for its size.
        events: what happened and was not read yet.
        made_progress: set to True by whatever changes the state; its reader sets it to False.
    """

    def __init__(self, options: ParticipantOptions, max_message_size: int | None) -> None:
        self.state = ParticipantState.AWAITING
        self.parameters: RoundParameters | None = None
        self.model: NDArray[Any] | None = None
        self.outbox: Outbox | None = None
        self.sent: SentMessage | None = None
        self.max_message_size = max_message_size
        self.events: Final[deque[Event]] = deque(maxlen=_MAX_PENDING_EVENTS)
        self.made_progress = True
        self._options: Final = options
        #: Whether a message was refused for its size before: the chunks that were tried then are not made smaller again.
        self._was_split = False
        self._ephemeral_seed: bytes | None = None
        self._given_seed = options.ephemeral_seed  # of the next ephemeral key; serves once
        #: In which round a masked model was signed: the digest of its parameters.
        self._signed_round: bytes | None = None
        #: One of those whose sum keys the update was encrypted for.
        self._sum_participant: bytes | None = None

    def save(self) -> SavedParticipant:
        """Return everything that is needed to go on later; a model that was not taken yet is not part of it."""
        return SavedParticipant(
            state=self.state,
            signing_seed=self._options.signing_key.secret_key[:_SEED_BYTES],
            scalar=self._options.scalar,
            max_message_size=self.max_message_size,
            parameters=self.parameters,
            ephemeral_seed=self._ephemeral_seed,
            signed_round=self._signed_round,
            outbox=self.outbox.save() if self.outbox else None,
        )

    def load(self, saved: SavedParticipant) -> None:
        """Go on where another one was saved; the key, scalar and message size in it are those that this one was made with."""
        self.state = saved.state
        self.parameters = saved.parameters
        self._ephemeral_seed = saved.ephemeral_seed
        self._signed_round = saved.signed_round
        if saved.parameters is not None:
            if saved.outbox is not None:
                self.outbox = Outbox(self._envelope(saved.parameters), saved.outbox)
            if saved.state is ParticipantState.UPDATE:
                self._want_model(saved.parameters)

    def receive_parameters(self, parameters: RoundParameters) -> Request | None:
        """Begin a round, or do the next step of the one that goes on; returns what else the step has to ask for.

        Raises:
            ModelError: the scalar is beyond the bound of the mask config of a new round.
        """
        if parameters == self.parameters:
            return self._do_step(parameters) if self.sent is None else self._ask_for_receipt(self.sent)
        require_bounded_scalar(self._options.scalar, parameters)
        self._begin_round(parameters)
        return None

    def _begin_round(self, parameters: RoundParameters) -> None:
        """Give up the round that was: only the signing key, the held model and what was signed outlive it."""
        overtaken = self.sent or self.outbox
        if overtaken is not None:
            self.events.append(MessageLate(tag=overtaken.tag))
        self.parameters = parameters
        self.sent = self._sum_participant = None
        self._fire(ParticipantTrigger.ROUND_CHANGED)
        self.events.append(NewRound(parameters=parameters))
        if self.model is not None:
            try:
                require_fit(self.model, parameters)
            except ModelError as error:
                self.model = None
                self.events.append(ModelDropped(description=str(error)))

    def _do_step(self, parameters: RoundParameters) -> Request | None:
        """Do what the state asks for, now that the round is known to be the same."""
        request: Request | None = None
        match self.state:
            case ParticipantState.AWAITING:
                pass
            case ParticipantState.NEW_ROUND:
                self._select_task(parameters)
            case ParticipantState.SUM:
                signatures = TaskSignatures.sign(self._options.signing_key, parameters)
                self._queue(build_sum(signatures, self._ephemeral_keys()), parameters)
            case ParticipantState.SUM2:
                request = GetSeeds(public_key=self._options.signing_key.public_key)
            case ParticipantState.UPDATE:
                # The sum dictionary may be large: it is of no use before there is a model.
                if self.model is not None:
                    request = GetSums()
            case ParticipantState.SENDING_SUM | ParticipantState.SENDING_SUM2 | ParticipantState.SENDING_UPDATE:
                assert self.outbox is not None, "every Sending state is entered with a message"
                request = SendMessage(body=self.outbox.body)
            case _:
                assert_never(self.state)
        return request

    def _select_task(self, parameters: RoundParameters) -> None:
        """Find out the task of the round."""
        signatures = TaskSignatures.sign(self._options.signing_key, parameters)
        task = self._options.choose_task(signatures.sum_signature, signatures.update_signature, parameters)
        if task == crypto.SUM_TASK:
            self._ephemeral_seed, self._given_seed = self._given_seed or self._options.entropy(_SEED_BYTES), None
            self._fire(ParticipantTrigger.SUM_SELECTED)
            self.events.append(SumSelected())
        elif task is None:
            self._fire(ParticipantTrigger.NOT_SELECTED)
            self.events.append(NotSelected())
        elif self._signed_round == parameters.digest():
            # Reached when a coordinator shows this round, another one, and this one again.
            self.abandon("already_signed", "a masked model was signed in this round before; there must be no second one")
        else:
            self._fire(ParticipantTrigger.UPDATE_SELECTED)
            self.events.append(UpdateSelected())
            if self.model is None:
                self._want_model(parameters)

    def receive_sums(self, answer: bytes | None) -> None:
        """Mask the model, once there are sum participants to encrypt its seed for."""
        if answer is None:
            return
        sum_dictionary = read_sums(answer)
        parameters, model = self.parameters, self.model
        assert parameters is not None, "sums are asked for only within a round"
        assert model is not None, "and only when there is a model"
        payload = self._mask(model, parameters, sum_dictionary)
        if self._queue(payload, parameters):
            self._signed_round = parameters.digest()
            self._sum_participant = next(iter(sum_dictionary))
            self.events.append(ModelMasked(clipped_count=payload.masked_model.clipped_count or 0))
        # Another thread may have set the next model while this one was masked.
        if self.model is model:
            self.model = None

    def _mask(self, model: NDArray[Any], parameters: RoundParameters, sum_dictionary: Mapping[bytes, bytes]) -> UpdatePayload:
        """Mask a model; one that cannot be masked is dropped, and another one asked for."""
        work = UpdateWork(
            model=model,
            scalar=self._options.scalar,
            entropy=self._options.entropy,
            threads=self._options.threads,
            on_clip=self._options.on_clip,
        )
        try:
            require_bounded_scalar(self._options.scalar, parameters)  # a restored participant has not been asked yet
            return build_update(TaskSignatures.sign(self._options.signing_key, parameters), parameters, sum_dictionary, work)
        except ModelError:
            if self.model is model:
                self.model = None
                self._want_model(parameters)
            raise

    def receive_seeds(self, answer: bytes | None) -> None:
        """Add up the masks of all updates, once their seeds are there."""
        if answer is None:
            return
        seed_dictionary = decode_seed_dictionary(answer)
        parameters = self.parameters
        assert parameters is not None, "seeds are asked for only within a round"
        signatures = TaskSignatures.sign(self._options.signing_key, parameters)
        try:
            payload = build_sum2(signatures, parameters, seed_dictionary, self._ephemeral_keys(), self._options.threads)
        except UnusableSeedsError as error:
            self.abandon(error.reason, str(error))
        else:
            self._queue(payload, parameters)

    def finish_part(self) -> Request | None:
        """Go on to the next part of the message, or after the last one to the next state; returns what else to ask for."""
        assert self.outbox is not None, "parts come out of the outbox"
        tag = self.outbox.tag
        self.made_progress = True
        if self.outbox.advance():
            return None
        self._fire(ParticipantTrigger.ALL_SENT)
        if tag is Tag.SUM2:  # the next round may begin at once, which is what this was sent for
            self.events.append(MessageDelivered(tag=tag))
            return None
        public_key = self._options.signing_key.public_key
        if tag is Tag.SUM:
            self.sent = SentSum(public_key=public_key, ephemeral_public_key=self._ephemeral_keys().public_key)
        else:
            self.sent = SentUpdate(public_key=public_key, sum_participant=self._sum_participant)
        return GetParameters()

    def _ask_for_receipt(self, sent: SentMessage) -> Request | None:
        """Return what shows whether a message came in time, now that the round is known to be the same."""
        if (question := sent.question()) is None:
            self.settle(is_late=False)
        return question

    def receive_receipt(self, answer: bytes | None) -> None:
        """Find out whether the message that was sent last is in the dictionary of its phase.

        Raises:
            RemoteProtocolError: the answer is no such dictionary.
        """
        assert self.sent is not None, "only a message that was sent has a receipt"
        assert self.parameters is not None, "and it was sent within a round"
        self.settle(is_late=answer is not None and self.sent.is_missing(answer, self.parameters))

    def settle(self, *, is_late: bool) -> None:
        """Report whether the message that was sent last came in time; does nothing if there is none."""
        if self.sent is not None:
            tag, self.sent = self.sent.tag, None
            self.made_progress = True
            self.events.append(MessageLate(tag=tag) if is_late else MessageDelivered(tag=tag))

    def _queue(self, payload: Payload, parameters: RoundParameters) -> bool:
        """Sign and seal a message, or its first chunk, and go to the state that sends it; False if it is too large."""
        try:
            outbox = Outbox.of(self._envelope(parameters), payload, int.from_bytes(self._options.entropy(2), "big"))
        except LocalProtocolError as error:
            self.abandon("message_too_large", str(error))
            return False
        self._fire(ParticipantTrigger.MESSAGE_BUILT)
        self.outbox = outbox
        return True

    def split_message(self, size_bytes: int, description: str) -> bool:
        """Go on with smaller messages after one was refused for its size; False if that is of no use."""
        max_message_size = None if self._was_split else smaller_message_size(size_bytes)
        outbox, parameters = self.outbox, self.parameters
        assert outbox is not None, "only what lies in the outbox can be refused"
        assert parameters is not None, "and it was made for a round"
        if max_message_size is None:
            return False
        envelope = replace(self._envelope(parameters), max_message_size=max_message_size)
        try:
            chunks = outbox.split(envelope, int.from_bytes(self._options.entropy(2), "big"))
        except LocalProtocolError:
            return False
        if chunks is None:
            return False
        self.outbox, self.max_message_size, self._was_split = chunks, max_message_size, True
        self.made_progress = True
        self.events.append(MessageSplit(max_message_size=max_message_size, description=description))
        return True

    def abandon(self, reason: str, description: str) -> None:
        """Give up the task: wait for the next round."""
        self._fire(ParticipantTrigger.ABANDONED)
        self.events.append(TaskAbandoned(reason=reason, description=description))

    def _fire(self, trigger: ParticipantTrigger) -> None:
        """Move to the state that the table names, and forget what only the old one needed."""
        self.state = PARTICIPANT_TRANSITIONS[self.state, trigger]
        self.made_progress = True
        self.outbox = None
        if self.state not in EPHEMERAL_KEY_STATES:
            self._ephemeral_seed = None

    def _want_model(self, parameters: RoundParameters) -> None:
        self.events.append(ModelWanted(dtype=parameters.mask_config.vect.data_type.dtype, length=parameters.model_length))

    def _ephemeral_keys(self) -> EncryptionKeyPair:
        assert self._ephemeral_seed is not None, "SUM is entered with a fresh seed, which is kept until Sum2 is done"
        return EncryptionKeyPair.from_seed(self._ephemeral_seed)

    def _envelope(self, parameters: RoundParameters) -> Envelope:
        return Envelope(
            signing_key=self._options.signing_key,
            coordinator_public_key=parameters.coordinator_public_key,
            max_message_size=self.max_message_size,
        )
