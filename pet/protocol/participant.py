"""The participant's side of the protocol: what to ask the coordinator, and what follows from its answers.

No sockets, clock, threads or randomness of its own: requests go out through `next_request`, answers come in through `receive`,
entropy is given at construction (the one exception is libsodium, which draws the key of each sealed box itself). Heavy work
(masking, adding up masks, sealing) happens inside `receive`, in participant_round.py. The states and all transitions are in
participant_state.py.

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

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final, Literal, Self, assert_never

from numpy.typing import NDArray

from pet.crypto import SigningKeyPair
from pet.errors import LocalProtocolError, ModelError, RemoteProtocolError, StateError
from pet.masking import Scalar, copy_finite, to_exact_scalar
from pet.messages import RoundParameters
from pet.protocol.participant_checks import read_parameters, require_fit, require_options, require_policies
from pet.protocol.participant_events import (
    AnswerRefused,
    Event,
    FollowedRound,
    GetParameters,
    GetSeeds,
    GetSums,
    Request,
    SendMessage,
)
from pet.protocol.participant_round import ParticipantOptions, ParticipantRound
from pet.protocol.participant_state import ParticipantState, SavedParticipant
from pet.protocol.strategies import TaskChoice, choose_task_by_signature

_REQUEST_NAMES: Final = {GetParameters: "parameters", GetSums: "sums", GetSeeds: "seeds", SendMessage: "message"}


class ParticipantMachine:
    """One participant, from round to round.

    Attributes:
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
        ephemeral_seed: bytes | None = None,
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
            ephemeral_seed: 32 bytes that the ephemeral key of the first Sum task is made of, for who has to name that key
                before the round; it serves once, and is no part of a saved state before. None draws it, as for all others.

        Raises:
            ModelError: the scalar is negative, not finite or not a number.
            ConfigError: `max_message_size`, `max_model_length`, `on_clip` or `ephemeral_seed` is out of range, or the signing
                key is something else.
        """
        require_options(signing_key, max_message_size, on_clip, max_model_length, ephemeral_seed)
        self.has_fresh_parameters = False
        self._options: Final = ParticipantOptions(
            signing_key=signing_key,
            entropy=entropy,
            scalar=to_exact_scalar(scalar),
            threads=threads,
            choose_task=choose_task,
            on_clip=on_clip,
            ephemeral_seed=ephemeral_seed,
        )
        self._max_model_length = max_model_length
        self._round: Final = ParticipantRound(self._options, max_message_size)
        self._request: Request | None = None
        self._is_step_over = False

    @property
    def state(self) -> ParticipantState:
        """Where the participant is in the round."""
        return self._round.state

    @property
    def made_progress(self) -> bool:
        """Whether the last step (or the one under way) changed anything; True before the first."""
        return self._round.made_progress

    @property
    def public_key(self) -> bytes:
        """The participant's signing key, 32 bytes: its name towards the coordinator."""
        return self._options.signing_key.public_key

    @property
    def scalar(self) -> Fraction:
        """The weight of this participant's models in the mean."""
        return self._options.scalar

    @property
    def parameters(self) -> RoundParameters | None:
        """The parameters of the round, or None before the first contact."""
        return self._round.parameters

    @property
    def round(self) -> FollowedRound | None:
        """The round, or None before the first contact."""
        parameters = self._round.parameters
        if parameters is None:
            return None
        return FollowedRound(
            digest=parameters.digest(), config=parameters.mask_config.vect, model_length=parameters.model_length
        )

    @property
    def has_model(self) -> bool:
        """Whether a model is held that no Update state has taken yet."""
        return self._round.model is not None

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
            if self.has_fresh_parameters and (outbox := self._round.outbox) is not None and outbox.is_begun:
                self._request = SendMessage(body=outbox.body)
            else:
                self._request = GetParameters()
            self._round.made_progress = False
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
            self._round.events.append(AnswerRefused(request=name, reason=error.reason, description=str(error)))
            self._go_without_receipt(request)
        finally:
            self._is_step_over = self._request is None

    def receive_failure(self) -> None:
        """Note that the last request could not be carried out: the step ends, nothing changes, it will be made again.

        Raises:
            LocalProtocolError: there is no such request.
        """
        self._go_without_receipt(self._finish_request())
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
            self._go_without_receipt(request)
            return
        if is_too_large and self._round.split_message(len(request.body), description):
            return
        reason = "message_too_large" if is_too_large else "message_refused"
        self._round.abandon(reason, description)

    def next_event(self) -> Event | None:
        """Return the oldest event not returned yet, or None."""
        return self._round.events.popleft() if self._round.events else None

    def set_model(self, model: NDArray[Any]) -> None:
        """Hold a copy of a model for the next Update state, in place of one that is held already.

        The one method that may be called while another thread is inside `receive`.

        Args:
            model: one dimension, with the dtype and length of the round parameters; finite.

        Raises:
            ModelError: wrong dtype or length, NaN or infinite weights, or no round parameters yet.
        """
        if self._round.parameters is None:
            raise ModelError("model: expected the length and data type of a round, got none from the coordinator yet")
        require_fit(model, self._round.parameters)
        self._round.model = copy_finite(model)

    def save(self) -> bytes:
        """Return everything that is needed to go on later; possible in every state.

        The result contains **secret keys in clear**. A model that was set and not taken yet is not part of it.
        """
        return self._round.save().encode()

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
        machine._round.load(saved)
        return machine

    def _finish_request(self) -> Request:
        if self._request is None:
            raise LocalProtocolError("expected an answer only after next_request returned a request, got one without")
        request, self._request = self._request, None
        return request

    def _go_without_receipt(self, request: Request) -> None:
        """Count a message as delivered whose round is the same, where the dictionary that could say otherwise is not there.

        To ask for it again and again would hold up the task, for something that only informs.
        """
        if not isinstance(request, GetParameters):
            self._round.settle(is_late=False)

    def _handle(self, request: Request, answer: bytes | None) -> None:
        match request:
            case GetParameters():
                self._request = self._round.receive_parameters(self.read_parameters(answer))
            case GetSums() | GetSeeds() if self._round.sent is not None:
                self._round.receive_receipt(answer)
            case GetSums():
                self._round.receive_sums(answer)
            case GetSeeds():
                self._round.receive_seeds(answer)
            case SendMessage():
                self._request = self._round.finish_part()
            case _:
                assert_never(request)
