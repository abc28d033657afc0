"""Whole rounds of pet/1, replayed from their fixed randomness: every object has the bytes of the vectors."""

from __future__ import annotations

import numpy as np
import pytest
from pet1_rounds import ROUNDS, VectorRound, vector_round

import pet
from pet.crypto import EncryptionKeyPair, SigningKeyPair, open_sealed
from pet.pet1 import proofs
from pet.pet1.certificate import Certificate
from pet.pet1.checks import build_check, build_sum2, judge_complaint, parse_sum2
from pet.pet1.committee import Committee, build_sum
from pet.pet1.enrolment import EnrolmentPolicy
from pet.pet1.leaves import (
    build_update,
    check_elements,
    derive_leaf_digests,
    derive_vector_digest,
    read_update,
    sealed_update_bytes,
)
from pet.pet1.manifest import UpdateManifest
from pet.pet1.messages import Pet1Tag, read_message
from pet.pet1.share_header import ShareHeader, UpdateSecrets, derive_mask_seed

every_round = pytest.mark.parametrize("round_", ROUNDS, indirect=True)


@pytest.fixture
def round_(request: pytest.FixtureRequest) -> VectorRound:
    return vector_round(request.param)


def elements_of(data: bytes, size: int) -> np.ndarray:
    return np.frombuffer(data, dtype=f"<u{size}").astype(object)


@every_round
def test_records_enrolments_and_committees(round_: VectorRound) -> None:
    record, enrolment, committee = round_.record, round_.enrolment, round_.committee
    assert enrolment.to_bytes() == round_.bytes_of("enrolment")
    assert enrolment.digest == round_.bytes_of("enrolment_digest") == record.enrolment_digest
    plan = enrolment.plan
    assert [plan.groups, plan.members, plan.threshold, plan.quorum] == round_.entry["plan"]
    assert record.to_bytes() == round_.bytes_of("round")
    assert record.digest == round_.bytes_of("round_digest")
    assert (f"pet-1/{record.config.derivation.value}", record.config.levels) == (
        round_.entry["derivation"],
        int(round_.entry["levels"]),
    )
    served = enrolment.to_bytes() + round_.bytes_of("enrolment_signature")
    policy = EnrolmentPolicy(authority=round_.bytes_of("authority_key"), least_passive=0, least_active=0)
    assert policy.accept(served, now=1) == enrolment
    sums = [None if message is None else bytes.fromhex(message) for message in round_.entry["sums"]]
    assert committee.sums == tuple(sums)
    for slot, (key, secret) in enumerate(zip(round_.members(), round_.entry["member_secrets"], strict=True)):
        point = proofs.edwards.multiply_base(bytes.fromhex(secret))
        assert sums[slot] in (None, build_sum(key, record, slot, point))
    assert Committee.of(record, enrolment, sums) == committee
    assert (committee.to_bytes(), committee.digest) == (round_.bytes_of("committee"), round_.bytes_of("committee_digest"))


@every_round
def test_updates(round_: VectorRound) -> None:
    record, committee = round_.record, round_.committee
    size, order = record.config.element_bytes, record.config.order
    for update in round_.entry["updates"]:
        key = SigningKeyPair.from_seed(bytes.fromhex(update["signing_seed"]))
        secrets = UpdateSecrets(master=bytes.fromhex(update["master"]), scalar=bytes.fromhex(update["e"]))
        vector, context = bytes.fromhex(update["vector"]), bytes.fromhex(update["context"])
        assert secrets.salt.hex() == update["salt"]
        seeds = secrets.mask_seeds(committee, context)
        assert [seed.to_bytes().hex() for seed in seeds] == update["mask_keys"]
        mask = pet.sum_masks(seeds, record.config, record.model_length).to_vector()
        masked = (elements_of(mask, size) + [int(q) for q in update["elements"]]) % order
        assert [int(q) for q in masked] == [int(q) for q in elements_of(vector, size)]
        check_elements(vector, record.config)
        leaves = derive_leaf_digests(vector, context)
        assert [leaf.hex() for leaf in leaves] == update["leaf_digests"]
        of_vector = derive_vector_digest(leaves, len(vector), secrets.salt)
        built = ShareHeader.build(key, committee, secrets, of_vector)
        header, digests = read_update(bytes.fromhex(update["message"]), committee)
        assert (header.data.hex(), header.digest.hex(), header.context) == (update["header"], update["header_digest"], context)
        assert (digests, header.vector_digest, header.participant.hex()) == (leaves, of_vector, update["participant"])
        assert (built.boxes == header.boxes) is not update["poisoned"]
        if not update["poisoned"]:
            assert built == header
            assert build_update(key, committee, header, secrets.salt, leaves).hex() == update["message"]
        if "body" in update:
            body = bytes.fromhex(update["body"])
            end = 4 + int.from_bytes(body[:4], "little")
            assert end - 4 == sealed_update_bytes(committee)
            keys = EncryptionKeyPair.from_secret_key(round_.bytes_of("coordinator_secret"))
            assert (open_sealed(body[4:end], keys).hex(), body[end:]) == (update["message"], vector)


@every_round
def test_manifest_checks_certificate_and_answers(round_: VectorRound) -> None:
    committee, manifest, record = round_.committee, round_.manifest, round_.record
    plan, points = committee.plan, committee.points
    assert UpdateManifest.of(committee, round_.headers.values()) == manifest
    assert (manifest.to_bytes(), manifest.root) == (round_.bytes_of("manifest"), round_.bytes_of("root"))
    opened: dict[int, dict[bytes, dict[int, bytes]]] = {}
    for slot, message in round_.checks().items():
        secret, complaints = bytes.fromhex(round_.entry["member_secrets"][slot]), {}
        opened[slot] = {}
        for participant, header in manifest.headers.items():
            proof = proofs.prove_shared(secret, points[slot], header.point, slot, header.context)
            seeds = header.open_box(committee, slot, proof[:32])
            if seeds is None:
                judge_complaint(proof, header, committee, slot)
                complaints[participant] = proof
            else:
                opened[slot][participant] = seeds
        assert build_check(round_.members()[slot], record, manifest.root, complaints) == message
    certificate = Certificate.from_bytes(round_.bytes_of("certificate"), committee, manifest)
    assert certificate == Certificate.of(round_.checks().values(), committee, manifest)
    assert certificate.to_bytes() == round_.bytes_of("certificate")
    assert certificate.digest == round_.bytes_of("certificate_digest")
    assert sorted(set(manifest.headers) - set(certificate.agreed)) == [bytes.fromhex(k) for k in round_.entry["excluded"]]
    assert certificate.worthless == {}
    shares = {}
    for name, message in round_.entry["sum2"].items():
        slot = int(name)
        masks = {
            part: [derive_mask_seed(opened[slot][key][part], manifest.headers[key].context, part) for key in certificate.agreed]
            for part in plan.held_parts(slot)
        }
        share = pet.shares.derive_share(plan, slot, masks, record.config, record.model_length)
        assert build_sum2(round_.members()[slot], record, certificate.digest, share).hex() == message
        _, payload = read_message(bytes.fromhex(message), record.coordinator_key, Pet1Tag.SUM2)
        shares[slot] = parse_sum2(payload, record, certificate.digest)
    recovered = pet.shares.recover_mask(plan, shares)
    assert recovered.mask.to_vector() == round_.bytes_of("mask")
    assert (recovered.wrong_slots, list(recovered.unchecked_groups)) == ((), round_.entry["unchecked_groups"])
    size, order = record.config.element_bytes, record.config.order
    vectors = {bytes.fromhex(update["participant"]): bytes.fromhex(update["vector"]) for update in round_.entry["updates"]}
    total = sum(elements_of(vectors[key], size) for key in certificate.agreed) - elements_of(recovered.mask.to_vector(), size)
    assert [str(q) for q in total % order] == round_.entry["total"]


def test_secrets_of_an_update_come_from_random_bytes_and_are_hidden() -> None:
    secrets = UpdateSecrets.from_random(bytes(range(96)))
    assert (secrets.master, len(secrets.scalar)) == (bytes(range(32)), 32)
    assert "master" not in repr(secrets)
    with pytest.raises(pet.CryptoError, match="expected 96 bytes, got 95"):
        UpdateSecrets.from_random(bytes(95))


def test_an_answer_for_another_certificate_is_refused() -> None:
    round_ = vector_round("1of1")
    (message,) = round_.entry["sum2"].values()
    _, payload = read_message(bytes.fromhex(message), round_.record.coordinator_key, Pet1Tag.SUM2)
    with pytest.raises(pet.RemoteProtocolError) as caught:
        parse_sum2(payload, round_.record, bytes(32))
    assert caught.value.reason == "wrong_certificate"
