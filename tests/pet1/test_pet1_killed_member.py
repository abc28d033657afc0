"""A member of pet/1 under a coordinator that does anything: killed, repeated to and shown other lists, it signs one.

Source: docs/spec/profile.md 1.2, 13, 17.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pet1_peers import NOW, Disk, make_member, served_enrolment
from pet1_rounds import reason_of, vector_round
from pet1_sessions import settings_of

from pet.errors import LocalProtocolError, RemoteProtocolError
from pet.pet1.certificate import Certificate
from pet.pet1.checks import build_check
from pet.pet1.hashes import digest
from pet.pet1.manifest import UpdateManifest
from pet.pet1.messages import Pet1Tag, read_message
from pet.pet1.share_header import ShareHeader
from pet.protocol.pet1_member import MemberMachine

ROUND = vector_round("3of5")
SERVED = served_enrolment(ROUND)


def test_no_key_ever_signs_two_roots_or_answers_two_certificates() -> None:
    """Manifests and certificates at random, repeated and out of order, and a restart from the latest state at any time."""
    headers = list(ROUND.headers.values())[:5]
    manifests = [UpdateManifest.of(ROUND.committee, headers[:count]) for count in (3, 4, 5)]
    members = ROUND.members()
    certificates, listed = [], []
    for manifest, signers in itertools.product(manifests, ((0, 1, 2, 3), (0, 1, 3, 4), (1, 2, 3, 4))):
        checks = [build_check(members[slot], ROUND.record, manifest.root, {}) for slot in signers]
        certificates.append(Certificate.of(checks, ROUND.committee, manifest).to_bytes())
        listed.append((manifest, certificates[-1]))
    signed = 0
    for seed in range(5):
        source, disk = random.Random(seed), Disk()
        member = start(make_member(ROUND, 4, disk), headers)
        roots, answered = set(), set()
        for _ in range(30):
            match source.randrange(4):
                case 0:
                    member = start(make_member(ROUND, 4, disk, saved=disk.latest), headers)
                case 1:
                    attempt(member.receive_manifest, source.choice(manifests).to_bytes())
                case 2:
                    roots |= named_by(attempt(member.sign_check), Pet1Tag.CHECK)
                case _:
                    answered |= named_by(attempt(member.answer, source.choice(certificates)), Pet1Tag.SUM2)
        assert len(roots) <= 1
        assert len(answered) <= 1
        # What it answered is a certificate of the root that it signed, and of no other.
        of_root = {digest("pet-1 certified", data) for manifest, data in listed if manifest.root in roots}
        assert not roots or answered <= of_root
        signed += len(roots) + len(answered)
    assert signed > 5


def named_by(messages: list[bytes], tag: Pet1Tag) -> set[bytes]:
    """Return the digests that payloads begin with."""
    return {read_message(message, ROUND.record.coordinator_key, tag)[1][:32] for message in messages}


def start(member: MemberMachine, headers: list[ShareHeader]) -> MemberMachine:
    member.join(ROUND.bytes_of("round"), SERVED, NOW)
    member.receive_committee(ROUND.bytes_of("committee"))
    for header in headers:
        member.receive_header(header.data)
    return member


def attempt(call: Callable[..., bytes | None], *arguments: Any) -> list[bytes]:
    """Return what a call gives, or nothing if it is refused."""
    try:
        given = call(*arguments)
    except (RemoteProtocolError, LocalProtocolError):
        return []
    return [] if given is None else [given]


def test_an_enrolment_that_the_record_does_not_name_is_refused() -> None:
    """An enrolment that the record does not name is refused by members, no matter who signed it."""
    other = replace(ROUND.enrolment, version=ROUND.enrolment.version + 1)
    settings = settings_of(ROUND, served_enrolment=other.to_bytes() + bytes(64))
    record = settings.record(43, bytes(32), bytes(32)).to_bytes()
    member = make_member(ROUND, 0, Disk())
    assert reason_of(member.join, record, SERVED, NOW) == "unknown_enrolment"
