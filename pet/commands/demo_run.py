"""The rounds of `pet demo` as they happen: events of the coordinator in, one result per round out.

This file drives and checks; what people read is printed by demo.py, which passes in a `Reporter`.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from pet.commands import demo_data
from pet.commands.demo_check import Check, check_mean
from pet.commands.demo_data import DemoData, Weights
from pet.commands.demo_participants import DemoParticipant, Ledger
from pet.commands.demo_server import open_listener, running_coordinator, url_of
from pet.errors import PetError, TransportError
from pet.global_model import GlobalModel
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.messages import MessageTag, Tag
from pet.model_formats import decode_bincode
from pet.protocol.events import (
    Event,
    MessageAccepted,
    ModelPublished,
    ParametersPublished,
    PhaseEntered,
    RoundFailed,
    RoundReopened,
)
from pet.protocol.phases import Phase
from pet.protocol.round_settings import RoundSettings
from pet.protocol.windows import PhaseWindow

CONFIG: Final = MaskConfig.parse("prime-f32-b0-m3")
_SUM_PROBABILITY: Final = 0.25
_UPDATE_PROBABILITY: Final = 1.0
#: Short, so that the demo is; long enough for twenty participants on two busy cores.
_SUM_SECONDS: Final = (0.7, 4.0)
_UPDATE_SECONDS: Final = (1.8, 10.0)
_SUM2_SECONDS: Final = (0.7, 6.0)
#: Seconds without any event after which something must be broken: longer than any phase lasts.
_SILENCE_SECONDS: Final = 30.0
#: Rounds may fail (a lottery draws the roles), but not for ever.
_MAX_FAILURES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRound:
    """The outcome of one round that ended with a model.

    Attributes:
        alone_accuracies: of each participant, if it trained on its own samples alone, for as many rounds.
    """

    round_id: int
    update_count: int
    mask_count: int
    federated_accuracy: float
    pooled_accuracy: float
    alone_accuracies: tuple[float, ...]
    check: Check


class Reporter(Protocol):
    """Who wants to know how it goes."""

    def phase_entered(self, round_id: int, phase: Phase) -> None:
        """The coordinator is in a new phase."""

    def message_accepted(self, accepted: int, tag: MessageTag) -> None:
        """How many messages of a kind were accepted in this round."""

    def round_finished(self, result: DemoRound) -> None:
        """A round ended with a model."""

    def round_failed(self, round_id: int, reason: str, description: str) -> None:
        """A round ended without a model."""

    def dropped_out(self, participant: int, unfinished: str) -> None:
        """A participant is gone for good."""


@dataclass(slots=True)
class _Round:
    """What is known of the round under way."""

    round_id: int = 0
    seed: bytes = b""
    accepted: dict[MessageTag, list[bytes]] = field(default_factory=lambda: {tag: [] for tag in Tag})


@dataclass(frozen=True, slots=True)
class _DropOut:
    participant: int
    unfinished: str


class DemoRun:
    """A federated training from start to end.

    Args:
        data: who has which samples.
        round_count: how many rounds have to end with a model.
        drop_outs: which participants vanish, and from which round on their next task is the last.
        reporter: receives everything, in the calling thread.

    Attributes:
        results: of the rounds that ended with a model.
        drop_out_rounds: the round in which a participant vanished, by its number.
        accepted_counts: messages that the coordinator took, by what they were.
        model: the last global model.
    """

    def __init__(self, data: DemoData, round_count: int, drop_outs: dict[int, int], reporter: Reporter) -> None:
        self.results: Final[list[DemoRound]] = []
        self.drop_out_rounds: Final[dict[int, int]] = {}
        self.accepted_counts: Final[dict[MessageTag, int]] = dict.fromkeys(Tag, 0)
        self.model: NDArray[np.float64] = demo_data.initial_weights().astype(np.float64)
        self._data: Final = data
        self._round_count: Final = round_count
        self._drop_outs: Final = drop_outs
        self._reporter: Final = reporter
        self._ledger: Final = Ledger()
        self._news: Final[queue.SimpleQueue[Event | _DropOut]] = queue.SimpleQueue()
        self._pooled: Weights = demo_data.initial_weights()
        self._alone: list[Weights] = [demo_data.initial_weights() for _ in data.participants]
        self._round = _Round()
        self._failures = 0
        self._participants: list[DemoParticipant] = []

    def run(self) -> None:
        """Run until the last round is finished.

        Raises:
            PetError: it does not come to an end: rounds fail again and again, or nothing happens at all.
        """
        with open_listener() as listener:
            # All are ready before the first round begins, so that none of them misses its Sum phase.
            self._participants = [self._new_participant(url_of(listener), i) for i in range(len(self._data.participants))]
            with running_coordinator(listener, round_settings(), self._news.put):
                try:
                    for participant in self._participants:
                        participant.start()
                    while len(self.results) < self._round_count:
                        self._handle(self._next_news())
                finally:
                    self._stop_participants()

    def _new_participant(self, url: str, index: int) -> DemoParticipant:
        return DemoParticipant(
            index,
            url,
            self._data.participants[index],
            self._data.share(index),
            self._ledger,
            leaves_in_round=self._drop_outs.get(index),
            on_leaving=lambda unfinished: self._news.put(_DropOut(index, unfinished)),
        )

    def _stop_participants(self) -> None:
        for participant in self._participants:
            participant.stop()
        for participant in self._participants:
            if participant.ident is not None:  # Ctrl-C can come before the last one was started
                participant.join()

    def _next_news(self) -> Event | _DropOut:
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

    def _handle(self, news: Event | _DropOut) -> None:
        match news:
            case ParametersPublished():
                self._round = _Round(news.round_id, news.parameters.seed)
            case PhaseEntered():
                self._reporter.phase_entered(news.round_id, news.phase)
            case MessageAccepted():
                self._accept(news)
            case ModelPublished():
                self._finish_round(news.model)
            case RoundFailed():
                self._fail_round(news.round_id, news.reason, news.description)
            case RoundReopened():
                # Among the demo's participants somebody is drawn nearly always: if nobody joins again and again, it is stuck.
                self._fail_round(news.round_id, "nobody joined", news.description)
            case _DropOut():
                self.drop_out_rounds[news.participant] = self._round.round_id
                self._reporter.dropped_out(news.participant, news.unfinished)
            case _:
                pass  # dictionaries that come and go

    def _accept(self, event: MessageAccepted) -> None:
        accepted = self._round.accepted[event.tag]
        accepted.append(event.participant_public_key)
        self.accepted_counts[event.tag] += 1
        self._reporter.message_accepted(len(accepted), event.tag)

    def _finish_round(self, model: GlobalModel) -> None:
        """Check and rate the model as the coordinator publishes it, byte for byte what a participant downloads."""
        self.model = decode_bincode(b"".join(model.iter_bincode()), np.dtype(np.float64))
        updates = self._accepted_updates()
        check = check_mean(self.model, [weights for weights, _ in updates], [scalar for _, scalar in updates], CONFIG)
        number, test = self._round.round_id, self._data.test
        self._pooled = demo_data.train(self._pooled, self._data.pooled, random_seed=number)
        self._alone = [
            demo_data.train(model, samples, random_seed=number)
            for model, samples in zip(self._alone, self._data.participants, strict=True)
        ]
        result = DemoRound(
            round_id=number,
            update_count=len(updates),
            mask_count=len(self._round.accepted[Tag.SUM2]),
            federated_accuracy=demo_data.accuracy(self.model, test),
            pooled_accuracy=demo_data.accuracy(self._pooled, test),
            alone_accuracies=tuple(demo_data.accuracy(model, test) for model in self._alone),
            check=check,
        )
        self.results.append(result)
        self._reporter.round_finished(result)

    def _accepted_updates(self) -> list[tuple[Weights, Fraction]]:
        index_by_key = {participant.public_key: participant.index for participant in self._participants}
        return [
            (self._ledger.weights(public_key, self._round.seed), self._data.share(index_by_key[public_key]))
            for public_key in self._round.accepted[Tag.UPDATE]
        ]

    def _fail_round(self, round_id: int, reason: str, description: str) -> None:
        self._failures += 1
        self._reporter.round_failed(round_id, reason, description)
        if self._failures > _MAX_FAILURES:
            raise PetError(f"demo: expected at most {_MAX_FAILURES} failed rounds, got {self._failures}: {description}")


def round_settings() -> RoundSettings:
    """Return the settings of the demo's coordinator."""
    return RoundSettings(
        sum_probability=_SUM_PROBABILITY,
        update_probability=_UPDATE_PROBABILITY,
        mask_config=MaskConfigPair.of(CONFIG),
        model_length=demo_data.MODEL_LENGTH,
        sum=_window(1, _SUM_SECONDS),
        update=_window(3, _UPDATE_SECONDS),
        sum2=_window(1, _SUM2_SECONDS),
    )


def _window(min_count: int, seconds: Sequence[float]) -> PhaseWindow:
    return PhaseWindow(min_count=min_count, max_count=100, min_seconds=seconds[0], max_seconds=seconds[1])
