"""Enrolments and manifests: what a peer checks before it contributes, and what it believes of a coordinator."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from nats_broker import run

from pet.crypto import SigningKeyPair
from pet.errors import ConfigError, RemoteProtocolError, TransportError
from pet.federation.peer.enrolment import ENROLMENT, Manifest, RoundKeys, choose_sum_peers
from pet.federation.peer.round import CheckedTransport, RoundPart
from pet.federation.peer.sharing_rules import Contribution
from pet.federation.records import PeerKeys
from pet.federation.statistics.statistics import STATISTICS_MASK_CONFIG
from pet.messages import RoundParameters, encode_seed_dictionary, encode_sum_dictionary

FID = "a" * 16
PEERS = [PeerKeys.generate() for _ in range(4)]
MEMBERS = {keys.uuid: keys.identity() for keys in PEERS}
CONTRIBUTION = Contribution(version=1, rows=8, changed_rows=8)


SCHEMA = bytes(range(32))


def enrol(keys, round_id=7, *, is_leader=False, last_round=6, schema=SCHEMA):
    return RoundKeys.generate(is_leader=is_leader).enrol(keys, FID, round_id, CONTRIBUTION, last_round, schema=schema)


ENROLMENTS = [enrol(keys, is_leader=keys is PEERS[0]) for keys in PEERS]
MANIFEST = Manifest(round_id=7, leader=PEERS[0].uuid, enrolments=tuple(ENROLMENTS))


def with_enrolments(*enrolments):
    return replace(MANIFEST, enrolments=enrolments)


def test_a_manifest_comes_back_and_is_believed():
    again = Manifest.from_fields(MANIFEST.to_fields())
    assert again == MANIFEST
    again.verify(FID, MEMBERS)
    assert len(again.sum_peers) == 2
    assert PEERS[0].uuid not in again.sum_peers, "the leader never holds a sum key"
    assert not again.tasks.sum_keys & again.tasks.update_keys
    assert len(again.tasks.update_keys) == 4


def test_the_lottery_is_public_and_differs_between_rounds():
    peers = [keys.uuid for keys in PEERS]
    assert choose_sum_peers(7, peers) == choose_sum_peers(7, reversed(peers))
    assert {choose_sum_peers(number, peers) for number in range(50)} != {choose_sum_peers(7, peers)}


def signed(enrolment):
    """Return a changed enrolment of the last peer as it would sign it."""
    return replace(enrolment, signature=PEERS[3].signing.sign(enrolment.signed_bytes(FID)))


#: Made when a test asks for it: keys are drawn, and parameters of tests must be the same in every process.
WRONG_MANIFESTS = {
    "too few": lambda: with_enrolments(*ENROLMENTS[:2]),
    "one twice": lambda: with_enrolments(*ENROLMENTS[:3], ENROLMENTS[0]),
    "another round": lambda: with_enrolments(*ENROLMENTS[:3], enrol(PEERS[3], round_id=6)),
    "no member": lambda: with_enrolments(*ENROLMENTS[:3], enrol(PeerKeys.generate())),
    "another contribution": lambda: with_enrolments(
        *ENROLMENTS[:3], replace(ENROLMENTS[3], contribution=Contribution(version=2, rows=8, changed_rows=8))
    ),
    "another key": lambda: with_enrolments(*ENROLMENTS[:3], replace(ENROLMENTS[3], ephemeral_key=bytes(range(32)))),
    "no ephemeral key": lambda: with_enrolments(*ENROLMENTS[:3], signed(replace(ENROLMENTS[3], ephemeral_key=b""))),
    "no key of the sum role": lambda: with_enrolments(*ENROLMENTS[:3], signed(replace(ENROLMENTS[3], sum_key=b""))),
    "no leader": lambda: with_enrolments(enrol(PEERS[0]), *ENROLMENTS[1:]),
    "only leaders": lambda: with_enrolments(ENROLMENTS[0], *(enrol(keys, is_leader=True) for keys in PEERS[1:])),
    "a round was skipped": lambda: with_enrolments(
        ENROLMENTS[0], *(enrol(keys, last_round=number) for keys, number in zip(PEERS[1:], (5, 3, 5), strict=True))
    ),
    "a round once more": lambda: with_enrolments(*ENROLMENTS[:3], enrol(PEERS[3], last_round=7)),
    "only the leader knows the last round": lambda: with_enrolments(
        ENROLMENTS[0], *(enrol(keys, last_round=0) for keys in PEERS[1:])
    ),
    "another schema": lambda: with_enrolments(*ENROLMENTS[:3], enrol(PEERS[3], schema=bytes(32))),
    "another leader": lambda: replace(MANIFEST, leader=PEERS[1].uuid),
}


@pytest.mark.parametrize("problem", WRONG_MANIFESTS)
def test_a_manifest_with_anything_wrong_is_refused(problem):
    with pytest.raises(RemoteProtocolError):
        WRONG_MANIFESTS[problem]().verify(FID, MEMBERS)


def test_a_peer_that_missed_rounds_takes_the_others_word_for_their_number():
    with_enrolments(*ENROLMENTS[:3], enrol(PEERS[3], last_round=2)).verify(FID, MEMBERS)


def test_an_enrolment_belongs_to_one_federation():
    with pytest.raises(RemoteProtocolError):
        MANIFEST.verify("b" * 16, MEMBERS)


@pytest.mark.parametrize(
    "change",
    [
        {"peer": 5},
        {"round": -1},
        {"round": True},
        {"last": None},
        {"contribution": [1, 2]},
        {"schema": None},
        {"schema": "AA"},
        {"update_key": ""},
        {"sum_key": "AA"},
        {"signature": "AA"},
        {"signature": ""},
    ],
)
def test_what_is_no_enrolment_is_refused(change):
    with pytest.raises(RemoteProtocolError):
        ENROLMENT.receive(ENROLMENT.fields(ENROLMENTS[1]) | change, "malformed_enrolment", "enrolment")
    for fields in (None, [], {"round": 1, "leader": "x", "enrolments": {}}):
        with pytest.raises(RemoteProtocolError):
            Manifest.from_fields(fields or {})


class Coordinator:
    """A coordinator with scripted answers."""

    sums: bytes | None = None
    seeds: bytes | None = None

    async def get_sums(self):
        return self.sums

    async def get_seeds(self, public_key):
        return self.seeds


def test_a_peer_encrypts_its_seed_for_the_announced_keys_alone():
    async def work():
        coordinator = Coordinator()
        transport = CheckedTransport(coordinator, MANIFEST, b"parameters")
        assert await transport.get_parameters() == b"parameters"
        assert await transport.get_sums() is None
        coordinator.sums = encode_sum_dictionary(MANIFEST.sum_dictionary)
        assert await transport.get_sums() == coordinator.sums
        (key, ephemeral), _ = MANIFEST.sum_dictionary.items()
        other = bytes(range(32))
        for wrong in ({key: ephemeral}, MANIFEST.sum_dictionary | {key: other}, MANIFEST.sum_dictionary | {other: other}):
            coordinator.sums = encode_sum_dictionary(wrong)
            with pytest.raises(TransportError, match="keys of the manifest"):
                await transport.get_sums()
        coordinator.sums = b"nonsense"
        with pytest.raises(TransportError, match="coordinator"):
            await transport.get_sums()

    run(work())


def test_a_sum_peer_makes_the_mask_of_all_updates_or_none():
    async def work():
        coordinator = Coordinator()
        transport = CheckedTransport(coordinator, MANIFEST, b"parameters")
        seeds = {key: bytes(80) for key in MANIFEST.tasks.update_keys}
        coordinator.seeds = encode_seed_dictionary(seeds)
        assert await transport.get_seeds(bytes(32)) == coordinator.seeds
        for wrong in (dict(list(seeds.items())[1:]), dict(list(seeds.items())[:1]), seeds | {bytes(32): bytes(80)}):
            coordinator.seeds = encode_seed_dictionary(wrong)
            with pytest.raises(TransportError, match="seeds of all updates"):
                await transport.get_seeds(bytes(32))

    run(work())


def test_round_parameters_must_be_for_our_vector():
    parameters = RoundParameters(
        coordinator_public_key=SigningKeyPair.generate().public_key,
        sum_probability=0.5,
        update_probability=0.5,
        seed=bytes(32),
        mask_config=STATISTICS_MASK_CONFIG,
        model_length=5,
    )

    def part(length):
        return RoundPart(
            manifest=MANIFEST,
            parameters=parameters.to_bytes(),
            keys=RoundKeys.generate(is_leader=False),
            peer=PEERS[1].uuid,
            vector=np.zeros(length),
            scalar=Fraction(1),
            before_update=lambda: None,
        )

    part(5).check()
    with pytest.raises(RemoteProtocolError, match="parameters"):
        part(6).check()


def test_keys_hide_their_seed():
    keys = RoundKeys.generate(is_leader=False)
    assert repr(keys.ephemeral_seed) not in repr(keys)
    with pytest.raises(ConfigError):
        with_enrolments(ENROLMENTS[0], *(replace(one, sum_key=one.update_key) for one in ENROLMENTS[1:])).tasks  # noqa: B018
