"""What differs between the profiles in `pet demo`: who takes part, what the coordinator runs, what is exact, its names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pet.commands import demo_data
from pet.commands.demo_check import Check, check_mean
from pet.commands.demo_data import DemoData, Weights
from pet.commands.demo_participants import DemoParticipant, Ledger
from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.round_engine import RoundEngine
from pet.mask_config import MaskConfig, MaskConfigPair
from pet.masking import Scalar
from pet.messages import MessageTag, Tag
from pet.participant import TickParticipant
from pet.protocol.phases import Phase
from pet.protocol.round_settings import RoundSettings
from pet.protocol.windows import PhaseWindow

CONFIG: Final = MaskConfig.parse("prime-f32-b0-m3")
_SUM_PROBABILITY: Final = 0.25
_UPDATE_PROBABILITY: Final = 1.0
#: Short, so that the demo is; long enough for twenty participants on two busy cores.
SUM_SECONDS: Final = (0.7, 4.0)
UPDATE_SECONDS: Final = (1.8, 10.0)
SUM2_SECONDS: Final = (0.7, 6.0)


@dataclass(frozen=True, slots=True)
class Misfortune:
    """Something that went wrong on purpose.

    Attributes:
        participant: whose doing it was, from 0; None if it was no participant's.
        label: who and what, in a few words.
        text: the same in a sentence.
    """

    participant: int | None
    label: str
    text: str


class Scene(ABC):
    """A profile of the protocol, as the demo plays it."""

    #: How models are masked.
    config: MaskConfig
    #: What the coordinator is doing, in words.
    phase_texts: Mapping[Phase, str]
    #: What messages of each kind are called.
    message_names: Mapping[MessageTag, str]
    #: The kind of message that updates are, and the one that answers are.
    update_tag: MessageTag
    answer_tag: MessageTag

    @abstractmethod
    def make_engine(self) -> RoundEngine[Any, Any, Any, Any]:
        """Return the coordinator."""

    @abstractmethod
    def make_participant(
        self, url: str, index: int, ledger: Ledger, on_misfortune: Callable[[Misfortune], None]
    ) -> DemoParticipant:
        """Return a participant that was not started yet."""

    @abstractmethod
    def scalar(self, index: int) -> Scalar:
        """Return the weight of a participant's models in the mean."""

    @abstractmethod
    def check(self, model: NDArray[np.float64], weights: Sequence[Weights], scalars: Sequence[Scalar]) -> Check:
        """Compare a global model with the mean of what was masked."""

    @abstractmethod
    def how_it_works(self) -> str:
        """Return how a round goes, for people."""

    @abstractmethod
    def who_learns_what(self, counts: Mapping[MessageTag, int]) -> str:
        """Return what the coordinator saw, and what that rests on."""

    @contextmanager
    def company(self, _url: str, _on_misfortune: Callable[[Misfortune], None]) -> Iterator[None]:
        """Have everybody take part who is no participant, for the length of a `with` block."""
        yield


_PHASE_TEXTS: Final = {
    Phase.IDLE: "new keys, new lottery",
    Phase.SUM: "sum phase: those drawn for it offer a key",
    Phase.UPDATE: "update phase: the others train, mask and send",
    Phase.SUM2: "sum2 phase: the masks are added up",
    Phase.UNMASK: "unmasking the sum",
    Phase.FAILURE: "the round failed",
    Phase.SHUTDOWN: "shutting down",
}
_MESSAGE_NAMES: Final[Mapping[MessageTag, str]] = {Tag.SUM: "keys", Tag.UPDATE: "updates", Tag.SUM2: "masks"}


class XaynetScene(Scene):
    """Xaynet's profile: a lottery draws who adds up masks; some participants vanish without a word.

    Args:
        data: who has which samples.
        drop_outs: which participants vanish, and from which round on their next task is the last.
    """

    config = CONFIG
    phase_texts = _PHASE_TEXTS
    message_names = _MESSAGE_NAMES
    update_tag, answer_tag = Tag.UPDATE, Tag.SUM2

    def __init__(self, data: DemoData, drop_outs: Mapping[int, int]) -> None:
        self._data: Final = data
        self._drop_outs: Final = drop_outs

    def make_engine(self) -> CoordinatorEngine:
        """Return the coordinator."""
        return CoordinatorEngine(round_settings())

    def make_participant(
        self, url: str, index: int, ledger: Ledger, on_misfortune: Callable[[Misfortune], None]
    ) -> DemoParticipant:
        """Return a participant that was not started yet."""
        return DemoParticipant(
            index,
            TickParticipant(url, scalar=self.scalar(index), threads=1),
            self._data.participants[index],
            ledger,
            leaves_in_round=self._drop_outs.get(index),
            on_leaving=lambda unfinished: on_misfortune(_dropped_out(index, unfinished)),
        )

    def scalar(self, index: int) -> Scalar:
        """Return a participant's share of all samples."""
        return self._data.share(index)

    def check(self, model: NDArray[np.float64], weights: Sequence[Weights], scalars: Sequence[Scalar]) -> Check:
        """Compare a global model with the mean of what was masked."""
        return check_mean(model, weights, scalars, CONFIG)

    def how_it_works(self) -> str:
        """Return how a round goes, for people."""
        return (
            "In every round a lottery draws some participants to add up masks. The others train, hide their model under a mask"
            " and send it to a coordinator on this machine, over HTTP. It adds up the masked models, takes the sum of the masks"
            " off, and is left with the mean, weighted by samples."
        )

    def who_learns_what(self, counts: Mapping[MessageTag, int]) -> str:
        """Return what the coordinator saw, and what that rests on."""
        return (
            f"[bold]The coordinator saw[/bold] who took part, {counts[Tag.UPDATE]} masked models (noise without their masks),"
            f" {counts[Tag.SUM2]} sums of masks, and the means. [bold]It did not see[/bold] any participant's samples or"
            " model.\n[bold]Mind:[/bold] that holds for a coordinator that follows the protocol. Together with one sum"
            " participant, or by handing out keys of its own, it can unmask every update."
        )


def _dropped_out(index: int, unfinished: str) -> Misfortune:
    name = f"participant {index + 1}"
    return Misfortune(index, f"{name}\ndrops out", f"{name} drops out: {unfinished}")


def round_settings() -> RoundSettings:
    """Return the settings of the demo's coordinator."""
    return RoundSettings(
        sum_probability=_SUM_PROBABILITY,
        update_probability=_UPDATE_PROBABILITY,
        mask_config=MaskConfigPair.of(CONFIG),
        model_length=demo_data.MODEL_LENGTH,
        sum=_window(1, SUM_SECONDS),
        update=_window(3, UPDATE_SECONDS),
        sum2=_window(1, SUM2_SECONDS),
    )


def _window(min_count: int, seconds: Sequence[float]) -> PhaseWindow:
    return PhaseWindow(min_count=min_count, max_count=100, min_seconds=seconds[0], max_seconds=seconds[1])
