"""Real members and update participants of pet/1 that look at an endpoint and do what is next, as often as they are asked.

Each `step` may be repeated, fail in the middle, or find another round: what is sent is sent again until the next document is
there, as peers over a network do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pet1_parties import CONFIG, MODEL_LENGTH, NOW, Disk, Parties

from pet.crypto import seal
from pet.errors import RemoteProtocolError
from pet.pet1.answers import UpdateAccepted, UpdateAnswer, UpdateOpen, read_piece
from pet.pet1.round_record import RoundRecord
from pet.protocol.pet1_member import MemberMachine
from pet.protocol.pet1_participant import OutgoingUpdate
from pet.protocol.pet1_round import Pet1Settings
from pet.protocol.pet1_windows import PhaseTimes
from pet.transports.pet1 import Pet1Document, Pet1Endpoint

AT_ONCE = PhaseTimes(min_seconds=0, max_seconds=600)


def settings_of(parties: Parties, **changes: Any) -> Pet1Settings:
    """Return settings of rounds that end as soon as everybody has sent."""
    chosen: dict[str, Any] = {
        "config": CONFIG,
        "model_length": MODEL_LENGTH,
        "served_enrolment": parties.enrolment.sign(parties.authority),
        "min_count": 4,
        "max_count": 4,
        "sum": AT_ONCE,
        "update": AT_ONCE,
        "check": AT_ONCE,
        "sum2": AT_ONCE,
    }
    return Pet1Settings(**chosen | changes)


def read(endpoint: Pet1Endpoint, document: Pet1Document) -> bytes | None:
    published = endpoint.document(document)
    return None if published is None else bytes(published.data)


class MemberPlayer:
    """A member of the committee."""

    def __init__(self, make: Callable[[], MemberMachine]) -> None:
        self._make = make
        self.machine = make()
        self.record: RoundRecord | None = None
        self._next_header = 0

    def step(self, endpoint: Pet1Endpoint) -> None:
        """Do what the round waits for."""
        record = read(endpoint, Pet1Document.ROUND)
        if record is None:
            return
        if self.record is None or self.record.to_bytes() != record:
            self.record, self._next_header = RoundRecord.from_bytes(record), 0
        enrolment = read(endpoint, Pet1Document.ENROLMENT)
        assert enrolment is not None
        sum_message = self.machine.join(record, enrolment, NOW)
        committee = read(endpoint, Pet1Document.COMMITTEE)
        if sum_message is None:
            return
        if committee is None:
            self._send(endpoint, sum_message)
            return
        with contextlib.suppress(RemoteProtocolError):  # documents of the round before, or a Sum message that came too late
            self.machine.receive_committee(committee)
            batch = endpoint.headers(self._next_header)
            for header in batch.headers:
                self.machine.receive_header(header)
            self._next_header = batch.next_number
            manifest = read(endpoint, Pet1Document.MANIFEST)
            if manifest is None:
                return
            self.machine.receive_manifest(manifest)
            self._send(endpoint, self.machine.sign_check())
            certificate = read(endpoint, Pet1Document.CERTIFICATE)
            answer = None if certificate is None else self.machine.answer(certificate)
            if answer is not None:
                self._send(endpoint, answer)

    def _send(self, endpoint: Pet1Endpoint, message: bytes) -> None:
        assert self.record is not None
        endpoint.handle_message(seal(message, self.record.coordinator_key))


class UpdatePlayer:
    """An update participant, with integers so that a sum is right or wrong."""

    def __init__(self, parties: Parties, number: int) -> None:
        self.parties, self.number = parties, number
        self.machine = parties.participant(number)
        self.sent: OutgoingUpdate | None = None
        self.record: RoundRecord | None = None
        #: By round number: what it sent, and what of it was acknowledged.
        self.numbers: dict[int, tuple[int, ...]] = {}
        self.accepted: set[int] = set()

    def mask(self, endpoint: Pet1Endpoint) -> OutgoingUpdate | None:
        """Make an update for the round, if its committee is there; the same one for the same round."""
        record, committee = read(endpoint, Pet1Document.ROUND), read(endpoint, Pet1Document.COMMITTEE)
        enrolment = read(endpoint, Pet1Document.ENROLMENT)
        if record is None or enrolment is None or committee is None:
            return None
        if self.record is not None and self.record.to_bytes() == record:
            return self.sent
        if self.machine.join(record, enrolment, NOW) is None:
            return None
        self.record = RoundRecord.from_bytes(record)
        drawn = self.parties.random.randbytes(self.record.model_length)
        values = np.frombuffer(drawn, dtype=np.uint8).astype(self.record.config.dtype)
        weight = self.parties.random.randrange(1, 100)
        self.sent = self.machine.mask(committee, values, weight)
        self.numbers[self.record.number] = (*map(int, values[:MODEL_LENGTH]), weight)
        return self.sent

    def step(self, endpoint: Pet1Endpoint) -> UpdateAnswer | None:
        """Send the update, or what is missing of it."""
        sent = self.mask(endpoint)
        if sent is None or self.record is None or self.record.number in self.accepted:
            return None
        answer = sent.read_answer(endpoint.open_update(sent.sealed).answer)
        if isinstance(answer, UpdateOpen):
            for piece in sent.pieces(answer):
                answer = sent.read_answer(endpoint.take_leaves(*read_piece(b"".join(piece))))
        if answer == UpdateAccepted():
            self.accepted.add(self.record.number)
        return answer


class Players:
    """All parties of a round."""

    def __init__(self, parties: Parties | None = None, update_count: int = 4) -> None:
        self.parties = parties or Parties()
        self.disks = [Disk() for _ in self.parties.member_keys]
        self.members = [
            MemberPlayer(lambda slot=slot: self.parties.member(slot, self.disks[slot]))  # type: ignore[misc]
            for slot in range(len(self.parties.member_keys))
        ]
        self.updates = [UpdatePlayer(self.parties, number) for number in range(update_count)]

    def settings(self, **changes: Any) -> Pet1Settings:
        return settings_of(self.parties, **changes)

    def send_members(self, endpoint: Pet1Endpoint, slots: Sequence[int] | None = None) -> None:
        """Let members do what is next."""
        for slot in range(len(self.members)) if slots is None else slots:
            self.members[slot].step(endpoint)

    def send_updates(self, endpoint: Pet1Endpoint, count: int | None = None) -> None:
        """Let participants send their updates."""
        for player in self.updates[:count]:
            player.step(endpoint)

    def play(self, endpoint: Pet1Endpoint) -> None:
        """Play one round to its end."""
        self.send_members(endpoint)
        self.send_updates(endpoint)
        self.send_members(endpoint)  # Check
        self.send_members(endpoint)  # Sum2

    def sum_of(self, number: int) -> tuple[int, ...]:
        """Return what the totals of a round should be, the weights' behind them."""
        sent = [player.numbers[number] for player in self.updates if number in player.accepted]
        return tuple(map(sum, zip(*sent, strict=True)))
