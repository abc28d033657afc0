"""What a person who watches a coordinator wants to see: the phase and its counts, and how the last rounds ended.

`Observation` subscribes to an engine and keeps the outcome of the last rounds; a snapshot of it is plain JSON. It knows no
route and no key of a participant.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import pet
from pet.coordinator.round_engine import AnyEngine
from pet.protocol.events import Event, MessageAccepted, MessageRefused, ModelPublished, ParametersPublished, RoundFailed
from pet.protocol.pet1_publications import Pet1Publication, RoundAnnounced, TotalPublished
from pet.protocol.phases import Phase

#: How many rounds are remembered.
ROUNDS_KEPT: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundOutcome:
    """How a round ended.

    Attributes:
        round: its number.
        is_completed: whether it gave a model.
        reason: why not, as in docs/protocol.md; empty if it did.
        models: how many updates the model is the mean of.
        accepted: messages taken into the round, of all phases.
        refused: messages refused meanwhile, for whatever reason.
        seconds: from its parameters to its end.
    """

    round: int
    is_completed: bool
    reason: str
    models: int
    accepted: int
    refused: int
    seconds: float


class Observation:
    """A subscriber that remembers how rounds ended.

    Args:
        engine: what to observe; this subscribes to it.
        clock: returns seconds that never go back.
    """

    def __init__(self, engine: AnyEngine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine: Final = engine
        self._clock: Final = clock
        self._started_seconds = clock()
        self._accepted = self._refused = 0
        self._rounds: Final[deque[RoundOutcome]] = deque(maxlen=ROUNDS_KEPT)
        engine.subscribe(self._note)

    def snapshot(self) -> dict[str, Any]:
        """Return `{"pet", "status", "window", "model", "rounds"}`, ready for JSON; the newest round comes first."""
        status = self._engine.status()
        window = self._engine.phase_window(Phase(status["phase"]))
        return {
            "pet": pet.__version__,
            "status": status,
            "window": None if window is None else asdict(window),
            "model": asdict(self._engine.describe()),
            "rounds": [asdict(outcome) for outcome in reversed(self._rounds)],
        }

    def _note(self, event: Event | Pet1Publication) -> None:
        match event:
            case ParametersPublished() | RoundAnnounced():
                self._started_seconds = self._clock()
                self._accepted = self._refused = 0
            case MessageAccepted():
                self._accepted += 1
            case MessageRefused():
                self._refused += 1
            case ModelPublished():
                self._end_round(event.round_id, reason="", models=event.model.model_count)
            case TotalPublished():
                self._end_round(event.round_id, reason="", models=event.update_count)
            case RoundFailed():
                self._end_round(event.round_id, reason=event.reason, models=0)
            case _:
                pass

    def _end_round(self, round_id: int, *, reason: str, models: int) -> None:
        seconds = round(self._clock() - self._started_seconds, 3)
        self._rounds.append(
            RoundOutcome(
                round=round_id,
                is_completed=not reason,
                reason=reason,
                models=models,
                accepted=self._accepted,
                refused=self._refused,
                seconds=seconds,
            )
        )
