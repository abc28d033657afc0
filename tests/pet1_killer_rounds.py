"""Rounds of pet/1 for tests/coordinator_killer.py: participants and members of ours, and the check of each model.

Everybody is in every round: a round ends once all five updates are complete and all three members have answered. What was
acknowledged is not sent again, so an update that was acknowledged and lost would let the round wait for ever, and one that was
counted twice shows in the model. Members are started again from their files at random instants, too: objects between two of
their steps, or processes of `pet member` that get SIGKILL. One that signed twice, or named another list, would refuse to go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
from pet1_parties import Parties

import pet
from pet.errors import TransportError
from pet.messages import RoundParameters
from pet.model_formats import NPY, decode_npy
from pet.participant import TickParticipant
from pet.transports.http import HttpTransport

UPDATE_COUNT = 5
#: Three leaves: kills fall between them.
LENGTH = 300_000

SETTINGS = """
[api]
bind_address = "127.0.0.1:{port}"
[model]
length = {length}
[pet.profile]
name = "pet/1"
enrolment = "{enrolment}"
[pet.sum.time]
min = 0
[pet.update.count]
min = {updates}
max = {updates}
[pet.update.time]
min = 0
[pet.check.time]
min = 0
max = 3600
[pet.sum2.time]
min = 0
{more}
"""


#: Forks members: a process that has imported everything already comes up ten times as fast, and is the same program.
NURSERY = """
import json, os, signal, sys
from pet import cli
import pet.commands.member
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    child = os.fork()
    if not child:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0), os.dup2(log, 1), os.dup2(log, 2)
        os._exit(cli.run(json.loads(line)))
    print(child, flush=True)
"""


class MemberProcesses:
    """Members as processes of `pet member`, which are killed at any instant of theirs."""

    def __init__(self, url: str, folder: Path, parties: Parties) -> None:
        self._url, self._folder = url, folder
        self.log = folder / "members.log"
        for slot, key in enumerate(parties.member_keys):
            seed = key.secret_key[:32].hex()
            (folder / f"member{slot}.key").touch(mode=0o600)
            (folder / f"member{slot}.key").write_text(f"pet-coordinator-key-1 {seed}\n")
        self._nursery = subprocess.Popen(
            [sys.executable, "-c", NURSERY, str(self.log)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._processes = {slot: self._start(slot) for slot in range(len(parties.member_keys))}

    def _start(self, slot: int) -> int:
        """Start a member; returns a file descriptor of its process, which is no child of ours."""
        state = self._folder / f"member{slot}.state"
        arguments = ["member", "-u", self._url, "-k", str(self._folder / f"member{slot}.key")]
        arguments += ["-e", str(self._folder / "trial.enrolment"), "-s", str(state), "--threads", "1"]
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(json.dumps(arguments if state.exists() else [*arguments, "--new"]) + "\n")
        self._nursery.stdin.flush()
        return os.pidfd_open(int(self._nursery.stdout.readline()))

    def restart(self, slot: int) -> None:
        """Kill a member, and start it again."""
        self._must_live(slot)
        self._kill(slot)
        self._processes[slot] = self._start(slot)

    def step(self) -> bool:
        """Look after them; they need nothing to go on."""
        for slot in self._processes:
            self._must_live(slot)
        return False

    def describe(self) -> str:
        return self.log.read_text()[-2000:]

    def close(self) -> None:
        for slot in self._processes:
            self._kill(slot)
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.close()
        self._nursery.wait(60)
        self._nursery.stdout.close()

    def _must_live(self, slot: int) -> None:
        if select.select([self._processes[slot]], [], [], 0)[0]:
            raise AssertionError(f"member {slot} ended by itself:\n{self.describe()}")

    def _kill(self, slot: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._processes[slot], signal.SIGKILL)
        assert select.select([self._processes[slot]], [], [], 20)[0]
        os.close(self._processes[slot])


class MemberObjects:
    """Members in this process, which are thrown away between two of their steps."""

    def __init__(self, url: str, folder: Path, parties: Parties) -> None:
        self._url, self._folder, self._parties = url, folder, parties
        self._members = [self._start(slot, is_new=True) for slot in range(len(parties.member_keys))]

    def _start(self, slot: int, *, is_new: bool = False) -> pet.CommitteeMember:
        key, enrolment = self._parties.member_keys[slot], self._parties.enrolment
        return pet.CommitteeMember(
            self._url, key, enrolment, state_file=self._folder / f"member{slot}.state", new=is_new, threads=1
        )

    def restart(self, slot: int) -> None:
        """Throw a member away, and start it again from its file."""
        self._members[slot].close()
        self._members[slot] = self._start(slot)

    def step(self) -> bool:
        """Let each take a step."""
        for member in self._members:
            member.tick()
        return any(member.made_progress for member in self._members)

    def describe(self) -> str:
        return str([(member.status.phase, member.status.number, str(member.last_error)) for member in self._members])

    def close(self) -> None:
        for member in self._members:
            member.close()


class Pet1Rounds:
    """Everybody who takes part, and the check of each model."""

    def __init__(
        self,
        url: str,
        length: int,
        folder: Path,
        parties: Parties,
        generator: random.Random,
        kind: type[MemberObjects | MemberProcesses] = MemberObjects,
    ) -> None:
        self._url, self._length = url, length
        self._generator, self._member_count = generator, len(parties.member_keys)
        self._transport = HttpTransport(url, timeout_seconds=5)
        self._members = kind(url, folder, parties)
        self._participants = [
            TickParticipant(url, signing_key=key, enrolment=parties.enrolment, threads=1)
            for key in parties.participant_keys[:UPDATE_COUNT]
        ]
        self._threads = ThreadPoolExecutor(4)
        self._parameters = b""
        self.rounds = 0
        self.member_restarts = 0

    def step(self) -> None:
        """Let everybody take a step; where a new round began, check the model of the last one first."""
        with contextlib.suppress(TransportError):
            parameters = self._transport.get_parameters()
            if parameters != self._parameters:
                if self._parameters:
                    self._check_model(RoundParameters.from_bytes(self._parameters))
                    self.rounds += 1
                self._parameters = parameters
        if self._generator.random() < 0.05:
            self._members.restart(self._generator.randrange(self._member_count))
            self.member_restarts += 1
        progress = [*self._threads.map(self._tick, range(UPDATE_COUNT)), self._members.step()]
        if not any(progress):
            time.sleep(0.01)

    def describe(self) -> str:
        """Say where everybody is, for a round that does not end."""
        participants = [str(participant.last_error) for participant in self._participants]
        return f"participants: {participants}, members: {self._members.describe()}"

    def close(self) -> None:
        self._threads.shutdown()
        for each in (*self._participants, self._members):
            each.close()
        self._transport.close()

    def _tick(self, index: int) -> bool:
        participant = self._participants[index]
        participant.tick()
        if participant.should_set_model:
            weights = np.zeros(self._length, dtype=np.float32)
            weights[index] = 1
            weights[-1] = self._generator.random()  # nobody sends the very same weights in two rounds
            participant.set_model(weights)
        return participant.made_progress

    def _check_model(self, parameters: RoundParameters) -> None:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                answer = httpx.get(f"{self._url}/model", headers={"accept": NPY}, timeout=5)
                if answer.status_code == 200:
                    break
                assert answer.status_code == 503, f"round {self.rounds + 1}: expected a model, got {answer.status_code}"
            time.sleep(0.05)
        seed = answer.headers["etag"].strip('"').split("-")[1]
        assert seed == parameters.seed.hex()[:16], f"the round of {parameters.seed.hex()} ended without a model"
        expected = np.zeros(self._length - 1)
        expected[:UPDATE_COUNT] = 1 / UPDATE_COUNT
        got = decode_npy(answer.content)[:-1]
        assert np.abs(got - expected).max() < 1e-4, f"expected each of {UPDATE_COUNT} updates once, got {got[:8]}"
