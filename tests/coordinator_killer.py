"""Kill a real `pet coordinator` at random instants, and see whether anything that it acknowledged is lost or counted twice.

    python tests/coordinator_killer.py --kills 200 --storage sqlite
    python tests/coordinator_killer.py --kills 200 --storage redis
    python tests/coordinator_killer.py --kills 20 --storage sqlite --participants xaynet
    python tests/coordinator_killer.py --kills 200 --storage redis --participants pet/1 --members processes --longest 5

The process gets SIGKILL and is started again at once, from the first instant of its life on: while it starts, while it
restores, in every phase. Update i is 0 but for its own place i, so a global model tells whose updates are in it, and how often.

With participants of ours, a round needs exactly as many messages as there are participants, and each of them sends its message
again only if it was not acknowledged: a message that was acknowledged and lost would let the round wait for ever; one that was
counted twice would take the place of another one, which the model shows. With participants of the real SDK, who takes part is
chance: the model must hold each update once or not at all, and at least as many as the coordinator ever said it had accepted.
Rounds of pet/1 are in tests/pet1_killer_rounds.py.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
from pet1_killer_rounds import LENGTH as PET1_LENGTH
from pet1_killer_rounds import SETTINGS as PET1_SETTINGS
from pet1_killer_rounds import UPDATE_COUNT as PET1_UPDATES
from pet1_killer_rounds import MemberObjects, MemberProcesses, Pet1Rounds
from pet1_parties import Parties
from programs import free_port
from redis_server import RedisServer

from pet.crypto import SUM_TASK, UPDATE_TASK, SigningKeyPair, is_eligible, sign_task
from pet.errors import TransportError
from pet.messages import RoundParameters
from pet.model_formats import NPY, decode_npy
from pet.participant import TickParticipant
from pet.transports.http import HttpTransport

SUM_COUNT, UPDATE_COUNT = 2, 5
REAL_COUNT = 8
#: Large enough that masked models and totals go to files (pet/coordinator/storage/sqlite.py).
LENGTH = 50_000

SETTINGS = """
bind_address = "127.0.0.1:{port}"
size = {length}
sum = 0.3
update = 0.9
min_sum_count = {sums.start}
max_sum_count = {sums.stop}
min_update_count = {updates.start}
max_update_count = {updates.stop}
min_sum2_count = {sums.start}
max_sum2_count = {sums.stop}
min_sum_time = {seconds}
min_update_time = {seconds}
min_sum2_time = {seconds}
max_sum_time = {patience}
max_update_time = {patience}
max_sum2_time = {patience}
{more}
"""


#: Forks coordinators: a process that has imported everything already comes up ten times as fast, and is the same program.
NURSERY = """
import os, signal, sys
from pet import cli
import pet.commands.coordinator, pet.coordinator.storage.redis, pet.coordinator.storage.sqlite
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    child = os.fork()
    if not child:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0), os.dup2(log, 1), os.dup2(log, 2)
        os._exit(cli.run(["coordinator", "-c", sys.argv[1]]))
    print(child, flush=True)
"""


class Coordinator:
    """A process that dies and comes back, on the same port and with the same state.

    Attributes:
        kills: how often it died.
        restart_seconds: of each start that it survived, until it answered.
    """

    def __init__(self, folder: Path, settings: str, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.kills = 0
        self.restart_seconds: list[float] = []
        file, self.log = folder / "settings.toml", folder / "coordinator.log"
        file.write_text(settings)
        self._started = 0.0
        self._nursery = subprocess.Popen(
            [sys.executable, "-c", NURSERY, str(file), str(self.log)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._process: int | None = None  # a file descriptor, as it is no child of ours

    def start(self) -> None:
        self._nursery.stdin.write("start\n")
        self._nursery.stdin.flush()
        self._process = os.pidfd_open(int(self._nursery.stdout.readline()))
        self._started = time.monotonic()

    def kill(self) -> None:
        self._send(signal.SIGKILL)
        assert self._has_ended(20)
        os.close(self._process)
        self.kills += 1

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, number)

    def _has_ended(self, seconds: float = 0.0) -> bool:
        return bool(select.select([self._process], [], [], seconds)[0])

    def await_answer(self) -> None:
        """Wait until it answers."""
        while self.status() is None:
            self._must_live()
            time.sleep(0.02)
        self.restart_seconds.append(time.monotonic() - self._started)

    def die_after(self, seconds: float) -> None:
        """Live for a while, then die."""
        time.sleep(seconds)
        self._must_live()
        self.kill()

    def _must_live(self) -> None:
        if self._has_ended():
            raise AssertionError(f"the coordinator ended by itself:\n{self.log.read_text()[-3000:]}")

    def status(self) -> dict | None:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/status", timeout=5).json()
        return None

    def stop(self) -> None:
        try:
            self._send(signal.SIGINT)
            assert self._has_ended(30), self.log.read_text()[-3000:]
        finally:
            self._send(signal.SIGKILL)
            os.close(self._process)
            self._nursery.stdin.close()
            self._nursery.wait(60)
            self._nursery.stdout.close()


def one_hot(index: int, length: int) -> np.ndarray:
    weights = np.zeros(length, dtype=np.float32)
    weights[index] = 1
    return weights


class OwnRounds:
    """Participants of ours, fresh ones for each round, and the check of each model."""

    def __init__(self, url: str, length: int) -> None:
        self._transport = HttpTransport(url, timeout_seconds=5)
        self._url, self._length = url, length
        self._parameters = b""
        self._participants: list[tuple[TickParticipant, int | None]] = []
        self._threads = ThreadPoolExecutor(4)
        self._numbers = itertools.count(1)
        self.rounds = 0

    def step(self) -> None:
        """Let every participant take a step; where a new round began, check the model of the last one first."""
        with contextlib.suppress(TransportError):
            parameters = self._transport.get_parameters()
            if parameters != self._parameters:
                self._begin(parameters)
        progress = list(self._threads.map(self._tick, self._participants))
        if not any(progress):
            time.sleep(0.01)

    def describe(self) -> str:
        """Say where everybody is, for a round that does not end."""
        states = [f"{participant._machine.state.value} {participant.last_error or ''}" for participant, _ in self._participants]
        return f"participants: {states}"

    def close(self) -> None:
        self._threads.shutdown()
        for participant, _ in self._participants:
            participant.close()
        self._transport.close()

    def _tick(self, entry: tuple[TickParticipant, int | None]) -> bool:
        participant, index = entry
        participant.tick()
        if participant.should_set_model and index is not None:
            participant.set_model(one_hot(index, self._length))
        return participant.made_progress

    def _begin(self, encoded: bytes) -> None:
        if self._parameters:
            self._check_model(RoundParameters.from_bytes(self._parameters))
            self.rounds += 1
        parameters = RoundParameters.from_bytes(encoded)
        for participant, _ in self._participants:
            participant.close()
        keys = [(key, None) for key in self._keys(parameters, "sum", SUM_COUNT)]
        keys += [(key, index) for index, key in enumerate(self._keys(parameters, "update", UPDATE_COUNT))]
        # One of them sends its update in parts.
        sizes = [None] * (len(keys) - 1) + [40_000]
        self._participants = [
            (TickParticipant(self._url, signing_key=key, max_message_size=size, threads=1), index)
            for (key, index), size in zip(keys, sizes, strict=True)
        ]
        self._parameters = encoded

    def _check_model(self, parameters: RoundParameters) -> None:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                answer = httpx.get(f"{self._url}/model", headers={"accept": NPY}, timeout=5)
                if answer.status_code == 200:
                    break
                assert answer.status_code in (503,), f"round {self.rounds + 1}: expected a model, got {answer.status_code}"
            time.sleep(0.05)
        seed = answer.headers["etag"].strip('"').split("-")[1]
        assert seed == parameters.seed.hex()[:16], f"the round of {parameters.seed.hex()} ended without a model"
        expected = np.zeros(self._length)
        expected[:UPDATE_COUNT] = 1 / UPDATE_COUNT
        got = decode_npy(answer.content)
        assert np.abs(got - expected).max() < 1e-6, f"expected each of {UPDATE_COUNT} updates once, got {got[:8]}"

    def _keys(self, parameters: RoundParameters, task: str, count: int) -> list[SigningKeyPair]:
        keys = (SigningKeyPair.from_seed(next(self._numbers).to_bytes(32, "big")) for _ in itertools.count())
        return list(itertools.islice((key for key in keys if task_of(key, parameters) == task), count))


def task_of(key: SigningKeyPair, parameters: RoundParameters) -> str:
    if is_eligible(sign_task(key, parameters.seed, SUM_TASK), parameters.sum_probability):
        return "sum"
    is_update = is_eligible(sign_task(key, parameters.seed, UPDATE_TASK), parameters.update_probability)
    return "update" if is_update else "none"


class RealRounds:
    """Participants of the real SDK, one process each, and the check of every model that is seen."""

    def __init__(self, url: str, length: int) -> None:
        script = Path(__file__).parent / "interop" / "xaynet" / "real_participant.py"
        self._url = url
        self.rounds = 0
        self._most_accepted: Counter[int] = Counter()
        self._checked: set[str] = set()
        self._processes = []
        for index in range(REAL_COUNT):
            arguments = [url, "1.0", json.dumps(one_hot(index, length).tolist())]
            self._processes.append(
                subprocess.Popen([sys.executable, str(script), *arguments], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            )

    def step(self) -> None:
        """Look at what the coordinator says; it may be down."""
        with contextlib.suppress(httpx.HTTPError):
            status = httpx.get(f"{self._url}/status", timeout=5).json()
            if status["phase"] == "update":
                self._most_accepted[status["round"]] = max(self._most_accepted[status["round"]], status["accepted"])
            answer = httpx.get(f"{self._url}/model", headers={"accept": NPY}, timeout=5)
            if answer.status_code == 200 and answer.headers["etag"] not in self._checked:
                self._check(answer)
        time.sleep(0.02)

    def describe(self) -> str:
        """Say what is known, for a round that does not end."""
        return f"accepted so far: {dict(self._most_accepted)}"

    def close(self) -> None:
        for process in self._processes:
            process.stdin.close()
        for process in self._processes:
            try:
                process.wait(10)
            finally:
                process.kill()
                process.wait()

    def check_failures(self, log: str) -> None:
        """Check that rounds failed only for want of participants: chance decides who has which task."""
        pattern = r"round failed round_id=(\d+) reason=(\w+) description=phase (\w+): expected (\d+) messages .*, got (\d+)"
        failures = re.findall(pattern, log)
        assert len(failures) == log.count("round failed "), log[-3000:]
        for round_id, reason, phase, needed, count in failures:
            assert reason == "timeout"
            assert phase != "sum" or int(count) > 0, f"round {round_id}: nobody joined it, and it failed"
            assert int(count) < int(needed)
            if phase == "update":
                assert int(count) >= self._most_accepted[int(round_id)], f"round {round_id}: an accepted update was lost"

    def _check(self, answer: httpx.Response) -> None:
        round_id = int(answer.headers["etag"].strip('"').split("-")[0])
        got = decode_npy(answer.content)
        included = np.flatnonzero(np.abs(got) > 1e-3)
        assert np.abs(got[included] - 1 / len(included)).max() < 1e-6, f"expected each update once, got {got[:REAL_COUNT]}"
        assert len(included) >= max(3, self._most_accepted[round_id]), (
            f"round {round_id}: expected {self._most_accepted[round_id]} updates that were accepted, got {len(included)}"
        )
        self._checked.add(answer.headers["etag"])
        self.rounds += 1


def run(
    folder: Path,
    *,
    kills: int,
    storage: str = "sqlite",
    participants: str = "own",
    members: str = "objects",
    seed: int = 0,
    length: int = LENGTH,
    longest_seconds: float = 1.5,
    patience_seconds: float = 120.0,
) -> dict:
    """Kill a coordinator again and again and return what happened.

    Raises:
        AssertionError: something acknowledged was lost or doubled, a round failed or does not end.
    """
    generator = random.Random(seed)
    is_real = participants == "xaynet"
    length = {"xaynet": REAL_COUNT, "pet/1": PET1_LENGTH}.get(participants, length)
    port, parties = free_port(), Parties(seed=seed)
    server = RedisServer(folder) if storage == "redis" else None
    more = f'[redis]\nurl = "{server.url}"' if server else ""
    enrolment = folder / "trial.enrolment"
    enrolment.write_bytes(parties.enrolment.sign(parties.authority))
    pet1_settings = PET1_SETTINGS.format(port=port, length=length, enrolment=enrolment, updates=PET1_UPDATES, more=more)
    own_settings = SETTINGS.format(
        port=port,
        length=length,
        sums=range(1, 100) if is_real else range(SUM_COUNT, SUM_COUNT),
        updates=range(3, 100) if is_real else range(UPDATE_COUNT, UPDATE_COUNT),
        seconds=0.7 if is_real else 0,
        patience=15 if is_real else 3600,
        more=more,
    )
    coordinator = Coordinator(folder, pet1_settings if participants == "pet/1" else own_settings, port)
    coordinator.start()
    rounds: OwnRounds | RealRounds | Pet1Rounds
    if participants == "pet/1":
        kind = MemberProcesses if members == "processes" else MemberObjects
        rounds = Pet1Rounds(coordinator.url, length, folder, parties, generator, kind)
    else:
        rounds = (RealRounds if is_real else OwnRounds)(coordinator.url, length)
    killer = _Killer(coordinator, server, kills, generator, longest_seconds)
    try:
        killer.start()
        _drive(rounds, killer, patience_seconds)
        status = coordinator.status()
    except AssertionError as error:
        error.add_note(f"status: {coordinator.status()}, kills: {coordinator.kills}\n{coordinator.log.read_text()[-3000:]}")
        raise
    finally:
        killer.stop()
        rounds.close()
        coordinator.stop()
        if server is not None:
            server.kill()
    assert status is not None
    if isinstance(rounds, RealRounds):
        rounds.check_failures(coordinator.log.read_text())
    else:
        assert status["rounds_failed"] == 0, status
    answered = coordinator.restart_seconds
    return {
        "storage": storage,
        "participants": participants,
        "kills": coordinator.kills,
        "kills_while_starting": coordinator.kills - len(answered),
        "kills_of_redis": killer.server_kills,
        "member_restarts": rounds.member_restarts if isinstance(rounds, Pet1Rounds) else 0,
        "rounds_checked": rounds.rounds,
        "rounds_completed": status["rounds_completed"],
        "rounds_failed": status["rounds_failed"],
        "restart_seconds_median": float(np.median(answered)) if answered else None,
    }


class _Killer(threading.Thread):
    """Kills and restarts until it has done so often enough; now and then the Redis server too, if there is one."""

    def __init__(
        self, coordinator: Coordinator, server: RedisServer | None, kills: int, generator: random.Random, longest: float
    ) -> None:
        super().__init__(name="killer")
        self._coordinator, self._server, self._kills = coordinator, server, kills
        self._generator, self._longest = generator, longest
        self._is_stopped = False
        self.server_kills = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while self._coordinator.kills < self._kills and not self._is_stopped:
                is_awake = self._generator.random() < 0.75
                if is_awake:
                    self._coordinator.await_answer()
                    if self._server is not None and self._generator.random() < 0.3:
                        time.sleep(self._generator.uniform(0, self._longest))
                        self._server.kill()
                        time.sleep(self._generator.uniform(0, 0.3))
                        self._server.start()
                        self.server_kills += 1
                self._coordinator.die_after(self._generator.uniform(0, self._longest))
                self._coordinator.start()
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        self._is_stopped = True
        self.join()


def _drive(rounds: OwnRounds | RealRounds | Pet1Rounds, killer: _Killer, patience_seconds: float) -> None:
    """Let participants go on until all kills are done and one more round is complete."""
    last, since, wanted = 0, time.monotonic(), None
    while wanted is None or rounds.rounds < wanted:
        rounds.step()
        if killer.error is not None:
            raise killer.error
        if not killer.is_alive() and wanted is None:
            wanted = rounds.rounds + 1
        if rounds.rounds != last:
            last, since = rounds.rounds, time.monotonic()
        if time.monotonic() - since > patience_seconds:
            raise AssertionError(f"round {last + 1}: does not end within {patience_seconds:g} s; {rounds.describe()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--storage", choices=["sqlite", "redis"], default="sqlite")
    parser.add_argument("--participants", choices=["own", "xaynet", "pet/1"], default="own")
    parser.add_argument("--members", choices=["objects", "processes"], default="objects", help="of pet/1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--length", type=int, default=LENGTH, help="weights of a model; from 180000 on bodies are spooled")
    parser.add_argument("--longest", type=float, default=1.5, help="longest life in seconds")
    parser.add_argument("--patience", type=float, default=300.0, help="longest wait for the end of a round in seconds")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        result = run(
            Path(folder),
            kills=arguments.kills,
            storage=arguments.storage,
            participants=arguments.participants,
            members=arguments.members,
            seed=arguments.seed,
            length=arguments.length,
            longest_seconds=arguments.longest,
            patience_seconds=arguments.patience,
        )
    print(json.dumps(result | {"seconds": round(time.monotonic() - began)}, indent=1))


if __name__ == "__main__":
    main()
