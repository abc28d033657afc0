"""The participants of `pet demo`: pet's own, each in a thread, with its own samples and its own connection.

A participant knows the coordinator's URL and its samples, and nothing of the others. The ledger beside them exists for the demo
alone: it keeps what nobody but the participant may know, so that the result can be checked afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from pet.commands.demo_data import Samples, Weights, initial_weights, train
from pet.errors import RemoteProtocolError, TransportError
from pet.participant import Task, TickParticipant
from pet.protocol.participant_events import Event, MessageDelivered, ModelMasked, NewRound

#: How often a participant asks the coordinator for news.
POLL_SECONDS: Final = 0.1


class Ledger:
    """What each participant masked in each round, by its public key and the digest that names the round."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._weights: Final[dict[tuple[bytes, bytes], Weights]] = {}

    def enter(self, public_key: bytes, round_digest: bytes, weights: Weights) -> None:
        """Note a model that was masked."""
        with self._lock:
            self._weights[public_key, round_digest] = weights

    def weights(self, public_key: bytes, round_digest: bytes) -> Weights:
        """Return what a participant masked in a round."""
        with self._lock:
            return self._weights[public_key, round_digest]


class DemoParticipant(threading.Thread):
    """Takes part in every round until it is stopped, or until the round in which it is to drop out.

    Args:
        index: its number, for people.
        participant: what takes part; closed with the thread.
        samples: what it trains on.
        ledger: where it notes what it trained.
        leaves_in_round: the round, counted from 1 as it sees them, in whose task it vanishes without a word, as a phone does
            that loses its network; None for one that stays.
        on_leaving: called once with what it left undone.
    """

    def __init__(
        self,
        index: int,
        participant: TickParticipant,
        samples: Samples,
        ledger: Ledger,
        *,
        leaves_in_round: int | None = None,
        on_leaving: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(name=f"pet-demo-participant-{index}", daemon=True)
        self.index: Final = index
        self._samples: Final = samples
        self._ledger: Final = ledger
        self._participant: Final = participant
        self._is_stopping: Final = threading.Event()
        self._leaves_in_round: Final = leaves_in_round
        self._on_leaving: Final = on_leaving
        #: Rounds that it has seen, the one under way included.
        self.rounds_seen = 0
        self._trained = initial_weights()
        self.failure: Exception | None = None

    @property
    def public_key(self) -> bytes:
        """Its name towards the coordinator."""
        return self._participant.public_key

    def stop(self) -> None:
        """Let the thread end after its current step."""
        self._is_stopping.set()

    def run(self) -> None:
        """Tick, train when a model is wanted, and ask again a little later."""
        try:
            while not self._is_stopping.wait(0 if self._participant.made_progress else POLL_SECONDS):
                events = self._participant.tick()
                self._note_masked_model(events)
                if self._drops_out(events):
                    return
                if self._participant.should_set_model:
                    self.train()
        except Exception as error:  # the main thread shows it and ends the demo
            self.failure = error
        finally:
            self._participant.close()

    def _drops_out(self, events: list[Event]) -> bool:
        """Return whether this is the moment to vanish: a task is begun, others count on it, and it is not finished."""
        self.rounds_seen += any(isinstance(event, NewRound) for event in events)
        if self._leaves_in_round is None or self.rounds_seen < self._leaves_in_round:
            return False
        if self._participant.should_set_model:
            self._on_leaving("drawn to send an update, it never does")
            return True
        if self._participant.task is Task.SUM and any(isinstance(event, MessageDelivered) for event in events):
            self._on_leaving("drawn to add up masks, it never does")
            return True
        return False

    def train(self) -> None:
        """Train, and hand the model over."""
        followed = self._participant.round
        assert followed is not None, "a model is wanted only in a round"
        try:
            start = self._participant.global_model()
        except (TransportError, RemoteProtocolError):
            return  # a coordinator that is away, or an answer cut off while it ends: asked again at the next tick
        round_number = int.from_bytes(followed.digest[:4], "little")
        weights = train(initial_weights() if start is None else start, self._samples, random_seed=round_number)
        self._trained = weights
        self._participant.set_model(weights)

    def _note_masked_model(self, events: list[Event]) -> None:
        """Enter what was masked before it is sent.

        A model that came too late for its round is masked in the next, so the round in which it was trained says nothing.
        """
        followed = self._participant.round
        if followed is not None and any(isinstance(event, ModelMasked) for event in events):
            self._ledger.enter(self.public_key, followed.digest, self._trained)
