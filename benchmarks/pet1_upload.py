"""What one large update costs both sides under pet/1, beside xaynet's profile in the same run.

For each profile a coordinator runs in a process of its own, and real participants send updates of 25 million weights over
loopback HTTP, in turns. Measured are

- the CPU of both processes from `set_model` until the update is accepted (kernels take two threads each, as many as here),
- the time from the last byte of an update to its answer, beside what libsodium alone needs to open and verify as many bytes,
- the most memory that the coordinator of pet/1 ever had, while several updates arrive at once.

Both coordinators store what they take before they answer. The committee of pet/1 is 3 of 5.

    python benchmarks/pet1_upload.py [--length 25000000] [--uploads 3] [--at-once 4]
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import httpx
import numpy as np
from bench_upload import CoordinatorProcess, find_keys, libsodium_seconds, sum_body, upload

import pet
from pet import kernels
from pet.crypto import SigningKeyPair, seal
from pet.messages import RoundParameters
from pet.participant import TickParticipant
from pet.participant.pet1_upload import UploadSteps
from pet.pet1.answers import UpdateAccepted
from pet.pet1.enrolment import Enrolment, EnrolmentPolicy
from pet.pet1.round_record import RoundRecord
from pet.protocol.pet1_member import MemberMachine
from pet.protocol.pet1_participant import OutgoingUpdate, UpdateParticipant
from pet.transports.http import HttpTransport
from pet.transports.pet1 import Pet1Document, first_piece
from pet.transports.pet1_requests import SendPiece, carry_out_pet1

PLAN: Final = pet.Plan(groups=1, members=5, threshold=3, quorum=4)
CONFIG: Final = "pet-1/z32,f32,bound=1,models=1000"
#: Seeds of keys, so that both processes know the enrolment.
MEMBERS: Final = range(1, 6)
PARTICIPANTS: Final = range(100, 180)
#: No phase ends because time passes.
SETTINGS: Final = """
[api]
bind_address = "127.0.0.1:0"
[pet.profile]
name = "pet/1"
enrolment = "{folder}/enrolment"
[pet.sum]
time = {{ min = 3600, max = 3600 }}
[pet.update]
time = {{ min = 3600, max = 3600 }}
[pet.sum2]
time = {{ min = 3600, max = 3600 }}
[model]
length = {length}
"""


class Cost(NamedTuple):
    """What one update took, in seconds of CPU and of time."""

    participant: float
    coordinator: float
    wall: float


def key(number: int) -> SigningKeyPair:
    return SigningKeyPair.from_seed(number.to_bytes(32, "little"))


def enrolment() -> Enrolment:
    return Enrolment(
        version=1,
        plan=PLAN,
        min_updates=3,
        members=tuple(key(number).public_key for number in MEMBERS),
        participants=tuple(sorted(key(number).public_key for number in PARTICIPANTS)),
    )


# ---- the coordinator of pet/1


class Pet1CoordinatorProcess(CoordinatorProcess):
    """`pet coordinator` with pet/1 in a process of its own, whose members have sent what they send first."""

    def __init__(self, length: int) -> None:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        (folder / "enrolment").write_bytes(enrolment().sign(key(50)))
        (folder / "settings.toml").write_text(SETTINGS.format(length=length, folder=folder))
        command = [sys.executable, "-c", "from pet.cli import main; main()", "coordinator", "-c", "settings.toml"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=folder)
        self.address = read_address(self.process)
        transport = HttpTransport(self.url)
        record = transport.get_document(Pet1Document.ROUND)
        assert record is not None
        for number in MEMBERS:
            self._send_sum(transport, number, record)
        while transport.get_document(Pet1Document.COMMITTEE) is None:
            time.sleep(0.05)
        transport.close()

    def _send_sum(self, transport: HttpTransport, number: int, record: bytes) -> None:
        member = MemberMachine(
            signing_key=key(number),
            policy=EnrolmentPolicy(digest=enrolment().digest),
            entropy=os.urandom,
            store=lambda _: None,
        )
        signed = member.join(record, transport.get_document(Pet1Document.ENROLMENT) or b"", int(time.time()))
        assert signed is not None
        transport.send_message(seal(signed, RoundRecord.from_bytes(record).coordinator_key))


def read_address(process: subprocess.Popen[str]) -> tuple[str, int]:
    """Wait for the line in which a coordinator says where it listens."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://([\d.]+):(\d+)", line):
            return found[1], int(found[2])
    raise SystemExit("the coordinator of pet/1 did not start")


# ---- measuring


def cpu_seconds(process: subprocess.Popen[str]) -> float:
    """Return the CPU that a process has taken, in its own code and in the system's."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(coordinator: CoordinatorProcess, participant: TickParticipant, length: int, is_sent: Callable[[], bool]) -> Cost:
    """Let a participant send one update; its first tick in the round was done."""
    weights = np.random.default_rng(1).uniform(-1, 1, length).astype(np.float32)
    own, others, start = time.process_time(), cpu_seconds(coordinator.process), time.perf_counter()
    participant.set_model(weights)
    while not is_sent():
        participant.tick()
        participant.raise_permanent_error()
    wall = time.perf_counter() - start
    return Cost(time.process_time() - own, cpu_seconds(coordinator.process) - others, wall)


def send_by_xaynet(coordinator: CoordinatorProcess, signing_key: SigningKeyPair, length: int) -> Cost:
    participant = TickParticipant(coordinator.url, signing_key=signing_key)
    while not participant.should_set_model:
        participant.tick()
    accepted = accepted_count(coordinator)
    cost = measure(coordinator, participant, length, lambda: not participant.has_task)
    assert accepted_count(coordinator) == accepted + 1, httpx.get(f"{coordinator.url}/status").json()
    participant.close()
    return cost


def send_by_pet1(coordinator: CoordinatorProcess, number: int, length: int) -> Cost:
    participant = TickParticipant(coordinator.url, signing_key=key(number), enrolment=enrolment())
    while not participant.should_set_model:
        participant.tick()
    accepted = accepted_count(coordinator)
    cost = measure(coordinator, participant, length, lambda: not participant.has_task)
    assert accepted_count(coordinator) == accepted + 1, httpx.get(f"{coordinator.url}/status").json()
    participant.close()
    return cost


def accepted_count(coordinator: CoordinatorProcess) -> int:
    status = httpx.get(f"{coordinator.url}/status").json()
    assert status["rejected"] == {}, status
    return int(status["accepted"])


def make_update(transport: HttpTransport, number: int, length: int) -> OutgoingUpdate:
    participant = UpdateParticipant(
        signing_key=key(number),
        policy=EnrolmentPolicy(digest=enrolment().digest),
        entropy=os.urandom,
        store=lambda _: None,
    )
    record, served = transport.get_document(Pet1Document.ROUND), transport.get_document(Pet1Document.ENROLMENT)
    assert record is not None
    assert served is not None
    assert participant.join(record, served, int(time.time())) is not None
    weights = np.random.default_rng(number).uniform(-1, 1, length).astype(np.float32)
    return participant.mask(transport.get_document(Pet1Document.COMMITTEE) or b"", weights)


def send_update(transport: HttpTransport, update: OutgoingUpdate, *, spares_last: bool = False) -> SendPiece | None:
    """Send an update; if the last piece is spared, return it in place of sending it."""
    steps, last = UploadSteps(update, None), update.leaf_count
    while True:
        request = steps.next_request()
        if spares_last and isinstance(request, SendPiece):
            head, leaves = first_piece(request.piece)  # what the transport sends of it
            if int.from_bytes(bytes(head)[32:], "little") + -(-len(memoryview(leaves)) // (1 << 19)) == last:
                return SendPiece(piece=[head, leaves])
        outcome = steps.receive(carry_out_pet1(transport, request))
        if outcome is not None:
            assert outcome == UpdateAccepted(), outcome
            return None


def last_byte_seconds(coordinator: CoordinatorProcess, number: int, length: int) -> tuple[float, float]:
    """Return the time from the last byte of an update to its answer, and libsodium's for as many bytes."""
    transport = HttpTransport(coordinator.url)
    update = make_update(transport, number, length)
    request = send_update(transport, update, spares_last=True)
    transport.close()
    assert request is not None
    body = b"".join(bytes(part) for part in request.piece)
    own = sum(libsodium_seconds(key(number), len(update.sealed) + len(update.vector)))
    with socket.create_connection(coordinator.address) as connection:
        head = f"POST /pet/v1/update/leaves HTTP/1.1\r\nHost: pet\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body[:-1])
        time.sleep(0.5)  # until all but the last leaf is taken
        start = time.perf_counter()
        connection.sendall(body[-1:])
        answer = connection.recv(4096)
        seconds = time.perf_counter() - start
        answer += connection.recv(4096) if answer.endswith(b"\r\n\r\n") else b""
    assert answer.endswith(b"\r\n\r\n\1"), answer
    return seconds, own


def at_once(coordinator: CoordinatorProcess, numbers: list[int], length: int) -> float:
    """Let several updates arrive at the same time; return the seconds."""
    transport = HttpTransport(coordinator.url)
    updates = [make_update(transport, number, length) for number in numbers]
    start = time.perf_counter()
    with ThreadPoolExecutor(len(updates)) as threads:
        list(threads.map(lambda update: send_update(transport, update), updates))
    seconds = time.perf_counter() - start
    transport.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=25_000_000)
    parser.add_argument("--uploads", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=4)
    arguments = parser.parse_args()
    compare(arguments.length, arguments.uploads, arguments.at_once)


def compare(length: int, uploads: int, count_at_once: int) -> None:
    xaynet, own = CoordinatorProcess(length, max(3, uploads + 2)), Pet1CoordinatorProcess(length)
    try:
        parameters = RoundParameters.from_bytes(httpx.get(f"{xaynet.url}/params").content)
        (sum_key,) = find_keys(parameters, is_sum=True, count=1)
        upload(xaynet.address, sum_body(parameters, sum_key))
        while httpx.get(f"{xaynet.url}/sums").status_code != 200:
            time.sleep(0.05)
        keys = find_keys(parameters, is_sum=False, count=uploads + 1)
        print(f"kernels: {kernels.active_backend()}; pet/1 before the first update: {own.peak_megabytes():.0f} MB")
        ratios = []
        for number, signing_key in enumerate(keys):
            before, now = send_by_xaynet(xaynet, signing_key, length), send_by_pet1(own, PARTICIPANTS[number], length)
            if number == 0:
                continue  # with what both sides import and allocate once
            ratios.append((now.participant + now.coordinator) / (before.participant + before.coordinator))
            for name, cost in (("xaynet", before), ("pet/1", now)):
                print(
                    f"update {number}, {name}: CPU {cost.participant + cost.coordinator:.3f} s (participant"
                    f" {cost.participant:.3f}, coordinator {cost.coordinator:.3f}), wall {cost.wall:.3f} s"
                )
        middle = statistics.median(ratios)
        print(f"CPU of both sides, pet/1 to xaynet's profile: {middle:.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
        for number in PARTICIPANTS[uploads + 1 : 2 * uploads + 1]:
            seconds, libsodium = last_byte_seconds(own, number, length)
            print(f"last byte to answer: {seconds:.4f} s = {seconds / libsodium:.3f} x libsodium's {libsodium:.3f} s")
        seconds = at_once(own, list(PARTICIPANTS[2 * uploads + 1 : 2 * uploads + 1 + count_at_once]), length)
        megabytes = 4e-6 * length * count_at_once
        print(
            f"{count_at_once} at once: {seconds:.2f} s, {megabytes / seconds:.0f} MB/s;"
            f" pet/1 had {own.peak_megabytes():.0f} MB at most"
        )
    finally:
        xaynet.stop()
        own.stop()


if __name__ == "__main__":
    main()
