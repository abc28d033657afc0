"""The participant's side of the protocol: decides what to ask the coordinator and what to answer, and does the mathematics.

No sockets, clock, threads or randomness of its own: requests go out through `next_request`, answers come in through `receive`,
entropy is given at construction (the one exception is libsodium, which draws the key of each sealed box itself). Heavy work
(masking, adding up masks, sealing) happens inside `receive`. The states and all transitions are in participant_state.py.

    while (request := machine.next_request()) is not None:      # one step
        try:
            answer = carry_out(request)
        except TransportError:
            machine.receive_failure()       # or receive_refusal, where the same request would be refused again
        else:
            machine.receive(answer)

Source: docs/spec/pet.md 8.1, with the handling of defects of spec 13.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any, Final, Literal, Self, assert_never

import numpy as np
from numpy.typing import NDArray

from pet import crypto
from pet.crypto import EncryptionKeyPair, SigningKeyPair
from pet.errors import (
    LocalProtocolError,
    ModelError,
    RemoteProtocolError,
    StateError,
    UnusableSeedsError,
)
from pet.masking import Scalar, to_exact_scalar
from pet.messages import Payload, RoundParameters, UpdatePayload, decode_seed_dictionary
from pet.protocol.participant_checks import (
    read_parameters,
    read_sums,
    require_bounded_scalar,
    require_fit,
    require_options,
    require_policies,
    smaller_message_size,
)
from pet.protocol.participant_events import (
    AnswerRefused,
    Event,
    GetParameters,
    GetSeeds,
    GetSums,
    MessageDelivered,
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
from pet.protocol.strategies import TaskChoice, choose_task_by_signature

_SEED_BYTES: Final = 32
#: Events nobody reads must not pile up; a step emits at most four.
_MAX_PENDING_EVENTS: Final = 256

_REQUEST_NAMES: Final = {GetParameters: "parameters", GetSums: "sums", GetSeeds: "seeds", SendMessage: "message"}


class ParticipantMachine:
    """One participant, from round to round.

    Attributes:
        made_progress: whether the last step (or the one under way) changed anything; True before the first.
        has_fresh_parameters: set by the owner, who has a clock, while the parameters were fetched a moment ago: further
            chunks of a message then go out without asking for them before each.
    """

    def __init__(
        self,
        *,
        signing_key: SigningKeyPair,
        entropy: Callable[[int], bytes],
        scalar: Scalar = 1,
        max_message_size: int | None = None,
        threads: int | None = None,
        choose_task: TaskChoice = choose_task_by_signature,
        on_clip: Literal["count", "raise"] = "count",
        max_model_length: int | None = None,
    ) -> None:
        """Start outside any round.

        Args:
            signing_key: the participant's long-lived identity.
            entropy: gives as many unpredictable bytes as asked for: mask seeds, ephemeral keys, message ids.
            scalar: weight of this participant's models in the mean, 0 or more.
            max_message_size: largest sealed message in bytes, 194 or more; larger ones go out in chunks. None is unlimited.
            threads: how many threads masking and adding up masks may use; None means PET_THREADS, else all cores.
            choose_task: how the task of a round is found out; not part of a saved state.
            on_clip: how to treat weights beyond the bound of the mask config, as in `pet.mask_model`; not part of a saved
                state either.
            max_model_length: longest model to take part with; None means that a masked vector has at most 1 GiB. Not part of
                a saved state.

        Raises:
            ModelError: the scalar is negative, not finite or not a number.
            ConfigError: `max_message_size`, `max_model_length` or `on_clip` is out of range, or the signing key is something
                else.
        """
        require_options(signing_key, max_message_size, on_clip, max_model_length)
        self.made_progress = True
        self.has_fresh_parameters = False
        self._signing_key = signing_key
        self._entropy = entropy
        self._scalar = to_exact_scalar(scalar)
        self._max_message_size = max_message_size
        self._threads = threads
        self._choose_task = choose_task
        self._on_clip = on_clip
        self._max_model_length = max_model_length
        #: Whether a message was refused for its size before: the chunks that were tried then are not made smaller again.
        self._was_split = False
        self._state = ParticipantState.AWAITING
        self._parameters: RoundParameters | None = None
        self._model: NDArray[Any] | None = None
        self._ephemeral_seed: bytes | None = None
        #: In which round a masked model was signed: the digest of its parameters.
        self._signed_round: bytes | None = None
        self._outbox: Outbox | None = None
        self._request: Request | None = None
        self._is_step_over = False
        self._events: deque[Event] = deque(maxlen=_MAX_PENDING_EVENTS)

    @property
    def state(self) -> ParticipantState:
        """Where the participant is in the round."""
        return self._state

    @property
    def public_key(self) -> bytes:
        """The participant's signing key, 32 bytes: its name towards the coordinator."""
        return self._signing_key.public_key

    @property
    def scalar(self) -> Fraction:
        """The weight of this participant's models in the mean."""
        return self._scalar

    @property
    def parameters(self) -> RoundParameters | None:
        """The parameters of the round, or None before the first contact."""
        return self._parameters

    @property
    def has_model(self) -> bool:
        """Whether a model is held that no Update state has taken yet."""
        return self._model is not None

    def read_parameters(self, answer: bytes | None) -> RoundParameters:
        """Read round parameters within the bounds of this participant; changes nothing.

        Raises:
            RemoteProtocolError: they cannot be used.
        """
        return read_parameters(answer, self._max_model_length)

    def next_request(self) -> Request | None:
        """Return what to do over the wire, or None once at the end of each step.

        The same request is returned again until `receive` or `receive_failure` was called.
        """
        if self._is_step_over:
            self._is_step_over = False
            return None
        if self._request is None:
            if self.has_fresh_parameters and self._outbox is not None and self._outbox.is_begun:
                self._request = SendMessage(body=self._outbox.body)
            else:
                self._request = GetParameters()
            self.made_progress = False
        return self._request

    def receive(self, answer: bytes | None) -> None:
        """Take the answer to the last request, and do the work that follows from it.

        A bad answer changes nothing and is reported as an `AnswerRefused` event. In a failure that is not the coordinator's
        (no memory, an interrupt) the exception passes through, and the state is as before.

        Raises:
            LocalProtocolError: there is no request to answer.
            ModelError: the scalar is beyond the bound of the round's mask config; or weights are, and `on_clip` is "raise".
                Then the model is dropped, and another one asked for.
        """
        request = self._finish_request()
        try:
            self._handle(request, answer)
        except RemoteProtocolError as error:
            name = _REQUEST_NAMES[type(request)]
            self._events.append(AnswerRefused(request=name, reason=error.reason, description=str(error)))
        finally:
            self._is_step_over = self._request is None

    def receive_failure(self) -> None:
        """Note that the last request could not be carried out: the step ends, nothing changes, it will be made again.

        Raises:
            LocalProtocolError: there is no such request.
        """
        self._finish_request()
        self._is_step_over = True

    def receive_refusal(self, description: str, *, is_too_large: bool = False) -> None:
        """Note that the last request was refused, and would be refused again: the step ends.

        A message is not repeated. One that was refused for its size goes out once more, in chunks (`MessageSplit`); any other,
        and a chunk, ends the task of the round (`TaskAbandoned`). Other requests are made again at the next step.

        Args:
            description: who refused it and why, for people.
            is_too_large: whether it was refused for its size.

        Raises:
            LocalProtocolError: there is no such request.
        """
        request = self._finish_request()
        self._is_step_over = True
        if not isinstance(request, SendMessage):
            return
        if is_too_large and not self._was_split and self._split_message(len(request.body), description):
            return
        reason = "message_too_large" if is_too_large else "message_refused"
        self._abandon(reason, description)

    def next_event(self) -> Event | None:
        """Return the oldest event not returned yet, or None."""
        return self._events.popleft() if self._events else None

    def set_model(self, model: NDArray[Any]) -> None:
        """Hold a copy of a model for the next Update state, in place of one that is held already.

        The one method that may be called while another thread is inside `receive`.

        Args:
            model: one dimension, with the dtype and length of the round parameters; finite.

        Raises:
            ModelError: wrong dtype or length, NaN or infinite weights, or no round parameters yet.
        """
        if self._parameters is None:
            raise ModelError("model: expected the length and data type of a round, got none from the coordinator yet")
        require_fit(model, self._parameters)
        if not np.isfinite(model).all():
            raise ModelError("model: expected finite weights, got NaN or infinity")
        self._model = model.copy()

    def save(self) -> bytes:
        """Return everything that is needed to go on later; possible in every state.

        The result contains **secret keys in clear**. A model that was set and not taken yet is not part of it.
        """
        return SavedParticipant(
            state=self._state,
            signing_seed=self._signing_key.secret_key[:_SEED_BYTES],
            scalar=self._scalar,
            max_message_size=self._max_message_size,
            parameters=self._parameters,
            ephemeral_seed=self._ephemeral_seed,
            signed_round=self._signed_round,
            outbox=self._outbox.save() if self._outbox else None,
        ).encode()

    @classmethod
    def restore(
        cls,
        data: bytes,
        *,
        entropy: Callable[[int], bytes],
        threads: int | None = None,
        on_clip: Literal["count", "raise"] = "count",
        max_model_length: int | None = None,
    ) -> Self:
        """Go on from a saved state, with the signing key, scalar and message size that are in it.

        In the Update state the model is asked for again by a `ModelWanted` event.

        Raises:
            StateError: damaged, of another version, or not the state of a participant.
            ConfigError: `on_clip` or `max_model_length` is out of range.
        """
        saved = SavedParticipant.decode(data)
        require_policies(on_clip, max_model_length)
        with StateError.reading("saved participant"):
            return cls._from_saved(saved, entropy=entropy, threads=threads, on_clip=on_clip, max_model_length=max_model_length)

    @classmethod
    def _from_saved(cls, saved: SavedParticipant, **options: Any) -> Self:
        machine = cls(
            signing_key=SigningKeyPair.from_seed(saved.signing_seed),
            scalar=saved.scalar,
            max_message_size=saved.max_message_size,
            **options,
        )
        machine._state = saved.state
        machine._parameters = saved.parameters
        machine._ephemeral_seed = saved.ephemeral_seed
        machine._signed_round = saved.signed_round
        if saved.parameters is not None:
            if saved.outbox is not None:
                machine._outbox = Outbox(machine._envelope(saved.parameters), saved.outbox)
            if saved.state is ParticipantState.UPDATE:
                machine._want_model(saved.parameters)
        return machine

    def _finish_request(self) -> Request:
        if self._request is None:
            raise LocalProtocolError("expected an answer only after next_request returned a request, got one without")
        request, self._request = self._request, None
        return request

    def _handle(self, request: Request, answer: bytes | None) -> None:
        match request:
            case GetParameters():
                self._receive_parameters(answer)
            case GetSums():
                self._receive_sums(answer)
            case GetSeeds():
                self._receive_seeds(answer)
            case SendMessage():
                self._finish_part()
            case _:
                assert_never(request)

    def _receive_parameters(self, answer: bytes | None) -> None:
        parameters = self.read_parameters(answer)
        if parameters == self._parameters:
            self._do_step(parameters)
            return
        require_bounded_scalar(self._scalar, parameters)
        self._begin_round(parameters)

    def _begin_round(self, parameters: RoundParameters) -> None:
        """Give up the round that was: only the signing key, the held model and what was signed outlive it."""
        self._parameters = parameters
        self._fire(ParticipantTrigger.ROUND_CHANGED)
        self._events.append(NewRound(parameters=parameters))
        if self._model is not None:
            try:
                require_fit(self._model, parameters)
            except ModelError as error:
                self._model = None
                self._events.append(ModelDropped(description=str(error)))

    def _do_step(self, parameters: RoundParameters) -> None:
        """Do what the state asks for, now that the round is known to be the same."""
        match self._state:
            case ParticipantState.AWAITING:
                pass
            case ParticipantState.NEW_ROUND:
                self._select_task(parameters)
            case ParticipantState.SUM:
                signatures = TaskSignatures.sign(self._signing_key, parameters)
                self._queue(build_sum(signatures, self._ephemeral_keys()), parameters)
            case ParticipantState.SUM2:
                self._request = GetSeeds(public_key=self.public_key)
            case ParticipantState.UPDATE:
                # The sum dictionary may be large: it is of no use before there is a model.
                if self._model is not None:
                    self._request = GetSums()
            case ParticipantState.SENDING_SUM | ParticipantState.SENDING_SUM2 | ParticipantState.SENDING_UPDATE:
                assert self._outbox is not None, "every Sending state is entered with a message"
                self._request = SendMessage(body=self._outbox.body)
            case _:
                assert_never(self._state)

    def _select_task(self, parameters: RoundParameters) -> None:
        """Find out the task of the round."""
        signatures = TaskSignatures.sign(self._signing_key, parameters)
        task = self._choose_task(signatures.sum_signature, signatures.update_signature, parameters)
        if task == crypto.SUM_TASK:
            self._ephemeral_seed = self._entropy(_SEED_BYTES)
            self._fire(ParticipantTrigger.SUM_SELECTED)
            self._events.append(SumSelected())
        elif task is None:
            self._fire(ParticipantTrigger.NOT_SELECTED)
            self._events.append(NotSelected())
        elif self._signed_round == parameters.digest():
            # Reached when a coordinator shows this round, another one, and this one again.
            self._abandon("already_signed", "a masked model was signed in this round before; there must be no second one")
        else:
            self._fire(ParticipantTrigger.UPDATE_SELECTED)
            self._events.append(UpdateSelected())
            if self._model is None:
                self._want_model(parameters)

    def _receive_sums(self, answer: bytes | None) -> None:
        """Mask the model, once there are sum participants to encrypt its seed for."""
        if answer is None:
            return
        sum_dictionary = read_sums(answer)
        parameters, model = self._parameters, self._model
        assert parameters is not None, "sums are asked for only within a round"
        assert model is not None, "and only when there is a model"
        payload = self._mask(model, parameters, sum_dictionary)
        if self._queue(payload, parameters):
            self._signed_round = parameters.digest()
            self._events.append(ModelMasked(clipped_count=payload.masked_model.clipped_count or 0))
        # Another thread may have set the next model while this one was masked.
        if self._model is model:
            self._model = None

    def _mask(self, model: NDArray[Any], parameters: RoundParameters, sum_dictionary: Mapping[bytes, bytes]) -> UpdatePayload:
        """Mask a model; one that cannot be masked is dropped, and another one asked for."""
        work = UpdateWork(model=model, scalar=self._scalar, entropy=self._entropy, threads=self._threads, on_clip=self._on_clip)
        try:
            require_bounded_scalar(self._scalar, parameters)  # a restored participant has not been asked yet
            return build_update(TaskSignatures.sign(self._signing_key, parameters), parameters, sum_dictionary, work)
        except ModelError:
            if self._model is model:
                self._model = None
                self._want_model(parameters)
            raise

    def _receive_seeds(self, answer: bytes | None) -> None:
        """Add up the masks of all updates, once their seeds are there."""
        if answer is None:
            return
        seed_dictionary = decode_seed_dictionary(answer)
        parameters = self._parameters
        assert parameters is not None, "seeds are asked for only within a round"
        signatures = TaskSignatures.sign(self._signing_key, parameters)
        try:
            payload = build_sum2(signatures, parameters, seed_dictionary, self._ephemeral_keys(), self._threads)
        except UnusableSeedsError as error:
            self._abandon(error.reason, str(error))
        else:
            self._queue(payload, parameters)

    def _finish_part(self) -> None:
        """Go on to the next part of the message, or to the next state after the last one."""
        assert self._outbox is not None, "parts come out of the outbox"
        tag = self._outbox.tag
        self.made_progress = True
        if not self._outbox.advance():
            self._fire(ParticipantTrigger.ALL_SENT)
            self._events.append(MessageDelivered(tag=tag))

    def _queue(self, payload: Payload, parameters: RoundParameters) -> bool:
        """Sign and seal a message, or its first chunk, and go to the state that sends it; False if it is too large."""
        try:
            outbox = Outbox.of(self._envelope(parameters), payload, int.from_bytes(self._entropy(2), "big"))
        except LocalProtocolError as error:
            self._abandon("message_too_large", str(error))
            return False
        self._fire(ParticipantTrigger.MESSAGE_BUILT)
        self._outbox = outbox
        return True

    def _split_message(self, size_bytes: int, description: str) -> bool:
        """Go on with smaller messages after one was refused for its size; False if that is of no use."""
        max_message_size = smaller_message_size(size_bytes)
        outbox, parameters = self._outbox, self._parameters
        assert outbox is not None, "only what lies in the outbox can be refused"
        assert parameters is not None, "and it was made for a round"
        if max_message_size is None:
            return False
        envelope = replace(self._envelope(parameters), max_message_size=max_message_size)
        try:
            chunks = outbox.split(envelope, int.from_bytes(self._entropy(2), "big"))
        except LocalProtocolError:
            return False
        if chunks is None:
            return False
        self._outbox, self._max_message_size, self._was_split = chunks, max_message_size, True
        self.made_progress = True
        self._events.append(MessageSplit(max_message_size=max_message_size, description=description))
        return True

    def _abandon(self, reason: str, description: str) -> None:
        self._fire(ParticipantTrigger.ABANDONED)
        self._events.append(TaskAbandoned(reason=reason, description=description))

    def _fire(self, trigger: ParticipantTrigger) -> None:
        """Move to the state that the table names, and forget what only the old one needed."""
        self._state = PARTICIPANT_TRANSITIONS[self._state, trigger]
        self.made_progress = True
        self._outbox = None
        if self._state not in EPHEMERAL_KEY_STATES:
            self._ephemeral_seed = None

    def _want_model(self, parameters: RoundParameters) -> None:
        self._events.append(ModelWanted(dtype=parameters.mask_config.vect.data_type.dtype, length=parameters.model_length))

    def _ephemeral_keys(self) -> EncryptionKeyPair:
        assert self._ephemeral_seed is not None, "SUM is entered with a fresh seed, which is kept until Sum2 is done"
        return EncryptionKeyPair.from_seed(self._ephemeral_seed)

    def _envelope(self, parameters: RoundParameters) -> Envelope:
        return Envelope(
            signing_key=self._signing_key,
            coordinator_public_key=parameters.coordinator_public_key,
            max_message_size=self._max_message_size,
        )
