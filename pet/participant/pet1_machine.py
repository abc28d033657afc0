"""A participant of pet/1 as a machine that says which request it wants next: `ParticipantMachine` of the other profile.

What is masked, when, and for whom is `UpdateParticipant`'s (pet/protocol/pet1_participant.py); this file knows the order of the
questions. A step asks for the round's record first (pet/participant/round_follower.py), and then does the work of its state:

    NEW_ROUND       enrolment -> join                    -> UPDATE, or AWAITING: not enrolled, not selected, refused
    UPDATE          a model of the application's, the round's model, committee -> masked       -> SENDING_UPDATE
    SENDING_UPDATE  open, then pieces, one a step        -> AWAITING
    AWAITING        certificate and manifest, once: is the update in the sum?

A step ends after masking, so that who owns the machine can make `save()` durable before the first byte leaves (U7). There is no
way from here to another profile.

Source: docs/spec/profile.md 7.3, 13 (U1 to U9), 15.1.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from fractions import Fraction
from typing import Any, Final, Literal, Self

from numpy.typing import NDArray

from pet.crypto import KEY_SEED_BYTES, SigningKeyPair
from pet.errors import ConfigError, ModelError, RemoteProtocolError
from pet.mask_choices import FieldValues
from pet.masking import Scalar, to_exact_scalar
from pet.participant.enrolments import EnrolmentTrust
from pet.participant.pet1_documents import names_digest
from pet.participant.pet1_inclusion import InclusionSteps
from pet.participant.pet1_model import HeldModel, fetch_round_model, require_fit
from pet.participant.pet1_state import SavedPet1Participant
from pet.participant.pet1_upload import UploadSteps
from pet.participant.round_follower import RoundFollower
from pet.pet1.answers import UpdateAccepted, UpdateRefused
from pet.pet1.hashes import DIGEST_BYTES
from pet.pet1.messages import Pet1Tag
from pet.pet1.refusing import require
from pet.pet1.round_record import RoundRecord
from pet.protocol.participant_checks import MAX_VECTOR_BYTES, require_options
from pet.protocol.participant_events import (
    Event,
    FollowedRound,
    MessageDelivered,
    MessageLate,
    MessageSplit,
    ModelDropped,
    ModelMasked,
    ModelWanted,
    NewRound,
    NotSelected,
    TaskAbandoned,
    UpdateJudged,
    UpdateSelected,
)
from pet.protocol.participant_state import ParticipantState
from pet.protocol.pet1_participant import RoundTerms, UpdateParticipant
from pet.transports.pet1 import Pet1Document
from pet.transports.pet1_requests import OpenUpdate, Pet1Request, SendPiece

#: With these reasons the coordinator says that the phase is over, and nothing is wrong with the update.
_LATE: Final = frozenset({"wrong_phase", "incomplete_update"})
_State = ParticipantState


class Pet1Machine(RoundFollower[Event]):
    """One participant of pet/1, from round to round.

    Attributes:
        has_fresh_parameters: set by the owner, who has a clock, while the record was fetched a moment ago: further pieces of an
            update then go out without asking for it before each.
    """

    #: Round parameters are xaynet's profile's.
    parameters: Final = None

    def __init__(
        self,
        *,
        signing_key: SigningKeyPair,
        trust: EnrolmentTrust,
        entropy: Callable[[int], bytes],
        clock: Callable[[], float],
        scalar: Scalar = 1,
        max_message_size: int | None = None,
        threads: int | None = None,
        on_clip: Literal["count", "raise"] = "count",
        max_model_length: int | None = None,
        coordinator_key: bytes | None = None,
        saved_peer: bytes | None = None,
    ) -> None:
        """Start outside any round.

        Args:
            signing_key: its identity, an enrolled one.
            trust: which enrolments count.
            entropy: gives as many unpredictable bytes as asked for, from the operating system.
            clock: the time, Unix seconds.
            scalar: weight of its models in the mean, 0 to 1; of integers a whole number of 1 or more.
            max_message_size: largest body of a request in bytes; pieces have one leaf at least. None is unlimited.
            threads: how many threads masking may use; None means PET_THREADS, else all cores.
            on_clip: how to treat weights beyond the bound, as in `pet.mask_model`.
            max_model_length: longest model to take part with; None means that a masked vector has at most 1 GiB.
            coordinator_key: of the coordinator, where it is pinned: whether it is the authority as well is worth a word.
            saved_peer: what `UpdateParticipant` stored last.

        Raises:
            ModelError: the scalar is negative, not finite or not a number.
            ConfigError: another argument is out of range, or the key is not one of the enrolment that is pinned.
            StateError: `saved_peer` is no state of an update participant.
        """
        require_options(signing_key, max_message_size, on_clip, max_model_length, None)
        if trust.pinned is not None and not trust.pinned.lists_participant(signing_key.public_key):
            key = signing_key.public_key.hex()
            raise ConfigError(f"signing_key: expected the key of an enrolled participant, got {key}, which is not")
        super().__init__(trust, clock, coordinator_key)
        self.has_fresh_parameters = False
        self.state = _State.AWAITING
        self.scalar: Final[Fraction] = to_exact_scalar(scalar)
        self._key, self._on_clip = signing_key, on_clip
        self._max_message_size, self._max_model_length = max_message_size, max_model_length
        self._saved_peer = saved_peer
        terms = RoundTerms(values=None, max_vector_bytes=MAX_VECTOR_BYTES if max_model_length is None else 2**40)
        self._peer: Final = UpdateParticipant(
            signing_key=signing_key,
            policy=trust.policy,
            entropy=entropy,
            store=self._keep,
            terms=terms,
            saved=saved_peer,
            threads=threads,
        )
        self._model: HeldModel | None = None
        self._has_round_model = False
        self._upload: UploadSteps | None = None
        self._inclusion: Final = InclusionSteps(self._peer)

    @property
    def public_key(self) -> bytes:
        """The participant's signing key, 32 bytes: its name in enrolments."""
        return self._key.public_key

    @property
    def round(self) -> FollowedRound | None:
        """The round, or None before the first contact."""
        record = self.record
        if record is None:
            return None
        return FollowedRound(digest=record.digest, config=record.config, model_length=record.model_length)

    def receive_failure(self) -> None:
        """Note that the last request could not be carried out; an update is opened again, to see what has arrived of it."""
        super().receive_failure()
        if self._upload is not None:
            self._upload.reopen()

    def set_model(self, model: NDArray[Any]) -> None:
        """Hold a copy of a model for the next update; see `ParticipantMachine.set_model`.

        Raises:
            ModelError: wrong dtype or length, NaN or infinite weights, or no round yet.
        """
        if self.record is None:
            raise ModelError("model: expected the length and data type of a round, got none from the coordinator yet")
        require_fit(model, self.record)
        self._model = HeldModel.of(model)

    def model_steps(self) -> Generator[Pet1Request, Any, NDArray[Any] | None]:
        """Yield requests, take their answers, and return the model that the round starts from; see `fetch_round_model`."""
        record = self.record
        fetched = yield from fetch_round_model(record)
        if fetched is None:
            return None
        data, model = fetched
        if self.state is _State.UPDATE and record is self.record and not self._has_round_model:
            self._has_round_model = True
            self._peer.check_model(data)
        return model

    def save(self) -> bytes:
        """Return everything that is needed after a restart. The result contains a **secret key in clear**."""
        saved = SavedPet1Participant(
            signing_seed=self._key.secret_key[:KEY_SEED_BYTES],
            scalar=self.scalar,
            max_message_size=self._max_message_size,
            peer=self._saved_peer,
        )
        return saved.encode()

    @classmethod
    def restore(cls, data: bytes, **options: Any) -> Self:
        """Go on from a saved state, with the signing key, scalar and message size that are in it.

        Raises:
            StateError: damaged, of another version, or of the other profile.
            ConfigError: an option is out of range.
        """
        saved = SavedPet1Participant.decode(data)
        return cls(
            signing_key=SigningKeyPair.from_seed(saved.signing_seed),
            scalar=saved.scalar,
            max_message_size=saved.max_message_size,
            saved_peer=saved.peer,
            **options,
        )

    def _keep(self, state: bytes) -> None:
        """Hold what `UpdateParticipant` has to have durable: its owner stores it before the next step."""
        self._saved_peer = state

    def _first_request(self) -> Pet1Request | None:
        upload = self._upload
        is_begun = upload is not None and upload.is_open and self.has_fresh_parameters
        return upload.next_request() if upload is not None and is_begun else super()._first_request()

    def _note_refusal(self, description: str, *, is_too_large: bool) -> None:
        """Send leaf by leaf if a piece was refused for its size; another refusal ends the task of the round."""
        assert self._upload is not None, "only an update is sent"
        if is_too_large and (size := self._upload.shorten()) is not None:
            self._max_message_size = size
            self.made_progress = True
            self._events.append(MessageSplit(max_message_size=size, description=description))
        else:
            self._abandon("message_too_large" if is_too_large else "message_refused", description)

    def _receive_document(self, document: Pet1Document, answer: bytes | None) -> Pet1Request | None:
        if answer is None:
            return None
        match document:
            case Pet1Document.ENROLMENT:
                self._receive_enrolment(answer)
            case Pet1Document.MODEL:
                self._peer.check_model(answer)
                self._has_round_model = True
                return self._ask(Pet1Document.COMMITTEE)
            case Pet1Document.COMMITTEE:
                self._receive_committee(answer)
            case Pet1Document.CERTIFICATE:
                return self._inclusion.receive_certificate(answer, self.record)
            case _:
                self._events.append(UpdateJudged(inclusion=self._inclusion.receive_manifest(answer)))
        return None

    def _begin_round(self) -> Pet1Request | None:
        """Give up the round that was: only the held model, and what was sent, outlive it."""
        record = self.record
        assert record is not None, "its record came"
        if self._upload is not None:
            self._events.append(MessageLate(tag=Pet1Tag.UPDATE))
        self._upload, self._has_round_model = None, False
        self._move(_State.NEW_ROUND)
        self._events.append(NewRound(parameters=record))
        if self._model is not None:
            try:
                require_fit(self._model.weights, record)
            except ModelError as error:
                self._model = None
                self._events.append(ModelDropped(description=str(error)))
        # Those of the round before are there until this one's take their place.
        return self._inclusion.question()

    def _next_question(self) -> Pet1Request | None:
        """Return what the state asks for, now that the round is known to be the same."""
        match self.state:
            case _State.NEW_ROUND:
                return self._ask_for_enrolment()
            case _State.UPDATE if self._model is not None:
                return self._ask(Pet1Document.COMMITTEE if self._has_round_model else Pet1Document.MODEL)
            case _State.SENDING_UPDATE if self._upload is not None:
                return self._upload.next_request()
            case _:
                return self._inclusion.question()

    def _receive_enrolment(self, answer: bytes) -> None:
        record = self.record
        assert record is not None, "the enrolment is asked for after the record"
        if self._peer.has_sent(record):
            # After a restart, or where a coordinator shows this round, another one, and this one again.
            self._abandon("already_signed", "an update was made in this round before; there must be no second one")
            return
        try:
            self._require_length(record)
            joined = self._peer.join(record.to_bytes(), answer, int(self._clock()))
        except RemoteProtocolError as error:
            # An answer that was garbled on its way is asked for again; another one is the coordinator's last word.
            if error.reason != "malformed_enrolment":
                self._end_with(error)
                self._move(_State.AWAITING)
            raise
        self._accept(answer)
        if joined is None:
            self._move(_State.AWAITING)
            self._events.append(NotSelected())
            return
        is_fresh = record.model_digest == bytes(DIGEST_BYTES) or record.config.values is FieldValues.INT
        self._has_round_model = is_fresh
        self._move(_State.UPDATE)
        self._events.append(UpdateSelected())
        if self._model is None:
            self._want_model(record)

    def _require_length(self, record: RoundRecord) -> None:
        most = self._max_model_length
        is_short = most is None or record.model_length <= most
        require(is_short, "model_too_long", f"round record: expected models of at most {most} weights (max_model_length)")

    def _receive_committee(self, answer: bytes) -> None:
        record, enrolment, model = self.record, self.enrolment, self._model
        assert record is not None, "the committee is asked for within a round"
        assert enrolment is not None, "and after its enrolment was accepted"
        assert model is not None, "and only when there is a model"
        if not names_digest(answer, record.digest):
            return
        try:
            update = self._peer.mask(
                answer, model.weights, self.scalar, on_clip=self._on_clip, memory=model.memory, sums=model.sums
            )
        except RemoteProtocolError:
            raise
        except BaseException:  # its memory may be a vector by now, whatever the reason
            if self._model is model:
                self._model = None
                self._want_model(record)
            raise
        # Another thread may have set the next model while this one was masked.
        if self._model is model:
            self._model = None
        self._upload = UploadSteps(update, self._max_message_size)
        self._inclusion.forget()
        self._move(_State.SENDING_UPDATE)
        self._events.append(ModelMasked(clipped_count=update.clipped_count))

    def _receive_answer(self, request: Pet1Request, answer: Any) -> Pet1Request | None:
        """Go on with the update as the coordinator says."""
        assert isinstance(request, OpenUpdate | SendPiece), "a participant sends nothing else"
        upload, record, enrolment = self._upload, self.record, self.enrolment
        assert upload is not None, "answers to an update come to who sends one"
        assert record is not None, "which is within a round"
        assert enrolment is not None, "whose enrolment was accepted"
        outcome = upload.receive(answer)
        self.made_progress = upload.made_progress
        if isinstance(outcome, UpdateAccepted):
            self._upload = None
            self._inclusion.begin(record, enrolment)
            self._move(_State.AWAITING)
            self._events.append(MessageDelivered(tag=Pet1Tag.UPDATE))
        elif isinstance(outcome, UpdateRefused) and outcome.reason in _LATE:
            self._upload = None
            self._move(_State.AWAITING)
            self._events.append(MessageLate(tag=Pet1Tag.UPDATE))
        elif isinstance(outcome, UpdateRefused):
            self._abandon(outcome.reason, f"the coordinator refuses the update: {outcome.reason}")
        return None

    def _abandon(self, reason: str, description: str) -> None:
        """Give up the task: wait for the next round."""
        self._upload = None
        self._move(_State.AWAITING)
        self._events.append(TaskAbandoned(reason=reason, description=description))

    def _move(self, state: ParticipantState) -> None:
        self.state = state
        self.made_progress = True

    def _want_model(self, record: RoundRecord) -> None:
        self._events.append(ModelWanted(dtype=record.config.dtype, length=record.model_length))
