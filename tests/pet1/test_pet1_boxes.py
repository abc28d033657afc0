"""Points, boxes and proofs of pet/1: the vectors, and what must never be taken for valid."""

from __future__ import annotations

import pytest
from pet1_rounds import reason_of, vector_round
from vector_files import load_vectors

from pet import edwards
from pet.errors import CryptoError
from pet.pet1 import proofs
from pet.pet1.checks import judge_complaint

BOXES = load_vectors("pet1/boxes_proofs.json")
A, E, P, POINT, CONTEXT = (bytes.fromhex(BOXES[name]) for name in ("a", "e", "P", "E", "context"))
SLOT = BOXES["slot"]
#: (0, -1), of order 2.
TORSION = (2**255 - 20).to_bytes(32, "little")


def test_points_and_scalars() -> None:
    for case in BOXES["points"]:
        assert edwards.is_point(bytes.fromhex(case["point"])) is case["valid"], case["what"]
    assert not edwards.is_point(P[:31])
    order = edwards.GROUP_ORDER
    for number, valid in ((0, False), (1, True), (order - 1, True), (order, False), (2**256 - 1, False)):
        assert edwards.is_scalar(number.to_bytes(32, "little")) is valid
    assert not edwards.is_scalar(bytes([1]) * 31)
    assert edwards.reduce_scalar((order + 5).to_bytes(64, "little")) == (5).to_bytes(32, "little")


def test_what_libsodium_refuses_is_none_and_no_exception() -> None:
    one, off_the_curve = (1).to_bytes(32, "little"), (2).to_bytes(32, "little")
    assert edwards.multiply(one, P) == P
    for point in (off_the_curve, TORSION, one):
        assert edwards.multiply(one, point) is None
    assert edwards.subtract(P, off_the_curve) is None
    assert edwards.subtract(None, P) is None
    assert edwards.subtract(P, None) is None
    assert edwards.times_8(off_the_curve) is None
    # A component of small order vanishes.
    with_torsion = edwards.subtract(P, TORSION)
    assert with_torsion is not None
    assert edwards.times_8(with_torsion) == edwards.times_8(P)


def test_keys_boxes_and_proofs_are_those_of_the_vectors() -> None:
    assert (edwards.multiply_base(A), edwards.multiply_base(E)) == (P, POINT)
    shared = bytes.fromhex(BOXES["shared"])
    assert edwards.multiply(A, POINT) == edwards.multiply(E, P) == shared
    eightfold = edwards.times_8(shared)
    assert eightfold is not None
    assert eightfold.hex() == BOXES["times8"]
    key = proofs.derive_box_key(shared, POINT, P, SLOT, CONTEXT)
    assert key is not None
    assert key.hex() == BOXES["box_key"]
    plain, box = bytes.fromhex(BOXES["plain"]), bytes.fromhex(BOXES["box"])
    assert (proofs.seal_box(plain, key), proofs.open_box(box, key)) == (box, plain)
    assert proofs.prove_known(E, POINT, CONTEXT).hex() == BOXES["known"]
    assert proofs.prove_shared(A, P, POINT, SLOT, CONTEXT).hex() == BOXES["shared_proof"]
    assert proofs.is_known(POINT, CONTEXT, bytes.fromhex(BOXES["known"]))
    assert proofs.is_shared(P, POINT, SLOT, CONTEXT, bytes.fromhex(BOXES["shared_proof"]))


def test_proofs_that_the_vectors_refuse() -> None:
    for case in BOXES["invalid_known"]:
        point, context, proof = (bytes.fromhex(case[name]) for name in ("E", "context", "proof"))
        assert not proofs.is_known(point, context, proof), case["what"]
    for case in BOXES["invalid_shared"]:
        assert not proofs.is_shared(P, POINT, SLOT, CONTEXT, bytes.fromhex(case["proof"])), case["what"]
    for end in (0, 32, 64, 95):
        assert not proofs.is_shared(P, POINT, SLOT, CONTEXT, bytes.fromhex(BOXES["shared_proof"])[:end])
    with pytest.raises(CryptoError, match="expected a sender's point of prime order"):
        proofs.prove_shared(A, P, TORSION, SLOT, CONTEXT)


def test_boxes_that_must_not_open() -> None:
    for case in BOXES["boxes_that_must_not_open"]:
        box = bytes.fromhex(BOXES["box"])
        context = bytes.fromhex(case.get("context", BOXES["context"]))
        key = proofs.derive_box_key(bytes.fromhex(BOXES["shared"]), POINT, P, case.get("slot", SLOT), context)
        assert key is not None
        assert proofs.open_box(box[: len(box) - case.get("cut", 0)], key) is None, case["what"]
    assert proofs.derive_box_key((2).to_bytes(32, "little"), POINT, P, SLOT, CONTEXT) is None


def test_a_box_is_bad_for_a_point_that_is_none_and_for_seeds_that_differ_from_their_commitment() -> None:
    round_ = vector_round("4of5_absent")
    (bad,) = (round_.headers[bytes.fromhex(key)] for key in round_.entry["excluded"])
    assert bad.open_box(round_.committee, 0, (2).to_bytes(32, "little")) is None
    # It opens: its seeds are swapped, so that the commitments alone show it.
    shared = edwards.multiply(bytes.fromhex(round_.entry["member_secrets"][4]), bad.point)
    member_point = round_.committee.points[4]
    assert shared is not None
    assert member_point is not None
    key = proofs.derive_box_key(shared, bad.point, member_point, 4, bad.context)
    assert key is not None
    assert proofs.open_box(bad.boxes[4], key) is not None
    assert bad.open_box(round_.committee, 4, shared) is None


def test_a_complaint_of_an_empty_slot_proves_nothing() -> None:
    round_ = vector_round("4of5_absent")
    header = next(iter(round_.headers.values()))
    assert round_.committee.points[2] is None
    assert reason_of(judge_complaint, bytes(96), header, round_.committee, 2) == "unproven_complaint"
