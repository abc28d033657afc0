"""Rounds of pet/1 for tests/coordinator_killer.py: participants and members of ours, and the check of each model.

Everybody is in every round: a round ends once all five updates are complete and all three members have answered. What was
acknowledged is not sent again, so an update that was acknowledged and lost would let the round wait for ever, and one that was
counted twice shows in the model. Members are started again from their files at random instants, too: one that signed twice, or
named another list than before, would refuse to go on.
"""

from __future__ import annotations

import contextlib
import random
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


class Pet1Rounds:
    """Everybody who takes part, and the check of each model."""

    def __init__(self, url: str, length: int, folder: Path, parties: Parties, generator: random.Random) -> None:
        self._url, self._length, self._folder = url, length, folder
        self._parties, self._generator = parties, generator
        self._transport = HttpTransport(url, timeout_seconds=5)
        self._members = [self._start_member(slot, is_new=True) for slot in range(len(parties.member_keys))]
        self._participants = [
            TickParticipant(url, signing_key=key, enrolment=parties.enrolment, threads=1)
            for key in parties.participant_keys[:UPDATE_COUNT]
        ]
        self._threads = ThreadPoolExecutor(4)
        self._parameters = b""
        self.rounds = 0
        self.member_restarts = 0

    def _start_member(self, slot: int, *, is_new: bool = False) -> pet.CommitteeMember:
        key, enrolment = self._parties.member_keys[slot], self._parties.enrolment
        return pet.CommitteeMember(
            self._url, key, enrolment, state_file=self._folder / f"member{slot}.state", new=is_new, threads=1
        )

    def step(self) -> None:
        """Let everybody take a step; where a new round began, check the model of the last one first."""
        with contextlib.suppress(TransportError):
            parameters = self._transport.get_parameters()
            if parameters != self._parameters:
                if self._parameters:
                    self._check_model(RoundParameters.from_bytes(self._parameters))
                    self.rounds += 1
                self._parameters = parameters
        if self._generator.random() < 0.02:
            slot = self._generator.randrange(len(self._members))
            self._members[slot].close()
            self._members[slot] = self._start_member(slot)
            self.member_restarts += 1
        progress = [*self._threads.map(self._tick, range(UPDATE_COUNT)), *self._threads.map(self._tick_member, self._members)]
        if not any(progress):
            time.sleep(0.01)

    def describe(self) -> str:
        """Say where everybody is, for a round that does not end."""
        participants = [str(participant.last_error) for participant in self._participants]
        members = [(member.status.phase, member.status.number, str(member.last_error)) for member in self._members]
        return f"participants: {participants}, members: {members}"

    def close(self) -> None:
        self._threads.shutdown()
        for each in (*self._participants, *self._members):
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

    def _tick_member(self, member: pet.CommitteeMember) -> bool:
        member.tick()
        return member.made_progress

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
