"""The participants of `pet demo`: pet's own, each in a thread, with its own samples and its own connection.

A participant knows the coordinator's URL and its samples, and nothing of the others. The ledger beside them exists for the demo
alone: it keeps what nobody but the participant may know, so that the result can be checked afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Final

from pet.commands.demo_data import Samples, Weights, initial_weights, train
from pet.errors import TransportError
from pet.participant import Task, TickParticipant
from pet.protocol.participant_events import Event, MessageDelivered

#: How often a participant asks the coordinator for news.
_POLL_SECONDS: Final = 0.1


class Ledger:
    """What each participant trained in each round, by its public key and the seed of the round."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._weights: Final[dict[tuple[bytes, bytes], Weights]] = {}

    def enter(self, public_key: bytes, round_seed: bytes, weights: Weights) -> None:
        """Note a trained model before it is masked."""
        with self._lock:
            self._weights[public_key, round_seed] = weights

    def weights(self, public_key: bytes, round_seed: bytes) -> Weights:
        """Return what a participant trained in a round."""
        with self._lock:
            return self._weights[public_key, round_seed]


class DemoParticipant(threading.Thread):
    """Takes part in every round until it is stopped, or until the round in which it is to drop out.

    Args:
        index: its number, for people.
        url: of the coordinator.
        samples: what it trains on.
        scalar: its share of all samples.
        ledger: where it notes what it trained.
    """

    def __init__(self, index: int, url: str, samples: Samples, scalar: Fraction, ledger: Ledger) -> None:
        super().__init__(name=f"pet-demo-participant-{index}", daemon=True)
        self.index: Final = index
        self._samples: Final = samples
        self._ledger: Final = ledger
        self._participant: Final = TickParticipant(url, scalar=scalar, threads=1)
        self._is_stopping: Final = threading.Event()
        self._is_leaving = False
        self._on_leaving: Callable[[str], None] | None = None
        self.failure: Exception | None = None

    @property
    def public_key(self) -> bytes:
        """Its name towards the coordinator."""
        return self._participant.public_key

    def stop(self) -> None:
        """Let the thread end after its current step."""
        self._is_stopping.set()

    def leave_in_next_task(self, on_leaving: Callable[[str], None]) -> None:
        """Drop out without a word in the middle of the next task, as a phone does that loses its network.

        Args:
            on_leaving: called once with what it left undone.
        """
        self._on_leaving = on_leaving
        self._is_leaving = True

    def run(self) -> None:
        """Tick, train when a model is wanted, and ask again a little later."""
        try:
            while not self._is_stopping.wait(0 if self._participant.made_progress else _POLL_SECONDS):
                events = self._participant.tick()
                if self._drops_out(events):
                    return
                if self._participant.should_set_model:
                    self._train()
        except Exception as error:  # the main thread shows it and ends the demo
            self.failure = error
        finally:
            self._participant.close()

    def _drops_out(self, events: list[Event]) -> bool:
        """Tell whether this is the moment to vanish: a task is begun, others count on it, and it is not finished."""
        if not self._is_leaving or self._on_leaving is None:
            return False
        if self._participant.should_set_model:
            self._on_leaving("drawn to send an update, it never does")
            return True
        if self._participant.task is Task.SUM and any(isinstance(event, MessageDelivered) for event in events):
            self._on_leaving("drawn to add up masks, it never does")
            return True
        return False

    def _train(self) -> None:
        parameters = self._participant.parameters
        assert parameters is not None, "a model is wanted only in a round"
        try:
            start = self._participant.global_model()
        except TransportError:
            return  # asked again at the next tick
        round_number = int.from_bytes(parameters.seed[:4], "little")
        weights = train(initial_weights() if start is None else start, self._samples, random_seed=round_number)
        self._ledger.enter(self.public_key, parameters.seed, weights)
        self._participant.set_model(weights)
