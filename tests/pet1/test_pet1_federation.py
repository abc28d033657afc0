"""Enrolments of a federation, one for each round, and answers to its call: nothing of them is free."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pet1_rounds import reason_of, vector_round
from vector_files import load_vectors

from pet.crypto import SigningKeyPair
from pet.errors import ConfigError, RemoteProtocolError
from pet.pet1.enrolment import Enrolment, SeenEnrolment
from pet.pet1.federation import (
    Called,
    FederationPolicy,
    derive_set_digest,
    enrol_federation,
    federation_members,
    federation_plan,
    read_calls,
    require_federation_round,
)

VECTORS = load_vectors("pet1/federation.json")
ADMIN, NOW, BEFORE = bytes.fromhex(VECTORS["admin_key"]), VECTORS["now"], VECTORS["version_before"]
CONFIRMED = frozenset(map(bytes.fromhex, VECTORS["confirmed"]))
ACCEPTED = bytes.fromhex(VECTORS["accepted"])
ENROLMENT = Enrolment.from_bytes(ACCEPTED[:-64])
POLICY = FederationPolicy(admin=ADMIN, confirmed=CONFIRMED)


def test_plans_and_members_by_the_number_of_peers() -> None:
    for case in VECTORS["plans"]:
        plan = federation_plan(case["peers"])
        assert [plan.groups, plan.members, plan.threshold, plan.quorum] == case["plan"]
        assert (plan.passive, plan.active, plan.part_count) == (case["passive"], case["active"], case["parts"])
    many = VECTORS["members_of_40"]
    peers = [bytes.fromhex(key) for key in many["peers"]]
    assert [key.hex() for key in federation_members(many["version"], peers)] == many["members"]
    with pytest.raises(ConfigError, match="expected 3 or more, got 2"):
        federation_plan(2)


def test_the_enrolment_of_a_round_is_accepted_and_is_the_only_one_there_could_be() -> None:
    assert POLICY.accept(ACCEPTED, now=NOW, seen=SeenEnrolment(BEFORE, bytes(32))) == ENROLMENT
    assert POLICY.accept(ACCEPTED, now=NOW, seen=SeenEnrolment(42, ENROLMENT.digest)) == ENROLMENT  # the very same again
    assert POLICY.accept(ACCEPTED, now=NOW) == ENROLMENT
    assert enrol_federation(42, ENROLMENT.expires, ENROLMENT.participants[::-1]) == ENROLMENT


def test_enrolments_that_the_vectors_refuse() -> None:
    found = {}
    for case in VECTORS["refused"]:
        known = frozenset(map(bytes.fromhex, case["known"])) if "known" in case else CONFIRMED
        policy, seen = replace(POLICY, confirmed=known), SeenEnrolment(case.get("before", BEFORE), bytes(32))
        found[case["what"]] = reason_of(policy.accept, bytes.fromhex(case["data"]), now=case.get("at", NOW), seen=seen)
    assert found == {case["what"]: case["reason"] for case in VECTORS["refused"]}
    assert reason_of(POLICY.accept, ACCEPTED[:63], now=NOW) == "malformed_enrolment"
    assert reason_of(replace(POLICY, least_active=3).accept, ACCEPTED, now=NOW) == "weak_plan"


def test_the_record_of_another_round_is_refused() -> None:
    record = vector_round("federation_z64_integers").record
    require_federation_round(record, ENROLMENT)
    for changes in ({"number": 43}, {"update_share": 2**32 - 2}):
        assert reason_of(require_federation_round, replace(record, **changes), ENROLMENT) == "wrong_round"


def test_answers_to_the_call() -> None:
    calls = read_calls(bytes.fromhex(VECTORS["calls"]), ENROLMENT)
    found = [{"peer": call.peer.hex(), "version": str(call.version), "answered": list(call.answered)} for call in calls]
    found = [one | {"sets": [each.hex() for each in call.sets]} for one, call in zip(found, calls, strict=True)]
    assert found == VECTORS["calls_read"]
    for case in VECTORS["calls_refused"]:
        assert reason_of(read_calls, bytes.fromhex(case["data"]), ENROLMENT) == case["reason"], case["what"]


def test_sets_have_digests() -> None:
    for case in VECTORS["set_digests"]:
        versions = {bytes.fromhex(key): int(version) for key, version in case["versions"].items()}
        assert derive_set_digest(dict(reversed(versions.items()))).hex() == case["digest"]
    assert {each for case in VECTORS["calls_read"] for each in case["sets"]} == {
        case["digest"] for case in VECTORS["set_digests"]
    }


def test_an_answer_of_the_earlier_format_is_refused_by_name() -> None:
    (data,) = (bytes.fromhex(case["data"]) for case in VECTORS["calls_refused"] if case["what"] == "of the earlier format")
    with pytest.raises(RemoteProtocolError, match="expected one that names the sets that its peer knows"):
        read_calls(data, ENROLMENT)


def test_an_answer_is_read_as_it_was_signed() -> None:
    key = SigningKeyPair.from_seed(bytes(32))
    call = Called(peer=key.public_key, number=7, version=3, answered=(2, 5), sets=(bytes(32), bytes([1]) * 32))
    data = call.sign(key)
    assert Called.decode_prefix(b"..." + data, 3) == (call, 3 + len(data))
    with pytest.raises(RemoteProtocolError):
        Called.decode_prefix(data, 1)
