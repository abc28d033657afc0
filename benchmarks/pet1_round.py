"""A whole round of pet/1 on this machine: one `pet coordinator`, five `pet member`, and as many participants as wanted.

    python benchmarks/pet1_round.py --participants 1000 --length 1e5

Coordinator and members are processes of their own, over HTTP and with SQLite; the participants take turns in threads of this
process, each with a key, weights and a connection of its own. The mean is compared with the one computed here. Printed are, for
each role, CPU and the most memory that it had resident; of the round, how long updates took, and the time from the last
accepted update to the model. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from running_coordinators import (
    PATIENCE_SECONDS,
    POLL_SECONDS,
    Coordinator,
    cpu_seconds,
    free_port,
    peak_megabytes,
    start,
)

import pet
from pet.coordinator.key_file import create_key_file
from pet.crypto import SigningKeyPair
from pet.participant import TickParticipant
from pet.pet1.enrolment_file import add_entry, new_draft

PET = f"{sys.executable} -m pet"
MEMBERS, THRESHOLD, QUORUM = 5, 3, 4
SETTINGS = """
[api]
bind_address = "127.0.0.1:{port}"
[pet.profile]
name = "pet/1"
enrolment = "enrolment.toml"
bound = 1.0
max_updates = {most}
[pet.sum.time]
min = 0
max = 3600
[pet.update.count]
min = {participants}
max = {participants}
[pet.update.time]
min = 0
max = 3600
[pet.check.time]
min = 0
max = 3600
[pet.sum2.time]
min = 0
max = 3600
[model]
length = {length}
"""


@dataclass
class Updates:
    """What the participants paid, and the sum of their weights.

    Attributes:
        cpu_ms: CPU of each participant's thread, from its first request to the accepted update.
        wall_ms: the same by the clock, but from the weights on.
        total: sum of all weights.
    """

    cpu_ms: list[float] = field(default_factory=list)
    wall_ms: list[float] = field(default_factory=list)
    total: np.ndarray | None = None


def send_updates(url: str, keys: list[SigningKeyPair], digest: bytes, length: int, senders: int) -> Updates:
    """Let every participant send an update, several at a time."""
    updates, lock, left = Updates(total=np.zeros(length)), threading.Lock(), list(enumerate(keys))
    failures: list[BaseException] = []

    def work() -> None:
        try:
            while True:
                with lock:
                    if not left or failures:
                        return
                    number, key = left.pop()
                weights = np.random.default_rng(number).uniform(-1, 1, length).astype(np.float32)
                cpu_ms, wall_ms = send_update(url, key, digest, weights)
                with lock:
                    updates.cpu_ms.append(cpu_ms)
                    updates.wall_ms.append(wall_ms)
                    updates.total += weights
        except BaseException as error:  # reported by the caller
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return updates


def send_update(url: str, key: SigningKeyPair, digest: bytes, weights: np.ndarray) -> tuple[float, float]:
    begin_cpu, deadline = time.thread_time(), time.monotonic() + PATIENCE_SECONDS
    with contextlib.closing(TickParticipant(url, signing_key=key, enrolment=digest, threads=1)) as participant:
        while not participant.should_set_model:
            tick(participant, deadline)
        begin = time.monotonic()
        participant.set_model(weights)
        while participant.status.models_sent == 0:
            tick(participant, deadline)
        return 1e3 * (time.thread_time() - begin_cpu), 1e3 * (time.monotonic() - begin)


def tick(participant: TickParticipant, deadline: float) -> None:
    participant.tick()
    if not participant.made_progress:
        time.sleep(POLL_SECONDS)
    if time.monotonic() > deadline:
        raise SystemExit(f"participant: expected to be done in time, got {participant.status}")


@contextlib.contextmanager
def members_of(port: int, folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(MEMBERS):
            files = f"--key member{number}.key --state member{number}.state --new --enrolment enrolment.toml"
            with (folder / f"member{number}.log").open("wb") as output:
                processes.append(start(f"{PET} member --url http://127.0.0.1:{port} {files}", folder, output))
        yield processes
    finally:
        end(processes)


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        process.wait()


def prepare(folder: Path, port: int, count: int, length: int) -> list[SigningKeyPair]:
    """Write keys, enrolment and settings; return the participants' keys."""
    text = new_draft(groups=1, members=MEMBERS, threshold=THRESHOLD, quorum=QUORUM, least_updates=count)
    for number in range(MEMBERS):
        key = create_key_file(folder / f"member{number}.key")
        text = add_entry(text, key.public_key, f"Member {number}", is_member=True, does_participate=False)
    keys = [SigningKeyPair.generate() for _ in range(count)]
    text += "".join(f'\n[[participants]]\nkey = "{key.public_key.hex()}"\n' for key in keys)
    (folder / "enrolment.toml").write_text(text)
    settings = SETTINGS.format(port=port, participants=count, most=max(count, 3), length=length)
    (folder / "settings.toml").write_text(settings)
    return keys


def play(count: int, length: int, senders: int, folder: Path) -> None:
    port = free_port()
    keys = prepare(folder, port, count, length)
    digest = pet.Enrolment.from_toml(folder / "enrolment.toml").digest
    with (folder / "coordinator.log").open("wb") as output:
        process = start(shlex.join([*shlex.split(PET), "coordinator", "-c", "settings.toml"]), folder, output)
    try:
        coordinator = Coordinator("coordinator", process, port, folder / "coordinator.log", None)
        coordinator.wait_for("/healthz", lambda _: True)
        with members_of(port, folder) as members:
            coordinator.wait_for("/pet/v1/committee")
            idle = peak_megabytes(process.pid), statistics.median(peak_megabytes(each.pid) for each in members)
            before = coordinator.cpu()[0], [cpu_seconds(each.pid) for each in members]
            begin = time.monotonic()
            updates = send_updates(f"http://127.0.0.1:{port}", keys, digest, length, senders)
            sent = time.monotonic()
            updates_cpu = coordinator.cpu()[0] - before[0]
            model = np.frombuffer(coordinator.wait_for("/pet/v1/model"), dtype="<f4")
            end_of_round = time.monotonic()
            cpu = coordinator.cpu()[0] - before[0], [cpu_seconds(m.pid) - b for m, b in zip(members, before[1], strict=True)]
            peaks = coordinator.peak_megabytes(), max(peak_megabytes(each.pid) for each in members)
        error = float(np.abs(model - updates.total / count).max())
        if not error < 1e-3:
            raise SystemExit(f"mean: expected the participants' within 0.001, got one that is off by {error}")
        status = json.loads(coordinator.get("/status") or b"{}")
    finally:
        end([process])
    cpu_ms, wall_ms, member = map(statistics.median, (updates.cpu_ms, updates.wall_ms, cpu[1]))
    rounds = status.get("rounds_completed")
    print(f"{count} participants of {length} weights, {senders} at a time; rounds completed: {rounds}")
    print(f"updates {sent - begin:.1f} s; last one to model {end_of_round - sent:.2f} s; largest error {error:.1e}")
    print(f"participant: CPU {cpu_ms:.1f} ms; set_model to accepted {wall_ms:.1f} ms")
    print(f"coordinator: CPU {1e3 * updates_cpu / count:.2f} ms an update, {cpu[0]:.1f} s in all")
    print(f"coordinator: memory {idle[0]:.0f} MB before the updates, {peaks[0]:.0f} MB at most")
    print(f"member: CPU {member:.2f} s, {1e9 * member / count / length:.2f} ns a weight and update")
    print(f"member: memory {idle[1]:.0f} MB before the updates, {peaks[1]:.0f} MB at most")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--participants", type=int, default=1000)
    parser.add_argument("--length", type=float, default=1e5)
    parser.add_argument("--senders", type=int, default=4, help="participants at a time")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pet-round-") as name:
        play(arguments.participants, int(arguments.length), arguments.senders, Path(name))


if __name__ == "__main__":
    main()
