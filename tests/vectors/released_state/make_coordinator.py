"""Write the stored state of a coordinator and its participants in the middle of a round, with the released version.

Run it with the pet of commit b4d43c2 (README.md beside this file says how); its arguments are the folder to write into, one to
work in, and the URL of a Redis server whose data may be lost. Keys and seeds are drawn from a counter, so that a second run has
the same rounds; only what seals a message is drawn anew.

Round 1 is complete: its model is stored. In round 2, two sum participants and two update participants were accepted. Of the
others, one has signed an update that was not sent, one has sent a part of its update in chunks, and one waits for its model.
The databases are copied while the coordinator runs, as a crash leaves them. What follows is carried out here too, to record
the model that the round must end with.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import sys
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
import redis

from pet.aggregation import Aggregation
from pet.coordinator.engine import CoordinatorEngine
from pet.coordinator.model_store import FolderModelStore
from pet.coordinator.storage.base import Storage
from pet.coordinator.storage.redis import OWNER_KEY, RedisStorage
from pet.coordinator.storage.sqlite import SqliteStorage
from pet.crypto import SigningKeyPair
from pet.errors import TransportError
from pet.mask_config import MaskConfig
from pet.mask_object import MaskSeed, sum_masks
from pet.masking import mask_model
from pet.participant import Task, TickParticipant
from pet.protocol.round_settings import RoundSettings
from pet.protocol.windows import PhaseWindow
from pet.transports.in_process import InProcessTransport

LENGTH = 10
CONFIG = MaskConfig.parse("prime-f32-b0-m3")
SETTINGS = RoundSettings.of(
    CONFIG,
    LENGTH,
    sum_probability=0.3,
    update_probability=1.0,
    sum=PhaseWindow(min_count=2, max_count=100, min_seconds=1, max_seconds=3600),
    update=PhaseWindow(min_count=3, max_count=100, min_seconds=1, max_seconds=3600),
    sum2=PhaseWindow(min_count=2, max_count=100, min_seconds=1, max_seconds=3600),
)
SCALAR = Fraction(1, 5)
#: Two chunks of an update of ten weights.
SMALL_MESSAGE_BYTES = 400


def counted(label: str) -> Callable[[int], bytes]:
    """Return a source of bytes that look random and are the same in each run."""
    numbers = itertools.count()
    return lambda size: hashlib.shake_256(f"{label} {next(numbers)}".encode()).digest(size)


def model_of(number: int) -> np.ndarray:
    """Return the model of a participant: ten weights that float32 represents exactly."""
    return ((np.arange(LENGTH) - 5 + number) / 16).astype(np.float32)


class Line:
    """The way to a coordinator; cut, it lets a number of further messages through."""

    def __init__(self, engine: CoordinatorEngine) -> None:
        self._way = InProcessTransport(engine)
        self.messages_left: int | None = None

    def __getattr__(self, name: str) -> object:
        return getattr(self._way, name)

    def send_message(self, body: object) -> None:
        if self.messages_left == 0:
            raise TransportError("expected a line, got a cut one")
        if self.messages_left is not None:
            self.messages_left -= 1
        self._way.send_message(body)


class Member:
    """A participant with its number and its own line."""

    def __init__(self, number: int, engine: CoordinatorEngine, max_message_size: int | None = None) -> None:
        self.number, self.line = number, Line(engine)
        self.participant = TickParticipant(
            self.line,
            signing_key=SigningKeyPair.from_seed(number.to_bytes(32, "big")),
            scalar=SCALAR,
            max_message_size=max_message_size,
            entropy=counted(f"participant {number}"),
        )

    def go_on(self, *, gives_model: bool = True) -> None:
        """Tick until nothing changes, and hand over a model where one is wanted."""
        for _ in range(30):
            self.participant.tick()
            if self.participant.should_set_model and gives_model:
                self.participant.set_model(model_of(self.number))


class Round:
    """The coordinator, its clock, and the members of each task in the current round."""

    def __init__(self, folder: Path, storage: Storage | None = None) -> None:
        self.now = 100.0
        self.folder = folder
        self.storage = SqliteStorage(folder) if storage is None else storage
        self.engine = CoordinatorEngine(
            SETTINGS,
            clock=lambda: self.now,
            entropy=counted("coordinator"),
            storage=self.storage,
            model_store=FolderModelStore(folder / "models", 5),
        )
        self.engine.tick()

    def pass_phase(self) -> None:
        """Let the least time of a phase pass."""
        self.now += 1.5
        self.engine.tick()

    def find(self, task: Task, numbers: Iterable[int], max_message_size: int | None = None) -> Member:
        """Return the next participant that is drawn for a task, one step into it."""
        for number in numbers:
            member = Member(number, self.engine, max_message_size)
            member.line.messages_left = 0
            for _ in range(4):
                member.participant.tick()
            if member.participant.task is task:
                member.line.messages_left = None
                return member
        raise AssertionError("there are more numbers")


def complete(current: Round, sums: list[Member], updates: list[Member]) -> None:
    """Carry a round that is in Update to its end."""
    for member in updates:
        member.go_on()
    current.pass_phase()
    assert current.engine.status()["phase"] == "sum2", current.engine.status()
    for member in sums:
        member.go_on()
    current.pass_phase()


def sum_phase(current: Round, numbers: Iterable[int]) -> list[Member]:
    """Let two participants sum."""
    sums = [current.find(Task.SUM, numbers) for _ in range(2)]
    for member in sums:
        member.go_on()
    current.pass_phase()
    assert current.engine.status()["phase"] == "update", current.engine.status()
    return sums


def published(engine: CoordinatorEngine) -> list[float]:
    """Return the weights of the last global model."""
    participant = TickParticipant(InProcessTransport(engine))
    participant.tick()
    model = participant.global_model()
    assert model is not None
    return [float(weight) for weight in model]


def to_second_round(current: Round) -> tuple[dict[str, list[Member]], list[float]]:
    """Go to the middle of round 2; returns its members by what they have done, and the model of round 1."""
    numbers = itertools.count(1)
    sums = sum_phase(current, numbers)
    complete(current, sums, [current.find(Task.UPDATE, numbers) for _ in range(3)])
    first_model = published(current.engine)
    sums = sum_phase(current, numbers)
    accepted = [current.find(Task.UPDATE, numbers) for _ in range(2)]
    for member in accepted:
        member.go_on()
    signed, partly_sent = current.find(Task.UPDATE, numbers), current.find(Task.UPDATE, numbers, SMALL_MESSAGE_BYTES)
    signed.line.messages_left, partly_sent.line.messages_left = 0, 1
    waiting = current.find(Task.UPDATE, numbers)
    signed.go_on()
    partly_sent.go_on()
    waiting.go_on(gives_model=False)
    members = {"sum": sums, "accepted": accepted, "signed": [signed], "partly_sent": [partly_sent], "waiting": [waiting]}
    return members, first_model


def write_round(target: Path, work: Path) -> dict[str, object]:
    """Write the state in the middle of round 2; returns what it holds and must lead to."""
    current = Round(work)
    members, first_model = to_second_round(current)
    status = current.engine.status()
    shutil.copytree(work, target / "coordinator", ignore=shutil.ignore_patterns("*-shm"))
    (target / "participants").mkdir()
    for kind, found in members.items():
        for member in found:
            path = target / "participants" / f"{kind}-{member.number}.state"
            path.write_bytes(member.participant.save())
    late = [*members["signed"], *members["partly_sent"], *members["waiting"]]
    for member in late:
        member.line.messages_left = None
    complete(current, members["sum"], late)
    second_model = published(current.engine)
    current.engine.shut_down()
    current.storage.close()
    return {
        "status": {name: status[name] for name in ("round", "phase", "accepted", "rounds_completed", "rounds_failed")},
        "first_model": first_model,
        "second_model": second_model,
    }


def write_redis(target: Path, work: Path, url: str) -> None:
    """Write what the same round leaves in Redis: key -> kind and contents, in hexadecimal."""
    current = Round(work, RedisStorage(url, is_fresh=True))
    to_second_round(current)
    client = redis.Redis.from_url(url)
    stored: dict[str, object] = {}
    for key in sorted(client.keys("pet:*")):
        kind = client.type(key).decode()
        if kind == "hash":
            contents: object = {name.hex(): value.hex() for name, value in sorted(client.hgetall(key).items())}
        elif kind == "list":
            contents = [item.hex() for item in client.lrange(key, 0, -1)]
        elif kind == "set":
            contents = sorted(item.hex() for item in client.smembers(key))
        else:
            contents = client.get(key).hex()
        if key != OWNER_KEY:
            stored[key.decode()] = {kind: contents}
    (target / "redis.json").write_text(json.dumps(stored, indent=1) + "\n")


def write_idle(target: Path, work: Path) -> dict[str, object]:
    """Write the state of a coordinator that was ended in an orderly way, in the Sum phase after a complete round."""
    current, numbers = Round(work), itertools.count(1)
    sums = sum_phase(current, numbers)
    complete(current, sums, [current.find(Task.UPDATE, numbers) for _ in range(3)])
    status, model = current.engine.status(), published(current.engine)
    current.storage.close()
    shutil.copytree(work, target / "finished")
    return {"status": {name: status[name] for name in ("round", "phase", "rounds_completed")}, "first_model": model}


def masks() -> dict[str, object]:
    """Return serialised objects of masking, and the model that they unmask to."""
    aggregation, seeds = Aggregation(CONFIG, LENGTH), []
    for number in (1, 2, 3):
        seeds.append(MaskSeed(hashlib.sha256(f"mask {number}".encode()).digest()))
        _, masked_model = mask_model(model_of(number), CONFIG, SCALAR, seeds[-1])
        aggregation.add(masked_model)
    mask = sum_masks(seeds, CONFIG, LENGTH)
    return {
        "aggregation": aggregation.to_bytes().hex(),
        "masked_model": masked_model.to_bytes().hex(),
        "mask": mask.to_bytes().hex(),
        "global_model": [float(weight) for weight in aggregation.unmask(mask).to_array()],
    }


if __name__ == "__main__":
    folder, work = Path(sys.argv[1]), Path(sys.argv[2])
    expected = {"under_way": write_round(folder, work / "a"), "finished": write_idle(folder, work / "b"), "masks": masks()}
    write_redis(folder, work / "c", sys.argv[3])
    (folder / "coordinator.json").write_text(json.dumps(expected, indent=1) + "\n")
