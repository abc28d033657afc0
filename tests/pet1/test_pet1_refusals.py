"""Every negative vector of pet/1 is refused with its reason, and nothing else is ever raised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pet1_rounds import reason_of, vector_round
from vector_files import load_vectors

import pet
from pet.field_config import FieldConfig
from pet.pet1.certificate import Certificate
from pet.pet1.checks import judge_complaint, parse_check, parse_sum2
from pet.pet1.committee import Committee, read_sum
from pet.pet1.enrolment import Enrolment
from pet.pet1.leaves import Upload, read_update
from pet.pet1.manifest import UpdateManifest
from pet.pet1.messages import Pet1Tag, read_message
from pet.pet1.round_record import RoundRecord
from pet.pet1.share_header import ShareHeader

NEGATIVE = load_vectors("pet1/negative.json")
ROUND = vector_round("3of5")
COMMITTEE, RECORD, ENROLMENT = ROUND.committee, ROUND.record, ROUND.enrolment


def put_piece(upload: Upload, first: int, data: bytes) -> None:
    for index, leaf in enumerate(upload.check_piece(first, data), first):
        upload.check_leaf(index, leaf)
        upload.mark(index)


def upload_of(case: dict[str, Any]) -> Upload:
    if "context" in case:
        digests = [bytes.fromhex(digest) for digest in case["leaf_digests"]]
        return Upload(record=RECORD, context=bytes.fromhex(case["context"]), leaf_digests=digests)
    update = next(each for each in ROUND.entry["updates"] if each["participant"] == case["participant"])
    header, digests = read_update(bytes.fromhex(update["message"]), COMMITTEE)
    return Upload(record=RECORD, context=header.context, leaf_digests=digests)


def read_header(case: dict[str, Any]) -> None:
    committee = COMMITTEE
    if "round" in case:
        # Another record would have another committee; the draw alone is looked at.
        record = RoundRecord.from_bytes(bytes.fromhex(case["round"]))
        committee = replace(COMMITTEE, record=replace(RECORD, update_share=record.update_share))
        data = bytes.fromhex(case["data"])
        ShareHeader.from_bytes(data[:48] + committee.digest + data[80:], committee)
    ShareHeader.from_bytes(bytes.fromhex(case["data"]), committee)


def read_manifest(case: dict[str, Any]) -> None:
    config = RECORD.config
    most = FieldConfig(config.derivation, config.values, case.get("max_updates", config.max_model_count), config.bound)
    committee = replace(COMMITTEE, record=replace(RECORD, config=most, min_updates=3))
    data = bytes.fromhex(case["data"])
    if "max_updates" in case:
        data = data[:16] + committee.digest + data[48:]
    UpdateManifest.from_bytes(data, committee, ROUND.headers)


def read_answer(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["data"])
    parse_sum2(data, RECORD, data[:32])


READERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "enrolment": lambda case: Enrolment.from_bytes(bytes.fromhex(case["data"])),
    "round": lambda case: RoundRecord.from_bytes(bytes.fromhex(case["data"])),
    "sum": lambda case: read_sum(bytes.fromhex(case["data"]), RECORD, ENROLMENT),
    "committee": lambda case: Committee.from_bytes(bytes.fromhex(case["data"]), RECORD, ENROLMENT),
    "share header": read_header,
    "update": lambda case: read_update(bytes.fromhex(case["message"]), COMMITTEE),
    "leaf": lambda case: put_piece(upload_of(case), case["first"], bytes.fromhex(case["data"])),
    "manifest": read_manifest,
    "check": lambda case: parse_check(bytes.fromhex(case["data"]), ROUND.manifest.root, len(ROUND.manifest.headers)),
    "certificate": lambda case: Certificate.from_bytes(bytes.fromhex(case["data"]), COMMITTEE, ROUND.manifest),
    "complaint": lambda case: judge_complaint(
        bytes.fromhex(case["proof"]), ROUND.headers[bytes.fromhex(case["participant"])], COMMITTEE, case["slot"]
    ),
    "sum2 payload": read_answer,
}


@pytest.mark.parametrize("kind", READERS)
def test_objects_that_the_vectors_refuse(kind: str) -> None:
    cases = [case for case in NEGATIVE["cases"] if case["kind"] == kind]
    assert cases
    found = {case["what"]: reason_of(READERS[kind], case) for case in cases}
    assert found == {case["what"]: case["reason"] for case in cases}


def test_shares_that_the_vectors_refuse() -> None:
    """The kind "recover": too few answers, and wrong ones that cannot be named; and one that is named."""
    plan, digest = ENROLMENT.plan, ROUND.bytes_of("certificate_digest")
    right = {}
    for slot, message in ROUND.entry["sum2"].items():
        _, payload = read_message(bytes.fromhex(message), RECORD.coordinator_key, Pet1Tag.SUM2)
        right[int(slot)] = parse_sum2(payload, RECORD, digest)

    def answers(case: dict[str, Any]) -> dict[int, pet.Mask]:
        shares = {slot: right[slot] for slot in case["slots"]}
        for slot in case.get("wrong", []):
            elements = [
                (int.from_bytes(right[slot].to_vector()[place : place + 4], "little") + 7) % RECORD.config.order
                for place in range(0, RECORD.vector_bytes, 4)
            ]
            changed = b"".join(element.to_bytes(4, "little") for element in elements)
            shares[slot] = pet.Mask.from_vector(RECORD.config, changed)
        return shares

    cases = [case for case in NEGATIVE["cases"] if case["kind"] == "recover"]
    assert len(cases) == 2
    for case in cases:
        with pytest.raises(pet.UnmaskError) as caught:
            pet.shares.recover_mask(plan, answers(case))
        assert caught.value.reason == case["reason"]
    recovered = pet.shares.recover_mask(plan, answers(NEGATIVE["liar"]))
    assert list(recovered.wrong_slots) == NEGATIVE["liar"]["liars"]
    assert recovered.mask.to_vector() == ROUND.bytes_of("mask")


def test_all_kinds_of_the_vectors_are_read() -> None:
    assert {case["kind"] for case in NEGATIVE["cases"]} == {*READERS, "recover"}


def test_complaints_that_are_worth_nothing_leave_the_agreed_set_as_it_is() -> None:
    entry = NEGATIVE["certificates"]
    agreed = tuple(bytes.fromhex(key) for key in entry["agreed"])
    reasons = set()
    for case in entry["accepted_with_the_same_set"]:
        certificate = Certificate.from_bytes(bytes.fromhex(case["data"]), COMMITTEE, ROUND.manifest)
        assert certificate.agreed == agreed, case["what"]
        assert certificate.worthless.total() == 1
        reasons |= set(certificate.worthless)
    assert reasons == {"unproven_complaint", "unfounded_complaint", "unknown_update"}
    missing = entry["without_the_complaint"]
    certificate = Certificate.from_bytes(bytes.fromhex(missing["data"]), COMMITTEE, ROUND.manifest)
    assert certificate.agreed == tuple(bytes.fromhex(key) for key in missing["agreed"])
    assert set(certificate.agreed) > set(agreed)
