"""A coordinator and its participants in one thread, on a clock that is a number, in a world that fails all the time.

Everything that happens is drawn from one seed: messages get lost, arrive twice, late or out of order, answers get lost,
participants and the coordinator die before and after each durable write and come back from what was written, and the storage
refuses now and then. The protocol objects, the engine, the journal and the kernels are the real ones; the network, the clock
and the disk are simulated.

Participant i masks a model that is 0 but for its own place i, so a global model tells whose update is in it and how often.
What must hold, whatever happens, is in `Witness`.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pet import MaskConfig
from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.round_model import RoundModel
from pet.coordinator.storage.base import Transaction
from pet.coordinator.storage.memory import MemoryStorage
from pet.crypto import SigningKeyPair
from pet.errors import StateError, StorageError
from pet.messages import Tag
from pet.protocol import ParticipantMachine
from pet.protocol.events import Event, MessageAccepted, RoundFailed, RoundReopened
from pet.protocol.participant_events import GetParameters, GetSeeds, GetSums, ModelWanted, Request, SendMessage
from pet.protocol.round_settings import RoundSettings
from pet.protocol.windows import PhaseWindow

CONFIG = MaskConfig.parse("prime-f32-b0-m3")
PARTICIPANT_COUNT = 8
WEIGHT = 0.5
#: The only reason for which a round may fail here: too few messages came through.
TIMEOUT = "timeout"

Bug = Callable[[CoordinatorEngine, random.Random], None]


class Violation(AssertionError):
    """What must never happen has happened."""


class Crash(BaseException):
    """The process is dead; nothing may catch it on the way out."""


@dataclass(frozen=True, kw_only=True)
class Chances:
    """How often what goes wrong, as probabilities of a single write, message, step or turn."""

    crash_before_write: float = 0.01
    crash_after_write: float = 0.01
    write_refused: float = 0.01
    write_unknown: float = 0.01
    kill: float = 0.002
    request_lost: float = 0.04
    answer_lost: float = 0.04
    delayed: float = 0.04
    duplicated: float = 0.04
    participant_crash: float = 0.02


class FailingStorage(MemoryStorage):
    """A storage before and after whose writes the coordinator may die, or that refuses, or whose answer gets lost."""

    def __init__(self, draw: random.Random, chances: Chances) -> None:
        super().__init__()
        self._draw = draw
        self._chances = chances

    def commit(self, transaction: Transaction) -> None:
        """Make a change, or not."""
        chances, fate = self._chances, self._draw.random()
        if (fate := fate - chances.crash_before_write) < 0:
            raise Crash
        if (fate := fate - chances.write_refused) < 0:
            raise StorageError("simulated storage: expected to write, got an error")
        super().commit(transaction)
        if (fate := fate - chances.crash_after_write) < 0:
            raise Crash
        if fate - chances.write_unknown < 0:
            raise StorageError("simulated storage: expected an answer, got none")


class FailingModelStore:
    """The same for models: it keeps all of them."""

    description = "simulated"

    def __init__(self, draw: random.Random, chances: Chances) -> None:
        self._draw = draw
        self._chances = chances
        self._models: dict[str, RoundModel] = {}

    def save(self, model: RoundModel) -> dict[str, Any]:
        """Keep a model, or not."""
        if (fate := self._draw.random() - self._chances.crash_before_write) < 0:
            raise Crash
        if (fate := fate - self._chances.write_refused) < 0:
            raise StorageError("simulated model store: expected to write, got an error")
        self._models[model.etag] = model
        if fate - self._chances.crash_after_write < 0:
            raise Crash
        return {"name": model.etag}

    def load(self, record: dict[str, Any]) -> RoundModel:
        """Return a model."""
        return self._models[record["name"]]


class Witness:
    """Sees everything that leaves the coordinator, and objects.

    Of each round: every update that was said to be accepted is in the model exactly once; nothing is in it that was not sent;
    the model does not change afterwards; rounds fail only for want of messages, and are reopened only if nobody joined.
    Across restarts: round ids do not go back, a round keeps its parameters, and what was accepted is still there. No
    participant sends two updates in a round.
    """

    def __init__(self, keys: list[SigningKeyPair]) -> None:
        self._index = {key.public_key: i for i, key in enumerate(keys)}
        self._accepted: defaultdict[int, set[int]] = defaultdict(set)
        self._sent: defaultdict[tuple[bytes, int], set[bytes]] = defaultdict(set)
        self._models: dict[int, bytes] = {}
        self._parameters: dict[int, bytes] = {}
        self._last_round_id = 0
        self._last_model: Any = None
        self._objection = ""
        self.rounds_failed = 0
        self.rounds_reopened = 0
        self._joined: set[int] = set()

    @property
    def rounds_completed(self) -> int:
        """Rounds whose model was seen."""
        return len(self._models)

    def note_event(self, event: Event) -> None:
        """Take note of what the coordinator tells. The engine shields itself from observers, so objections wait for `look`."""
        if isinstance(event, MessageAccepted) and event.tag is Tag.SUM:
            self._joined.add(event.round_id)
        elif isinstance(event, MessageAccepted) and event.tag is Tag.UPDATE:
            self._accepted[event.round_id].add(self._index[event.participant_public_key])
        elif isinstance(event, RoundFailed):
            self.rounds_failed += 1
            if event.reason != TIMEOUT:
                self._objection = f"round {event.round_id} failed: {event.reason}: {event.description}"
            elif event.round_id not in self._joined:
                self._objection = f"round {event.round_id} failed, though nobody joined it: {event.description}"
        elif isinstance(event, RoundReopened):
            self.rounds_reopened += 1
            if event.round_id in self._joined:
                self._objection = f"round {event.round_id} was reopened, though somebody had joined it"

    def note_update(self, parameters: bytes, i: int, body: bytes) -> None:
        """Take note of an update that a participant sends in the round with these parameters."""
        bodies = self._sent[parameters, i]
        bodies.add(hashlib.sha256(body).digest())
        if len(bodies) > 1:
            raise Violation(f"participant {i} sent two different updates in one round")

    def look(self, engine: CoordinatorEngine) -> None:
        """Look at what the coordinator publishes, and at its round."""
        if self._objection:
            raise Violation(self._objection)
        round_id = engine.status()["round"]
        if round_id < self._last_round_id:
            raise Violation(f"round {round_id} after round {self._last_round_id}")
        self._last_round_id = round_id
        parameters = engine.parameters()
        if parameters is not None and self._parameters.setdefault(round_id, parameters) != parameters:
            raise Violation(f"round {round_id} has other parameters than before")
        model: Any = engine.model()
        if model is not None and model is not self._last_model:
            self._check(model)
            self._last_model = model

    def look_after_restart(self, engine: CoordinatorEngine) -> None:
        """Look whether what was accepted is still there."""
        protocol = engine._rounds.protocol
        current = protocol.state.round
        if current is None:
            return
        missing = self._accepted[protocol.round_id] - {self._index[key] for key in current.update_participants}
        if missing and protocol.round_id not in self._models:
            raise Violation(f"round {protocol.round_id}: the updates of {sorted(missing)} were accepted and are lost")

    def _check(self, model: Any) -> None:
        encoded = model.to_array().tobytes()
        if model.round_id in self._models:
            if self._models[model.round_id] != encoded:
                raise Violation(f"the model of round {model.round_id} changed")
            return
        self._models[model.round_id] = encoded
        counts = np.rint(model.to_array().astype(np.float64) * model.model.model_count / WEIGHT).astype(int)
        if counts.max() > 1 or counts.min() < 0:
            raise Violation(f"round {model.round_id}: updates are counted {counts.tolist()} times")
        contributors = set(np.flatnonzero(counts).tolist())
        if lost := self._accepted[model.round_id] - contributors:
            raise Violation(f"round {model.round_id}: the updates of {sorted(lost)} were accepted and are not in the model")
        parameters = self._parameters[model.round_id]
        if invented := {i for i in contributors if not self._sent[parameters, i]}:
            raise Violation(f"round {model.round_id}: the updates of {sorted(invented)} are in the model and were never sent")


@dataclass
class Outcome:
    """What a simulation came to."""

    rounds_completed: int = 0
    rounds_failed: int = 0
    rounds_reopened: int = 0
    restarts: int = 0
    happened: Counter[str] = field(default_factory=Counter)
    digest: str = ""


class Simulation:
    """One world.

    Args:
        seed: decides everything.
        chances: how often what goes wrong.
        bug: called with each new coordinator, to plant a mistake in it.
    """

    def __init__(self, seed: int, chances: Chances | None = None, bug: Bug | None = None) -> None:
        self._draw = random.Random(seed)
        self._chances = chances or Chances()
        self._bug = bug
        self._now_seconds = 1000.0
        self._trace = hashlib.sha256()
        self._settings = RoundSettings.of(
            CONFIG,
            PARTICIPANT_COUNT,
            sum_probability=0.3,
            update_probability=1.0,
            sum=PhaseWindow(min_count=1, max_count=3, min_seconds=1, max_seconds=20),
            update=PhaseWindow(min_count=3, max_count=6, min_seconds=1, max_seconds=20),
            sum2=PhaseWindow(min_count=1, max_count=3, min_seconds=1, max_seconds=20),
        )
        self._storage = FailingStorage(self._draw, self._chances)
        self._models = FailingModelStore(self._draw, self._chances)
        self._keys = [SigningKeyPair.from_seed(self._draw.randbytes(32)) for _ in range(PARTICIPANT_COUNT)]
        self._witness = Witness(self._keys)
        self.outcome = Outcome()
        self._engine = self._new_engine()
        self._machines = [ParticipantMachine(signing_key=key, entropy=self._draw.randbytes, threads=1) for key in self._keys]
        self._saved = [machine.save() for machine in self._machines]
        #: Messages on their way that nobody waits for.
        self._late: list[bytes] = []

    def run(self, rounds: int) -> Outcome:
        """Go on until `count` rounds have ended, with a model or without.

        Raises:
            Violation: what must never happen has happened; the message says in which round.
        """
        while self._witness.rounds_completed + self._witness.rounds_failed < rounds:
            self._take_turn()
        outcome = self.outcome
        outcome.rounds_completed, outcome.rounds_failed = self._witness.rounds_completed, self._witness.rounds_failed
        outcome.rounds_reopened = self._witness.rounds_reopened
        outcome.digest = self._trace.hexdigest()
        return outcome

    # ---- turns --------------------------------------------------------------------------------------------------------

    def _take_turn(self) -> None:
        self._now_seconds += self._draw.expovariate(10)
        fate = self._draw.random()
        if fate < self._chances.kill:
            self._note("kill")
            self._restart()
        elif self._late and fate < 0.1:
            self._note("late message")
            self._deliver(self._late.pop(self._draw.randrange(len(self._late))))
        else:
            self._step(self._draw.randrange(PARTICIPANT_COUNT))
        self._call(self._engine.tick)
        self._witness.look(self._engine)
        status = self._engine.status()
        self._trace.update(f"{status['round']} {status['phase']} {status['accepted']}".encode())

    def _step(self, i: int) -> None:
        """Let a participant do a step, and save its state; it may die before or after that."""
        machine = self._machines[i]
        while (request := machine.next_request()) is not None:
            answer = self._carry_out(request, i)
            if isinstance(answer, _Lost):
                machine.receive_failure()
            else:
                machine.receive(answer)
        while (event := machine.next_event()) is not None:
            if isinstance(event, ModelWanted):
                machine.set_model(np.eye(PARTICIPANT_COUNT, dtype=np.float32)[i] * np.float32(WEIGHT))
        if self._draw.random() < self._chances.participant_crash:
            self._note("participant died before saving")
            self._machines[i] = self._restored(i)
        elif machine.made_progress:
            self._saved[i] = machine.save()
            if self._draw.random() < self._chances.participant_crash:
                self._note("participant died after saving")
                self._machines[i] = self._restored(i)

    def _restored(self, i: int) -> ParticipantMachine:
        return ParticipantMachine.restore(self._saved[i], entropy=self._draw.randbytes, threads=1)

    def _carry_out(self, request: Request, i: int) -> bytes | _Lost | None:
        if isinstance(request, SendMessage):
            return self._send(request, i)
        if self._draw.random() < self._chances.request_lost:
            return _Lost()
        match request:
            case GetParameters():
                return self._engine.parameters() or _Lost()
            case GetSums():
                return self._engine.sums()
            case GetSeeds():
                return self._engine.seeds(request.public_key)

    def _send(self, request: SendMessage, i: int) -> _Lost | None:
        body, machine = bytes(request.body), self._machines[i]
        if machine.state.value == "sending_update" and machine.parameters is not None:
            self._witness.note_update(machine.parameters.to_bytes(), i, body)
        chances, fate = self._chances, self._draw.random()
        if (fate := fate - chances.request_lost) < 0:
            self._note("message lost")
            return _Lost()
        if (fate := fate - chances.delayed) < 0:
            self._note("message delayed")
            self._late.append(body)
            return _Lost()
        if (fate := fate - chances.duplicated) < 0:
            self._note("message duplicated")
            self._late.append(body)
        is_answered = self._deliver(body)
        if not is_answered or 0 <= fate < chances.answer_lost:
            self._note("answer lost")
            return _Lost()
        return None

    # ---- the coordinator ----------------------------------------------------------------------------------------------

    def _deliver(self, body: bytes) -> bool:
        """Give a message to the coordinator; returns whether it answered."""
        try:
            return self._call(lambda: self._engine.handle_message(bytearray(body)))
        except StorageError:
            return False

    def _call(self, function: Callable[[], None]) -> bool:
        """Call the coordinator; returns whether it survived. An error of its storage in a tick is left to the next one."""
        try:
            function()
        except Crash:
            self._note("coordinator died at a write")
            self._restart()
            return False
        except StorageError:
            self._note("storage refused")
            return False
        return True

    def _restart(self) -> None:
        self._now_seconds += self._draw.uniform(0, 100)  # time that does not count
        self.outcome.restarts += 1
        try:
            self._engine = self._new_engine()
        except StateError as error:
            raise Violation(f"the coordinator does not start again: {error}") from error
        self._witness.look_after_restart(self._engine)

    def _new_engine(self) -> CoordinatorEngine:
        engine = CoordinatorEngine(
            self._settings,
            clock=lambda: self._now_seconds,
            entropy=self._draw.randbytes,
            storage=self._storage,
            model_store=self._models,
        )
        engine.subscribe(self._witness.note_event)
        if self._bug is not None:
            self._bug(engine, self._draw)
        return engine

    def _note(self, what: str) -> None:
        self.outcome.happened[what] += 1
        self._trace.update(what.encode())


class _Lost:
    """Stands for an answer that never came."""


def forgets_to_write(engine: CoordinatorEngine, draw: random.Random) -> None:
    """Plant a mistake: one time in twenty, what happened is reported without having been written."""
    rounds = engine._rounds
    settle = rounds.settle

    def settle_or_forget(now_seconds: float) -> list[Event]:
        if draw.random() >= 0.05:
            return settle(now_seconds)
        events = list(rounds._events)
        rounds._events.clear()
        return events

    rounds.settle = settle_or_forget  # type: ignore[method-assign]


def forgets_who_was_counted(engine: CoordinatorEngine, draw: random.Random) -> None:
    """Plant a mistake: a coordinator that starts again has forgotten whose updates are in the sum."""
    current = engine._rounds.protocol.state.round
    if current is not None and draw.random() < 0.5:
        current.update_participants.clear()
