"""A peer of a federation: each rule stands, durable, between a decision and what is sent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pet1_parties import CONFIG, MODEL_LENGTH, NOW, Parties
from pet1_rounds import reason_of

from pet.crypto import EncryptionKeyPair
from pet.errors import ConfigError, LocalProtocolError, StateError
from pet.participant.enrolments import EnrolmentTrust
from pet.pet1.certificate import Certificate
from pet.pet1.committee import Committee
from pet.pet1.federation import Called, FederationPolicy, enrol_federation
from pet.pet1.ledger import RoundLedger
from pet.pet1.manifest import UpdateManifest
from pet.pet1.messages import Pet1Tag, read_message
from pet.pet1.round_record import RoundRecord
from pet.pet1.share_header import ShareHeader
from pet.protocol.pet1_federation_peer import LEDGER, Pet1Peer
from pet.protocol.pet1_participant import RoundTerms

VALUES = np.arange(MODEL_LENGTH, dtype=CONFIG.dtype)


class Federation:
    """Some peers, their disks, and a leader that shows what a test wants it to show."""

    def __init__(self, count: int = 3) -> None:
        self.parties = Parties(participant_count=max(count, 3))
        self.keys = self.parties.participant_keys
        self.admin = self.parties.authority
        confirmed = frozenset(key.public_key for key in self.keys)
        self.policy = FederationPolicy(admin=self.admin.public_key, confirmed=confirmed)
        self.disks: list[dict[str, bytes]] = [{} for _ in self.keys]
        self.peers = [self.start(number) for number in range(count)]
        self.is_full = False

    def start(self, number: int, **options: Any) -> Pet1Peer:
        disk = self.disks[number]

        def store(name: str, state: bytes) -> None:
            if self.is_full:
                raise OSError("no space left")
            disk[name] = state

        return Pet1Peer(
            signing_key=self.keys[number],
            policy=self.policy,
            entropy=self.parties.random.randbytes,
            store=store,
            terms=RoundTerms(values=CONFIG.values),
            saved=dict(disk),
            threads=1,
            **options,
        )

    def ledger(self, number: int) -> RoundLedger:
        return RoundLedger.decode(self.disks[number][LEDGER])

    def announce(self, number: int, calls: list[bytes]) -> tuple[bytes, bytes, bytes, int]:
        """Return what `join` needs of a round of these peers."""
        peers = sorted(range(len(calls)), key=lambda place: self.keys[place].public_key)
        enrolment = enrol_federation(number, NOW + 60, [self.keys[place].public_key for place in peers])
        record = RoundRecord(
            config=CONFIG,
            model_length=MODEL_LENGTH,
            min_updates=3,
            number=number,
            update_seconds=60,
            check_seconds=60,
            sum2_seconds=60,
            coordinator_key=EncryptionKeyPair.from_secret_key(bytes(31) + b"\7").public_key,
            seed=bytes(32),
            enrolment_digest=enrolment.digest,
        )
        return record.to_bytes(), enrolment.sign(self.admin), b"".join(calls[place] for place in peers), NOW

    def call(self, number: int, versions: tuple[int, ...] = (1, 1, 1)) -> tuple[bytes, bytes, bytes, int]:
        return self.announce(number, [peer.call(number, version) for peer, version in zip(self.peers, versions, strict=True)])

    def play(self, number: int) -> tuple[tuple[Any, ...], Committee, list[ShareHeader], UpdateManifest, bytes]:
        """Play a round as far as its certificate."""
        announced = self.call(number)
        record, enrolment = RoundRecord.from_bytes(announced[0]), self.policy.accept(announced[1], now=NOW)
        sums = [peer.join(*announced) for peer in self.peers]
        committee = Committee.of(record, enrolment, sums)
        headers = [peer.mask(committee.to_bytes(), VALUES).header for peer in self.peers]
        manifest = UpdateManifest.of(committee, headers)
        for peer in self.peers:
            self.show(peer, committee, headers, manifest)
        checks = [peer.member.sign_check() for peer in self.peers]
        return announced, committee, headers, manifest, Certificate.of(checks, committee, manifest).to_bytes()

    def show(self, peer: Pet1Peer, committee: Committee, headers: list[ShareHeader], manifest: UpdateManifest) -> None:
        peer.member.receive_committee(committee.to_bytes())
        for header in headers:
            peer.member.receive_header(header.data)
        peer.member.receive_manifest(manifest.to_bytes())


def test_each_step_is_in_the_ledger_before_anything_is_sent() -> None:
    federation = Federation()
    announced, _, _, _, certificate = federation.play(5)
    assert [federation.ledger(number).last_called for number in range(3)] == [5, 5, 5]
    entry = federation.ledger(0).entries[5]
    assert (entry.answered, entry.published, set(entry.versions.values())) == (False, False, {1})
    federation.is_full = True
    with pytest.raises(OSError, match="no space left"):
        federation.peers[0].answer(certificate)
    federation.is_full = False
    assert federation.peers[0].answer(certificate) is not None
    assert federation.ledger(0).entries[5].answered
    federation.peers[0].note_result(announced[1], announced[2])
    assert federation.ledger(0).entries[5].published
    # A peer that was not in the round notes it all the same: it is a sum that exists.
    other = Federation(3)
    other.peers[0].note_result(announced[1], announced[2])
    assert other.ledger(0).entries[5].published


def test_a_round_is_known_with_one_set() -> None:
    """A leader that keeps a sum shows another set as the result of the same round, to have the first one forgotten."""
    federation = Federation(4)
    everybody, federation.peers = federation.peers, federation.peers[:3]
    announced, _, _, _, certificate = federation.play(5)
    federation.peers[0].answer(certificate)
    before = federation.ledger(0).entries
    other = enrol_federation(5, NOW + 60, [key.public_key for key in federation.keys[1:]]).sign(federation.admin)
    calls = b"".join(peer.call(5, 1) for peer in everybody[1:])
    assert reason_of(federation.peers[0].note_result, other, calls) == "wrong_round"
    assert federation.ledger(0).entries == before
    federation.peers[0].note_result(announced[1], announced[2])
    assert federation.ledger(0).entries[5].published


def test_a_call_answered_kills_what_is_older_also_after_a_restart() -> None:
    federation = Federation()
    _, committee, headers, manifest, certificate = federation.play(5)
    signed = federation.peers[0].call(6, 1)
    assert Called.decode_prefix(signed)[0].answered == ()
    with pytest.raises(LocalProtocolError, match="no call of a later one"):
        federation.peers[0].answer(certificate)
    again = federation.start(0)
    with pytest.raises(LocalProtocolError):
        federation.show(again, committee, headers, manifest)
    with pytest.raises(LocalProtocolError):
        again.answer(certificate)
    assert federation.peers[1].answer(certificate) is not None
    assert Called.decode_prefix(federation.peers[1].call(6, 1))[0].answered == (5,)
    assert reason_of(federation.peers[1].call, 5, 1) == "wrong_round"
    assert reason_of(federation.peers[1].call, 6, 2) == "wrong_round"


def test_a_restarted_peer_goes_on_with_its_round() -> None:
    federation = Federation()
    announced, committee, headers, manifest, certificate = federation.play(5)
    again = federation.start(0)
    assert again.join(*announced) is not None
    with pytest.raises(LocalProtocolError, match="has no update yet"):
        again.mask(committee.to_bytes(), VALUES)  # one header a round, before and after a restart
    federation.show(again, committee, headers, manifest)
    message = again.answer(certificate)
    assert message is not None
    read_message(message, committee.record.coordinator_key, Pet1Tag.SUM2)
    # Whatever the leader shows of the same round afterwards, what was answered stays answered.
    once_more = federation.announce(5, [peer.call(5, 1) for peer in [again, *federation.peers[1:]]])
    again.join(*once_more)
    assert federation.ledger(0).entries[5].answered


def test_a_state_that_was_put_back_is_refused_where_another_one_shows_it() -> None:
    federation = Federation()
    before = dict(federation.disks[0])
    federation.play(5)
    older = dict(federation.disks[0])
    *_, certificate = federation.play(6)
    federation.peers[0].answer(certificate)
    now = federation.disks[0]
    for put_back, problem in ((LEDGER, "saved ledger: expected one that knows of round 6"), ("member", "has answered round 6")):
        for earlier in (before, older):
            federation.disks[0] = {
                name: state for name, state in (now | earlier).items() if name != put_back or name in earlier
            }
            federation.disks[0] |= {name: now[name] for name in now if name != put_back}
            with pytest.raises(StateError, match=problem):
                federation.start(0)
    # All of it from one time: nothing here shows it, but the result of a round that the peer was in does, for good.
    federation.disks[0] = dict(older)
    federation.peers[0] = restored = federation.start(0)
    enrolment, calls = federation.announce(7, [peer.call(7, 1) for peer in federation.peers])[1:3]
    federation.disks[0] = dict(older)
    restored = federation.start(0)
    restored.note_result(enrolment, calls)
    for peer in (restored, federation.start(0)):
        with pytest.raises(StateError, match="knows of round 7, which this peer was in"):
            peer.call(8, 1)


def test_sets_that_would_show_a_peer_are_refused_before_anything_is_signed() -> None:
    federation = Federation(4)
    federation.peers, everybody = federation.peers[:3], federation.peers
    _, _, _, _, certificate = federation.play(5)
    for peer in federation.peers:
        peer.answer(certificate)
    # The same statistics in another set, after all have answered.
    federation.peers = everybody
    larger = federation.call(6, (1, 1, 1, 1))
    before = dict(federation.disks[0])
    assert reason_of(everybody[0].join, *larger) == "answered_before"
    assert federation.disks[0] == before
    with pytest.raises(LocalProtocolError, match="expected a round that was joined"):
        everybody[0].mask(b"", VALUES)
    # New statistics of the peer itself are no repetition; one peer that is new beside three that are known would be shown.
    assert reason_of(everybody[0].join, *federation.call(7, (2, 2, 2, 1))) is None
    # An answer to the call that is not its last one: it is in no set that it does not know of.
    stale = federation.call(8, (2, 2, 2, 1))
    everybody[0].call(9, 2)
    assert reason_of(everybody[0].join, *stale) == "wrong_round"


def test_who_is_not_listed_is_idle_and_states_of_others_are_refused() -> None:
    federation = Federation(4)
    listed = federation.announce(5, [peer.call(5, 1) for peer in federation.peers[:3]])
    assert federation.peers[3].join(*listed) is None
    # The enrolment counts as accepted: an older one would bring removed peers back.
    older = federation.announce(4, [Called(peer=key.public_key, number=4, version=1).sign(key) for key in federation.keys[:3]])
    assert reason_of(federation.peers[3].join, *older) == "enrolment_rolled_back"
    federation.disks[1][LEDGER] = federation.disks[0][LEDGER]
    with pytest.raises(StateError, match="another one's"):
        federation.start(1)
    with pytest.raises(ConfigError, match="expected 2 or more, got 1"):
        federation.start(0, least_changed=1)


def test_an_enrolment_of_a_federation_says_who_must_collude() -> None:
    federation = Federation()
    enrolment = enrol_federation(5, NOW + 60, [key.public_key for key in federation.keys[:3]])
    trust = EnrolmentTrust(policy=federation.policy, names={federation.keys[0].public_key: "anna"})
    assert "any 2 of anna, " in trust.describe(enrolment)
    assert "also says who is enrolled" not in trust.describe(enrolment, federation.keys[0].public_key)
    assert "also says who is enrolled" in trust.describe(enrolment, federation.admin.public_key)
