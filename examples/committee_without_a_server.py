"""A round of pet/1 without any server: five clinics average a model, and any three of them could open the sum, no two.

    python examples/committee_without_a_server.py

Each clinic sends an update and is a member of the committee. Whatever would travel over a network is bytes in this file: the
coordinator passes them on, and sees masked vectors, sealed boxes and signatures. One clinic vanishes before it answers; the
rest suffices. docs/spec/profile.md says what each step protects from; docs/running-committees.md runs the same over HTTP.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

import pet
from pet import crypto
from pet.pet1.enrolment import EnrolmentPolicy
from pet.protocol.pet1_coordinator import Pet1Coordinator
from pet.protocol.pet1_member import MemberMachine
from pet.protocol.pet1_participant import UpdateParticipant
from pet.protocol.pet1_publications import (
    CertificatePublished,
    CommitteePublished,
    HeaderPublished,
    ManifestPublished,
    RoundAnnounced,
    TotalPublished,
)
from pet.protocol.pet1_round import Pet1Settings

CONFIG = pet.MaskConfig.parse("pet-1/z32,f32,bound=1,models=10")
LENGTH = 1000
NAMES = ("North", "South", "East", "West", "Harbour")
#: The longest time of a phase, in seconds: who has not answered by then is not waited for.
PHASE_SECONDS = 600


class Coordinator:
    """A coordinator in this process: what would be requests are calls, and the clock moves when it is set."""

    def __init__(self, settings: Pet1Settings) -> None:
        self.now = time.time()
        self.machine = Pet1Coordinator(settings, now_seconds=self.now, entropy=os.urandom, round_id=int(self.now))
        self.published: list[object] = []
        self.wait(0)

    def wait(self, seconds: float) -> None:
        """Let time pass, and take what is published."""
        self.now += seconds
        self.machine.advance_time(self.now)
        self.published += iter(self.machine.next_event, None)

    def post(self, signed: bytes) -> None:
        """Take a message as its sender would post it: sealed for the coordinator's key of the round."""
        keys = self.machine.encryption_keys
        body = crypto.seal(signed, keys.public_key)
        self.machine.receive(self.machine.profile.open_message(body, keys, self.machine.accepted_tag), self.now)
        self.wait(0)

    def latest(self, kind: type[Any]) -> Any:
        """Return the last thing of a kind that was published."""
        return [event for event in self.published if isinstance(event, kind)][-1]


def main() -> None:
    """Run the round and hold its result against the mean, which only this file can compute."""
    keys = {name: crypto.SigningKeyPair.generate() for name in NAMES}
    public = {name: key.public_key for name, key in keys.items()}
    enrolment = pet.Enrolment(
        version=1,
        plan=pet.Plan(groups=1, members=5, threshold=3, quorum=4),
        min_updates=5,  # the sum of all five, or nothing
        members=tuple(public.values()),
        participants=tuple(sorted(public.values())),
        names={key: name for name, key in public.items()},
    )
    print(enrolment.describe())
    coordinator = Coordinator(
        Pet1Settings(config=CONFIG, model_length=LENGTH, served_enrolment=enrolment.to_bytes() + bytes(64), min_updates=5)
    )

    # What a clinic trusts is its own: the digest of the enrolment that it was given, not what the coordinator serves.
    policy = EnrolmentPolicy(digest=enrolment.digest)
    disk: dict[str, bytes] = {}  # states, which must be durable before anything is sent
    members = {
        name: MemberMachine(
            signing_key=key, policy=policy, entropy=os.urandom, store=lambda state, name=name: disk.update({name: state})
        )
        for name, key in keys.items()
    }
    announced = coordinator.latest(RoundAnnounced)
    for member in members.values():
        coordinator.post(member.join(announced.record, announced.enrolment, int(coordinator.now)))

    generator = np.random.default_rng(0)
    models = {name: generator.uniform(-1, 1, LENGTH).astype(np.float32) for name in NAMES}
    committee = coordinator.latest(CommitteePublished).committee
    for name, key in keys.items():
        participant = UpdateParticipant(
            signing_key=key, policy=policy, entropy=os.urandom, store=lambda state, name=name: disk.update({f"{name} 2": state})
        )
        participant.join(announced.record, announced.enrolment, int(coordinator.now))
        update = participant.mask(committee, models[name])
        coordinator.machine.take_whole_update(b"".join(update.body()), coordinator.now)
        coordinator.wait(0)

    for member in members.values():
        member.receive_committee(committee)
        for event in [event for event in coordinator.published if isinstance(event, HeaderPublished)]:
            member.receive_header(event.header)
        member.receive_manifest(coordinator.latest(ManifestPublished).manifest)
        coordinator.post(member.sign_check())
    for name, member in members.items():
        if name != "Harbour":  # it vanishes
            coordinator.post(member.answer(coordinator.latest(CertificatePublished).certificate))
    coordinator.wait(PHASE_SECONDS)

    total = coordinator.latest(TotalPublished)
    expected = np.mean([model.astype(np.float64) for model in models.values()], axis=0)
    error, tolerance = float(np.abs(total.model.to_array(np.float64) - expected).max()), 2 * len(NAMES) / CONFIG.levels
    if error > tolerance:
        raise SystemExit(f"error of the mean: expected at most {tolerance:.1e}, got {error:.1e}")
    print(f"{total.update_count} models of {LENGTH} weights; answers that did not fit: {len(total.wrong_slots)}")
    print(f"largest error of the mean {error:.1e}, at most {tolerance:.1e} is allowed")


if __name__ == "__main__":
    main()
