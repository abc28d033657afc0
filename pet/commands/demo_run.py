"""The rounds of `pet demo` as they happen: events of the coordinator in, one result per round out.

This file drives and checks; what people read is printed by demo.py, which passes in a `Reporter`.
"""

from __future__ import annotations

import queue
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pet.commands import demo_data
from pet.commands.demo_check import Check
from pet.commands.demo_data import DemoData, Weights
from pet.commands.demo_participants import DemoParticipant, Ledger
from pet.commands.demo_scene import Misfortune, Scene
from pet.commands.demo_server import open_listener, running_coordinator, url_of
from pet.errors import PetError, TransportError
from pet.masking import Scalar
from pet.messages import MessageTag
from pet.model_formats import decode_bincode
from pet.pet1.round_record import RoundRecord
from pet.protocol.events import (
    Event,
    MessageAccepted,
    ModelPublished,
    ParametersPublished,
    PhaseEntered,
    RoundFailed,
    RoundReopened,
)
from pet.protocol.pet1_publications import CertificatePublished, Pet1Publication, RoundAnnounced, TotalPublished
from pet.protocol.phases import Phase

#: Seconds without any event after which something must be broken: longer than any phase lasts.
_SILENCE_SECONDS: Final = 30.0
#: Rounds may fail (a lottery draws the roles), but not for ever.
_MAX_FAILURES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRound:
    """The outcome of one round that ended with a model.

    Attributes:
        number: of the round, from 1.
        alone_accuracies: of each participant, if it trained on its own samples alone, for as many rounds.
    """

    number: int
    update_count: int
    mask_count: int
    federated_accuracy: float
    pooled_accuracy: float
    alone_accuracies: tuple[float, ...]
    check: Check


class Reporter(Protocol):
    """Who wants to know how it goes."""

    def phase_entered(self, number: int, phase: Phase) -> None:
        """The coordinator is in a new phase."""

    def message_accepted(self, accepted: int, tag: MessageTag) -> None:
        """How many messages of a kind were accepted in this round."""

    def round_finished(self, result: DemoRound) -> None:
        """A round ended with a model."""

    def round_failed(self, number: int, reason: str, description: str) -> None:
        """A round ended without a model."""

    def went_wrong(self, text: str) -> None:
        """Something went wrong on purpose, or was found to have."""


@dataclass(slots=True)
class _Round:
    """What is known of the round under way."""

    number: int = 0
    digest: bytes = b""
    accepted: dict[MessageTag, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    excluded: frozenset[bytes] = frozenset()


#: What the run is about.
_News: TypeAlias = Event | Pet1Publication | Misfortune


class DemoRun:
    """A federated training from start to end.

    Args:
        data: who has which samples.
        round_count: how many rounds have to end with a model.
        scene: the profile of the protocol.
        reporter: receives everything, in the calling thread.

    Attributes:
        results: of the rounds that ended with a model.
        misfortunes: what went wrong, with the number of its round.
        accepted_counts: messages that the coordinator took, by what they were.
        model: the last global model.
    """

    def __init__(self, data: DemoData, round_count: int, scene: Scene, reporter: Reporter) -> None:
        self.results: Final[list[DemoRound]] = []
        self.misfortunes: Final[list[tuple[int, Misfortune]]] = []
        self.accepted_counts: Final[dict[MessageTag, int]] = dict.fromkeys(scene.message_names, 0)
        self.model: NDArray[np.float64] = demo_data.initial_weights().astype(np.float64)
        self._data: Final = data
        self._round_count: Final = round_count
        self.scene: Final = scene
        self._reporter: Final = reporter
        self._ledger: Final = Ledger()
        self._news: Final[queue.SimpleQueue[_News]] = queue.SimpleQueue()
        self._pooled: Weights = demo_data.initial_weights()
        self._alone: list[Weights] = [demo_data.initial_weights() for _ in data.participants]
        self._round = _Round()
        self._first_id = 0
        self._failures = 0
        self._participants: list[DemoParticipant] = []

    def run(self) -> None:
        """Run until the last round is finished.

        Raises:
            PetError: it does not come to an end: rounds fail again and again, or nothing happens at all.
        """
        with open_listener() as listener:
            # All are ready before the first round begins, so that none of them misses its Sum phase.
            url = url_of(listener)
            self._participants = [
                self.scene.make_participant(url, index, self._ledger, self._news.put)
                for index in range(len(self._data.participants))
            ]
            with (
                running_coordinator(listener, self.scene.make_engine(), self._news.put),
                self.scene.company(url, self._news.put),
            ):
                try:
                    for participant in self._participants:
                        participant.start()
                    while len(self.results) < self._round_count:
                        self._handle(self._next_news())
                finally:
                    self._stop_participants()

    def _stop_participants(self) -> None:
        for participant in self._participants:
            participant.stop()
        for participant in self._participants:
            if participant.ident is not None:  # Ctrl-C can come before the last one was started
                participant.join()

    def _next_news(self) -> _News:
        deadline = time.monotonic() + _SILENCE_SECONDS
        while time.monotonic() < deadline:
            for participant in self._participants:
                if participant.failure is not None:
                    raise participant.failure
            try:
                # Short waits, so that Ctrl-C and a failed participant are noticed soon.
                return self._news.get(timeout=0.5)
            except queue.Empty:
                continue
        raise TransportError(f"demo: expected news from the coordinator every {_SILENCE_SECONDS:g} s, got none")

    def _handle(self, news: _News) -> None:
        match news:
            case ParametersPublished():
                self._round = self._begun(news.round_id, news.parameters.digest())
            case RoundAnnounced():
                self._round = self._begun(news.round_id, RoundRecord.from_bytes(news.record).digest)
            case PhaseEntered():
                self._reporter.phase_entered(self._round.number, news.phase)
            case MessageAccepted():
                self._accept(news)
            case ModelPublished():
                self._finish_round(decode_bincode(b"".join(news.model.iter_bincode()), np.dtype(np.float64)))
            case CertificatePublished():
                self._exclude(news)
            case TotalPublished():
                # Downloaded in single precision, whose error the check allows for.
                self._finish_round(news.model.to_array().astype(np.float64))
            case RoundFailed():
                self._fail_round(news.reason, news.description)
            case RoundReopened():
                # Among the demo's participants somebody is drawn nearly always: if nobody joins again and again, it is stuck.
                self._fail_round("nobody joined", news.description)
            case Misfortune():
                self.misfortunes.append((self._round.number, news))
                self._reporter.went_wrong(news.text)
            case _:
                pass  # dictionaries that come and go

    def _begun(self, round_id: int, digest: bytes) -> _Round:
        """Return a round that began; for people rounds are counted from 1, whatever number they have."""
        self._first_id = self._first_id or round_id
        return _Round(round_id - self._first_id + 1, digest)

    def _accept(self, event: MessageAccepted) -> None:
        accepted = self._round.accepted[event.tag]
        accepted.append(event.participant_public_key)
        self.accepted_counts[event.tag] += 1
        self._reporter.message_accepted(len(accepted), event.tag)

    def _exclude(self, event: CertificatePublished) -> None:
        """Note whose update a complaint proves bad: it is not in the sum."""
        self._round.excluded = frozenset(event.excluded)
        for index in sorted(self._index_by_key()[key] for key in event.excluded):
            self._reporter.went_wrong(f"participant {index + 1} is left out: a member's complaint proves its update bad")

    def _finish_round(self, model: NDArray[np.float64]) -> None:
        """Check and rate the model as the coordinator publishes it, what a participant downloads."""
        self.model = model
        updates = self._accepted_updates()
        check = self.scene.check(model, [weights for weights, _ in updates], [scalar for _, scalar in updates])
        number, test = self._round.number, self._data.test
        self._pooled = demo_data.train(self._pooled, self._data.pooled, random_seed=number)
        self._alone = [
            demo_data.train(model, samples, random_seed=number)
            for model, samples in zip(self._alone, self._data.participants, strict=True)
        ]
        result = DemoRound(
            number=number,
            update_count=len(updates),
            mask_count=len(self._round.accepted[self.scene.answer_tag]),
            federated_accuracy=demo_data.accuracy(self.model, test),
            pooled_accuracy=demo_data.accuracy(self._pooled, test),
            alone_accuracies=tuple(demo_data.accuracy(model, test) for model in self._alone),
            check=check,
        )
        self.results.append(result)
        self._reporter.round_finished(result)

    def _accepted_updates(self) -> list[tuple[Weights, Scalar]]:
        index_by_key = self._index_by_key()
        return [
            (self._ledger.weights(public_key, self._round.digest), self.scene.scalar(index_by_key[public_key]))
            for public_key in self._round.accepted[self.scene.update_tag]
            if public_key not in self._round.excluded
        ]

    def _index_by_key(self) -> dict[bytes, int]:
        return {participant.public_key: participant.index for participant in self._participants}

    def _fail_round(self, reason: str, description: str) -> None:
        self._failures += 1
        self._reporter.round_failed(self._round.number, reason, description)
        if self._failures > _MAX_FAILURES:
            raise PetError(f"demo: expected at most {_MAX_FAILURES} failed rounds, got {self._failures}: {description}")
